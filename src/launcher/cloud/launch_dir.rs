//! The folder of a launch: its result, and the facts by which its job is known on its cluster.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::launcher::JobIdentity;
use crate::parse;
use crate::parse::oumi::launch_output;
use crate::parse::sky::QueuedJob;
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
/// The shortest time in which a cluster can be deleted, created again under its name, and given a job.
const RECREATION: Duration = Duration::from_secs(60);
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

/// What tells a job apart from another that has its id on a cluster of its name. All of it is as SkyPilot gave it: the clocks of
/// this machine and of the cluster differ.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct JobMark {
    pub(super) cluster_hash: Option<String>,
    pub(super) submitted_at: Option<f64>,
    pub(super) job_name: String,
    /// Names the launch, to the microsecond. Empty where SkyPilot does not tell it.
    #[serde(default)]
    pub(super) log_path: String,
}

impl JobMark {
    /// The mark of a job on the cluster with this hash. `None` where it would tell nothing apart.
    pub(super) fn of(job: &QueuedJob, cluster_hash: Option<&str>) -> Option<Self> {
        let mark = Self {
            cluster_hash: cluster_hash.map(ToOwned::to_owned),
            submitted_at: job.submitted_at,
            job_name: job.job_name.clone(),
            log_path: job.log_path.clone(),
        };
        (mark.cluster_hash.is_some() || mark.submitted_at.is_some()).then_some(mark)
    }

    pub(super) fn fits(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        // A time that was written and read again may differ in its last digit.
        let is_near = |(one, other): (f64, f64)| (one - other).abs() < 0.001;
        let times = self.submitted_at.zip(job.submitted_at);
        let paths = [&self.log_path, &job.log_path];
        self.job_name == job.job_name
            && times.is_none_or(is_near)
            && (paths[0] == paths[1] || paths.iter().any(|path| path.is_empty()))
            && self.is_of_cluster(cluster_hash) != Some(false)
    }

    /// Tells whether a cluster is the job's own; `None` where one of the hashes is not known.
    pub(super) fn is_of_cluster(&self, cluster_hash: Option<&str>) -> Option<bool> {
        Some(self.cluster_hash.as_deref()? == cluster_hash?)
    }
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
    /// The server's own reason why an interrupted launch counts as failed.
    pub(super) failure: Option<String>,
}

impl LaunchFacts {
    /// Tells whether a job came onto the cluster with this launch, or after it, by its name and number; `None` where the cluster as
    /// it was before is not known.
    pub(super) fn may_have_launched(
        &self,
        job: &QueuedJob,
        cluster_hash: Option<&str>,
    ) -> Option<bool> {
        let is_new = |before: &ClusterBefore| {
            let hashes = before.cluster_hash.as_deref().zip(cluster_hash);
            number(job) > before.last_job_id || hashes.is_some_and(|(one, other)| one != other)
        };
        if job.job_name != self.start.name {
            return Some(false);
        }
        self.start.before.as_ref().map(is_new)
    }

    /// Tells whether the launch ended so lately that its cluster cannot have been deleted and created again.
    fn has_just_ended(&self) -> bool {
        let age = |ended_at: f64| seconds(SystemTime::now()) - ended_at;
        let age = self.last_output_at.map(age);
        age.is_some_and(|age| (-1.0..RECREATION.as_secs_f64()).contains(&age))
    }

    fn is_on_same_cluster(&self, cluster_hash: Option<&str>) -> bool {
        let before = self.start.before.as_ref();
        let before = before.and_then(|before| before.cluster_hash.as_deref());
        before.is_some() && before == cluster_hash
    }

    /// Tells whether a job is of the run that the launcher printed; `None` where one of them is not known.
    fn is_of_run(&self, job: &QueuedJob) -> Option<bool> {
        let (_, folder) = job.log_path.rsplit_once('/')?;
        let run = self.run.as_deref()?;
        folder.starts_with("sky-").then(|| folder == run)
    }
}

/// The id of a job as a number; SkyPilot counts them from 1.
pub(super) fn number(job: &QueuedJob) -> u64 {
    job.job_id.parse().unwrap_or(0)
}

/// The state of a launch's folder.
pub(super) struct LaunchState {
    exit: Option<ExitRecord>,
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

impl LaunchState {
    /// The job is known to be this launch's.
    fn has_claimed(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        let mark = self.facts.mark.as_ref();
        self.facts.oumi_job_id.as_ref() == Some(&job.job_id)
            && mark.is_some_and(|mark| mark.fits(job, cluster_hash))
    }

    /// The launch may still have a job of this name, and none is known to be its.
    fn may_claim(&self, name: &str) -> bool {
        let is_cancelled = self.exit.as_ref().is_some_and(|exit| exit.cancelled);
        self.facts.start.name == name
            && self.facts.oumi_job_id.is_none()
            && self.failure.is_none()
            && !is_cancelled
    }
}

/// Finds the job of a launch among the `jobs` of its cluster. A job that one of the `others`, the other launches, has claimed is
/// not found again. Of several launches that were cut off, the one that began first has the job that came first.
pub(super) fn find_job<'q>(
    facts: &LaunchFacts,
    jobs: &'q [QueuedJob],
    cluster_hash: Option<&str>,
    others: &[LaunchState],
) -> Option<&'q QueuedJob> {
    let (name, cluster) = (&facts.start.name, &facts.start.cluster);
    let on_cluster = |other: &&LaunchState| other.facts.start.cluster == *cluster;
    let others: Vec<&LaunchState> = others.iter().filter(on_cluster).collect();
    let is_free = |job: &&QueuedJob| {
        let mut others = others.iter();
        !others.any(|other| other.has_claimed(job, cluster_hash))
    };
    let mut free: Vec<&QueuedJob> = jobs.iter().filter(is_free).collect();
    free.retain(|job| facts.is_of_run(job) != Some(false));
    let may_be_own = |job: &QueuedJob| facts.may_have_launched(job, cluster_hash);
    let of_run = free
        .iter()
        .copied()
        .filter(|job| facts.is_of_run(job) == Some(true) && may_be_own(job) != Some(false));
    if let [job] = of_run.collect::<Vec<_>>()[..] {
        return Some(job);
    }
    if let Some(id) = &facts.oumi_job_id {
        let own = free.into_iter().find(|job| job.job_id == *id);
        let is_certain = facts.has_just_ended() || facts.is_on_same_cluster(cluster_hash);
        return own.filter(|job| is_certain && may_be_own(job) != Some(false));
    }
    let rivals = others.iter().filter(|other| other.may_claim(name));
    if rivals.clone().any(|rival| !rival.has_ended) {
        // Its own words will say which job is its.
        return None;
    }
    let earlier = rivals.filter(|rival| rival.facts.started_at < facts.started_at);
    let is_printed = |job: &QueuedJob| {
        let mut ids = others.iter().map(|other| &other.facts);
        ids.any(|other| other.mark.is_none() && other.oumi_job_id.as_ref() == Some(&job.job_id))
    };
    let mut candidates = free;
    candidates.retain(|job| may_be_own(job) == Some(true) && !is_printed(job));
    candidates.sort_by_key(|job| number(job));
    candidates.into_iter().nth(earlier.count())
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Reads the facts of a launch onto `cluster` that has ended; else parses its output, and writes them once it has.
pub(super) fn inspect(dir: &JobDir, cluster: &str) -> io::Result<LaunchState> {
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
