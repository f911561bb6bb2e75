//! What a person must know first about a job, in `message` and `next`.

use std::time::Duration;

use crate::failure::{self, Exit};
use crate::launcher::{ClusterDetails, JobState, JobStatus};
use crate::process::job_dir::ExitRecord;
use crate::progress::stall::Stall;
use crate::progress::tests::scan;
use crate::service::next_step::{message, next, next_after};
use crate::service::observe::Observation;
use crate::service::observe::Output;
use crate::settings::policy::Policy;

const GOOD: &str = "{'loss': 1.5, 'grad_norm': 1.0, 'epoch': 0.1, 'step': 1}\n";

fn observed(log: &str) -> Observation {
    Observation {
        progress: scan(log).0,
        duration: Some(Duration::from_secs(600)),
        ..Observation::default()
    }
}

fn running() -> JobStatus {
    JobStatus::new("running", JobState::Running, false)
}

fn ended(state: JobState) -> JobStatus {
    JobStatus::new("ended", state, true)
}

#[test]
fn bad_news_comes_first() {
    let nan = format!(
        "{GOOD}{}",
        GOOD.replace("1.0", "nan")
            .replace("1.5", "0.0")
            .replace(": 1}", ": 2}")
    );
    let observation = observed(&nan);
    let text = message(&running(), &observation);
    assert!(
        text.starts_with("grad_norm is nan since step 2: the run is lost"),
        "{text}"
    );
    assert!(next(&running(), &observation, None).contains("cancel_job saves the remaining time"));
    // At the end too.
    let text = message(&ended(JobState::Succeeded), &observation);
    assert!(
        text.contains("ended after 10 min, but grad_norm is nan since step 2"),
        "{text}"
    );
    assert!(!text.contains("succeeded"), "{text}");
    let next_step = next(&ended(JobState::Succeeded), &observation, None);
    assert_eq!(next_step, "Tell the user: the trained model is of no use.");

    // A script that pipes the training into another program ends well though that has failed.
    let passed_over = Observation {
        last_line: Some("its log ends with ValueError: x".to_owned()),
        ..observed(GOOD)
    };
    let text = message(&ended(JobState::Succeeded), &passed_over);
    assert!(!text.contains("succeeded") && text.ends_with("ValueError: x"));
    assert!(next(&ended(JobState::Succeeded), &passed_over, None).contains("pipefail"));

    let grown = format!(
        "{GOOD}{}",
        GOOD.replace("1.5", "18.0").replace(": 1}", ": 2}")
    );
    for status in [running(), ended(JobState::Succeeded)] {
        let text = message(&status, &observed(&grown));
        assert!(
            text.contains("loss 18 is 12 times its best, 1.5 at step 1"),
            "{text}"
        );
    }
    assert!(next(&running(), &observed(&grown), None).starts_with("Tell the user"));
    let stalled = Observation {
        stalled: Some(Stall {
            silent: Duration::from_secs(7 * 3600),
            usual_gap: Duration::from_secs(9),
        }),
        ..observed(GOOD)
    };
    let text = message(&running(), &stalled);
    assert!(
        text.starts_with("the log has been silent for 7 h"),
        "{text}"
    );
    assert!(next(&running(), &stalled, None).contains("get_job_logs"));
}

#[test]
fn figures_are_of_their_step_and_not_padded() {
    let bar = " 40%|####      | 4/10 [00:04<00:06,  1.00it/s]\n";
    let text = message(
        &running(),
        &observed(&format!("Starting training...\n{GOOD}{bar}")),
    );
    assert_eq!(
        text,
        "the job is running, at step 4 of 10, loss 1.5 at step 1"
    );
    // Nothing is left while it saves.
    let last = "100%|##########| 10/10 [00:10<00:00,  1.00it/s]\n";
    let saving = observed(&format!("Starting training...\n{GOOD}{last}"));
    let progress = saving.progress.as_ref().unwrap();
    assert_eq!(progress.metrics.seconds_left, None);
    assert!(!next(&running(), &saving, None).contains("left"));
}

#[test]
fn cancelled_job_says_how_far_and_how_to_resume() {
    let observation = Observation {
        output: Some(Output {
            dir: "/home/ann/out".into(),
            checkpoint: Some("checkpoint-1".to_owned()),
            cut: Some("checkpoint-2".to_owned()),
        }),
        ..observed(GOOD)
    };
    let status = ended(JobState::Cancelled);
    let text = message(&status, &observation);
    assert_eq!(
        text,
        "the job was cancelled after 10 min, at step 1, loss 1.5"
    );
    let next_step = next(&status, &observation, None);
    assert!(
        next_step.contains(
            "checkpoint-2 was not written whole: delete it before you resume. Resume with"
        ),
        "{next_step}"
    );
}

#[test]
fn an_empty_log_is_not_named_as_showing_more() {
    let mut status = ended(JobState::Failed);
    status.details.step = Some("oumi train".to_owned());
    let failed = |log| Observation {
        failure: failure::explain(log, Some(Exit::Code(3)), None),
        ..Observation::default()
    };
    let silent = next(&status, &failed(""), None);
    assert_eq!(silent, "Tell the user: its log says no more.");
    let loud = next(&status, &failed("something\n"), None);
    assert_eq!(loud, "get_job_logs shows more.");
    // The step is named once.
    let exit = ExitRecord {
        code: Some(3),
        ..ExitRecord::now("oumi train")
    };
    status.message = Some(exit.describe());
    let text = message(&status, &failed(""));
    assert_eq!(text, "`oumi train` failed: ended with exit code 3");
    // Of a job on a cloud the log may not have come yet.
    let elsewhere = next(&ended(JobState::Failed), &failed(""), None);
    assert_eq!(elsewhere, "get_job_logs shows more.");
}

#[test]
fn what_the_launcher_knows_comes_first() {
    let mut status = running();
    status.details.next = Some("Wait for its end.");
    status.details.processes_left = Some(2);
    assert_eq!(next(&status, &observed(GOOD), None), "Wait for its end.");
    let status = JobStatus::new("TIMEOUT", JobState::Failed, true);
    let text = message(&status, &Observation::default());
    assert_eq!(text, "the job failed (TIMEOUT)");
}

#[test]
fn what_is_on_a_cluster_is_lost_with_it() {
    let mut status = ended(JobState::Succeeded);
    let next = |status: &JobStatus| next(status, &observed(GOOD), None);
    assert_eq!(next(&status), "The job is over.");
    status.details.cluster = Some(ClusterDetails {
        cluster_status: "UP".to_owned(),
        autostop_minutes: None,
    });
    assert!(next(&status).contains("lost with its cluster"));
}

#[test]
fn nobody_is_sent_to_ask_again_about_a_forbidden_cloud() {
    let policy = Policy {
        clouds: Some(vec!["gcp".to_owned()]),
        ..Policy::default()
    };
    let error = policy.check("aws").unwrap_err();
    assert_eq!(next_after(&error), "Tell the user.");
}
