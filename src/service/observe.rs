//! Observation of a job beside its status, by its log: how far it is, whether it has stalled, why it failed.
//!
//! On this machine each poll reads what is new in the log, and the run files in the output folder. The log of a
//! cloud job is kept by [`cloud_log`](super::cloud_log). Neither fails a poll: what does not come in time is left out.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answers::ProgressAnswer;
use super::cloud_log::{CloudLogs, LogReading, has_output, writes};
use super::context::Context;
use super::lookup::ResolvedJob;
use crate::failure::{self, Exit, Failure};
use crate::launcher::{JobIdentity, JobState, JobStatus, Launcher, LogContent};
use crate::logs::fold::fold;
use crate::parse::sky;
use crate::process::supervisor;
use crate::progress::stall::Stall;
use crate::progress::{IncrementalReader, Progress, run_files};
use crate::registry::JobRecord;
use crate::settings::config::expand_home;
use crate::sync::lock;
use crate::text::read_tail;

/// The longest wait of a poll for a cloud log once the status is there, and the longest poll with that wait.
const FETCH_WAIT: Duration = Duration::from_secs(8);
const MAX_POLL: Duration = Duration::from_secs(30);
/// The longest wait of a poll for a file, and the most files that are read at once: a network disk may hang.
const FILE_WAIT: Duration = Duration::from_secs(2);
const MAX_FILE_READS: usize = 8;
/// The most logs on this machine whose position is kept between polls.
const MAX_READERS: usize = 64;
/// The end of a log, in bytes, that is searched for the cause of a failure before bars and repeats are folded.
const FAILURE_TAIL: u64 = 1024 * 1024;

/// Observations of one poll.
#[derive(Debug, Default)]
pub(super) struct Observation {
    pub(super) progress: Option<ProgressAnswer>,
    pub(super) stalled: Option<Stall>,
    pub(super) failure: Option<Failure>,
}

pub(super) struct Observer {
    context: Arc<Context>,
    cloud_logs: CloudLogs,
    file_reads: Arc<Semaphore>,
    /// The readers of local logs, by path: metrics keep the time at which they were first read.
    readers: Arc<Mutex<HashMap<PathBuf, IncrementalReader>>>,
}

