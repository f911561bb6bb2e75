use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::launcher::{JobLog, LaunchPlan, LaunchSpec};
use crate::parse::sky::{Cluster, QueuedJob};
use crate::process::job_dir::{ExitRecord, JobDir};

/// A cloud whose one cluster `dev` has one job, 7.
#[derive(Debug, Default)]
struct FakeCloud {
    is_unreachable: AtomicBool,
    cancelled: Mutex<Vec<String>>,
}

#[async_trait]
impl CloudBackend for FakeCloud {
    const CLOUDS: &'static [&'static str] = &["fake"];
    const IDS_RESTART: bool = true;

    fn new(_cli: Cli) -> Self {
        Self::default()
    }

    fn find_program() -> Result<PathBuf, JobError> {
        Ok(PathBuf::from("fake"))
    }

    fn validate_cluster(_cloud: &str, _cluster: &str) -> Result<(), JobError> {
        Ok(())
    }

    fn validate_job_id(_id: &str) -> Result<(), JobError> {
        Ok(())
    }

    async fn plan(&self, _: &CloudLaunches, _: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        Err(JobError::failed("not planned here"))
    }

    fn list_scopes(jobs: &[&JobIdentity]) -> Vec<QueueScope> {
        scopes_by_cloud(jobs)
    }

    async fn queue(&self, _: &QueueScope, _: Option<Instant>) -> Result<Queue, JobError> {
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Err(JobError::unavailable("no answer"));
        }
        let is_cancelled = !self.cancelled.lock().unwrap().is_empty();
        let job = QueuedJob {
            job_id: "7".to_owned(),
            job_name: "train".to_owned(),
            submitted_at: Some(1_795_547_296.188_590_3),
            status: if is_cancelled { "CANCELLED" } else { "RUNNING" }.to_owned(),
            ..QueuedJob::default()
        };
        let mut queue = Queue::default();
        queue.jobs.insert("dev".to_owned(), vec![job]);
        Ok(queue)
    }

    async fn clusters(&self, _: Option<Instant>) -> Result<Option<ClusterList>, JobError> {
        let cluster = Cluster {
            name: "dev".to_owned(),
            cluster_hash: Some("first".to_owned()),
            status: "UP".to_owned(),
            ..Cluster::default()
        };
        Ok(Some(ClusterList {
            clusters: vec![cluster],
            left_out: Vec::new(),
        }))
    }

    async fn logs(&self, _: &JobIdentity) -> Result<JobLog, JobError> {
        Err(JobError::unavailable("no log"))
    }

    fn cancel_call(&self, identity: &JobIdentity) -> Result<CliCall, JobError> {
        let mut cancelled = self.cancelled.lock().unwrap();
        cancelled.push(identity.oumi_job_id.clone());
        Ok(CliCall::new(
            Path::new("fake"),
            &["cancel"],
            Duration::from_secs(5),
        ))
    }

    fn cancel_result(&self, output: &Output) -> CancelRun {
        CancelRun {
            accepted: output.code == Some(0),
            reason: String::new(),
        }
    }

    fn teardown_call(&self, _: &str, _: &str, _: ClusterAction) -> Result<CliCall, JobError> {
        Ok(CliCall::new(
            Path::new("fake"),
            &["down"],
            Duration::from_secs(5),
        ))
    }

    async fn teardown_result(
        &self,
        _: &str,
        _: ClusterAction,
        output: &Output,
    ) -> Result<String, JobError> {
        match output.code {
            Some(0) => Ok("it is gone".to_owned()),
            _ => Err(JobError::failed(output.stdout.trim())),
        }
    }
}

/// Runs nothing: its program has ended at once, with 0.
const SUPERVISOR: &str = r#"#!/bin/sh
echo '{"code":0,"signal":null,"cancelled":false,"step":"x","error":null,"ended_at":""}' >"$2/exit.json"
echo started
"#;

