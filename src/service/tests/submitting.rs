//! What is run: confirmed, refused, previewed, named.

use std::fs;
use std::time::Duration;

use crate::launcher::{JobState, LaunchOptions};
use crate::service::answers::RunAnswer;
use crate::service::requests::{RunRequest, StatusFilter};
use crate::settings::policy::Policy;
use tokio::time::Instant;

use super::fake_launcher::{Call, Gate, by_id, cancel_by_id};
use super::test_service;
use super::test_service::test_service_with;

#[tokio::test(start_paused = true)]
async fn a_fast_launch_is_confirmed_and_recorded() {
    let test = test_service();
    let answer = test.run("job", "gcp").await;
    assert!(answer.success && answer.launch_confirmed, "{answer:?}");
    assert_eq!(
        (answer.job_id.as_str(), answer.status.as_str()),
        ("job", "RUNNING")
    );
    assert_eq!(
        (answer.oumi_job_id.as_str(), answer.cluster_name.as_str()),
        ("1", "job-cluster")
    );
    let polled = test.service.poll(by_id("job")).await;
    assert!(
        polled.success && polled.state == JobState::Running,
        "{polled:?}"
    );
    assert_eq!(
        (polled.oumi_job_id.as_str(), polled.cluster.as_str()),
        ("1", "job-cluster")
    );
    test.cloud.finish("job");
    let polled = test.service.poll(by_id("job")).await;
    assert_eq!(polled.metadata["output_dir"], "out");
}

