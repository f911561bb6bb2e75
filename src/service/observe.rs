//! What a job's own words tell of it beside its status: how far it is, whether it has fallen silent, why it failed.
//!
//! On this machine that is its log, of which each look reads what is new, and what its trainer writes into the output
//! folder. On a cloud it is the end of the log, which a run of `sky logs` brings: beside the question for the status, no
//! more often than once a minute, once more after the end, and only of a job that has begun. Neither fails a poll: what
//! does not come in time is told by the next one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::JobService;
use super::answers::ProgressAnswer;
use super::background_refresh::Aside;
use super::lookup::ResolvedJob;
use crate::failure::{self, Exit, Failure};
use crate::launcher::local::LOCAL;
use crate::launcher::{JobIdentity, JobState, JobStatus, Launcher, LogContent};
use crate::logs::fold::fold;
use crate::parse::sky;
use crate::process::supervisor;
use crate::progress::stall::{Stall, StallDetector};
use crate::progress::{IncrementalReader, Progress, Scanner, run_files};
use crate::registry::JobRecord;
use crate::settings::config::expand_home;
use crate::sync::lock;

/// Of how many jobs it is remembered what they said last.
const REMEMBERED: usize = 32;
/// How often the log of a job on a cloud is asked for, at most.
const CLOUD_LOG_EVERY: Duration = Duration::from_secs(60);
/// How long a poll waits for it once it knows the status, and how long it may take in all then.
const CLOUD_LOG_PATIENCE: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_secs(30);
/// How many at once: few programs may run, and how a job is counts for more.
const CLOUD_LOGS: usize = 2;
/// How often the output folder is read, at most.
const FOLDER_EVERY: Duration = Duration::from_secs(10);
/// How long a poll waits for files: a disk on the network may hang.
const FILE_PATIENCE: Duration = Duration::from_secs(2);
/// How much of a log is read for why the job failed, before its bars and repeats are folded.
const FAILURE_TAIL: u64 = 1024 * 1024;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) progress: Option<ProgressAnswer>,
    pub(super) stalled: Option<Stall>,
    pub(super) failure: Option<Failure>,
}

/// The jobs that were looked at last.
#[derive(Debug)]
pub(super) struct Insights {
    remembered: Mutex<HashMap<JobIdentity, (Instant, Arc<Insight>)>>,
    cloud_logs: Arc<Semaphore>,
}

impl Default for Insights {
    fn default() -> Self {
        Self {
            remembered: Mutex::default(),
            cloud_logs: Arc::new(Semaphore::new(CLOUD_LOGS)),
        }
    }
}

impl Insights {
    /// What is remembered of a job.
    pub(super) fn of(&self, identity: &JobIdentity) -> Arc<Insight> {
        let key = match identity.job_id.as_str() {
            "" => identity.clone(),
            job_id => JobIdentity {
                job_id: job_id.to_owned(),
                ..JobIdentity::default()
            },
        };
        // No code under this lock can leave the map half-changed.
        let mut remembered = lock(&self.remembered);
        let now = Instant::now();
        let entry = remembered
            .entry(key)
            .or_insert_with(|| (now, Arc::new(Insight::new(&self.cloud_logs))));
        entry.0 = now;
        let insight = Arc::clone(&entry.1);
        if remembered.len() > REMEMBERED
            && let Some(oldest) = remembered
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| key.clone())
        {
            remembered.remove(&oldest);
        }
        insight
    }
}

/// What is remembered of one job.
#[derive(Debug)]
pub(super) struct Insight {
    cloud_logs: Arc<Semaphore>,
    log: Aside<LogSeen>,
    folder: Aside<Option<Progress>>,
    /// Where the log on this machine was read to. Only the look under way takes it.
    reader: Arc<Mutex<Option<IncrementalReader>>>,
    has_begun: AtomicBool,
    /// When the job was first seen to have ended.
    ended: OnceLock<Instant>,
}

/// The log at a look.
#[derive(Debug, Clone, Default)]
struct LogSeen {
    progress: Option<Progress>,
    /// When the newest figure was written is known, and not only that it was before the first look.
    is_aged: bool,
    /// When it was last written to, as far as that is known.
    written: Option<SystemTime>,
    stall: StallDetector,
    /// The end of the log of a job on a cloud.
    text: Arc<str>,
}

