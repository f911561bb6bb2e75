//! Clusters that are stopped or deleted, and what an answer promises of work that takes longer than the call.

use std::time::Duration;

use crate::service::requests::{CancelRequest, StopRequest};

use super::fake_launcher::{Gate, direct};
use super::test_service;

#[tokio::test(start_paused = true)]
async fn a_slow_stop_goes_on() {
    let test = test_service();
    test.cloud.close(Gate::Cluster);
    let request = StopRequest {
        cloud: "gcp".to_owned(),
        cluster_name: "dev".to_owned(),
    };
    let answer = test.service.stop_cluster(request).await;
    assert!(answer.success, "{answer:?}");
    assert!(
        answer.message.contains("goes on, also without this server"),
        "{}",
        answer.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_cancel_of_a_foreign_job_promises_nothing_past_the_server() {
    let test = test_service();
    test.cloud.add_elsewhere("gcp", "dev", "7");
    test.cloud.close(Gate::Cancel);
    let request = CancelRequest {
        job: direct("gcp", "dev", "7"),
        force: false,
    };
    let answer = test.service.cancel(request).await;
    assert!(answer.success && !answer.is_done, "{answer:?}");
    assert!(
        answer.message.contains("not repeated if it fails"),
        "{}",
        answer.message
    );
    test.cloud.open(Gate::Cancel);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(test.cloud.faults(), Vec::<String>::new());
}
