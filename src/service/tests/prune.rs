//! Old jobs that are done are let go, and no other.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::error::JobError;
use crate::launcher::JobIdentity;
use crate::process::job_dir::JobDir;
use crate::registry::KEEP_RECORDS;
use crate::service::requests::StatusFilter;
use crate::settings::policy::Policy;
use chrono::{TimeDelta, Utc};

use super::fake_launcher::{Call, Stage};
use super::test_service;
use super::test_service::test_service_with;

fn long_ago() -> TimeDelta {
    TimeDelta::days(8)
}

#[tokio::test(start_paused = true)]
async fn done_jobs_go_with_their_folders() {
    let test = test_service();
    for (job_id, stage) in [
        ("launching", Stage::Launching),
        ("running", Stage::Running),
        ("succeeded", Stage::Succeeded),
        ("failed", Stage::LaunchFailed),
        ("cancelled", Stage::Cancelled),
        ("of-cluster", Stage::ClusterStays),
    ] {
        test.add(job_id, "gcp", long_ago(), Some(stage)).await;
    }
    test.add("young", "gcp", TimeDelta::days(6), Some(Stage::Succeeded))
        .await;
    test.add("nobody's", "moon", long_ago(), None).await;
    assert_eq!(
        test.listed(StatusFilter::All).await.len(),
        4,
        "what was let go is no row"
    );
    for job_id in ["launching", "running", "young", "nobody's", "of-cluster"] {
        assert!(test.is_known(job_id).await, "{job_id}");
    }
    for job_id in ["succeeded", "failed", "cancelled"] {
        assert!(!test.is_known(job_id).await, "{job_id}");
    }
    test.cloud.finish("running");
    test.list().await;
    assert!(test.is_known("running").await, "it has just ended");
    test.age_folder("running", long_ago());
    test.list().await;
    assert!(!test.is_known("running").await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_listing_keeps_jobs() {
    let test = test_service();
    test.add("job", "gcp", long_ago(), Some(Stage::Running))
        .await;
    test.cloud
        .fail_list(Some(JobError::failed("the cloud is away")));
    test.list().await;
    assert!(test.is_known("job").await);
    test.cloud.fail_list(None);
    assert_eq!(test.listed(StatusFilter::All).await, ["job"]);
}

#[tokio::test(start_paused = true)]
async fn a_launch_in_flight_is_kept() {
    let test = test_service();
    test.add("job", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    let watch = test.service.in_flight().insert("job");
    test.list().await;
    assert!(test.is_known("job").await);
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_done_beyond_the_cap_go() {
    let test = test_service();
    let records: Vec<serde_json::Value> = (0..KEEP_RECORDS + 10)
        .map(|number| {
            let submitted = Utc::now() - TimeDelta::minutes(i64::try_from(number).unwrap());
            let identity = JobIdentity {
                job_id: format!("{number:03}"),
                cloud: "gcp".to_owned(),
                cluster: "c".to_owned(),
                oumi_job_id: number.to_string(),
            };
            let stage = if number % 2 == 0 {
                Stage::Running
            } else {
                Stage::Succeeded
            };
            test.cloud.add_job(&identity, stage);
            serde_json::json!({
                "job_id": identity.job_id, "cloud": "gcp", "cluster_name": "c",
                "oumi_job_id": identity.oumi_job_id, "submit_time": submitted.to_rfc3339(),
            })
        })
        .collect();
    fs::write(
        test.folder.registry(),
        serde_json::to_vec(&records).unwrap(),
    )
    .unwrap();
    let listed = test.listed(StatusFilter::All).await;
    assert_eq!(listed.len(), KEEP_RECORDS + 5);
    for (job_id, is_listed) in [
        ("199", true),
        ("200", true),
        ("201", false),
        ("208", true),
        ("209", false),
    ] {
        assert_eq!(
            listed.iter().any(|listed| listed == job_id),
            is_listed,
            "{job_id}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn recovery_prunes_local_jobs_only() {
    let test = test_service_with(&[&["local"], &["gcp"]], Policy::default());
    test.add("done", "local", long_ago(), Some(Stage::Succeeded))
        .await;
    test.add("runs", "local", long_ago(), Some(Stage::Running))
        .await;
    test.add("lost", "local", long_ago(), None).await;
    test.add("far", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    test.service.recover().await;
    for (job_id, is_known) in [
        ("done", false),
        ("runs", true),
        ("lost", false),
        ("far", true),
    ] {
        assert_eq!(test.is_known(job_id).await, is_known, "{job_id}");
    }
    for call in test.cloud.calls() {
        assert!(!matches!(&call, Call::List(_)), "{call:?}");
        assert_ne!(call, Call::Status("far".to_owned()));
    }
    test.cloud.fail_status(Some(JobError::failed("no access")));
    test.cloud.finish("runs");
    test.service.recover().await;
    assert!(test.is_known("runs").await);
}

#[tokio::test(start_paused = true)]
async fn a_read_only_server_removes_nothing() {
    let policy = Policy {
        read_only: true,
        ..Policy::default()
    };
    let test = test_service_with(&[&["gcp"]], policy);
    test.add("done", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    let dir = test.folder.job("done").unwrap();
    let epilogue = dir.join("epilogue.json");
    fs::write(&epilogue, r#"{"argv": [], "unless_printed": "there"}"#).unwrap();
    fs::write(dir.join("output.log"), "there\n").unwrap();
    test.list().await;
    test.service.recover().await;
    assert!(test.is_known("done").await && epilogue.exists());
}

/// The server once ran with the right clock; then the clock jumps 30 days ahead.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumped_prunes_nothing() {
    let test = test_service();
    let before = (Utc::now() - TimeDelta::days(30)).timestamp();
    fs::write(test.folder.clock(), format!("[{},{before}]", before - 7200)).unwrap();
    test.add("done", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    test.list().await;
    assert!(test.is_known("done").await);
}

#[tokio::test(start_paused = true)]
async fn old_folders_without_a_record_go() {
    let test = test_service();
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    let folder = |name: &str| {
        let path = test.folder.jobs().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("output.log"), "x").unwrap();
        path
    };
    let age = |path: &Path| fs::File::open(path).unwrap().set_modified(old).unwrap();
    let (left, young, writing) = (folder("left"), folder("young"), folder("writing"));
    for path in [&left, &writing] {
        age(path);
    }
    age(&left.join("output.log"));
    let (held, _lock) = JobDir::create(test.folder.jobs().join("held")).unwrap();
    age(&held.path().join("lock"));
    age(held.path());
    test.list().await;
    assert!(!left.exists());
    assert!(young.exists() && writing.exists() && held.path().exists());
}

#[tokio::test(start_paused = true)]
async fn a_missing_program_keeps_jobs() {
    let test = test_service();
    test.add("job", "gcp", long_ago(), Some(Stage::Running))
        .await;
    test.cloud
        .fail_list(Some(JobError::failed("install it".to_owned())));
    test.list().await;
    assert!(test.is_known("job").await);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_no_file_name_removes_no_folder() {
    let test = test_service();
    let kept = test.folder.root().join("kept");
    fs::write(&kept, "x").unwrap();
    let ids = ["..", "../kept", "/", "."];
    let records = ids.map(|job_id| {
        let submitted = Utc::now() - long_ago();
        serde_json::json!({
            "job_id": job_id, "cloud": "gcp", "oumi_job_id": "1", "submit_time": submitted.to_rfc3339(),
        })
    });
    fs::write(
        test.folder.registry(),
        serde_json::to_vec(&records).unwrap(),
    )
    .unwrap();
    for record in test.service.registry().records().await.unwrap().to_vec() {
        test.cloud.add_job(&record.identity(), Stage::Succeeded);
    }
    test.list().await;
    let records = test.service.registry().records().await.unwrap().to_vec();
    assert_eq!(records, []);
    assert!(test.folder.jobs().exists() && kept.exists());
}
