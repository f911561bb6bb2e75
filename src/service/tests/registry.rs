//! A registry that cannot be written or read, or is damaged.

use std::fs;
use std::time::Duration;

use crate::launcher::JobState;
use crate::service::JobService;

use super::fake_launcher::{Gate, by_id, cancel_by_id};
use super::{logs_of, test_service};

#[tokio::test(start_paused = true)]
async fn an_unrecorded_id_is_recovered_by_polls() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    test.run("job", "gcp").await;
    let lock = test.folder.registry_lock();
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    test.cloud.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(test.service.in_flight().is_empty());
    // A poll finds it out, and records it once that can be done.
    for recorded in ["", "1"] {
        let polled = test.service.poll(by_id("job")).await;
        assert_eq!(
            (polled.state, polled.oumi_job_id.as_str()),
            (JobState::Running, "1")
        );
        let record = test.service.registry().get("job").await.unwrap();
        assert_eq!(record.unwrap().oumi_job_id, recorded);
        let _ = fs::remove_dir(&lock);
    }
    assert!(test.service.in_flight().is_empty());
    assert_eq!(test.cloud.starts("job"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_a_launch_names_the_job_without_a_record() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    let launching = tokio::spawn({
        let (service, request) = (test.service.clone(), test.request("job", "gcp"));
        async move { service.run(request).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::write(test.folder.registry(), "[]").unwrap();
    test.cloud.open(Gate::Launch);
    let answer = launching.await.unwrap();
    assert!(answer.launch_confirmed, "{answer:?}");
    assert_eq!(answer.oumi_job_id, "1");
}

#[tokio::test(start_paused = true)]
async fn a_resumed_launch_names_the_job_without_a_record() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    test.run("job", "gcp").await;
    let next = JobService::new(test.folder.clone(), vec![test.cloud.launcher(&["gcp"])]);
    let polling = tokio::spawn(async move { next.poll(by_id("job")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::write(test.folder.registry(), "[]").unwrap();
    test.cloud.open(Gate::Launch);
    assert_eq!(polling.await.unwrap().oumi_job_id, "1");
}

#[tokio::test(start_paused = true)]
async fn an_unrecordable_job_is_not_launched() {
    let test = test_service();
    let lock = fs::File::create(test.folder.registry_lock()).unwrap();
    lock.lock().unwrap();
    let answer = test.run("job", "gcp").await;
    assert!(!answer.success, "{answer:?}");
    assert!(answer.error.unwrap().contains("another process has held"));
    assert_eq!(test.cloud.calls(), []);
    assert!(test.service.in_flight().is_empty());
    drop(lock);
    assert!(test.run("job", "gcp").await.launch_confirmed);
}

#[tokio::test(start_paused = true)]
async fn every_call_reports_a_read_error() {
    let test = test_service();
    fs::create_dir(test.folder.registry()).unwrap();
    let service = &test.service;
    service.recover().await;
    let errors = [
        service.poll(by_id("job")).await.error,
        service.logs(logs_of(by_id("job"), 1)).await.error,
        service.cancel(cancel_by_id("job")).await.error,
        test.list().await.error,
        test.run("job", "gcp").await.error,
    ];
    for error in errors {
        assert!(error.unwrap().contains("oumi-jobs.json"));
    }
    assert_eq!(test.cloud.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_list_warns_of_quarantined_files() {
    let test = test_service();
    test.run("one", "gcp").await;
    test.run("two", "gcp").await;
    let bytes = test.registry_bytes();
    fs::write(test.folder.registry(), &bytes[..bytes.len() - 1]).unwrap();
    for _ in 0..2 {
        let answer = test.list().await;
        assert_eq!(answer.jobs.len(), 2);
        let [warning] = answer.warnings.as_slice() else {
            panic!("{:?}", answer.warnings)
        };
        assert!(warning.contains("oumi-jobs.json.corrupt-"), "{warning}");
    }
    let aside = test.service.registry().quarantined().await.unwrap();
    fs::remove_file(&aside[0]).unwrap();
    assert_eq!(test.list().await.warnings, Vec::<String>::new());
}