impl Insight {
    fn new(cloud_logs: &Arc<Semaphore>) -> Self {
        Self {
            cloud_logs: Arc::clone(cloud_logs),
            log: Aside::default(),
            folder: Aside::default(),
            reader: Arc::default(),
            has_begun: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    /// Asks for the log of a job on a cloud, where it has begun and it is time.
    pub(super) fn ask_for_cloud_log(&self, launcher: &Arc<dyn Launcher>, identity: &JobIdentity) {
        if !is_on_a_cloud(identity) || !self.has_begun.load(Ordering::Relaxed) {
            return;
        }
        let every = match (self.ended.get(), self.log.begun()) {
            (Some(ended), Some(begun)) if begun < *ended => Duration::ZERO,
            // What was said by the end is all there is.
            (Some(_), Some(_)) if self.has_text() => return,
            _ => CLOUD_LOG_EVERY,
        };
        let (launcher, identity) = (Arc::clone(launcher), identity.clone());
        let turn = Arc::clone(&self.cloud_logs);
        self.log.begin(every, |last| async move {
            let _turn = turn.acquire_owned().await.ok()?;
            let log = launcher.logs(&identity).await;
            let text = match log.map(|log| log.content) {
                Ok(LogContent::Text { text, .. }) => text,
                // Of a cluster that is gone only the launch's log is left, which tells nothing of the job.
                Ok(LogContent::File(_)) => return None,
                Err(error) => {
                    tracing::info!(job_id = identity.job_id, %error, "no progress is known: the log cannot be read");
                    return None;
                }
            };
            let seen = move || LogSeen::of_text(&text, SystemTime::now(), last);
            tokio::task::spawn_blocking(seen).await.ok()
        });
    }

    fn has_text(&self) -> bool {
        self.log.now().is_some_and(|seen| !seen.text.is_empty())
    }

    /// Reads what is new in a log on this machine.
    fn follow(&self, path: PathBuf, started: Option<SystemTime>) {
        let reader = Arc::clone(&self.reader);
        self.log.begin(Duration::ZERO, |last| async move {
            let look = move || {
                let mut reader = lock(&reader);
                let reader = reader.get_or_insert_with(|| IncrementalReader::new(&path));
                LogSeen::of_file(&path, reader, started, last)
            };
            seen_in_file(look).await
        });
    }

    /// Reads what the trainer of the job of `record` wrote into its output folder.
    fn read_folder(&self, service: JobService, record: JobRecord) {
        let ended_since = match (self.ended.get(), self.folder.begun()) {
            (Some(ended), Some(begun)) => begun < *ended,
            _ => false,
        };
        let every = if ended_since {
            Duration::ZERO
        } else {
            FOLDER_EVERY
        };
        self.folder.begin(every, |_| async move {
            let started = started(&record);
            let folder = service.output_folder(&record).await?;
            if service.is_shared(&record, started).await {
                // Which of them wrote what, nobody can tell.
                return Some(None);
            }
            let look = move || {
                let found = run_files::read_output_dir(&folder, started)?;
                Ok(found.map(|(progress, _)| progress))
            };
            seen_in_file(look).await
        });
    }
}

async fn seen_in_file<T: Send + 'static>(
    look: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(look).await.ok()? {
        Ok(seen) => Some(seen),
        Err(error) => {
            tracing::debug!(%error, "what a job says cannot be read");
            None
        }
    }
}

impl LogSeen {
    /// The log at `path`, of which `reader` reads what is new.
    fn of_file(
        path: &Path,
        reader: &mut IncrementalReader,
        started: Option<SystemTime>,
        last: Option<Self>,
    ) -> io::Result<Self> {
        let written = path.metadata()?.modified()?;
        let found = reader.read()?;
        let first = started.unwrap_or(written);
        let mut stall = last.map_or_else(
            || {
                // Each loss that was printed before the first read was a write.
                let losses = u32::try_from(reader.history().points().len()).unwrap_or(u32::MAX);
                StallDetector::new(since_epoch(first), since_epoch(written), losses)
            },
            |last| last.stall,
        );
        stall.record(since_epoch(written));
        Ok(Self {
            progress: found,
            is_aged: true,
            written: Some(written),
            stall,
            text: Arc::default(),
        })
    }

