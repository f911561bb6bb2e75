//! The folder of a launch: its result, and the facts by which its job is known on its cluster.

use std::io;
use std::io::ErrorKind::{InvalidData, UnexpectedEof};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::JobError;
use crate::launcher::{JobState, JobStatus, PRICE, status};
use crate::parse;
use crate::parse::oumi::{LaunchOutput, launch_output};
use crate::parse::prices::chosen_price;
use crate::parse::sky::QueuedJob;
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::start::is_supervised;
use crate::settings::data_dir::{if_found, write_atomic};
use crate::text::read_tail;

/// The file that holds the [`LaunchStart`]. It is written when the launch begins.
pub(super) const START: &str = "launch-start.json";
const VERDICT: &str = "launch.json";
/// The part of a program's output that is parsed, in bytes from its end.
const PARSED_TAIL: u64 = 256 * 1024;
/// How long an interrupted launch may still put its job on the cluster: SkyPilot's API server goes on with a launch when its
/// client is killed.
pub(super) const COMPLETION_WINDOW: Duration = Duration::from_secs(30 * 60);

const NOT_BEGUN: &str = "it was not launched: its server ended before; call run_job again";
const NO_JOB: &str = "its launch ended before the job was on its cluster";

/// What is known of a launch when it begins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LaunchStart {
    /// The job's name on its cluster.
    pub(super) name: String,
    pub(super) cluster: String,
    /// The cluster was there, and another user's: SkyPilot lists only one's own.
    pub(super) is_anothers: bool,
    /// `None` where it could not be found out if the cluster was there.
    pub(super) was_there: Option<bool>,
    /// The cluster as it was before; `None` where that could not be found out, as of a stopped one.
    pub(super) before: Option<ClusterBefore>,
    /// [`CloudBackend::place`](super::CloudBackend::place) of then.
    pub(super) place: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct ClusterBefore {
    /// `None` where there was no such cluster, or it has none.
    pub(super) cluster_hash: Option<String>,
    /// The highest id of a job on it; 0 without one.
    pub(super) last_job_id: u64,
}

/// What a server found out of a launch that had ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The job with this id is its job.
    Job(String, JobMark),
    NoJob,
}

/// What tells a job apart from another that has its id on a cluster of its name, which was made again meanwhile. All of it is as
/// SkyPilot gave it: the clocks of this machine and of the cluster differ.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct JobMark {
    pub(super) cluster_hash: Option<String>,
    pub(super) submitted_at: Option<f64>,
    /// Names the launch, to the microsecond. Empty where SkyPilot does not tell it.
    pub(super) log_path: String,
}

impl JobMark {
    /// The mark of a job on the cluster with this hash. `None` where it would tell nothing apart.
    pub(super) fn of(job: &QueuedJob, cluster_hash: Option<&str>) -> Option<Self> {
        let mark = Self {
            cluster_hash: cluster_hash.map(ToOwned::to_owned),
            submitted_at: job.submitted_at,
            log_path: job.log_path.clone(),
        };
        (mark.cluster_hash.is_some() || mark.submitted_at.is_some()).then_some(mark)
    }

    pub(super) fn fits(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        // A time that was written and read again may differ in its last digit.
        let is_near = |(one, other): (f64, f64)| (one - other).abs() < 0.001;
        let times = self.submitted_at.zip(job.submitted_at);
        let paths = [&self.log_path, &job.log_path];
        times.is_none_or(is_near)
            && (paths[0] == paths[1] || paths.iter().any(|path| path.is_empty()))
            && self.is_of_cluster(cluster_hash) != Some(false)
    }

    /// Tells whether a cluster is the job's own; `None` where one of the hashes is not known.
    pub(super) fn is_of_cluster(&self, cluster_hash: Option<&str>) -> Option<bool> {
        Some(self.cluster_hash.as_deref()? == cluster_hash?)
    }
}

/// A launch, as its folder shows it. Times are in seconds since 1970, by this machine's clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Launch {
    pub(super) folder: PathBuf,
    pub(super) start: LaunchStart,
    /// `None` when the launch never began.
    pub(super) started_at: Option<f64>,
    /// `None` when the launcher printed nothing.
    pub(super) last_output_at: Option<f64>,
    /// What the launcher printed, with its id of the job only where that is to be believed.
    pub(super) printed: LaunchOutput,
    /// The one that the launcher printed of a new cluster, else that of the plan; in dollars.
    pub(super) hourly_price: Option<f64>,
    pub(super) verdict: Option<Verdict>,
    pub(super) has_ended: bool,
    /// The end of its program; `None` before, and where nobody recorded it.
    pub(super) exit: Option<ExitRecord>,
    /// The reason why it failed, or has no job.
    pub(super) failure: Option<String>,
    pub(super) last_line: Option<String>,
}

