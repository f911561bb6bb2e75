//! The service over a fake launcher: what is run, polled, read, cancelled, listed and let go.

mod cancel_race;
mod clusters;
pub(crate) mod fake_launcher;
pub(crate) mod test_service;

mod listing;
mod looking;
mod lookup;
mod preparing;
mod prune;
mod registry;
mod secrets;
mod sentences;
mod submitting;
mod watching;

use std::fs;
use std::sync::Arc;

use crate::in_flight::InFlight;
use crate::job_identity::JobIdentity;
use crate::launcher::Launcher;
use crate::service::JobService;
use crate::service::answers::{JobRow, ListAnswer, RunAnswer};
use crate::service::requests::{ListRequest, LogsRequest, RunRequest, StatusFilter};
use crate::settings::data_dir::DataDir;
use crate::settings::policy::Policy;
use test_service::{TestService, test_service_with};

impl JobService {
    /// Serves with a policy that allows everything.
    pub(crate) fn new(data_dir: DataDir, launchers: Vec<Arc<dyn Launcher>>) -> Self {
        Self::with_policy(data_dir, launchers, Policy::default())
    }

    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.context.in_flight
    }
}

fn test_service() -> TestService {
    test_service_with(&[&["gcp"], &["aws"]], Policy::default())
}

impl TestService {
    async fn run(&self, job_name: &str, cloud: &str) -> RunAnswer {
        self.service.run(self.request(job_name, cloud)).await
    }

    async fn run_on(&self, job_name: &str, cloud: &str, cluster: &str) -> RunAnswer {
        let request = RunRequest {
            cluster_name: cluster.to_owned(),
            ..self.request(job_name, cloud)
        };
        self.service.run(request).await
    }

    async fn list(&self) -> ListAnswer {
        self.service.list(ListRequest::default()).await
    }

    async fn listed(&self, status: StatusFilter) -> Vec<String> {
        let request = ListRequest {
            status,
            limit: u32::MAX,
        };
        let answer = self.service.list(request).await;
        ids(&answer.jobs)
    }

    fn registry_bytes(&self) -> Vec<u8> {
        fs::read(self.folder.registry()).unwrap()
    }

    async fn is_known(&self, job_id: &str) -> bool {
        let known = self.service.registry().get(job_id).await.unwrap().is_some();
        let has_folder = self.folder.job(job_id).unwrap().exists();
        assert_eq!(
            known, has_folder,
            "{job_id}: a record and its folder go together"
        );
        known
    }
}

fn ids(rows: &[JobRow]) -> Vec<String> {
    rows.iter().map(|row| row.job_id.clone()).collect()
}

fn logs_of(query: JobIdentity, lines: i64) -> LogsRequest {
    LogsRequest {
        job: query,
        lines,
        ..LogsRequest::default()
    }
}