    /// The end of a log of which nobody says when it was written: what differs from the last look was written since.
    fn of_text(text: &str, now: SystemTime, last: Option<Self>) -> Self {
        let is_first = last.is_none();
        let last = last.unwrap_or_default();
        let start = text.ceil_char_boundary(text.len().saturating_sub(failure::LOOKED_AT));
        let text = &text[start..];
        let is_new = *text != *last.text;
        let written = if is_new { Some(now) } else { last.written };
        let mut stall = last.stall;
        if is_new {
            stall.record(since_epoch(now));
        }
        let mut scanner = Scanner::default();
        scanner.push(text.as_bytes());
        let mut progress = scanner.progress(written.unwrap_or(now));
        let mut is_aged = !is_first;
        if let (Some(progress), Some(last)) = (&mut progress, last.progress)
            && progress.metrics == last.metrics
        {
            progress.measured_at = last.measured_at;
            is_aged = true;
        }
        Self {
            progress,
            is_aged,
            written,
            stall,
            text: text.into(),
        }
    }

    fn stalled(&self, now: SystemTime) -> Option<Stall> {
        let silent = now.duration_since(self.written?).ok()?;
        self.stall.check(silent)
    }
}

impl JobService {
    /// What the job tells whose launcher has just said how it is, asked since `begun`.
    pub(super) async fn told(
        &self,
        found: &ResolvedJob,
        launcher: &Arc<dyn Launcher>,
        status: &JobStatus,
        begun: Instant,
    ) -> Told {
        let identity = &found.identity;
        let insight = self.inner.insights.of(identity);
        if status.is_done {
            insight.ended.get_or_init(Instant::now);
        }
        let is_own_word = matches!(
            status.state,
            JobState::Running | JobState::Succeeded | JobState::Failed
        );
        insight.has_begun.fetch_or(is_own_word, Ordering::Relaxed);
        let mut told = Told::default();
        let mut text = None;
        let now = SystemTime::now;
        if is_on_a_cloud(identity) {
            if is_own_word {
                insight.ask_for_cloud_log(launcher, identity);
                let rest = POLL.saturating_sub(begun.elapsed());
                let seen = insight.log.seen(rest.min(CLOUD_LOG_PATIENCE)).await;
                if let Some(seen) = seen {
                    told.progress = progress_answer(seen.progress.clone(), seen.is_aged, now());
                    told.stalled = seen.stalled(now());
                    text = Some(seen.text.to_string());
                }
            }
        } else if identity.cloud == LOCAL {
            let started = found.record.as_ref().and_then(started);
            if let Ok(log) = launcher.logs(identity).await
                && let LogContent::File(path) = log.content
            {
                insight.follow(path, started);
            }
            if let Some(record) = &found.record {
                insight.read_folder(self.clone(), record.clone());
            }
            let (seen, folder) = tokio::join!(
                insight.log.seen(FILE_PATIENCE),
                insight.folder.seen(FILE_PATIENCE)
            );
            told.stalled = seen.as_ref().and_then(|seen| seen.stalled(now()));
            let progress = match (seen.and_then(|seen| seen.progress), folder.flatten()) {
                (Some(log), Some(folder)) => Some(log.merged(folder)),
                (one, other) => one.or(other),
            };
            told.progress = progress_answer(progress, true, now());
        }
        if status.state != JobState::Running {
            told.stalled = None;
        }
        if status.state == JobState::Failed {
            told.failure = self.failure(launcher, identity, status, text).await;
        }
        told
    }

    /// Where a training on this machine writes what it knows of itself. What a job config runs is not known so well.
    async fn output_folder(&self, record: &JobRecord) -> Option<PathBuf> {
        let dir = self.context.job_dir(&record.job_id)?;
        let plan = tokio::task::spawn_blocking(move || dir.plan());
        let plan = plan.await.ok()?.ok()?;
        let trains = |step: &supervisor::Step| step.argv.get(1).is_some_and(|verb| verb == "train");
        (plan.steps.iter().any(trains) && !record.output_dir.is_empty())
            .then(|| plan.working_dir.join(expand_home(&record.output_dir)))
    }

