//! The service over a made-up cloud, in a data folder of its own.

#![allow(dead_code, clippy::unwrap_used)]

use crate::error::JobError;
use crate::registry::JobRecord;
use crate::service::JobService;
use crate::service::requests::RunRequest;
use crate::settings::data_dir::DataDir;
use crate::settings::policy::Policy;
use chrono::{TimeDelta, Utc};

use super::fake_launcher::{FakeCloud, Stage, run_request};

pub struct TestService {
    pub home: tempfile::TempDir,
    pub folder: DataDir,
    pub cloud: FakeCloud,
    pub service: JobService,
}

/// A service with one launcher for each of these sets of clouds, over one cloud.
pub fn test_service_with(launchers: &[&'static [&'static str]], policy: Policy) -> TestService {
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path().join("data"));
    folder.create().unwrap();
    let cloud = FakeCloud::new(&folder);
    let launchers = launchers.iter().map(|clouds| cloud.launcher(clouds));
    let service = JobService::with_policy(folder.clone(), launchers.collect(), policy);
    TestService {
        home,
        folder,
        cloud,
        service,
    }
}

impl TestService {
    pub fn request(&self, job_name: &str, cloud: &str) -> RunRequest {
        run_request(self.home.path(), job_name, cloud)
    }

    /// Puts a job into the registry and the cloud as if it had been submitted so long ago. One that is over has been so since.
    pub async fn add(&self, job_id: &str, cloud: &str, age: TimeDelta, stage: Option<Stage>) {
        let record = JobRecord {
            job_id: job_id.to_owned(),
            cloud: cloud.to_owned(),
            cluster_name: format!("{job_id}-cluster"),
            oumi_job_id: "1".to_owned(),
            submit_time: (Utc::now() - age).to_rfc3339(),
            ..JobRecord::default()
        };
        if let Some(stage) = stage {
            self.cloud.add_job(&record.identity(), stage);
        }
        let folder = self.folder.job(job_id).unwrap();
        let prepare = move |_: &[JobRecord]| std::fs::create_dir(folder).map_err(JobError::failed);
        let registry = self.service.registry();
        registry.insert(record, prepare).await.unwrap();
        if !matches!(stage, Some(Stage::Launching | Stage::Running)) {
            std::fs::write(self.folder.job(job_id).unwrap().join("seen-over"), "").unwrap();
        }
        self.age_folder(job_id, age);
    }

    /// As if nothing had been written to the folder of a job since.
    pub fn age_folder(&self, job_id: &str, age: TimeDelta) {
        let folder = self.folder.job(job_id).unwrap();
        let files = std::fs::read_dir(&folder).unwrap();
        let files = files.map(|file| file.unwrap().path());
        for path in files.chain([folder]) {
            let file = std::fs::File::open(path).unwrap();
            file.set_modified((Utc::now() - age).into()).unwrap();
        }
    }
}
