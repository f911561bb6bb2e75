use chrono::{TimeZone, Utc};
use serde_json::json;

use super::{age_text, for_person, job_within, list_within};

fn jobs() -> serde_json::Value {
    json!({
        "jobs": [
            {"job_id": "train_20261128_203000", "state": "RUNNING", "status": "running", "cloud": "local",
             "submitted": "11-28 20:30", "progress": "step 120 of 900, loss 1.83", "config": "sft.yaml"},
            {"job_id": "a-name-that-somebody-chose-with-many-words", "state": "UNKNOWN", "status": "cluster_gone", "cloud": "gcp",
             "cluster": "dev", "submitted": "11-20 20:30", "config": "sft.yaml",
             "output": "/home/somebody/projects/llama/output/sft-with-a-long-name"},
        ],
        "not_shown": 3,
        "warnings": ["not asked about: x; `sky` has not answered within 25 s and still runs; call list_jobs again in a moment, or see whether it works"],
    })
}

#[test]
fn list_is_a_table_no_wider_than_the_terminal() {
    let now = Utc.with_ymd_and_hms(2026, 11, 28, 21, 0, 0).unwrap();
    let page = list_within(&jobs(), now, Some(80));
    assert_eq!(
        page,
        "\
JOB                               STATE         WHERE    AGE     DETAILS
train_20261128_203000             running       local    30 min  step 120 of 90…
a-name-that-somebody-chose-with…  cluster_gone  gcp/dev  8 d     output: /home/…

note      3 older jobs are not shown; -n shows more
note      not asked about: x; `sky` has not answered within 25 s and still runs;
          call `list` again in a moment, or see whether it works"
    );
    assert!(
        page.lines().all(|line| line.chars().count() <= 80),
        "{page}"
    );
    let piped = list_within(&jobs(), now, None);
    assert!(
        piped.contains("a-name-that-somebody-chose-with-many-words  "),
        "{piped}"
    );
    assert!(piped.contains("/output/sft-with-a-long-name\n"), "{piped}");
}

#[test]
fn empty_list() {
    let page = list_within(&json!({ "jobs": [] }), Utc::now(), Some(80));
    assert_eq!(page, "There are no such jobs.\n");
}

#[test]
fn failed_job_is_told_with_its_cause_and_advice() {
    let answer = json!({
        "success": true, "job_id": "j", "status": "failed", "state": "FAILED", "is_done": true,
        "message": "`train` failed after 3 min, at step 7 of 9: out of memory",
        "failure": {"what": "the GPU ran out of memory", "advice": "Halve training.per_device_train_batch_size and double \
                    training.gradient_accumulation_steps."},
        "output_dir": "/tmp/out", "last_checkpoint": "checkpoint-5", "spent": "about $3.20",
        "progress": {"seconds_left": 30.0},
    });
    assert_eq!(
        job_within(&answer, Some(80)),
        "\
failed: `train` failed after 3 min, at step 7 of 9: out of memory
why       the GPU ran out of memory
advice    Halve training.per_device_train_batch_size and double
          training.gradient_accumulation_steps.
output    /tmp/out, last checkpoint checkpoint-5
cost      about $3.20"
    );
}

#[test]
fn running_job_and_unknown_job() {
    let answer = json!({
        "success": true, "status": "running", "message": "the job is running", "is_done": false,
        "progress": {"seconds_left": 6000.0}, "warnings": ["a cancel is pending"],
    });
    assert_eq!(
        job_within(&answer, None),
        "running: the job is running\nleft      about 100 min\nnote      a cancel is pending"
    );
    let answer = json!({"success": false, "status": "not_found", "error": "no job \"x\" is known; list_jobs shows all"});
    assert_eq!(
        job_within(&answer, None),
        "not_found: no job \"x\" is known; `list` shows all"
    );
    assert_eq!(for_person("call get_job_logs"), "call `logs`");
    assert_eq!(age_text(std::time::Duration::from_secs(59 * 3600)), "59 h");
}
