//! Which job an id of the launcher means, when ids repeat from cluster to cluster.

use crate::error::JobError;
use crate::service::requests::CancelRequest;

use super::fake_launcher::direct;
use super::test_service;

fn cancel_by_launcher_id(cluster: &str) -> CancelRequest {
    CancelRequest {
        job: direct("gcp", cluster, "1"),
        force: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_listing_cancels_nothing() {
    let test = test_service();
    test.run("job", "gcp").await;
    test.cloud.add_elsewhere("gcp", "other", "1");
    for error in [
        JobError::failed("no answer within 25 s"),
        JobError::unavailable("no answer within 25 s".to_owned()),
    ] {
        test.cloud.fail_list(Some(error));
        let answer = test.service.cancel(cancel_by_launcher_id("")).await;
        let error = answer.error.unwrap();
        assert!(error.contains("give cluster_name"), "{error}");
        assert!(test.cloud.is_running("job"));
    }
    let answer = test
        .service
        .cancel(cancel_by_launcher_id("job-cluster"))
        .await;
    assert!(answer.success, "{answer:?}");
    assert!(!test.cloud.is_running("job"));
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_listing_cancels_nothing() {
    let test = test_service();
    test.run("job", "gcp").await;
    test.cloud.leave_out("other");
    let answer = test.service.cancel(cancel_by_launcher_id("")).await;
    let error = answer.error.unwrap_or_default();
    assert!(error.contains("give cluster_name"), "{error}");
    assert!(test.cloud.is_running("job"));
}
