//! Old jobs that are done are let go, and no other.

use std::fs;

use crate::launcher::{JobIdentity, LauncherError};
use crate::registry::KEEP_RECORDS;
use crate::service::requests::StatusFilter;
use crate::settings::policy::Policy;
use chrono::{TimeDelta, Utc};

use super::fake_launcher::{Call, Stage};
use super::house;
use super::house::house_of;

fn long_ago() -> TimeDelta {
    TimeDelta::days(8)
}

#[tokio::test(start_paused = true)]
async fn an_old_job_that_is_done_is_let_go_with_its_folder_and_one_that_may_run_is_kept() {
    let house = house();
    for (job_id, stage) in [
        ("launching", Stage::Launching),
        ("running", Stage::Running),
        ("succeeded", Stage::Succeeded),
        ("failed", Stage::LaunchFailed),
        ("cancelled", Stage::Cancelled),
    ] {
        house.add(job_id, "gcp", long_ago(), Some(stage)).await;
    }
    house
        .add("young", "gcp", TimeDelta::days(6), Some(Stage::Succeeded))
        .await;
    house.add("nobody's", "moon", long_ago(), None).await;
    assert_eq!(
        house.listed(StatusFilter::All).await.len(),
        3,
        "what was let go is no row"
    );
    for job_id in ["launching", "running", "young", "nobody's"] {
        assert!(house.is_known(job_id).await, "{job_id}");
    }
    for job_id in ["succeeded", "failed", "cancelled"] {
        assert!(!house.is_known(job_id).await, "{job_id}");
    }
    house.world.finish("running");
    house.list().await;
    assert!(!house.is_known("running").await);
}

#[tokio::test(start_paused = true)]
async fn an_old_job_that_the_launcher_cannot_be_asked_about_is_kept() {
    let house = house();
    house
        .add("job", "gcp", long_ago(), Some(Stage::Running))
        .await;
    house
        .world
        .fail_list(Some(LauncherError::failed("the cloud is away")));
    house.list().await;
    assert!(house.is_known("job").await);
    house.world.fail_list(None);
    assert_eq!(house.listed(StatusFilter::All).await, ["job"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_job_whose_launch_is_taken_up_just_now_is_kept() {
    let house = house();
    house
        .add("job", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    let watch = house.service.in_flight().begin("job");
    house.list().await;
    assert!(house.is_known("job").await);
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_cap_the_oldest_that_are_done_are_let_go() {
    let house = house();
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
            house.world.add_job(&identity, stage);
            serde_json::json!({
                "job_id": identity.job_id, "cloud": "gcp", "cluster_name": "c",
                "oumi_job_id": identity.oumi_job_id, "submit_time": submitted.to_rfc3339(),
            })
        })
        .collect();
    fs::write(
        house.folder.registry(),
        serde_json::to_vec(&records).unwrap(),
    )
    .unwrap();
    let listed = house.listed(StatusFilter::All).await;
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
async fn a_start_lets_go_of_old_jobs_here_and_asks_no_cloud() {
    let house = house_of(&[&["local"], &["gcp"]], Policy::default());
    house
        .add("done", "local", long_ago(), Some(Stage::Succeeded))
        .await;
    house
        .add("runs", "local", long_ago(), Some(Stage::Running))
        .await;
    house.add("lost", "local", long_ago(), None).await;
    house
        .add("far", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    house.service.recover().await;
    for (job_id, is_known) in [
        ("done", false),
        ("runs", true),
        ("lost", false),
        ("far", true),
    ] {
        assert_eq!(house.is_known(job_id).await, is_known, "{job_id}");
    }
    for call in house.world.calls() {
        assert!(!matches!(&call, Call::List(_)), "{call:?}");
        assert_ne!(call, Call::Status("far".to_owned()));
    }
    house
        .world
        .fail_status(Some(LauncherError::failed("no access")));
    house.world.finish("runs");
    house.service.recover().await;
    assert!(house.is_known("runs").await);
}

#[tokio::test(start_paused = true)]
async fn an_old_job_on_a_machine_without_its_program_is_let_go() {
    let house = house();
    house
        .add("job", "gcp", long_ago(), Some(Stage::Running))
        .await;
    house.world.fail_list(Some(LauncherError::ProgramNotFound(
        "install it".to_owned(),
    )));
    house.list().await;
    assert!(!house.is_known("job").await);
}
