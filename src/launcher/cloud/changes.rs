//! The programs that cancel a job, or stop or delete a cluster. Each runs under a supervisor in a folder of its own, so that it
//! goes on when the server ends, and the next server can tell how it ended.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::CloudLauncher;
use super::launch_dir::{read_json, read_output};
use crate::error::Result;
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::plan::{Step, SupervisorPlan};
use crate::process::runner::{CliCall, Output};
use crate::process::start;
use crate::settings::data_dir::{create_private, if_found, write_atomic};
use crate::sync::lock;

/// The file that holds the [`Change`] until its result has been answered.
const CHANGE: &str = "change.json";
const POLL_INTERVAL: Duration = Duration::from_millis(200);
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
            requested_at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        }
    }

    /// What is changed and how. Two changes with the same one are one, whenever each was requested.
    fn subject(&self) -> [&String; 4] {
        [&self.verb, &self.cloud, &self.cluster, &self.oumi_job_id]
    }

    pub(super) fn describe(&self) -> String {
        let (verb, cluster, at) = (&self.verb, &self.cluster, &self.requested_at);
        format!("the {verb} of cluster {cluster} that was requested at {at}")
    }
}

impl CloudLauncher {
    /// Runs `call` and returns its output, with both its streams in `stdout`, and the folder of the change. Where the same change is
    /// under way already, waits for that one. A stop or a down is listed until it is [answered](mark_answered).
    pub(super) async fn run_change(
        &self,
        change: &Change,
        call: CliCall,
    ) -> Result<(JobDir, Output)> {
        let created = self.join_or_create(change);
        let (dir, lock) = created.map_err(|error| call.error(format!("was not run: {error}")))?;
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
            let request = start::StartRequest {
                plan,
                envs: BTreeMap::from_iter(call.envs),
                ..start::StartRequest::default()
            };
            start::start(&self.supervisor, &dir, lock, request).await?;
        }
        while !has_ended(&dir)? {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        if !dir.exists()? {
            return Err(lost.with_hint("see list_jobs"));
        }
        // A query that began before does not show the change.
        self.cli.invalidate();
        let output = output_of(&dir)?;
        Ok((dir, output))
    }

    /// Returns the folder of the same change where that is under way, and else creates one, whose lock it returns too.
    pub(super) fn join_or_create(&self, change: &Change) -> io::Result<(JobDir, Option<JobLock>)> {
        // Two servers may both begin it: the second one finds it done.
        let _changing = lock(&self.changing);
        for (dir, other) in self.changes() {
            if other.is_some_and(|other| other.subject() == change.subject()) {
                if !has_ended(&dir)? {
                    return Ok((dir, None));
                }
                // Its folder stays for those who still wait for its result.
                mark_answered(&dir);
            }
        }
        let changes = self.folder.changes();
        create_private(&changes)?;
        // Not the name of the cluster, which may hold any character.
        let name = format!("{}-{}", change.verb, Uuid::new_v4().simple());
        let (dir, lock) = JobDir::create(changes.join(name))?;
        write_atomic(&dir.path().join(CHANGE), &serde_json::to_vec(change)?)?;
        Ok((dir, Some(lock)))
    }

    /// Lists the folders of all changes, each with its change unless that was answered.
    fn changes(&self) -> impl Iterator<Item = (JobDir, Option<Change>)> {
        let entries = if_found(fs::read_dir(self.folder.changes()));
        let entries = entries.into_iter().flatten().flatten().flatten();
        let dirs = entries.map(|entry| JobDir::at(entry.path()));
        dirs.filter_map(|dir| Some((dir.clone(), read_json(&dir, CHANGE).ok()?)))
    }

    /// Lists the stops and downs that are under way, and with their output those that ended within a day without their result being
    /// answered. Removes the folders of other changes that have ended.
    pub(super) fn list_changes(&self) -> Vec<(JobDir, Change, Option<Output>)> {
        let read = |dir: JobDir, change: Option<Change>| -> io::Result<_> {
            let (at, has_ended) = (dir.path().metadata()?.modified()?, has_ended(&dir)?);
            let change = change.filter(|change| ["stop", "down"].contains(&&*change.verb));
            let kept = if change.is_some() { REPORTED } else { ANSWERED };
            if has_ended && at.elapsed().is_ok_and(|age| age > kept) {
                dir.remove()?;
                return Ok(None);
            }
            let output = has_ended.then(|| output_of(&dir)).transpose()?;
            Ok(change.map(|change| (dir, change, output)))
        };
        let changes = self.changes();
        changes
            .filter_map(|(dir, change)| read(dir, change).ok()?)
            .collect()
    }
}

/// Notes that the result of a change has been answered.
pub(super) fn mark_answered(dir: &JobDir) {
    if let Err(error) = if_found(fs::remove_file(dir.path().join(CHANGE))) {
        tracing::warn!(%error, "cannot note that a change was answered");
    }
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
