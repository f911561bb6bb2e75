//! The folder of a launch: its result, and the facts by which its job is known on its cluster.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::claims::JobMark;
use crate::launcher::JobIdentity;
use crate::parse;
use crate::parse::costs::{ChosenMachines, chosen_machines};
use crate::parse::oumi::launch_output;
use crate::parse::sky::{Cluster, QueuedJob};
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::start::is_supervised;
use crate::settings::data_dir::{read_bounded, write_atomic};
use crate::text::read_tail;

/// The file that holds the [`LaunchStart`]. It is written when the launch begins.
pub(super) const START: &str = "launch-start.json";
/// The file that holds the [`LaunchFacts`] of a launch that has ended.
const FACTS: &str = "launch.json";
/// In bytes. A job's name is at most as long as a config.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// The part of a launch's output that is parsed, in bytes from its end.
const PARSED_TAIL: u64 = 256 * 1024;

/// The result of a launch that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LaunchResult {
    /// The job is on its cluster. The identity has the launcher's id.
    Succeeded(JobIdentity),
    /// The launcher's reason.
    Failed(String),
    /// The launcher was killed, or exited with 0, and printed no id; or it failed, and SkyPilot may have the job all the same.
    Interrupted {
        /// The job may still come onto its cluster.
        may_still_complete: bool,
    },
    /// Cancelled before it began.
    Cancelled,
}

/// What is known of a launch when it begins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct LaunchStart {
    /// The job's name on its cluster.
    pub(super) name: String,
    pub(super) cluster: String,
    /// The cluster as it was before; `None` where that could not be found out.
    pub(super) before: Option<ClusterBefore>,
}

/// A cluster before a launch onto it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct ClusterBefore {
    /// `None` where there was no such cluster, or it has none.
    pub(super) cluster_hash: Option<String>,
    /// The highest id of a job on it; 0 without one.
    pub(super) last_job_id: u64,
}

/// The facts by which the job of a launch is known on its cluster. Times are in seconds since 1970, by this machine's clock.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaunchFacts {
    pub(super) start: LaunchStart,
    /// `None` when the launch never began.
    pub(super) started_at: Option<f64>,
    /// `None` when the launcher printed nothing.
    pub(super) last_output_at: Option<f64>,
    /// Printed by the launcher, or found on the cluster.
    pub(super) oumi_job_id: Option<String>,
    /// SkyPilot may have the job although the launch failed.
    #[serde(default)]
    pub(super) is_submitted: bool,
    /// SkyPilot's name of the launch.
    pub(super) run: Option<String>,
    /// The cluster existed before the launch.
    pub(super) is_onto_existing: bool,
    pub(super) mark: Option<JobMark>,
    /// The machines of a new cluster.
    pub(super) chosen: Option<ChosenMachines>,
    /// The autostop is still to be set.
    #[serde(skip)]
    pub(super) is_autostop_pending: bool,
    /// The server's own reason why an interrupted launch counts as failed.
    pub(super) failure: Option<String>,
}

impl LaunchFacts {
    /// Tells if a cluster of the name of the job's is certainly its own.
    pub(super) fn is_of_cluster(&self, cluster: &Cluster) -> bool {
        let mark = self.mark.as_ref();
        let is_own = |mark: &JobMark| mark.is_of_cluster(cluster.cluster_hash.as_deref());
        cluster.name == self.start.cluster && mark.and_then(is_own) == Some(true)
    }
}

/// The id of a job as a number; SkyPilot counts them from 1.
pub(super) fn number(job: &QueuedJob) -> u64 {
    job.job_id.parse().unwrap_or(0)
}

/// The state of a launch's folder.
pub(super) struct LaunchState {
    pub(super) exit: Option<ExitRecord>,
    pub(super) has_ended: bool,
    pub(super) facts: LaunchFacts,
    pub(super) failure: Option<String>,
    /// The last line of the output, while the launch runs.
    pub(super) last_line: Option<String>,
}

impl LaunchState {
    #[cfg(test)]
    pub(super) fn ended(facts: LaunchFacts) -> Self {
        Self {
            exit: None,
            has_ended: true,
            facts,
            failure: None,
            last_line: None,
        }
    }

