//! Which job an id of the launcher means, when ids repeat from cluster to cluster.

use crate::error::JobError;
use crate::job_identity::JobIdentity;
use crate::service::requests::CancelRequest;

use super::fake_launcher::{Call, direct};
use super::{logs_of, test_service};

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
async fn a_cancel_has_the_jobs_listed_once() {
    let test = test_service();
    test.run("job", "gcp").await;
    let answer = test.service.cancel(cancel_by_launcher_id("")).await;
    assert!(answer.success, "{answer:?}");
    let calls = test.cloud.calls().into_iter();
    let lists = calls.filter(|call| matches!(call, Call::List(_)));
    assert_eq!(lists.count(), 1);
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

#[tokio::test(start_paused = true)]
async fn fields_that_contradict_the_record_end_nothing() {
    let test = test_service();
    test.run("job", "gcp").await;
    test.run("other", "gcp").await;
    let job = |job_id: &str, cloud, cluster, oumi_job_id| JobIdentity {
        job_id: job_id.to_owned(),
        ..direct(cloud, cluster, oumi_job_id)
    };
    for query in [
        job("job", "", "", "99"),
        job("job", "aws", "", ""),
        job("job", "", "other-cluster", ""),
        // The launcher's id names a recorded job, and job_id another one.
        job("typo", "gcp", "job-cluster", "1"),
    ] {
        let words = "this job has job_id \"job\", oumi_job_id \"1\", cloud \"gcp\" and cluster_name \"job-cluster\"";
        let cancelled = test.service.cancel(CancelRequest {
            job: query.clone(),
            force: false,
        });
        let errors = [
            cancelled.await.error,
            test.service.poll(query.clone()).await.error,
            test.service.logs(logs_of(query.clone(), 10)).await.error,
        ];
        for error in errors {
            let error = error.unwrap_or_default();
            assert!(error.contains(words), "{query:?}: {error}");
        }
        assert!(test.cloud.is_running("job") && test.cloud.is_running("other"));
    }
    for job_id in ["job", ""] {
        let same = job(job_id, " GCP ", " job-cluster ", " 1 ");
        assert!(test.service.poll(same).await.success);
    }
}
