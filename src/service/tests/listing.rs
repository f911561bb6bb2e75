//! Lists: order, filters, and the warnings for missing rows.

use std::time::Duration;

use crate::error::JobError;
use crate::process::job_dir::JobDir;
use crate::service::JobService;
use crate::service::requests::{ListRequest, StatusFilter};
use crate::settings::policy::Policy;
use chrono::TimeDelta;

use super::fake_launcher::{Call, FakeCloud, Gate, Stage, by_id};
use super::test_service::test_service_with;
use super::{ids, test_service};

#[tokio::test(start_paused = true)]
async fn failing_launcher_costs_its_rows_only() {
    let home = test_service();
    let failing = FakeCloud::new(&home.folder);
    let launchers = vec![home.cloud.launcher(&["gcp"]), failing.launcher(&["aws"])];
    let service = JobService::new(home.folder.clone(), launchers);
    for (job_name, cloud) in [("ours", "gcp"), ("theirs", "aws"), ("more", "aws")] {
        service.run(home.request(job_name, cloud)).await;
    }
    failing.fail_list(Some(JobError::failed("the cloud is away")));
    // Whose secrets are not known any more.
    let secrets = JobDir::at(home.folder.job("ours").unwrap()).secrets_path();
    std::fs::write(secrets, "").unwrap();
    let answer = service.list(ListRequest::default()).await;
    assert_eq!(ids(&answer.jobs), ["ours"]);
    assert_eq!((answer.success, answer.error), (None, None));
    let [warning] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings)
    };
    for named in ["theirs", "more", "the cloud is away"] {
        assert!(warning.contains(named), "{warning}");
    }
    assert!(!warning.contains("ours"));
    failing.fail_list(None);
    assert_eq!(service.list(ListRequest::default()).await.jobs.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn unserved_cloud_costs_its_rows_only() {
    let test = test_service();
    test.run("job", "gcp").await;
    test.add("strange", "moon", TimeDelta::zero(), None).await;
    let answer = test.list().await;
    assert_eq!(ids(&answer.jobs), ["job"]);
    let [warning] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings)
    };
    assert!(
        warning.contains("strange") && warning.contains("moon"),
        "{warning}"
    );
}

#[tokio::test(start_paused = true)]
async fn filters_by_state_newest_first() {
    let test = test_service();
    // Neither in the order of their age nor of their cloud.
    for (minutes, cloud, job_id, stage) in [
        (3, "gcp", "failed", Stage::LaunchFailed),
        (0, "aws", "launching", Stage::Launching),
        (4, "aws", "cancelled", Stage::Cancelled),
        (1, "gcp", "running", Stage::Running),
        (2, "aws", "succeeded", Stage::Succeeded),
    ] {
        test.add(job_id, cloud, TimeDelta::minutes(minutes), Some(stage))
            .await;
    }
    assert_eq!(
        test.listed(StatusFilter::All).await,
        ["launching", "running", "succeeded", "failed", "cancelled"]
    );
    assert_eq!(
        test.listed(StatusFilter::Running).await,
        ["launching", "running"]
    );
    assert_eq!(
        test.listed(StatusFilter::Completed).await,
        ["succeeded", "failed", "cancelled"]
    );
    assert_eq!(test.listed(StatusFilter::Failed).await, ["failed"]);
    for (limit, hidden) in [(2, [""; 0].as_slice()), (1, &["not over: 1"])] {
        let request = ListRequest {
            limit,
            ..ListRequest::default()
        };
        let answer = test.service.list(request).await;
        assert_eq!(
            ids(&answer.jobs),
            ["launching", "running"][..limit as usize]
        );
        assert_eq!(answer.not_shown, Some(5 - limit as usize));
        assert_eq!(answer.warnings.len(), hidden.len(), "{:?}", answer.warnings);
        assert!(hidden.iter().all(|it| answer.warnings[0].contains(it)));
    }
}

#[tokio::test(start_paused = true)]
async fn job_in_flight_is_listed_once() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    test.run("job", "gcp").await;
    let looks = (0..8).map(|_| {
        let service = test.service.clone();
        tokio::spawn(async move {
            service.poll(by_id("job")).await;
            ids(&service.list(ListRequest::default()).await.jobs)
        })
    });
    for look in looks.collect::<Vec<_>>() {
        assert_eq!(look.await.unwrap(), ["job"]);
    }
    test.cloud.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(test.service.in_flight().is_empty());
    let waits = Call::WaitForLaunch("job".to_owned());
    let waits = test.cloud.calls().into_iter().filter(|call| *call == waits);
    assert_eq!(waits.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn job_that_starts_during_a_list_has_a_record() {
    let test = test_service_with(&[&["local"]], Policy::default());
    let add = |job_id| test.add(job_id, "local", TimeDelta::zero(), Some(Stage::Running));
    add("first").await;
    for job_id in ["new", "lost"] {
        test.cloud.add_running(job_id, "local");
    }
    test.cloud.close(Gate::Status);
    let service = test.service.clone();
    let list = tokio::spawn(async move { service.list(ListRequest::default()).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    add("new").await;
    test.cloud.open(Gate::Status);
    let answer = list.await.unwrap();
    assert_eq!(answer.jobs.len(), 3, "{answer:?}");
    let [warning] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings)
    };
    assert!(
        warning.contains("job lost runs, but its record is gone"),
        "{warning}"
    );
}