impl Observer {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            cloud_logs: CloudLogs::default(),
            file_reads: Arc::new(Semaphore::new(MAX_FILE_READS)),
            readers: Arc::default(),
        }
    }

    /// Starts to fetch the log of a cloud job where that is due.
    pub(super) fn prefetch(&self, launcher: &Arc<dyn Launcher>, identity: &JobIdentity) {
        if is_on_cloud(launcher, identity) {
            self.cloud_logs.get(identity).fetch(launcher, identity);
        }
    }

    /// Observes a job that its launcher has just reported, in a poll that began at `asked_at`.
    pub(super) async fn observe(
        &self,
        launcher: &Arc<dyn Launcher>,
        job: &ResolvedJob,
        status: &JobStatus,
        asked_at: Instant,
    ) -> Observation {
        let (log, run_files) = if launcher.traits().is_local {
            tokio::join!(
                self.read_local_log(launcher, &job.identity),
                self.read_run_files(launcher, job)
            )
        } else {
            let log = self.read_cloud_log(launcher, job, status, asked_at).await;
            (log, None)
        };
        let log = log.unwrap_or_default();
        let stalled = if status.state == JobState::Running {
            let reported = status.details.start_at.as_deref().and_then(parse_time);
            let recorded = || job.record.as_ref().and_then(submitted);
            log.stalled(reported.or_else(recorded), SystemTime::now())
        } else {
            None
        };
        let failure = if status.state == JobState::Failed {
            let text = log.text.clone();
            self.failure(launcher, &job.identity, status, text).await
        } else {
            None
        };
        Observation {
            progress: progress_answer(log, run_files),
            stalled,
            failure,
        }
    }

    async fn read_cloud_log(
        &self,
        launcher: &Arc<dyn Launcher>,
        job: &ResolvedJob,
        status: &JobStatus,
        asked_at: Instant,
    ) -> Option<LogReading> {
        if !is_on_cloud(launcher, &job.identity) {
            return None;
        }
        let log = self.cloud_logs.get(&job.identity);
        log.note_status(status);
        if !has_output(status.state) {
            return None;
        }
        log.fetch(launcher, &job.identity);
        let time_left = MAX_POLL.saturating_sub(asked_at.elapsed());
        log.reading(time_left.min(FETCH_WAIT)).await
    }

    async fn read_local_log(
        &self,
        launcher: &Arc<dyn Launcher>,
        identity: &JobIdentity,
    ) -> Option<LogReading> {
        let LogContent::File(path) = launcher.logs(identity).await.ok()?.content else {
            return None;
        };
        let readers = Arc::clone(&self.readers);
        self.read_file(move || {
            let written = path.metadata()?.modified()?;
            // Taken out while it reads: a poll at the same time starts a reader of its own.
            let kept = lock(&readers).remove(&path);
            let mut log = kept.unwrap_or_else(|| IncrementalReader::new(&path));
            let reading = LogReading {
                progress: log.read()?,
                writes: writes(log.history()),
                written: Some(written),
                ..LogReading::default()
            };
            let mut readers = lock(&readers);
            if readers.len() >= MAX_READERS {
                readers.clear();
            }
            readers.insert(path, log);
            Ok(reading)
        })
        .await
    }

    /// Reads what the trainer of a job on this machine wrote into its output folder.
    async fn read_run_files(
        &self,
        launcher: &Arc<dyn Launcher>,
        job: &ResolvedJob,
    ) -> Option<Progress> {
        let record = job.record.as_ref()?;
        let started = submitted(record);
        let output_dir = self.output_dir(record).await?;
        if self.is_shared(launcher, record, started).await {
            // The files do not say which of the jobs wrote them.
            return None;
        }
        let read = move || run_files::read_output_dir(&output_dir, started);
        let found = self.read_file(read).await?;
        found.map(|(progress, _)| progress)
    }

    /// Reads a file off the async threads. `None` when it cannot be read, or not in time.
    async fn read_file<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let permits = Arc::clone(&self.file_reads);
        let reading = async move {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            let reading = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                read()
            });
            reading.await.map_err(io::Error::other)?
        };
        match tokio::time::timeout(FILE_WAIT, reading).await.ok()? {
            Ok(read) => Some(read),
            Err(error) => {
                tracing::debug!(%error, "cannot read a file of a job");
                None
            }
        }
    }

    /// Returns the output folder of a training on this machine. What a job config runs is not known so well.
    async fn output_dir(&self, record: &JobRecord) -> Option<PathBuf> {
        let dir = self.context.job_dir(&record.job_id)?;
        let plan = self.read_file(move || dir.plan()).await?;
        let trains = |step: &supervisor::Step| step.argv.get(1).is_some_and(|verb| verb == "train");
        if record.output_dir.is_empty() || !plan.steps.iter().any(trains) {
            return None;
        }
        Some(plan.working_dir.join(expand_home(&record.output_dir)))
    }

    /// Tells if another job with the same output folder has lived since `started`.
    async fn is_shared(
        &self,
        launcher: &Arc<dyn Launcher>,
        record: &JobRecord,
        started: Option<SystemTime>,
    ) -> bool {
        let Ok(records) = self.context.registry.records().await else {
            return true;
        };
        let others = records.iter().filter(|other| {
            other.cloud == record.cloud
                && other.output_dir == record.output_dir
                && other.job_id != record.job_id
        });
        for other in others {
            let Ok(status) = launcher.status(&other.identity()).await else {
                return true;
            };
            // The end of a job that no server watched is not known, but its start is.
            let ended = status.details.ended_at.as_deref().and_then(parse_time);
            if !status.is_done || ended.or_else(|| submitted(other)) >= started {
                return true;
            }
        }
        false
    }

    /// Explains why a job failed. `text` is the end of its log, where that was fetched.
    async fn failure(
        &self,
        launcher: &Arc<dyn Launcher>,
        identity: &JobIdentity,
        status: &JobStatus,
        text: Option<Arc<str>>,
    ) -> Option<Failure> {
        // Redacted here as well as at the exit: what is cut out of the log afterwards would hold half a secret.
        let redactor = self.context.redactor(&identity.job_id).await;
        let content = match &text {
            None if !is_on_cloud(launcher, identity) => launcher.logs(identity).await.ok(),
            _ => None,
        };
        let details = &status.details;
        let exit = match (details.signal, details.exit_code) {
            (Some(signal), _) => Some(Exit::Signal(signal)),
            (None, Some(code)) => Some(Exit::Code(code)),
            (None, None) => text.as_deref().and_then(sky::exit_code).map(Exit::Code),
        };
        // Of a process on this machine the message says no more than its exit.
        let is_exit = launcher.traits().is_local && exit.is_some();
        let reason = status.message.clone().filter(|_| !is_exit);
        let explained = tokio::task::spawn_blocking(move || {
            let log = match (text, content.map(|log| log.content)) {
                (Some(text), _) => fold(text.as_bytes()),
                (None, Some(LogContent::Text { text, .. })) => fold(text.as_bytes()),
                (None, Some(LogContent::File(path))) => {
                    fold(&read_tail(&path, FAILURE_TAIL).unwrap_or_default())
                }
                (None, None) => String::new(),
            };
            if redactor.hides_all() {
                return failure::explain("", exit, None);
            }
            let start = log.len().saturating_sub(failure::LOOKED_AT);
            let log = redactor.redact(&log[log.ceil_char_boundary(start)..]);
            let reason = reason.map(|reason| redactor.redact(&reason));
            failure::explain(&log, exit, reason.as_deref())
        });
        explained.await.ok().flatten()
    }
}

/// Tells if a job was launched on a cloud, so that its log costs a run of a program.
fn is_on_cloud(launcher: &Arc<dyn Launcher>, identity: &JobIdentity) -> bool {
    !launcher.traits().is_local && !identity.oumi_job_id.is_empty()
}

fn submitted(record: &JobRecord) -> Option<SystemTime> {
    record.submitted_at().map(SystemTime::from)
}

fn parse_time(text: &str) -> Option<SystemTime> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(SystemTime::from(time))
}

fn progress_answer(log: LogReading, run_files: Option<Progress>) -> Option<ProgressAnswer> {
    let mut progress = match (log.progress, run_files) {
        (Some(log), Some(files)) => log.merged(files),
        (log, files) => log.or(files)?,
    };
    if let Some(left) = &mut progress.metrics.seconds_left {
        *left = left.round();
    }
    if log.is_age_unknown {
        progress.measured_at = None;
    }
    Some(ProgressAnswer {
        age_seconds: progress.age(SystemTime::now()).map(|age| age.as_secs()),
        progress,
    })
}
