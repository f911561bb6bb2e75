//! The programs that cancel a job, or stop or delete a cluster. Each runs under a supervisor in a folder of its own, so that it
//! goes on when the server ends, and the next server can tell how it ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::launch_dir::read_output;
use super::{CloudBackend, CloudLauncher};
use crate::error::{JobError, Result};
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::runner::{CliCall, Output};
use crate::process::start;
use crate::process::supervisor::{Step, SupervisorPlan};
use crate::settings::data_dir::create_private;
use crate::sync::lock;

const CHANGE: &str = "change.json";
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The age at which a change that failed is no longer reported.
const REPORTED: TimeDelta = TimeDelta::days(1);

/// A change of a job or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// `cancel`, `stop`, `down` or `autostop`.
    pub(crate) verb: String,
    pub(crate) cloud: String,
    pub(crate) cluster: String,
    /// The job to cancel. Empty for a change of a cluster.
    pub(crate) oumi_job_id: String,
    /// RFC 3339, in UTC.
    requested_at: String,
}

/// The program of a change. Both its streams are in `stdout`.
pub(super) type Run = BoxFuture<'static, Result<Arc<Output>>>;

/// The changes that calls of this server wait for, by their folders.
pub(super) type Awaited = Mutex<HashMap<PathBuf, WeakShared<Run>>>;

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

    fn is_recent(&self) -> bool {
        let requested_at = DateTime::parse_from_rfc3339(&self.requested_at);
        requested_at.is_ok_and(|at| Utc::now() - at.to_utc() < REPORTED)
    }

    /// Describes the change of a cluster.
    pub(super) fn describe(&self) -> String {
        let (verb, cluster, at) = (&self.verb, &self.cluster, &self.requested_at);
        format!("the {verb} of cluster {cluster} that was requested at {at}")
    }
}

impl<B: CloudBackend> CloudLauncher<B> {
    pub(super) fn change_dir(&self, change: &Change) -> JobDir {
        JobDir::at(self.folder.changes().join(change.folder_name()))
    }

    /// Runs `call` and waits for its end. Where the same change is under way already, waits for that one. The folder stays until
    /// it is [removed](Self::remove_change); until the run is dropped, which is when its result is answered, equal changes join it.
    pub(super) async fn run_change(
        &self,
        change: &Change,
        call: CliCall,
    ) -> Result<(Arc<Output>, Shared<Run>)> {
        let dir = self.change_dir(change);
        let path = dir.path().to_owned();
        let run = {
            let mut awaited = lock(&self.awaited);
            awaited.retain(|_, run| run.upgrade().is_some());
            let joined = awaited.get(&path).and_then(WeakShared::upgrade);
            let run =
                joined.unwrap_or_else(|| self.start_change(dir, change.clone(), call).shared());
            awaited.extend(run.downgrade().map(|run| (path, run)));
            run
        };
        let output = run.clone().await?;
        // A query that began before does not show the change.
        self.cli.invalidate();
        Ok((output, run))
    }

    fn start_change(&self, dir: JobDir, change: Change, call: CliCall) -> Run {
        let supervisor = self.supervisor.clone();
        Box::pin(async move {
            let lock = create(&dir).map_err(|error| {
                let path = dir.path().display();
                call.error(format!("was not run: {path}: {error}"))
            })?;
            let lost = call.error("has ended, and another server has its result");
            if let Some(lock) = lock {
                let mut argv = vec![call.program.display().to_string()];
                argv.extend(call.arguments);
                if call.over_http {
                    // This program asks SkyPilot's API server, or becomes the program of the call.
                    argv.splice(..0, [supervisor.display().to_string(), "change".to_owned()]);
                }
                let plan = SupervisorPlan {
                    steps: vec![Step {
                        name: change.verb.clone(),
                        argv,
                    }],
                    working_dir: PathBuf::from("/"),
                    cancellable: false,
                    cleanup: Vec::new(),
                    time_limit_seconds: Some(call.timeout.as_secs()),
                };
                let change = serde_json::to_string(&change).map_err(JobError::failed)?;
                let request = start::StartRequest {
                    plan,
                    envs: BTreeMap::from_iter(call.envs),
                    files: vec![(dir.path().join(CHANGE), change)],
                };
                start::start(&supervisor, &dir, lock, request).await?;
            }
            loop {
                match ended_output(&dir)? {
                    Some(_) if !dir.exists()? => return Err(lost.with_hint("see list_jobs")),
                    Some(output) => return Ok(Arc::new(output)),
                    None => tokio::time::sleep(POLL_INTERVAL).await,
                }
            }
        })
    }

    /// Lists the stops and downs that are under way, and with their output those that ended within a day without their result
    /// being answered.
    pub(super) fn list_changes(&self) -> Vec<(Change, Option<Output>)> {
        let entries = match fs::read_dir(self.folder.changes()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            entries => entries.inspect_err(|error| {
                tracing::warn!(%error, "cannot list the changes of clusters");
            }),
        };
        let awaited: HashSet<PathBuf> = {
            let awaited = lock(&self.awaited);
            let live = awaited.iter().filter(|(_, run)| run.upgrade().is_some());
            live.map(|(path, _)| path.clone()).collect()
        };
        let read = |entry: fs::DirEntry| {
            let dir = JobDir::at(entry.path());
            let change: Change = dir.read_json(CHANGE).ok()??;
            if !matches!(change.verb.as_str(), "stop" | "down") {
                return None;
            }
            let output = ended_output(&dir)
                .ok()?
                .filter(|_| !awaited.contains(dir.path()));
            (output.is_none() || change.is_recent()).then_some((change, output))
        };
        let entries = entries.into_iter().flatten().flatten();
        entries.filter_map(read).collect()
    }

    /// Removes the folder of a change that had ended, unless an equal one has begun there since.
    pub(super) fn remove_ended_change(&self, change: &Change) {
        let dir = self.change_dir(change);
        let awaited = lock(&self.awaited);
        let run = awaited.get(dir.path()).and_then(WeakShared::upgrade);
        let is_same =
            matches!(dir.read_json::<Change>(CHANGE), Ok(Some(there)) if there == *change);
        if run.is_none() && is_same {
            self.remove_change(change);
        }
    }

    /// Removes the folder of a change whose result has been answered.
    pub(super) fn remove_change(&self, change: &Change) {
        if let Err(error) = self.change_dir(change).remove() {
            tracing::warn!(%error, "cannot remove the folder of a change that has ended");
        }
    }
}

/// Creates the folder of a change, in place of one that has ended. `None` when the change is under way.
fn create(dir: &JobDir) -> io::Result<Option<JobLock>> {
    if let Some(root) = dir.path().parent() {
        create_private(root)?;
    }
    if dir.exists()? {
        if ended_output(dir)?.is_none() {
            return Ok(None);
        }
        dir.remove()?;
    }
    JobDir::create(dir.path()).map(|(_, lock)| Some(lock))
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
