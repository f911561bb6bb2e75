//! The programs that cancel a job, or stop or delete a cluster. Each runs under a supervisor in a folder of its own, so that it
//! goes on when the server ends, and the next server can tell how it ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::launch_dir::read_output;
use crate::error::JobError;
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::runner::{Cli, CliCall, Output};
use crate::process::start;
use crate::process::supervisor::{Step, SupervisorPlan};

const CHANGE: &str = "change.json";
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The age at which a change that failed is no longer reported.
const REPORTED: TimeDelta = TimeDelta::days(1);

/// A change of a job or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// `cancel`, `stop`, `down` or `autostop`.
    pub(super) verb: String,
    pub(super) cloud: String,
    pub(super) cluster: String,
    /// The job to cancel. Empty for a change of a cluster.
    pub(super) oumi_job_id: String,
    /// RFC 3339, in UTC.
    pub(super) requested_at: String,
}

/// A change that is under way or has ended.
#[derive(Debug)]
pub(super) struct ChangeRun {
    pub(super) change: Change,
    /// `None` while the program runs. Both streams are in `stdout`.
    pub(super) output: Option<Output>,
    pub(super) dir: JobDir,
}

/// Runs changes.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) root: PathBuf,
    /// The program to run as `supervise`: this one.
    pub(super) supervisor: PathBuf,
    pub(super) cli: Cli,
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

impl ChangeRun {
    /// Reads the state of a folder. `None` for one that is no change's.
    fn read(dir: JobDir) -> io::Result<Option<Self>> {
        let change = dir.read_json(CHANGE)?;
        let output = ended_output(&dir)?;
        Ok(change.map(|change| Self {
            change,
            output,
            dir,
        }))
    }

    /// Tells if the change is under way, or ended within a day.
    fn is_recent(&self) -> bool {
        let requested_at = DateTime::parse_from_rfc3339(&self.change.requested_at);
        self.output.is_none() || requested_at.is_ok_and(|at| Utc::now() - at.to_utc() < REPORTED)
    }
}

impl Changes {
    /// Runs `call` and waits for its end. Where the same change is under way already, waits for that one. Returns its folder too,
    /// to [`remove`] once its result is answered.
    pub(super) async fn run(
        &self,
        change: Change,
        call: CliCall,
    ) -> Result<(Output, JobDir), JobError> {
        let dir = JobDir::at(self.root.join(change.folder_name()));
        let lock = create(&dir).map_err(|error| {
            let path = dir.path().display();
            call.error(format!("was not run: {path}: {error}"))
        })?;
        if let Some(lock) = lock {
            let request = self.start_request(&dir, &change, call)?;
            start::start(&self.supervisor, &dir, lock, request).await?;
        }
        loop {
            if let Some(output) = ended_output(&dir)? {
                // A query that began before does not show the change.
                self.cli.invalidate();
                return Ok((output, dir));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Lists the changes that are under way, and those that ended within a day without their result being answered.
    pub(super) fn list(&self) -> Vec<ChangeRun> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            entries => entries.inspect_err(|error| {
                tracing::warn!(%error, "cannot list the changes of clusters");
            }),
        };
        let entries = entries.into_iter().flatten().flatten();
        let runs = entries.filter_map(|entry| ChangeRun::read(JobDir::at(entry.path())).ok()?);
        runs.filter(ChangeRun::is_recent).collect()
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

/// Removes the folder of a change whose result has been answered.
pub(super) fn remove(dir: &JobDir) {
    if let Err(error) = dir.remove() {
        tracing::warn!(%error, "cannot remove the folder of a change that has ended");
    }
}

/// Creates the folder of a change, in place of one that has ended. `None` when the change is under way.
fn create(dir: &JobDir) -> io::Result<Option<JobLock>> {
    if let Some(root) = dir.path().parent() {
        JobDir::at(root).restore()?;
    }
    let created = match JobDir::create(dir.path()) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if ended_output(dir)?.is_none() {
                return Ok(None);
            }
            dir.remove()?;
            JobDir::create(dir.path())
        }
        created => created,
    };
    created.map(|(_, lock)| Some(lock))
}

/// Reads the output of a program that has ended; `None` while it runs.
fn ended_output(dir: &JobDir) -> io::Result<Option<Output>> {
    // In this order: a program that ends in between has left its record. A daemon that it started may hold the lock for ever.
    let is_running = dir.is_locked()? && start::is_supervised(dir)?;
    let exit = dir.exit_record()?;
    if exit.is_none() && is_running {
        return Ok(None);
    }
    let (code, error) = exit.map_or((None, None), |exit| (exit.code, exit.error));
    let mut stdout = read_output(dir)?;
    stdout.extend(error.iter().map(|error| format!("\n{error}\n")));
    Ok(Some(Output {
        stdout,
        code,
        timed_out: error.is_some(),
        ..Output::default()
    }))
}
