use serde_json::json;

use super::{for_person, job, list, log};

fn jobs() -> serde_json::Value {
    json!({
        "jobs": [
            {"job_id": "train_20261128_203000", "state": "RUNNING", "status": "running", "cloud": "local",
             "submitted": "11-28 20:30", "progress": "step 120 of 900, loss 1.83", "config": "sft.yaml"},
            {"job_id": "chosen", "state": "UNKNOWN", "status": "cluster_gone", "cloud": "gcp",
             "cluster": "dev", "submitted": "11-20 20:30", "config": "sft.yaml",
             "output": "/home/somebody/projects/llama/output/sft-with-a-long-name"},
        ],
        "times": "UTC",
        "not_shown": 3,
        "warnings": ["not asked about: x; call list_jobs again in a moment"],
    })
}

#[test]
fn list_is_a_table() {
    assert_eq!(
        list(&jobs()),
        "\
JOB                    STATUS        WHERE    UTC          DETAILS
train_20261128_203000  running       local    11-28 20:30  step 120 of 900, loss 1.83
chosen                 cluster_gone  gcp/dev  11-20 20:30  /home/somebody/projects/llama/output/sft-with-a-long-name
note    3 older jobs are not shown; -n shows more
note    not asked about: x; call `list` again in a moment
"
    );
    let page = list(&json!({ "jobs": [] }));
    assert_eq!(page, "No jobs to show.\n");
}

#[test]
fn failed_job_is_told_with_its_cause_and_advice() {
    let answer = json!({
        "success": true, "job_id": "j", "status": "failed", "state": "FAILED", "is_done": true,
        "message": "`train` failed after 3 min, at step 7 of 9: out of memory",
        "failure": {"what": "the GPU ran out of memory", "advice": "Halve training.per_device_train_batch_size."},
        "output_dir": "/tmp/out", "last_checkpoint": "checkpoint-5", "spent": "about $3.20",
        "progress": {"seconds_left": 30.0},
    });
    assert_eq!(
        job(&answer),
        "\
failed: `train` failed after 3 min, at step 7 of 9: out of memory
why     the GPU ran out of memory
advice  Halve training.per_device_train_batch_size.
output  /tmp/out
saved   checkpoint-5
cost    about $3.20
"
    );
}

#[test]
fn failed_job_without_a_cause_shows_the_end_of_its_log() {
    let answer = json!({"status": "failed", "message": "`run` failed after 1 s: exit code 4", "failure": {"last_lines": "hi\nbye"}});
    let page = "failed: `run` failed after 1 s: exit code 4\nlog     hi\n        bye\n";
    assert_eq!(job(&answer), page);
}

#[test]
fn log_without_lines_is_no_line() {
    for (logs, unfinished, shown) in [("", "", ""), ("", "half", "half"), ("a", "b", "a\nb")] {
        assert_eq!(log(&json!({"logs": logs, "unfinished": unfinished})), shown);
    }
}

#[test]
fn running_job_and_unknown_job() {
    let answer = json!({
        "success": true, "status": "running", "message": "the job is running", "is_done": false,
        "progress": {"seconds_left": 6000.0}, "warnings": ["a cancel is pending"],
    });
    assert_eq!(
        job(&answer),
        "running: the job is running\nleft    about 100 min\nnote    a cancel is pending\n"
    );
    let answer = json!({"success": false, "status": "not_found", "error": "no job \"x\" is known; list_jobs shows all"});
    assert_eq!(
        job(&answer),
        "not_found: no job \"x\" is known; `list` shows all\n"
    );
    let said = for_person("cancel_job with force=true; down_cluster; give oumi_job_id");
    let shell = "`cancel` with --force; `sky down`; give (in an MCP client) the launcher's id";
    assert_eq!(said, shell);
}