fn launcher() -> (TempDir, CloudLauncher<FakeCloud>) {
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path());
    folder.create().unwrap();
    let supervisor = home.path().join("supervisor");
    fs::write(&supervisor, SUPERVISOR).unwrap();
    fs::set_permissions(&supervisor, fs::Permissions::from_mode(0o700)).unwrap();
    let launcher = CloudLauncher::with_backend(folder, supervisor, Cli::default());
    (home, launcher)
}

fn identity(oumi_job_id: &str) -> JobIdentity {
    JobIdentity {
        job_id: "a".to_owned(),
        cloud: "fake".to_owned(),
        cluster: "dev".to_owned(),
        oumi_job_id: oumi_job_id.to_owned(),
    }
}

/// The folder of a launch of job `a` that printed this and runs.
fn running_launch(home: &TempDir, output: &str) -> (JobDir, JobLock) {
    let (dir, lock) = JobDir::create(home.path().join("jobs/a")).unwrap();
    let start = r#"{"name": "train", "cluster": "dev", "before": null}"#;
    fs::write(dir.path().join("launch-start.json"), start).unwrap();
    fs::write(dir.log_path(), output).unwrap();
    (dir, lock)
}

/// The same of one that exited with this code.
fn ended_launch(home: &TempDir, output: &str, code: i32) -> JobDir {
    let (dir, _lock) = running_launch(home, output);
    let record = ExitRecord {
        code: Some(code),
        ..ExitRecord::now("launch")
    };
    dir.write_exit_record(&record).unwrap();
    dir
}

#[tokio::test]
async fn cancel_uses_the_printed_id() {
    let (home, launcher) = launcher();
    ended_launch(&home, "Job 7 queued on cluster dev.\n", 0);
    let outcome = launcher.cancel(&identity(""), false).await;
    assert!(matches!(outcome, Ok(CancelOutcome::Cancelled { .. })));
    assert_eq!(*launcher.backend.cancelled.lock().unwrap(), ["7"]);
}

#[tokio::test]
async fn accepted_cancel_without_recheck_is_stopping() {
    let (home, launcher) = launcher();
    ended_launch(&home, "Job 7 queued on cluster dev.\n", 0);
    launcher.status(&identity("7")).await.unwrap();
    launcher
        .backend
        .is_unreachable
        .store(true, Ordering::Relaxed);
    let outcome = launcher.cancel(&identity("7"), false).await.unwrap();
    assert!(matches!(outcome, CancelOutcome::Stopping { .. }));
}

#[tokio::test]
async fn facts_of_an_ended_launch_are_parsed_once() {
    let (home, launcher) = launcher();
    let output = "Found an existing cluster: dev.\nJob 7 queued on cluster dev.\n";
    let dir = ended_launch(&home, output, 0);
    launcher.launches.facts(&identity("7")).await.unwrap();
    let facts = launcher.launches.facts(&identity("7")).await.unwrap();
    assert_eq!(facts.start.name, "train");
    assert!(facts.is_onto_existing);
    assert_eq!(facts.oumi_job_id.as_deref(), Some("7"));
    assert!(dir.path().join("launch.json").exists());
    fs::write(dir.log_path(), "").unwrap();
    assert_eq!(launcher.launches.facts(&identity("7")).await, Some(facts));
}

#[tokio::test]
async fn facts_of_a_running_launch_are_not_kept() {
    let (home, launcher) = launcher();
    let (dir, _lock) = running_launch(&home, "Launching\n");
    let facts = launcher.launches.facts(&identity("")).await.unwrap();
    assert_eq!(facts.oumi_job_id, None);
    assert!(!dir.path().join("launch.json").exists());
}

#[tokio::test]
async fn reason_of_a_failed_launch_is_in_its_output_alone() {
    let (home, launcher) = launcher();
    let dir = ended_launch(&home, "ValueError: no such cloud\n", 1);
    for _ in 0..2 {
        let result = launcher.launches.result(&identity("")).await.unwrap();
        assert!(
            matches!(&result, Some(LaunchResult::Failed(reason)) if reason.contains("no such cloud")),
            "{result:?}"
        );
    }
    let facts = fs::read_to_string(dir.path().join("launch.json")).unwrap();
    assert!(!facts.contains("no such cloud"), "{facts}");
}
