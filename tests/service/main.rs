//! The service over a fake launcher: what is run, polled, read, cancelled, listed and let go.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/fake_launcher.rs"]
mod fake_launcher;
mod letting_go;
mod listing;
mod looking;
mod registry;
mod submitting;

use std::fs;

use chrono::{TimeDelta, Utc};
use fake_launcher::{Stage, World, run_request};
use oumi_mcp_server::paths::DataFolder;
use oumi_mcp_server::registry::JobRecord;
use oumi_mcp_server::service::JobService;
use oumi_mcp_server::service::answers::{JobRow, ListAnswer, RunAnswer};
use oumi_mcp_server::service::requests::{
    JobQuery, ListRequest, LogsRequest, RunRequest, StatusFilter,
};

struct House {
    home: tempfile::TempDir,
    folder: DataFolder,
    world: World,
    service: JobService,
}

/// A service with one launcher for each of these sets of clouds, over one world.
fn house_of(launchers: &[&'static [&'static str]]) -> House {
    let home = tempfile::tempdir().unwrap();
    let folder = DataFolder::at(home.path().join("data"));
    folder.create().unwrap();
    let world = World::new(&folder);
    let launchers = launchers.iter().map(|clouds| world.launcher(clouds));
    let service = JobService::new(folder.clone(), launchers.collect());
    House {
        home,
        folder,
        world,
        service,
    }
}

fn house() -> House {
    house_of(&[&["gcp"], &["aws"]])
}

impl House {
    fn request(&self, job_name: &str, cloud: &str) -> RunRequest {
        run_request(self.home.path(), job_name, cloud)
    }

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
        let answer = self.service.list(ListRequest { status }).await;
        ids(&answer.jobs)
    }

    fn registry_bytes(&self) -> Vec<u8> {
        fs::read(self.folder.registry()).unwrap()
    }

    /// Puts a job into the registry and the world as if it had been submitted so long ago.
    async fn add(&self, job_id: &str, cloud: &str, age: TimeDelta, stage: Option<Stage>) {
        let record = JobRecord {
            job_id: job_id.to_owned(),
            cloud: cloud.to_owned(),
            cluster_name: format!("{job_id}-cluster"),
            oumi_job_id: "1".to_owned(),
            submit_time: (Utc::now() - age).to_rfc3339(),
            ..JobRecord::default()
        };
        if let Some(stage) = stage {
            self.world.add_job(&record.identity(), stage);
        }
        let folder = self.folder.job(job_id).unwrap();
        let prepare = move || fs::create_dir(folder).map_err(|error| error.to_string());
        let registry = self.service.registry();
        registry.insert(record, prepare).await.unwrap();
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

fn logs_of(query: JobQuery, lines: i64) -> LogsRequest {
    LogsRequest {
        job_id: query.job_id,
        lines,
        oumi_job_id: query.oumi_job_id,
        cloud: query.cloud,
        cluster_name: query.cluster_name,
        ..LogsRequest::default()
    }
}
