//! The folder of a launch: its result, and the facts by which its job is known on its cluster.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::claims::JobMark;
use crate::launcher::{JobState, JobStatus, status};
use crate::parse;
use crate::parse::costs::chosen_price;
use crate::parse::oumi::launch_output;
use crate::parse::sky::{Cluster, QueuedJob};
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::start::is_supervised;
use crate::settings::data_dir::write_atomic;
use crate::text::read_tail;

/// The file that holds the [`LaunchStart`]. It is written when the launch begins.
pub(super) const START: &str = "launch-start.json";
/// The file that holds the [`LaunchFacts`] of a launch that has ended.
const FACTS: &str = "launch.json";
/// The part of a program's output that is parsed, in bytes from its end.
const PARSED_TAIL: u64 = 256 * 1024;
/// How long an interrupted launch may still put its job on the cluster: SkyPilot's API server goes on with a launch when its
/// client is killed.
const COMPLETION_WINDOW: Duration = Duration::from_secs(30 * 60);

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
    pub(super) is_submitted: bool,
    /// SkyPilot's name of the launch.
    pub(super) run: Option<String>,
    /// The cluster existed before the launch.
    pub(super) is_onto_existing: bool,
    pub(super) mark: Option<JobMark>,
    /// Of a new cluster, in dollars.
    pub(super) hourly_price: Option<f64>,
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

    /// The seconds since the launcher last printed something.
    pub(super) fn age(&self) -> Option<f64> {
        Some(seconds(SystemTime::now()) - self.last_output_at?)
    }

    /// Parses the output of a launch onto `cluster`.
    fn parse(
        dir: &JobDir,
        cluster: &str,
        output: &str,
        exit: Option<&ExitRecord>,
    ) -> io::Result<Self> {
        let modified = |path: &Path| match path.metadata().and_then(|file| file.modified()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            modified => modified.map(|time| Some(seconds(time))),
        };
        let printed = launch_output(output, cluster);
        let is_believed = printed.is_detached || exit.is_none_or(|exit| exit.code == Some(0));
        Ok(Self {
            start: read_json(dir, START)?.unwrap_or_else(|| LaunchStart {
                cluster: cluster.to_owned(),
                ..LaunchStart::default()
            }),
            started_at: modified(&dir.path().join(START))?,
            last_output_at: modified(&dir.log_path())?.filter(|_| !output.is_empty()),
            oumi_job_id: printed.oumi_job_id.filter(|_| is_believed),
            is_submitted: printed.is_submitted,
            run: printed.run,
            is_onto_existing: printed.is_onto_existing,
            hourly_price: chosen_price(output).filter(|_| !printed.is_onto_existing),
            ..Self::default()
        })
    }

    pub(super) fn write(&self, dir: &JobDir) -> io::Result<()> {
        write_atomic(&dir.path().join(FACTS), &serde_json::to_vec(self)?)
    }
}

/// The id of a job as a number; SkyPilot counts them from 1.
pub(super) fn number(job: &QueuedJob) -> u64 {
    job.job_id.parse().unwrap_or(0)
}

/// The state of a launch's folder.
#[derive(Default)]
pub(super) struct LaunchState {
    pub(super) has_ended: bool,
    pub(super) is_cancelled: bool,
    pub(super) facts: LaunchFacts,
    /// Not kept in the folder: the launcher may have printed a secret in it.
    pub(super) failure: Option<String>,
    /// The last line of the output, while the launch runs.
    pub(super) last_line: Option<String>,
}

