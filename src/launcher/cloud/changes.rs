//! The programs that cancel a job, or stop or delete a cluster. Each runs under a supervisor in a folder of its own, so that it
//! goes on when the server ends, and the next server can tell how it ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CloudLauncher;
use super::launch_dir::{read_json, read_output};
use crate::error::{JobError, Result};
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::runner::{CliCall, Output};
use crate::process::start;
use crate::process::supervisor::{Step, SupervisorPlan};
use crate::settings::data_dir::{create_private, if_found};

/// The file that holds the [`Change`] until its result has been answered.
const CHANGE: &str = "change.json";
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The tries for the lock of the folder of all changes, and the pause between two: for 5 s.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
const REPORTED: Duration = Duration::from_hours(24);
/// The time for which the folder of a change that was answered stays, for others who wait for its result.
const ANSWERED: Duration = Duration::from_secs(3);

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

impl Change {
    pub(super) fn new(verb: &str, cloud: &str, cluster: &str, oumi_job_id: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            cloud: cloud.to_owned(),
            cluster: cluster.to_owned(),
            oumi_job_id: oumi_job_id.to_owned(),
            // Tells it from the same change that is requested again.
            requested_at: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        }
    }

    /// The name of its folder: names of clusters may hold any character.
    fn folder_name(&self) -> String {
        let subject = [&self.cloud, &self.cluster, &self.oumi_job_id].map(String::as_str);
        let digest = Sha256::digest(subject.join("\n"));
        let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        format!("{}-{}", self.verb, digits.collect::<String>())
    }

    pub(super) fn describe(&self) -> String {
        let (verb, cluster) = (&self.verb, &self.cluster);
        let (at, _) = self.requested_at.split_once('.').unwrap_or_default();
        format!("the {verb} of cluster {cluster} that was requested at {at}Z")
    }
}

impl CloudLauncher {
    pub(super) fn change_dir(&self, change: &Change) -> JobDir {
        JobDir::at(self.folder.changes().join(change.folder_name()))
    }

    /// Runs `call` and returns its output, with both its streams in `stdout`. Where the same change is under way already, waits for
    /// that one, and returns it. A stop or a down is listed until it is [answered](Self::answer_change).
    pub(super) async fn run_change(
        &self,
        mut change: Change,
        call: CliCall,
    ) -> Result<(Change, Output)> {
        let dir = self.change_dir(&change);
        let lock = create(&dir).await.map_err(|error| {
            let path = dir.path().display();
            call.error(format!("was not run: {path}: {error}"))
        })?;
        let lost = call.error("has ended, and its result is gone");
        if let Some(lock) = lock {
            let own = self.supervisor.display().to_string();
            let program = call.program.display().to_string();
            // This program asks SkyPilot's API server, or becomes the program of the call.
            let argv = [own.as_str(), "change", &program].into_iter();
            let argv = argv.chain(call.arguments.iter().map(String::as_str));
            let plan = SupervisorPlan {
                steps: vec![Step::new(&change.verb, argv)],
                working_dir: PathBuf::from("/"),
                time_limit_seconds: Some(call.timeout.as_secs()),
                ..SupervisorPlan::default()
            };
            let text = serde_json::to_string(&change).map_err(JobError::failed)?;
            let request = start::StartRequest {
                plan,
                envs: BTreeMap::from_iter(call.envs),
                files: vec![(dir.path().join(CHANGE), text)],
                epilogue: None,
            };
            start::start(&self.supervisor, &dir, lock, request).await?;
        } else if let Some(joined) = read_json(&dir, CHANGE)? {
            // Now: once it has ended, it may be requested again.
            change = joined;
        }
        while !has_ended(&dir)? {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        if !dir.exists()? {
            return Err(lost.with_hint("see list_jobs"));
        }
        // A query that began before does not show the change.
        self.cli.invalidate();
        Ok((change, output_of(&dir)?))
    }

    /// Lists the stops and downs that are under way, and with their output those that ended within a day without their result being
    /// answered. Removes the folders of other changes that have ended.
    pub(super) fn list_changes(&self) -> Vec<(Change, Option<Output>)> {
        let entries = if_found(fs::read_dir(self.folder.changes()));
        let read = |entry: fs::DirEntry| -> io::Result<_> {
            let dir = JobDir::at(entry.path());
            let changed_at = || entry.metadata()?.modified();
            let (at, has_ended) = (changed_at()?, has_ended(&dir)?);
            let change = read_json::<Change>(&dir, CHANGE)?;
            let change = change.filter(|change| ["stop", "down"].contains(&&*change.verb));
            let kept = if change.is_some() { REPORTED } else { ANSWERED };
            if has_ended && at.elapsed().is_ok_and(|age| age > kept) {
                // Where another holds it, the next list removes the folder.
                let _lock = try_lock_changes(&dir)?;
                // It may have begun again meanwhile.
                if changed_at()? == at {
                    dir.remove()?;
                }
                return Ok(None);
            }
            let output = has_ended.then(|| output_of(&dir)).transpose()?;
            Ok(change.map(|change| (change, output)))
        };
        let entries = entries.into_iter().flatten().flatten().flatten();
        entries.filter_map(|entry| read(entry).ok()?).collect()
    }

    /// Notes that the result of a change has been answered, unless it was requested again since.
    pub(super) fn answer_change(&self, change: &Change) {
        let dir = self.change_dir(change);
        let answer = || -> io::Result<()> {
            // Where another holds it, the next list notes it.
            let _lock = try_lock_changes(&dir)?;
            if read_json(&dir, CHANGE)?.as_ref() == Some(change) && has_ended(&dir)? {
                fs::remove_file(dir.path().join(CHANGE))?;
            }
            Ok(())
        };
        if let Err(error) = answer() {
            tracing::warn!(%error, "cannot note that a change was answered");
        }
    }
}

/// Locks the folder of all changes for the moment in which one in it is created, answered or removed, against other servers too.
async fn lock_changes(dir: &JobDir) -> io::Result<File> {
    let mut tries = 0..LOCK_TRIES;
    loop {
        match try_lock_changes(dir) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if tries.next().is_none() => {
                return Err(io::Error::other("another server holds its lock; try again"));
            }
            Err(_) => tokio::time::sleep(LOCK_PAUSE).await,
            locked => return locked,
        }
    }
}

fn try_lock_changes(dir: &JobDir) -> io::Result<File> {
    let changes = dir.path().parent().unwrap_or(dir.path());
    create_private(changes)?;
    let folder = File::open(changes)?;
    folder.try_lock()?;
    Ok(folder)
}

/// Creates the folder of a change, in place of one that has ended. `None` when the change is under way.
async fn create(dir: &JobDir) -> io::Result<Option<JobLock>> {
    let _lock = lock_changes(dir).await?;
    if dir.exists()? && !has_ended(dir)? {
        return Ok(None);
    }
    dir.remove()?;
    JobDir::create(dir.path()).map(|(_, lock)| Some(lock))
}

fn has_ended(dir: &JobDir) -> io::Result<bool> {
    // All processes are looked at only where there is no record. A daemon that the program started may hold the lock for ever.
    Ok(dir.exit_record()?.is_some() || !(dir.is_locked()? && start::is_supervised(dir)?))
}

fn output_of(dir: &JobDir) -> io::Result<Output> {
    let exit = dir.exit_record()?;
    let (code, error) = exit.map_or((None, None), |exit| (exit.code, exit.error));
    let mut stdout = read_output(dir)?;
    stdout.extend(error.iter().map(|error| format!("\n{error}\n")));
    Ok(Output {
        stdout,
        code,
        timed_out: error.is_some(),
        ..Output::default()
    })
}
