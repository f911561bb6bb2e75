//! Clusters that are stopped or deleted, and what an answer promises of work that takes longer than the call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{JobError, Result};
use crate::service::consent::{ConsentPrompt, ConsentProvider};
use crate::service::requests::{CancelRequest, StopRequest};

use super::fake_launcher::{Gate, direct};
use super::{test_service, test_service_with};
use crate::settings::policy::Policy;

#[tokio::test(start_paused = true)]
async fn skypilots_name_of_a_cloud_is_known() {
    let test = test_service_with(&[&["k8s", "sky-slurm"], &["slurm"]], Policy::default());
    let launched = test.run_on("job", " Kubernetes", "dev").await;
    assert_eq!(launched.cloud, "k8s", "{launched:?}");
    test.cloud.add_elsewhere("k8s", "other", "7");
    let request = CancelRequest {
        job: direct("Kubernetes", "", "7"),
        force: false,
    };
    let answer = test.service.cancel(request).await;
    assert_eq!((answer.success, &*answer.cluster), (true, "other"));
    for (named, cloud) in [("Kubernetes", "k8s"), ("Slurm", "slurm"), ("K8S", "k8s")] {
        let request = StopRequest {
            cloud: named.to_owned(),
            cluster_name: "dev".to_owned(),
        };
        let answer = test.service.stop_cluster(request).await;
        assert_eq!(
            (answer.success, &*answer.cloud),
            (true, cloud),
            "{answer:?}"
        );
    }
}

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
        answer.message.contains("goes on, even without this server"),
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

/// Keeps the last question.
#[derive(Default)]
struct Agrees(Mutex<String>);

#[async_trait::async_trait]
impl ConsentProvider for Agrees {
    async fn ask(&self, prompt: &ConsentPrompt) -> Result<String> {
        self.0.lock().unwrap().clone_from(&prompt.text);
        Ok(prompt.subject.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn the_question_of_a_stop_names_the_jobs_that_end() {
    let test = test_service();
    test.cloud.add_elsewhere("gcp", "dev", "7");
    test.cloud.add_elsewhere("gcp", "other", "8");
    let user = Arc::new(Agrees::default());
    let service = test.service.with_consent(Arc::clone(&user) as _);
    test.cloud.leave_out("silent");
    let silent = Some(JobError::failed(
        "silent to hf_abcdefghijklmnopqrstuvwxyz01234567",
    ));
    for (cluster, error, live) in [
        ("dev", None, "by-hand-7"),
        ("dev", silent, "not known"),
        ("silent", None, "not known"),
    ] {
        test.cloud.fail_list(error);
        let request = StopRequest {
            cloud: "gcp".to_owned(),
            cluster_name: cluster.to_owned(),
        };
        assert!(service.stop_cluster(request).await.success);
        let asked = user.0.lock().unwrap().clone();
        let line = format!("Jobs on it: {live}\n");
        assert!(asked.contains(&line), "{asked}");
        assert!(!asked.contains("hf_abc"), "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_launch_onto_a_cluster_that_cannot_be_asked_about_says_so() {
    let test = test_service();
    test.cloud.fail_list(Some(JobError::failed("silent")));
    let launched = test.run_on("job", "gcp", "dev").await;
    let doubt = "it is not known whether cluster dev is on another cloud than gcp";
    assert!(
        launched.warnings.iter().any(|it| it == doubt),
        "{launched:?}"
    );
}

/// Clients give up after a minute.
#[tokio::test(start_paused = true)]
async fn a_cancel_asks_a_silent_launcher_within_a_minute() {
    let test = test_service();
    test.cloud.add_elsewhere("gcp", "dev", "7");
    test.cloud.close(Gate::Cancel);
    test.cloud.fall_silent();
    let service = test.service.with_consent(Arc::new(Agrees::default()));
    let request = CancelRequest {
        job: direct("gcp", "dev", "7"),
        force: false,
    };
    let minute = Duration::from_secs(59);
    let answer = tokio::time::timeout(minute, service.cancel(request)).await;
    assert!(answer.unwrap().success);
}
