//! A folder of data with its registry, and records to put there.

use std::fs;

use crate::job_identity::JobIdentity;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;
use serde_json::{Map, Value};

/// A file as the Python server writes it.
pub const PYTHON_FILE: &str = r#"[
  {
    "job_id": "train_20260101_120000_abc123",
    "command": "train",
    "config_path": "/home/me/caf\u00e9/train.yaml",
    "cloud": "gcp",
    "cluster_name": "sky-1",
    "oumi_job_id": "3",
    "model_name": "org/model",
    "submit_time": "2026-01-01T12:00:00.123456+00:00",
    "output_dir": "./output"
  },
  {
    "job_id": "evaluate_20260101_130000_def456",
    "command": "evaluate",
    "config_path": "/home/me/eval.yaml",
    "cloud": "local",
    "cluster_name": "",
    "oumi_job_id": "",
    "model_name": "unknown",
    "submit_time": "2026-01-01T13:00:00Z",
    "output_dir": "",
    "status": "running"
  }
]"#;

/// A registry in a folder of its own, which is removed at the end.
pub struct Home {
    _home: tempfile::TempDir,
    pub folder: DataDir,
    pub registry: JobRegistry,
}

/// An empty one.
pub fn home() -> Home {
    // In memory where that can be had: thousands of files are repaired, and every write is synced.
    let home = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let folder = DataDir::at(home.path().join("data"));
    folder.create().unwrap();
    Home {
        registry: JobRegistry::new(folder.clone()),
        folder,
        _home: home,
    }
}

impl Home {
    pub fn write(&self, bytes: &[u8]) {
        fs::write(self.folder.registry(), bytes).unwrap();
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.folder.registry()).unwrap()
    }

    pub fn json(&self) -> Vec<Map<String, Value>> {
        serde_json::from_slice(&self.bytes()).unwrap()
    }

    pub async fn ids(&self) -> Vec<String> {
        let records = self.registry.records().await.unwrap().to_vec();
        records.into_iter().map(|record| record.job_id).collect()
    }
}

/// A job in the cloud, of the first of January 2026.
pub fn record(job_id: &str) -> JobRecord {
    JobRecord {
        job_id: job_id.to_owned(),
        command: "train".to_owned(),
        cloud: "gcp".to_owned(),
        submit_time: "2026-01-01T12:00:00Z".to_owned(),
        ..JobRecord::default()
    }
}

/// The identity of a job on cluster `c`, as its launcher gives it.
pub fn launched(job_id: &str, oumi_job_id: &str) -> JobIdentity {
    JobIdentity {
        job_id: job_id.to_owned(),
        cloud: "gcp".to_owned(),
        cluster: "c".to_owned(),
        oumi_job_id: oumi_job_id.to_owned(),
    }
}

/// Adds [`record`] of this id.
pub async fn insert(registry: &JobRegistry, job_id: &str) {
    registry.insert(record(job_id), |_| Ok(())).await.unwrap();
}
