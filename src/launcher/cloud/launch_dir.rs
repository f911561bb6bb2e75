//! The folder of a launch: its result, and the facts by which its job is known on its cluster.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::launcher::JobIdentity;
use crate::parse;
use crate::parse::oumi::{PrintedJobId, existing_cluster, printed_job_id};
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::supervisor::living_supervisor;
use crate::settings::data_dir::{read_bounded, write_atomic};
use crate::text::read_tail;

/// The file that holds the job's name on its cluster. It is written when the launch begins.
pub(super) const JOB_NAME: &str = "job-name";
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
    /// The launcher was killed, or exited with 0, and printed no id.
    Interrupted {
        /// The job may still come onto its cluster.
        may_still_complete: bool,
    },
    /// Cancelled before it began.
    Cancelled,
}

/// The facts by which the job of a launch is known on its cluster. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct LaunchFacts {
    /// The job's name on its cluster.
    pub(super) name: String,
    /// `None` when the launch never began.
    pub(super) started_at: Option<f64>,
    /// `None` when the launcher printed nothing.
    pub(super) last_output_at: Option<f64>,
    pub(super) printed_job_id: Option<PrintedJobId>,
    /// The cluster that existed before the launch.
    pub(super) existing_cluster: Option<String>,
    /// The server's own reason why an interrupted launch counts as failed.
    pub(super) failure: Option<String>,
}

/// The state of a launch's folder.
pub(super) struct LaunchState {
    exit: Option<ExitRecord>,
    has_ended: bool,
    pub(super) facts: LaunchFacts,
    failure: Option<String>,
    /// The last line of the output, while the launch runs.
    pub(super) last_line: Option<String>,
}

impl LaunchState {
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
        if let Some(printed) = self.facts.printed_job_id.clone() {
            return Some(LaunchResult::Succeeded(JobIdentity {
                oumi_job_id: printed.oumi_job_id,
                cluster: printed.cluster.unwrap_or_else(|| identity.cluster.clone()),
                ..identity.clone()
            }));
        }
        Some(match &self.failure {
            Some(reason) => LaunchResult::Failed(reason.clone()),
            None => LaunchResult::Interrupted {
                may_still_complete: self
                    .facts
                    .last_output_at
                    .zip(completion_window)
                    .is_some_and(|(last_output_at, window)| {
                        last_output_at + window.as_secs_f64() > seconds(SystemTime::now())
                    }),
            },
        })
    }
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Reads the facts of a launch that has ended; else parses its output, and writes them once it has.
pub(super) fn inspect(dir: &JobDir) -> io::Result<LaunchState> {
    if let Some(facts) = read_facts(dir)? {
        let exit = dir.exit_record()?;
        let failure = match (&facts.printed_job_id, &facts.failure) {
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
    let (facts, output) = parse_output(dir)?;
    // A daemon of the launcher may hold the lock for ever, so once the id is printed the supervisor counts.
    let is_supervised = || match dir.supervisor_pid()? {
        Some(_) => Ok(living_supervisor(dir)?.is_some()),
        None => Ok::<bool, io::Error>(true),
    };
    let has_ended =
        exit.is_some() || !is_locked || (facts.printed_job_id.is_some() && !is_supervised()?);
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

fn read_facts(dir: &JobDir) -> io::Result<Option<LaunchFacts>> {
    match read_bounded(&dir.path().join(FACTS), MAX_FILE) {
        // One that cannot be read is written again.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn write_facts(dir: &JobDir, facts: &LaunchFacts) -> io::Result<()> {
    write_atomic(&dir.path().join(FACTS), &serde_json::to_vec(facts)?)
}

/// Parses the end of the launch's output, and returns it too.
fn parse_output(dir: &JobDir) -> io::Result<(LaunchFacts, String)> {
    let metadata = |path: PathBuf| match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let modified = |metadata: std::fs::Metadata| metadata.modified().map(seconds);
    let log = metadata(dir.log_path())?.filter(|metadata| metadata.len() > 0);
    let output = read_output(dir)?;
    let name = dir.path().join(JOB_NAME);
    let started_at = metadata(name.clone())?.map(modified).transpose()?;
    let facts = LaunchFacts {
        name: match started_at {
            Some(_) => String::from_utf8_lossy(&read_bounded(&name, MAX_FILE)?).into_owned(),
            None => String::new(),
        },
        started_at,
        last_output_at: log.map(modified).transpose()?,
        printed_job_id: printed_job_id(&output),
        existing_cluster: existing_cluster(&output),
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