    /// Whether another job with the same output folder has lived since `started`.
    async fn is_shared(&self, record: &JobRecord, started: Option<SystemTime>) -> bool {
        let (Ok(records), Ok(launcher)) = (
            self.context.registry.records().await,
            self.context.launcher(LOCAL),
        ) else {
            return true;
        };
        let others = records.iter().filter(|other| {
            other.cloud == LOCAL
                && other.output_dir == record.output_dir
                && other.job_id != record.job_id
        });
        for other in others {
            let Ok(status) = launcher.status(&other.identity()).await else {
                return true;
            };
            let ended = status.details.ended_at.as_deref();
            // Of one whose end nobody saw it is only known when it began.
            let last_seen = ended.and_then(time_of);
            if !status.is_done || last_seen.or_else(|| self::started(other)) >= started {
                return true;
            }
        }
        false
    }

    /// Why a job failed. `text` is the end of its log, where that is no file.
    async fn failure(
        &self,
        launcher: &Arc<dyn Launcher>,
        identity: &JobIdentity,
        status: &JobStatus,
        text: Option<String>,
    ) -> Option<Failure> {
        // Hidden here as well as at the exit: of what is cut out of the log afterwards no half secret can be left.
        let secrets = self.context.redactor(&identity.job_id).await;
        let file = match &text {
            None if !is_on_a_cloud(identity) => launcher.logs(identity).await.ok(),
            _ => None,
        };
        let exit = (status.details.signal.map(Exit::Signal))
            .or(status.details.exit_code.map(Exit::Code))
            .or_else(|| sky::exit_code(text.as_deref()?).map(Exit::Code));
        // Of a process here the launcher says no more than its exit.
        let is_exit = identity.cloud == LOCAL && exit.is_some();
        let reason = status.message.clone().filter(|_| !is_exit);
        let explained = tokio::task::spawn_blocking(move || {
            let said = match (text, file.map(|log| log.content)) {
                (Some(text), _) | (None, Some(LogContent::Text { text, .. })) => {
                    fold(text.as_bytes())
                }
                (None, Some(LogContent::File(path))) => fold(&end_of(&path).unwrap_or_default()),
                (None, None) => String::new(),
            };
            if secrets.hides_all() {
                return failure::explain("", exit, None);
            }
            let start = said.len().saturating_sub(failure::LOOKED_AT);
            let said = secrets.redact(&said[said.ceil_char_boundary(start)..]);
            let reason = reason.map(|reason| secrets.redact(&reason));
            failure::explain(&said, exit, reason.as_deref())
        });
        explained.await.ok().flatten()
    }
}

/// The end of a log, from the beginning of a line on.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(FAILURE_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(FAILURE_TAIL).read_to_end(&mut bytes)?;
    if start > 0 {
        let line = bytes.iter().position(|byte| *byte == b'\n');
        bytes.drain(..line.map_or(0, |end| end + 1));
    }
    Ok(bytes)
}

/// Whether a job has been launched on a cloud, so that its log costs a run of a program.
fn is_on_a_cloud(identity: &JobIdentity) -> bool {
    identity.cloud != LOCAL && !identity.oumi_job_id.is_empty()
}

/// When a job was submitted.
fn started(record: &JobRecord) -> Option<SystemTime> {
    time_of(&record.submit_time)
}

fn time_of(text: &str) -> Option<SystemTime> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(SystemTime::from)
}

fn progress_answer(
    progress: Option<Progress>,
    is_aged: bool,
    now: SystemTime,
) -> Option<ProgressAnswer> {
    let mut progress = progress?;
    if let Some(left) = &mut progress.metrics.seconds_left {
        *left = left.round();
    }
    if !is_aged {
        progress.measured_at = None;
    }
    Some(ProgressAnswer {
        age_seconds: progress.age(now).map(|age| age.as_secs()),
        progress,
    })
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
