//! The jobs that `sky queue` lists, and the clusters that do not answer.

use crate::launcher::JobState::{Failed, Running, Succeeded};
use crate::parse::sky::{QueueFailure, queue};
use crate::parse::state_of;

use super::captures::capture;

#[test]
fn a_queue_lists_its_jobs_newest_first() {
    let queue = queue(&capture("sky/queue-json-mixed").out).unwrap();
    assert!(queue.unanswered.is_empty());
    let jobs = &queue.jobs["skyc1"];
    let seen: Vec<_> = jobs
        .iter()
        .map(|job| {
            (
                job.job_id.as_str(),
                job.job_name.as_str(),
                state_of(&job.status),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("3", "longjob", Some((Running, false))),
            ("2", "failjob", Some((Failed, true))),
            ("1", "sky-hi", Some((Succeeded, true))),
        ]
    );
    let longjob = &jobs[0];
    assert_eq!(longjob.submitted_at.map(f64::floor), Some(1795547396.0));
    assert_eq!(longjob.start_at.map(f64::floor), Some(1795547415.0));
    assert_eq!(longjob.end_at, None);
    assert_eq!(longjob.resources, "1x[CPU:1+]");
    assert_eq!(longjob.username, "root");
}

#[test]
fn a_job_whose_setup_failed_never_started() {
    let queue = queue(&capture("sky/queue-json-failsetup").out).unwrap();
    let job = &queue.jobs["skyc3"][0];
    assert_eq!(state_of(&job.status), Some((Failed, true)));
    assert_eq!((job.start_at, job.end_at.is_some()), (None, true));
}

#[test]
fn a_cluster_that_does_not_answer_says_why() {
    let gone = queue(&capture("sky/queue-nocluster-json").out).unwrap();
    assert!(gone.jobs.is_empty());
    assert_eq!(gone.unanswered["nosuch"], QueueFailure::ClusterGone);

    let init = queue(&capture("sky/queue-init").out).unwrap();
    let QueueFailure::ClusterNotUp(reason) = &init.unanswered["skyc1"] else {
        panic!("{:?}", init.unanswered);
    };
    assert_eq!(
        reason,
        "ClusterNotUpError: Cluster 'skyc1' has been stopped or not properly set up. Please re-launch it with `sky start`."
    );

    let three = queue(&capture("sky/queue-notup").out).unwrap();
    assert_eq!(three.unanswered.len(), 3);
    assert_eq!(three.unanswered["nosuch"], QueueFailure::ClusterGone);
    for name in ["init1", "stopped1"] {
        let said = format!("{:?}", three.unanswered[name]);
        assert!(
            said.starts_with("ClusterNotUp(") && said.contains(name),
            "{said}"
        );
    }
}

#[test]
fn another_reason_is_kept_in_the_launchers_words_beside_the_clusters_that_answered() {
    let stdout = "Fetching job queue for: a, b\nFailed to get the job queue for cluster 'b'.\n  \
                  sky.exceptions.CommandError: Command failed with return code 255.\nssh: connect to host\n\
                  {\n  \"a\": []\n}\n";
    let queue = queue(stdout).unwrap();
    assert_eq!(queue.jobs["a"], []);
    assert_eq!(
        queue.unanswered["b"],
        QueueFailure::Other(
            "CommandError: Command failed with return code 255. ssh: connect to host".into()
        )
    );
}

#[test]
fn a_queue_of_no_clusters_is_no_error() {
    for name in ["sky/queue-none", "sky/queue-none-first"] {
        assert_eq!(
            queue(&capture(name).out).unwrap(),
            Default::default(),
            "{name}"
        );
    }
}

#[test]
fn fields_that_are_new_missing_or_of_another_type_cost_no_job() {
    let stdout = r#"{"c": [
      {"job_id": "7", "status": "RUNNING", "submitted_at": "soon", "start_at": 0, "new": {"deep": [1]}},
      {"job_id": 6, "status": null, "job_name": "a\u001b[31mb\nc", "end_at": 5},
      {"status": "RUNNING"}]}"#;
    let jobs = &queue(stdout).unwrap().jobs["c"];
    assert_eq!(jobs.len(), 2);
    assert_eq!(
        (
            jobs[0].job_id.as_str(),
            jobs[0].submitted_at,
            jobs[0].start_at
        ),
        ("7", None, None)
    );
    assert_eq!(
        (jobs[1].status.as_str(), jobs[1].job_name.as_str()),
        ("", "ab c")
    );
    assert_eq!(jobs[1].end_at, Some(5.0));
}