impl Launch {
    pub(super) fn read(dir: &JobDir, cluster: &str) -> io::Result<Self> {
        // In this order: a launch that ends in between has written its record.
        let is_locked = dir.is_locked()?;
        let exit = dir.exit_record()?;
        let output = read_output(dir)?;
        let mut printed = launch_output(&output, cluster);
        let has_succeeded = exit.as_ref().is_none_or(|exit| exit.code == Some(0));
        if !printed.is_detached && !has_succeeded {
            printed.oumi_job_id = None;
        }
        let start = read_json(dir, START)?.unwrap_or_else(|| LaunchStart {
            cluster: cluster.to_owned(),
            ..LaunchStart::default()
        });
        let chosen = chosen_price(&output).filter(|_| !printed.is_onto_existing);
        let mut launch = Self {
            folder: dir.path().to_owned(),
            start,
            started_at: modified(&dir.path().join(START))?,
            last_output_at: modified(&dir.log_path())?.filter(|_| !output.is_empty()),
            hourly_price: chosen.or(read_json(dir, PRICE)?),
            printed,
            verdict: read_json(dir, VERDICT)?,
            last_line: parse::last_line(&output),
            exit,
            ..Self::default()
        };
        // A daemon of the launcher may hold the lock for ever, so once the id is known the supervisor counts.
        launch.has_ended = launch.exit.is_some()
            || !is_locked
            || (launch.oumi_job_id().is_some() && !is_supervised(dir)?);
        launch.failure = launch.find_failure(&output);
        Ok(launch)
    }

    fn find_failure(&self, output: &str) -> Option<String> {
        // Its server holds the lock until it begins.
        let is_traced = self.exit.is_some() || self.last_output_at.is_some();
        if self.has_ended && self.started_at.is_none() && !is_traced && self.folder.exists() {
            return Some(NOT_BEGUN.to_owned());
        }
        let printed = || parse::failure_reason(output);
        // A signal leaves no reason of its own.
        if let Some(exit) = &self.exit
            && (exit.error.is_some() || exit.code.is_some_and(|code| code != 0))
        {
            let last_line = self.last_line.iter().filter(|_| exit.error.is_none());
            let last_line: String = last_line
                .map(|line| format!("; the last line: {line}"))
                .collect();
            return Some(printed().unwrap_or_else(|| exit.describe() + &last_line));
        }
        if self.verdict != Some(Verdict::NoJob) {
            return None;
        }
        let printed = if self.has_exited() { printed() } else { None };
        Some(printed.unwrap_or_else(|| NO_JOB.to_owned()))
    }

    /// Tells if its program was not cut off: nothing of it goes on.
    fn has_exited(&self) -> bool {
        self.exit.as_ref().is_some_and(|exit| exit.code == Some(0))
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.exit.as_ref().is_some_and(|exit| exit.cancelled)
    }

    /// Tells if its cluster was up before: one that was stopped had no queue to read.
    pub(super) fn was_up(&self) -> bool {
        let start = &self.start;
        self.printed.is_onto_existing || start.was_there == Some(true) && start.before.is_some()
    }

    /// The time at which its program was killed, which may have hung for long.
    fn killed_at(&self) -> Option<f64> {
        let killed = self.exit.as_ref().filter(|exit| exit.signal.is_some())?;
        let ended_at = DateTime::parse_from_rfc3339(&killed.ended_at).ok()?;
        Some(seconds(ended_at.into()))
    }

    /// The launcher's id of the job: found on the cluster, or printed.
    pub(super) fn oumi_job_id(&self) -> Option<&String> {
        match &self.verdict {
            Some(Verdict::Job(id, _)) => Some(id),
            _ => self.printed.oumi_job_id.as_ref(),
        }
    }

    pub(super) fn mark(&self) -> Option<&JobMark> {
        match &self.verdict {
            Some(Verdict::Job(_, mark)) => Some(mark),
            _ => None,
        }
    }

