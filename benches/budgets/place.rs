//! A project to start jobs in, and the pipe by which they say that they have begun.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::client::Client;

/// A project with a data folder, its server, and the jobs that are to be ended.
pub struct Place {
    pub dir: TempDir,
    pub client: Client,
    pub jobs: Vec<String>,
}

impl Place {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let client = Client::ours(dir.path());
        let jobs = Vec::new();
        Self { dir, client, jobs }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends the calls that start jobs with this script.
    pub fn submit(&mut self, count: usize, script: &str) {
        let config = self.path("job.yaml");
        fs::write(&config, json!({ "run": script }).to_string()).unwrap();
        let arguments = json!({
            "config_path": config, "command": "train", "client_cwd": self.dir.path(),
            "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
        });
        self.client.send_calls("run_job", vec![arguments; count]);
    }

    /// Reads the answers to [`Self::submit`].
    pub fn submitted(&mut self, count: usize) {
        for answer in self.client.contents(count) {
            let job_id = answer["job_id"].as_str().unwrap();
            self.jobs.push(job_id.to_owned());
        }
    }

    pub fn launch(&mut self, count: usize, script: &str) {
        self.submit(count, script);
        self.submitted(count);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let cancel = |id| json!({ "job_id": id, "force": true });
        let calls = self.jobs.iter().map(cancel).collect();
        self.client.send_calls("cancel_job", calls);
        self.client.contents(self.jobs.len());
    }
}

/// A pipe that jobs write to when they begin.
pub struct Signal(PathBuf, File);

impl Signal {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("begun");
        Command::new("mkfifo").arg(&path).status().unwrap();
        let mut both_ends = OpenOptions::new();
        let file = both_ends.read(true).write(true).open(&path).unwrap();
        Self(path, file)
    }

    /// A script that says that it has begun and stays.
    pub fn script(&self) -> String {
        format!("printf x > {}; exec sleep 600", self.0.display())
    }

    pub fn wait_for(&self, count: usize) {
        (&self.1).read_exact(&mut vec![0; count]).unwrap();
    }
}