    /// Returns the result of the launch, `None` while it runs.
    pub(super) fn result(
        &self,
        identity: &JobIdentity,
        completion_window: Option<Duration>,
    ) -> Option<LaunchResult> {
        if !self.has_ended {
            return None;
        }
        if self.exit.as_ref().is_some_and(|record| record.cancelled) {
            return Some(LaunchResult::Cancelled);
        }
        if let Some(oumi_job_id) = self.facts.oumi_job_id.clone() {
            return Some(LaunchResult::Succeeded(JobIdentity {
                oumi_job_id,
                ..identity.clone()
            }));
        }
        let may_still_complete = || {
            let (last_output_at, window) = self.facts.last_output_at.zip(completion_window)?;
            Some(last_output_at + window.as_secs_f64() > seconds(SystemTime::now()))
        };
        Some(match &self.failure {
            // A job that SkyPilot has is looked for before its launch counts as failed.
            Some(reason) if !self.facts.is_submitted || completion_window.is_none() => {
                LaunchResult::Failed(reason.clone())
            }
            failure => LaunchResult::Interrupted {
                may_still_complete: failure.is_none() && may_still_complete().unwrap_or(false),
            },
        })
    }
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Inspects a launch onto `cluster`.
pub(super) fn inspect(dir: &JobDir, cluster: &str) -> io::Result<LaunchState> {
    let mut state = read_state(dir, cluster)?;
    state.facts.is_autostop_pending = dir.epilogue()?.is_some();
    Ok(state)
}

/// Reads the facts of a launch onto `cluster` that has ended; else parses its output, and writes them once it has.
fn read_state(dir: &JobDir, cluster: &str) -> io::Result<LaunchState> {
    if let Some(facts) = read_json::<LaunchFacts>(&dir.path().join(FACTS))? {
        let exit = dir.exit_record()?;
        let failure = match (&facts.oumi_job_id, &facts.failure) {
            (None, None) => failure_reason(exit.as_ref(), || read_output(dir))?,
            (_, recorded) => recorded.clone(),
        };
        return Ok(LaunchState {
            exit,
            has_ended: true,
            facts,
            failure,
            last_line: None,
        });
    }
    // In this order: a launch that ends in between has written its record.
    let is_locked = dir.is_locked()?;
    let exit = dir.exit_record()?;
    let (facts, output) = parse_output(dir, cluster, exit.as_ref())?;
    // A daemon of the launcher may hold the lock for ever, so once the id is printed the supervisor counts.
    let has_ended =
        exit.is_some() || !is_locked || (facts.oumi_job_id.is_some() && !is_supervised(dir)?);
    if has_ended
        && facts.started_at.is_some()
        && let Err(error) = write_facts(dir, &facts)
    {
        tracing::debug!(%error, "cannot write {FACTS}: the output is parsed again next time");
    }
    Ok(LaunchState {
        has_ended,
        failure: failure_reason(exit.as_ref(), || Ok(output.clone()))?,
        last_line: parse::last_line(&output),
        exit,
        facts,
    })
}

/// Inspects all launches of the folder `jobs` but that of `job_id`. Folders that cannot be read are passed over.
pub(super) fn other_launches(jobs: &Path, job_id: &str) -> io::Result<Vec<LaunchState>> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir(jobs)?.flatten() {
        if entry.file_name() == job_id {
            continue;
        }
        let dir = JobDir::at(entry.path());
        if let Ok(Some(start)) = read_json::<LaunchStart>(&dir.path().join(START)) {
            others.extend(inspect(&dir, &start.cluster));
        }
    }
    Ok(others)
}

/// Finds the reason of a launch that failed. It is not kept in [`FACTS`]: the launcher may have printed a secret in it.
fn failure_reason(
    exit: Option<&ExitRecord>,
    output: impl FnOnce() -> io::Result<String>,
) -> io::Result<Option<String>> {
    // A signal leaves no reason of its own.
    let failed =
        |record: &&ExitRecord| record.error.is_some() || record.code.is_some_and(|code| code != 0);
    let Some(record) = exit.filter(failed) else {
        return Ok(None);
    };
    let printed = parse::failure_reason(&output()?);
    Ok(Some(printed.unwrap_or_else(|| record.describe())))
}

/// Reads a file of the folder. `None` where it is missing, or of another form: [`FACTS`] are then made again.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match read_bounded(path, MAX_FILE) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn write_facts(dir: &JobDir, facts: &LaunchFacts) -> io::Result<()> {
    write_atomic(&dir.path().join(FACTS), &serde_json::to_vec(facts)?)
}

/// Parses the end of the launch's output, and returns it too.
fn parse_output(
    dir: &JobDir,
    cluster: &str,
    exit: Option<&ExitRecord>,
) -> io::Result<(LaunchFacts, String)> {
    let modified = |path: &Path| match path.metadata().and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(Some(seconds(time))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let output = read_output(dir)?;
    let printed = launch_output(&output, cluster);
    let start = dir.path().join(START);
    let log_at = modified(&dir.log_path())?;
    let facts = LaunchFacts {
        started_at: modified(&start)?,
        start: read_json(&start)?.unwrap_or_default(),
        last_output_at: log_at.filter(|_| !output.is_empty()),
        oumi_job_id: printed
            .oumi_job_id
            .filter(|_| printed.is_detached || exit.is_none_or(|exit| exit.code == Some(0))),
        is_submitted: printed.is_submitted,
        run: printed.run,
        is_onto_existing: printed.is_onto_existing,
        mark: None,
        chosen: chosen_machines(&output),
        is_autostop_pending: false,
        failure: None,
    };
    Ok((facts, output))
}

/// Reads the end of the launch's output. Empty where there is none.
fn read_output(dir: &JobDir) -> io::Result<String> {
    match read_tail(&dir.log_path(), PARSED_TAIL) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}