    /// Tells if the supervisor of the launch, which has ended, has still to set the autostop. Does file work.
    pub(super) fn is_autostop_pending(&self) -> bool {
        let dir = JobDir::at(&self.folder);
        self.has_ended
            && matches!(dir.epilogue(), Ok(Some(_)))
            && is_supervised(&dir).unwrap_or(false)
    }

    /// Returns the reason why the place that is asked `now` cannot know the launch's cluster: it was launched through another one.
    pub(super) fn other_place(&self, now: &str) -> Option<JobError> {
        let LaunchStart { cluster, place, .. } = &self.start;
        // The user, who is named last, is not known before `sky` was run.
        let rest = now.strip_prefix(place.as_str());
        if place.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')) {
            return None;
        }
        let error = format!(
            "cluster {cluster} was launched through {place}, and this server asks {now}, which does not have it"
        );
        Some(JobError::failed(error).with_hint(
            "give this server the HOME and the SKYPILOT_API_SERVER_ENDPOINT that the job was launched with",
        ))
    }

    /// Returns the status of the launch, which is that of a job whose id is not known. `finds_jobs` where the job of a launch that
    /// was cut off can be found by its name. Does file work.
    pub(super) fn status(&self, finds_jobs: bool) -> JobStatus {
        if self.is_cancelled() {
            return JobStatus::cancelled();
        }
        let mut launching = JobStatus::new(status::LAUNCHING, JobState::Pending, false);
        launching.details.hourly_price = self.hourly_price;
        if !self.has_ended || self.oumi_job_id().is_some() {
            launching.message = self.last_line.clone();
            return launching;
        }
        // A job that SkyPilot has is looked for before its launch counts as failed.
        let is_submitted = self.printed.is_submitted || self.printed.run.is_some();
        let may_have_job = finds_jobs && is_submitted && self.verdict.is_none();
        // A record of the Python server has no folder.
        let is_known = self.folder.exists();
        let ended = match &self.failure {
            Some(reason) if !may_have_job => return JobStatus::failed().with_message(reason),
            Some(reason) => format!("its launch failed ({reason})"),
            None if !is_known => "its launch is not known here".to_owned(),
            None if self.has_exited() => "its launch named no job".to_owned(),
            None => "its launch was cut off".to_owned(),
        };
        let cluster = &self.start.cluster;
        let earliest = seconds(SystemTime::now() - COMPLETION_WINDOW);
        let mut ends = self.last_output_at.into_iter().chain(self.killed_at());
        let may_go_on = self.failure.is_none() && !self.has_exited() && finds_jobs;
        if may_go_on && ends.any(|end| end > earliest) {
            return launching.with_message(format!(
                "{ended} and may still complete; the server looks for the job on cluster {cluster}"
            ));
        }
        let next = match finds_jobs && is_known {
            true => "the server looks for the job there; call poll_status again",
            false => "call list_jobs to see",
        };
        // Where the job of a lost launch can be looked for, that is done before it counts as ended.
        let mut lost = JobStatus::new(status::LOST, JobState::Unknown, !finds_jobs);
        lost.details = launching.details;
        lost.with_message(format!(
            "{ended} and its result is not known; cluster {cluster} may be up and cost money: {next}"
        ))
    }
}

impl Verdict {
    pub(super) fn write(&self, dir: &JobDir) -> io::Result<()> {
        write_atomic(&dir.path().join(VERDICT), &serde_json::to_vec(self)?)
    }
}

/// The id of a job as a number; SkyPilot counts them from 1.
pub(super) fn number(job: &QueuedJob) -> u64 {
    job.job_id.parse().unwrap_or(0)
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

fn modified(path: &Path) -> io::Result<Option<f64>> {
    let modified = path.metadata().and_then(|file| file.modified());
    Ok(if_found(modified)?.map(seconds))
}

/// Reads a file of the folder. `None` where it is missing, or of another form.
pub(super) fn read_json<T: DeserializeOwned>(dir: &JobDir, name: &str) -> io::Result<Option<T>> {
    match dir.read_json(name) {
        Err(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => Ok(None),
        read => read,
    }
}

pub(super) fn read_output(dir: &JobDir) -> io::Result<String> {
    let bytes = if_found(read_tail(&dir.log_path(), PARSED_TAIL))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
