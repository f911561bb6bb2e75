//! A registry that cannot be written or read, or is damaged.

use std::fs;
use std::time::Duration;

use crate::launcher::JobState;

use super::fake_launcher::{Gate, by_id, cancel_by_id};
use super::{house, logs_of};

#[tokio::test(start_paused = true)]
async fn an_id_that_could_not_be_recorded_at_all_is_found_by_the_next_look() {
    let house = house();
    house.world.close(Gate::Launch);
    house.run("job", "gcp").await;
    let lock = house.folder.registry_lock();
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    house.world.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(house.service.in_flight().is_empty());
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!(
        (polled.state, polled.oumi_job_id.as_str()),
        (JobState::Running, "")
    );
    // That poll tries to record it as well, until it is given up.
    tokio::time::sleep(Duration::from_secs(60)).await;
    fs::remove_dir(&lock).unwrap();
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!(
        (polled.state, polled.oumi_job_id.as_str()),
        (JobState::Running, "1")
    );
    assert!(house.service.in_flight().is_empty());
    assert_eq!(house.world.starts("job"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_cannot_be_recorded_is_refused_and_launches_nothing() {
    let house = house();
    fs::create_dir(house.folder.registry_lock()).unwrap();
    let answer = house.run("job", "gcp").await;
    assert!(!answer.success, "{answer:?}");
    assert!(answer.error.unwrap().contains("registry"));
    assert_eq!(house.world.calls(), []);
    assert!(house.service.in_flight().is_empty());
    fs::remove_dir(house.folder.registry_lock()).unwrap();
    assert!(house.run("job", "gcp").await.launch_confirmed);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_read_is_said_by_every_call() {
    let house = house();
    fs::create_dir(house.folder.registry()).unwrap();
    let service = &house.service;
    service.recover().await;
    let errors = [
        service.poll(by_id("job")).await.error,
        service.logs(logs_of(by_id("job"), 1)).await.error,
        service.cancel(cancel_by_id("job")).await.error,
        house.list().await.error,
        house.run("job", "gcp").await.error,
    ];
    for error in errors {
        assert!(error.unwrap().contains("oumi-jobs.json"));
    }
    assert_eq!(house.world.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_registry_is_named_by_the_list_until_its_copy_is_removed() {
    let house = house();
    house.run("one", "gcp").await;
    house.run("two", "gcp").await;
    let bytes = house.registry_bytes();
    fs::write(house.folder.registry(), &bytes[..bytes.len() - 1]).unwrap();
    for _ in 0..2 {
        let answer = house.list().await;
        assert_eq!(answer.jobs.len(), 2);
        let [warning] = answer.warnings.as_slice() else {
            panic!("{:?}", answer.warnings)
        };
        assert!(warning.contains("oumi-jobs.json.corrupt-"), "{warning}");
    }
    let aside = house.service.registry().put_aside().await.unwrap();
    fs::remove_file(&aside[0]).unwrap();
    assert_eq!(house.list().await.warnings, Vec::<String>::new());
}
