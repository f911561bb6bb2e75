//! The programs that cancel a job, or stop or delete a cluster. Each runs under a supervisor in a folder of its own, so that it
//! goes on when the server ends, and the next server can tell how it ended.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::JobError;
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::runner::{Cli, CliCall, Output};
use crate::process::supervisor::{Step, SupervisorPlan};
use crate::process::{blocking, start};
use crate::settings::data_dir::{DataDir, read_bounded};
use crate::text::read_tail;

const CHANGE: &str = "change.json";
/// In bytes.
const MAX_CHANGE: u64 = 64 * 1024;
/// The part of the program's output that is parsed, in bytes from its end.
const PARSED_TAIL: u64 = 256 * 1024;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The age at which a change that failed is no longer reported.
const REPORTED: TimeDelta = TimeDelta::days(1);

/// A change of a job or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// `cancel`, `stop` or `down`.
    pub(super) verb: String,
    pub(super) cloud: String,
    pub(super) cluster: String,
    /// The job to cancel. Empty for a change of a cluster.
    pub(super) oumi_job_id: String,
    /// RFC 3339, in UTC.
    pub(super) requested_at: String,
}

/// The folder of a change.
#[derive(Debug)]
pub(super) struct ChangeDir(JobDir);

/// A change that is under way or has ended.
#[derive(Debug)]
pub(super) struct ChangeRun {
    pub(super) change: Change,
    /// `None` while the program runs. Both streams are in `stdout`.
    pub(super) output: Option<Output>,
    pub(super) dir: ChangeDir,
}

/// Runs changes.
#[derive(Debug)]
pub(super) struct Changes {
    root: PathBuf,
    /// The program to run as `supervise`: this one.
    supervisor: PathBuf,
    cli: Cli,
}

impl Change {
    pub(super) fn new(verb: &str, cloud: &str, cluster: &str, oumi_job_id: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            cloud: cloud.to_owned(),
            cluster: cluster.to_owned(),
            oumi_job_id: oumi_job_id.to_owned(),
            requested_at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        }
    }

    /// The name of its folder: names of clusters may hold any character.
    fn folder_name(&self) -> String {
        let subject = [&self.cloud, &self.cluster, &self.oumi_job_id].map(String::as_str);
        let digest = Sha256::digest(subject.join("\n"));
        let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        format!("{}-{}", self.verb, digits.collect::<String>())
    }
}

impl ChangeDir {
    /// Removes the folder of a change whose result has been answered.
    pub(super) async fn remove(self) {
        let removed = blocking(move || self.0.remove()).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove the folder of a change that has ended");
        }
    }
}

impl ChangeRun {
    /// Reads the state of the folder at `path`.
    fn read(path: PathBuf) -> io::Result<Self> {
        let dir = JobDir::at(path);
        let change = read_bounded(&dir.path().join(CHANGE), MAX_CHANGE)?;
        Ok(Self {
            change: serde_json::from_slice(&change)?,
            output: ended_output(&dir)?,
            dir: ChangeDir(dir),
        })
    }
}

impl Changes {
    /// Changes whose folders live in `folder`, under `supervisor`.
    pub(super) fn new(folder: &DataDir, supervisor: PathBuf, cli: Cli) -> Self {
        Self {
            root: folder.changes(),
            supervisor,
            cli,
        }
    }

    /// Runs `call` and waits for its end. Where the same change is under way already, waits for that one.
    pub(super) async fn run(
        &self,
        change: Change,
        call: CliCall,
    ) -> Result<(Output, ChangeDir), JobError> {
        let path = self.root.join(change.folder_name());
        let at = path.clone();
        let lock = blocking(move || create_dir(&at)).await;
        let lock =
            lock.map_err(|error| call.error(format!("was not run: {}: {error}", path.display())))?;
        let dir = JobDir::at(path);
        if let Some(lock) = lock {
            let request = self.start_request(&dir, &change, call)?;
            start::start(&self.supervisor, &dir, lock, request).await?;
        }
        loop {
            let at = dir.clone();
            if let Some(output) = blocking(move || ended_output(&at)).await? {
                // A query that began before does not show the change.
                self.cli.invalidate();
                return Ok((output, ChangeDir(dir)));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Lists the changes that are under way, and those that ended within a day without their result being answered.
    pub(super) async fn list(&self) -> Vec<ChangeRun> {
        let root = self.root.clone();
        let runs = blocking(move || {
            let entries = match fs::read_dir(root) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let runs = entries.filter_map(|entry| ChangeRun::read(entry.ok()?.path()).ok());
            Ok::<_, io::Error>(runs.filter(is_recent).collect())
        });
        runs.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the changes of clusters");
            Vec::new()
        })
    }

    fn start_request(
        &self,
        dir: &JobDir,
        change: &Change,
        call: CliCall,
    ) -> Result<start::StartRequest, JobError> {
        let mut argv = vec![call.program.display().to_string()];
        argv.extend(call.arguments);
        if call.over_http {
            // This program asks SkyPilot's API server, or becomes the program of the call.
            let own = self.supervisor.display().to_string();
            argv.splice(..0, [own, "change".to_owned()]);
        }
        let change_json = serde_json::to_string(change).map_err(JobError::failed)?;
        Ok(start::StartRequest {
            plan: SupervisorPlan {
                steps: vec![Step {
                    name: change.verb.clone(),
                    argv,
                }],
                working_dir: PathBuf::from("/"),
                cancellable: false,
                cleanup: Vec::new(),
                time_limit_seconds: Some(call.timeout.as_secs()),
            },
            envs: BTreeMap::from_iter(call.envs),
            files: vec![(dir.path().join(CHANGE), change_json)],
        })
    }
}

fn is_recent(run: &ChangeRun) -> bool {
    let requested_at = DateTime::parse_from_rfc3339(&run.change.requested_at);
    run.output.is_none() || requested_at.is_ok_and(|at| Utc::now() - at.to_utc() < REPORTED)
}

/// Creates the folder of a change, in place of one that has ended. `None` when the change is under way.
fn create_dir(path: &Path) -> io::Result<Option<JobLock>> {
    if let Some(root) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    }
    match JobDir::create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let dir = JobDir::at(path);
            if ended_output(&dir)?.is_none() {
                return Ok(None);
            }
            dir.remove()?;
            JobDir::create(path).map(|(_, lock)| Some(lock))
        }
        created => created.map(|(_, lock)| Some(lock)),
    }
}

/// Reads the output of a program that has ended; `None` while it runs.
fn ended_output(dir: &JobDir) -> io::Result<Option<Output>> {
    // In this order: a program that ends in between has left its record. A daemon that it started may hold the lock for ever.
    let is_locked = dir.is_locked()?;
    let is_supervised = start::is_supervised(dir)?;
    let exit = dir.exit_record()?;
    if exit.is_none() && is_locked && is_supervised {
        return Ok(None);
    }
    let printed = match read_tail(&dir.log_path(), PARSED_TAIL) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        printed => printed?,
    };
    let mut stdout = String::from_utf8_lossy(&printed).into_owned();
    let (code, error) = exit.map_or((None, None), |exit| (exit.code, exit.error));
    stdout.extend(error.iter().map(|error| format!("\n{error}\n")));
    Ok(Some(Output {
        stdout,
        code,
        timed_out: error.is_some(),
        ..Output::default()
    }))
}