impl LaunchState {
    /// Inspects a launch onto `cluster`: by its facts once it has ended, else by its output.
    pub(super) fn read(dir: &JobDir, cluster: &str) -> io::Result<Self> {
        let kept = read_json::<LaunchFacts>(dir, FACTS)?;
        let is_kept = kept.is_some();
        // Of most launches that have ended nothing else is read.
        let has_result =
            |facts: &LaunchFacts| facts.oumi_job_id.is_some() || facts.failure.is_some();
        let (is_locked, exit, output) = match &kept {
            Some(facts) if has_result(facts) => (false, None, String::new()),
            // In this order: a launch that ends in between has written its record.
            _ => (
                !is_kept && dir.is_locked()?,
                dir.exit_record()?,
                read_output(dir)?,
            ),
        };
        let mut facts = match kept {
            Some(facts) => facts,
            None => LaunchFacts::parse(dir, cluster, &output, exit.as_ref())?,
        };
        // A daemon of the launcher may hold the lock for ever, so once the id is printed the supervisor counts.
        let has_ended =
            exit.is_some() || !is_locked || (facts.oumi_job_id.is_some() && !is_supervised(dir)?);
        if has_ended
            && !is_kept
            && facts.started_at.is_some()
            && let Err(error) = facts.write(dir)
        {
            tracing::debug!(%error, "cannot write {FACTS}: the output is parsed again next time");
        }
        facts.is_autostop_pending = dir.epilogue()?.is_some();
        // A signal leaves no reason of its own.
        let has_failed =
            |exit: &&ExitRecord| exit.error.is_some() || exit.code.is_some_and(|code| code != 0);
        let failed = exit.as_ref().filter(has_failed);
        let reason = failed.map(|exit| {
            let last_line = || parse::last_line(&output).filter(|_| exit.error.is_none());
            let printed = parse::failure_reason(&output).or_else(last_line);
            printed.unwrap_or_else(|| exit.describe())
        });
        Ok(Self {
            has_ended,
            is_cancelled: exit.is_some_and(|exit| exit.cancelled),
            failure: facts.failure.clone().or(reason),
            last_line: parse::last_line(&output),
            facts,
        })
    }

    /// Returns the status of the launch, which is that of a job whose id is not known. `finds_jobs` where the job of a launch that
    /// was cut off can be found by its name.
    pub(super) fn status(&self, finds_jobs: bool) -> JobStatus {
        let cluster = &self.facts.start.cluster;
        let is_young = |age| age < COMPLETION_WINDOW.as_secs_f64();
        let (word, state, message) = match &self.failure {
            _ if self.is_cancelled => (status::CANCELLED, JobState::Cancelled, None),
            _ if !self.has_ended || self.facts.oumi_job_id.is_some() => {
                (status::LAUNCHING, JobState::Pending, self.last_line.clone())
            }
            // A job that SkyPilot has is looked for before its launch counts as failed.
            Some(reason) if !self.facts.is_submitted || !finds_jobs => {
                (status::FAILED, JobState::Failed, Some(reason.clone()))
            }
            None if finds_jobs && self.facts.age().is_some_and(is_young) => {
                let message = format!(
                    "its launch was cut off and may still complete; the server looks for the job on cluster {cluster}"
                );
                (status::LAUNCHING, JobState::Pending, Some(message))
            }
            _ => {
                let next = match finds_jobs {
                    true => "the server looks for the job there; call poll_status again",
                    false => "call list_jobs to see, down_cluster to delete it",
                };
                let message = format!(
                    "its launch was cut off and its result is not known; cluster {cluster} may be up and cost money: {next}"
                );
                (status::LOST, JobState::Unknown, Some(message))
            }
        };
        // Where the job of a lost launch can be looked for, that is done before it counts as ended.
        let is_done = match state {
            JobState::Unknown => !finds_jobs,
            _ => state != JobState::Pending,
        };
        JobStatus {
            message,
            ..JobStatus::new(word, state, is_done)
        }
    }
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Reads the launches onto `cluster` in the folder `jobs`, but that of `job_id`. Folders that cannot be read are passed over.
pub(super) fn other_launches(
    jobs: &Path,
    job_id: &str,
    cluster: &str,
) -> io::Result<Vec<LaunchState>> {
    let others = std::fs::read_dir(jobs)?.flatten();
    let others = others.filter(|entry| entry.file_name() != job_id);
    let read = |entry: std::fs::DirEntry| {
        let dir = JobDir::at(entry.path());
        let start = read_json::<LaunchStart>(&dir, START).ok()??;
        (start.cluster == cluster).then(|| LaunchState::read(&dir, cluster).ok())?
    };
    Ok(others.filter_map(read).collect())
}

/// Reads a file of the folder. `None` where it is missing, or of another form: [`FACTS`] are then made again.
fn read_json<T: DeserializeOwned>(dir: &JobDir, name: &str) -> io::Result<Option<T>> {
    match dir.read_json(name) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        read => read,
    }
}

/// Reads the end of what a supervised program printed. Empty where there is nothing.
pub(super) fn read_output(dir: &JobDir) -> io::Result<String> {
    match read_tail(&dir.log_path(), PARSED_TAIL) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }
}
