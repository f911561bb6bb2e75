//! Polls, logs and cancels of our jobs, of jobs started elsewhere, and of unknown ones.

use crate::error::JobError;
use crate::job_identity::JobIdentity;
use crate::launcher::JobState;
use crate::service::requests::CancelRequest;

use super::fake_launcher::{by_id, cancel_by_id, direct};
use super::{logs_of, test_service};

fn cancel_of(query: JobIdentity) -> CancelRequest {
    CancelRequest {
        job: query,
        force: false,
    }
}

#[tokio::test(start_paused = true)]
async fn ambiguous_id_lists_the_choices() {
    let test = test_service();
    test.run_on("first", "gcp", "one").await;
    test.run_on("second", "gcp", "two").await;
    test.cloud.add_elsewhere("gcp", "three", "1");
    let answer = test.list().await;
    let mut rows: Vec<(String, String)> = answer
        .jobs
        .iter()
        .map(|row| (row.job_id.clone(), row.cluster.clone()))
        .collect();
    rows.sort();
    let expected = [("1", "three"), ("first", "one"), ("second", "two")];
    assert_eq!(
        rows,
        expected.map(|(job, cluster)| (job.to_owned(), cluster.to_owned()))
    );
    assert_eq!(answer.warnings, Vec::<String>::new());

    // Without the cluster it is not clear which is meant: nothing is done, and the choices are named.
    let both = direct("gcp", "", "1");
    let polled = test.service.poll(both.clone()).await;
    let cancelled = test.service.cancel(cancel_of(both)).await;
    for error in [polled.error.unwrap(), cancelled.error.unwrap()] {
        for named in ["first", "\"one\"", "second", "\"two\"", "cluster_name"] {
            assert!(error.contains(named), "{named}: {error}");
        }
    }
    assert_eq!(test.cloud.running(), ["first", "second"]);

    // With it, it is clear.
    let second = direct("gcp", "two", "1");
    assert_eq!(test.service.poll(second.clone()).await.job_id, "second");
    let logs = test.service.logs(logs_of(second.clone(), 9)).await;
    assert_eq!(
        (logs.job_id.as_str(), logs.logs.as_str()),
        ("second", "log of two/1")
    );
    assert!(test.service.cancel(cancel_of(second)).await.success);
    assert_eq!(test.cloud.running(), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn job_started_elsewhere_is_served() {
    let test = test_service();
    test.cloud.add_elsewhere("gcp", "theirs", "7");
    let query = || direct(" GCP", "theirs", "7");
    let polled = test.service.poll(query()).await;
    assert!(
        polled.success && polled.state == JobState::Running,
        "{polled:?}"
    );
    assert_eq!(
        (polled.job_id.as_str(), polled.oumi_job_id.as_str()),
        ("", "7")
    );
    assert_eq!(
        (polled.cloud.as_str(), polled.cluster.as_str()),
        ("gcp", "theirs")
    );
    let logs = test.service.logs(logs_of(query(), 200)).await;
    assert_eq!(
        (logs.success, logs.logs.as_str()),
        (true, "log of theirs/7")
    );
    assert_eq!(
        (logs.log_file.as_str(), logs.lines_returned),
        ("cloud:gcp/theirs", 1)
    );
    let row = &test.list().await.jobs[0];
    assert_eq!((row.job_id.as_str(), row.status.as_str()), ("7", "RUNNING"));
    assert_eq!(row.name, "by-hand-7");
    assert!(test.service.cancel(cancel_of(query())).await.success);
    assert_eq!(test.service.poll(query()).await.state, JobState::Cancelled);
    assert!(!test.folder.registry().exists(), "it is not ours to record");
}

#[tokio::test(start_paused = true)]
async fn unknown_job_is_not_found() {
    let test = test_service();
    test.run("job", "gcp").await;
    let polled = test.service.poll(by_id("nope")).await;
    assert_eq!(
        (
            polled.success,
            polled.status.as_str(),
            polled.job_id.as_str()
        ),
        (false, "not_found", "nope")
    );
    let cancelled = test.service.cancel(cancel_by_id("nope")).await;
    assert_eq!(
        (cancelled.success, cancelled.status.as_str()),
        (false, "not_found")
    );
    let logs = test.service.logs(logs_of(by_id("nope"), 1)).await;
    assert!(!logs.success);
    for error in [
        polled.error.unwrap(),
        cancelled.error.unwrap(),
        logs.error.unwrap(),
    ] {
        assert!(
            error.contains("\"nope\"") && error.contains("list_jobs"),
            "{error}"
        );
    }
    let nearly = test.service.poll(by_id("jobb")).await.error.unwrap();
    assert!(nearly.contains("did you mean \"job\"?"), "{nearly}");
    // The launcher's own word for one that it does not know.
    let polled = test.service.poll(direct("gcp", "c", "99")).await;
    assert_eq!(
        (polled.success, polled.status.as_str()),
        (false, "not_found")
    );
    assert!(polled.error.unwrap().contains("list_jobs"));
    let cancelled = test
        .service
        .cancel(cancel_of(direct("gcp", "c", "99")))
        .await;
    assert_eq!(
        (cancelled.success, cancelled.status.as_str()),
        (false, "not_found")
    );
    // Nothing to go by.
    for query in [
        JobIdentity::default(),
        direct("gcp", "c", ""),
        direct("", "c", "1"),
    ] {
        let error = test.service.poll(query.clone()).await.error.unwrap();
        assert!(
            error.contains("job_id") && error.contains("list_jobs"),
            "{error}"
        );
        let error = test.service.cancel(cancel_of(query)).await.error.unwrap();
        assert!(
            error.contains("job_id") && error.contains("list_jobs"),
            "{error}"
        );
    }
    let error = test.service.poll(direct("moon", "c", "1")).await.error;
    assert!(error.unwrap().contains("gcp, aws"));
}

#[tokio::test(start_paused = true)]
async fn silent_launcher_is_status_unknown() {
    let test = test_service();
    test.run("job", "gcp").await;
    test.cloud
        .fail_status(Some(JobError::failed("the cloud is away")));
    let polled = test.service.poll(by_id("job")).await;
    assert_eq!((polled.success, polled.status.as_str()), (false, "unknown"));
    assert_eq!((polled.state, polled.is_done), (JobState::Unknown, false));
    assert_eq!(polled.error.as_deref(), Some("the cloud is away"));
    assert_eq!(
        (polled.oumi_job_id.as_str(), polled.cloud.as_str()),
        ("1", "gcp")
    );
    let answer = test.run("other", "gcp").await;
    assert!(answer.success && answer.launch_confirmed, "{answer:?}");
    assert!(answer.message.contains("the cloud is away") && answer.message.contains("poll_status"));
}

#[tokio::test(start_paused = true)]
async fn reading_leaves_the_registry_alone() {
    let test = test_service();
    test.run("job", "gcp").await;
    let before = test.registry_bytes();
    test.service.poll(by_id("job")).await;
    test.service.logs(logs_of(by_id("job"), 5)).await;
    test.list().await;
    test.cloud.finish("job");
    test.service.poll(by_id("job")).await;
    test.list().await;
    assert_eq!(test.registry_bytes(), before);
}

#[tokio::test(start_paused = true)]
async fn negative_lines_are_none() {
    let test = test_service();
    test.run("job", "gcp").await;
    for (asked, given) in [(-5, 0), (0, 0), (i64::MIN, 0), (1, 1), (i64::MAX, 1)] {
        let logs = test.service.logs(logs_of(by_id("job"), asked)).await;
        assert!(
            logs.success && logs.lines_returned == given,
            "{asked}: {logs:?}"
        );
    }
}