#[tokio::test(start_paused = true)]
async fn a_slow_launch_is_pending_then_confirmed() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    let began = Instant::now();
    let answer = test.run("job", "gcp").await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(answer.success && !answer.launch_confirmed, "{answer:?}");
    assert_eq!(
        (answer.status.as_str(), answer.oumi_job_id.as_str()),
        ("launching", "")
    );
    assert!(answer.message.contains("not yet confirmed") && answer.message.contains("poll_status"));
    let polled = test.service.poll(by_id("job")).await;
    assert_eq!((polled.state, polled.is_done), (JobState::Pending, false));
    test.cloud.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let polled = test.service.poll(by_id("job")).await;
    assert_eq!(
        (polled.status.as_str(), polled.oumi_job_id.as_str()),
        ("RUNNING", "1")
    );
    assert!(test.service.in_flight().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_launch_is_listed_with_its_reason() {
    let test = test_service();
    test.cloud.fail_launches(true);
    let answer = test.run("job", "gcp").await;
    assert!(!answer.success && !answer.launch_confirmed, "{answer:?}");
    let error = answer.error.unwrap();
    assert!(
        error.contains("no capacity") && error.contains("get_job_logs"),
        "{error}"
    );
    let asked = [
        Call::Start("job".to_owned()),
        Call::WaitForLaunch("job".to_owned()),
        // What is left of it may cost money.
        Call::Status("job".to_owned()),
    ];
    assert_eq!(test.cloud.calls(), asked);
    assert_eq!(
        test.service.poll(by_id("job")).await.state,
        JobState::Failed
    );
    assert_eq!(test.listed(StatusFilter::Completed).await, ["job"]);
    assert_eq!(test.cloud.starts("job"), 1);
}

#[tokio::test(start_paused = true)]
async fn dry_run_and_unconfirmed_write_nothing() {
    let test = test_service();
    let request = || test.request("job", "gcp");
    let preview = RunRequest {
        dry_run: true,
        ..request()
    };
    let answer = test.service.run(preview).await;
    assert!(answer.success && answer.dry_run, "{answer:?}");
    assert_eq!(
        (answer.status.as_str(), answer.job_id.as_str()),
        ("dry_run", "job")
    );
    for line in [
        "Cloud: gcp\n",
        "Runs: launch job\n",
        "Model: tiny\n",
        "Output: out\n",
    ] {
        assert!(answer.message.contains(line), "{}", answer.message);
    }
    let unconfirmed = [
        RunRequest {
            confirm: false,
            ..request()
        },
        RunRequest {
            user_confirmation: String::new(),
            ..request()
        },
        RunRequest {
            user_confirmation: "execute".to_owned(),
            ..request()
        },
        RunRequest {
            user_confirmation: "EXECUTE ".to_owned(),
            ..request()
        },
    ];
    for request in unconfirmed {
        let answer = test.service.run(request).await;
        assert_eq!((answer.status.as_str(), answer.success), ("blocked", false));
        assert!(answer.error.unwrap().contains("EXECUTE"));
    }
    assert!(!test.folder.registry().exists());
    assert_eq!(fs::read_dir(test.folder.jobs()).unwrap().count(), 0);
    assert_eq!(test.cloud.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_taken_job_name_is_refused() {
    let test = test_service();
    let assert_refused = |answer: RunAnswer| {
        let error = answer.error.unwrap();
        assert!(!answer.success && answer.job_id.is_empty());
        assert!(
            error.contains("\"job\"") && error.contains("another job_name"),
            "{error}"
        );
    };
    test.cloud.close(Gate::Launch);
    test.run("job", "gcp").await;
    assert_refused(test.run("job", "gcp").await);
    assert!(test.service.in_flight().contains("job"));
    test.cloud.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_refused(test.run("job", "aws").await);
    assert!(test.service.in_flight().is_empty());
    assert_eq!(test.cloud.starts("job"), 1);
    assert!(test.cloud.is_running("job"));
}

#[tokio::test(start_paused = true)]
async fn invalid_requests_are_refused() {
    let test = test_service();
    let request = || test.request("job", "gcp");
    let cases = [
        (
            RunRequest {
                command: "dance".to_owned(),
                ..request()
            },
            "dance",
        ),
        (
            RunRequest {
                cloud: "moon".to_owned(),
                ..request()
            },
            "moon",
        ),
        (
            RunRequest {
                client_cwd: "here".to_owned(),
                ..request()
            },
            "client_cwd",
        ),
        (
            RunRequest {
                config_path: "none.yaml".to_owned(),
                ..request()
            },
            "none.yaml",
        ),
        (
            RunRequest {
                job_name: Some("../..".to_owned()),
                ..request()
            },
            "job_name",
        ),
        (
            RunRequest {
                job_name: Some("x".repeat(129)),
                ..request()
            },
            "job_name",
        ),
        (
            RunRequest {
                job_name: Some("a\nb".to_owned()),
                ..request()
            },
            "job_name",
        ),
        (
            RunRequest {
                options: LaunchOptions {
                    envs: [("A B".to_owned(), "secret".to_owned())].into(),
                    ..LaunchOptions::default()
                },
                ..request()
            },
            "A B",
        ),
    ];
    for (request, named) in cases {
        let answer = test.service.run(request).await;
        let error = answer.error.as_deref().unwrap();
        assert!(!answer.success && error.contains(named), "{named}: {error}");
        assert!(!error.contains("secret"));
    }
    assert_eq!(test.cloud.calls(), []);
    assert!(!test.folder.registry().exists());
}

#[tokio::test(start_paused = true)]
async fn job_names_are_sanitized() {
    let test = test_service();
    for (name, job_id) in [
        ("my run", "my run"),
        ("../../etc/passwd", "etc_passwd"),
        ("a/b\\c", "a_b_c"),
        (" .-_x_-. ", "x"),
        ("v1..2", "v1_2"),
        ("größe", "größe"),
    ] {
        assert_eq!(test.run(name, "gcp").await.job_id, job_id);
        assert!(test.folder.job(job_id).unwrap().is_dir());
    }
    let unnamed = RunRequest {
        job_name: None,
        ..test.request("", "gcp")
    };
    let job_id = test.service.run(unnamed).await.job_id;
    let parts: Vec<&str> = job_id.split('_').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!(
        (parts[0], lengths.as_slice()),
        ("train", &[5, 8, 6, 6][..]),
        "{job_id}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_here_that_is_cancelled_was_launched_if_it_ran() {
    let test = test_service_with(&[&["local"]], Policy::default());
    test.cloud.close(Gate::LaunchWaitReturn);
    let (service, request) = (test.service.clone(), test.request("job", "local"));
    let run = tokio::spawn(async move { service.run(request).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let service = test.service.clone();
    let cancel = tokio::spawn(async move { service.cancel(cancel_by_id("job")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    test.cloud.open_all();
    assert!(cancel.await.unwrap().success);
    let answer = run.await.unwrap();
    assert_eq!(answer.status, "CANCELLED");
    assert!(answer.launch_confirmed, "{answer:?}");
}

/// Clients give up after a minute.
#[tokio::test(start_paused = true)]
async fn a_silent_launcher_does_not_silence_the_answer() {
    let test = test_service();
    test.run_on("first", "gcp", "dev").await;
    test.cloud.close(Gate::Launch);
    test.cloud.fall_silent();
    for is_dry in [true, false] {
        let request = RunRequest {
            dry_run: is_dry,
            cluster_name: "dev".to_owned(),
            allow_shared_output: true,
            ..test.request("second", "gcp")
        };
        let minute = Duration::from_secs(59);
        let answer = tokio::time::timeout(minute, test.service.run(request)).await;
        assert!(answer.unwrap().success);
    }
}
