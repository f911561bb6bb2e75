//! The logs of cloud jobs, for their progress.
//!
//! Such a log costs a run of `sky logs`. It is fetched beside the question for the status, at most once a minute, once more after
//! the end, and only of a job that has begun. What does not come in time is part of the next poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::failure;
use crate::launcher::{JobIdentity, JobState, JobStatus, Launcher, LogContent};
use crate::progress::history::History;
use crate::progress::stall::{Stall, StallDetector};
use crate::progress::{Progress, Scanner};
use crate::sync::lock;

/// The most jobs whose logs are kept.
const MAX_LOGS: usize = 32;
/// The most logs that are fetched at once: few programs may run, and a status counts for more.
const MAX_FETCHES: usize = 2;
const FETCH_INTERVAL: Duration = Duration::from_secs(60);
/// The logs of the cloud jobs that were polled last.
pub(super) struct CloudLogs {
    logs: Mutex<HashMap<JobIdentity, (Instant, Arc<CloudLog>)>>,
    permits: Arc<Semaphore>,
}

impl Default for CloudLogs {
    fn default() -> Self {
        Self {
            logs: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_FETCHES)),
        }
    }
}

impl CloudLogs {
    /// Returns the log of a job, and forgets the one that was used least recently when there are too many.
    pub(super) fn get(&self, identity: &JobIdentity) -> Arc<CloudLog> {
        // No code under this lock can leave the map half-changed.
        let mut logs = lock(&self.logs);
        let new = || CloudLog {
            permits: Arc::clone(&self.permits),
            state: Mutex::default(),
        };
        let entry = logs.entry(identity.clone());
        let entry = entry.or_insert_with(|| (Instant::now(), Arc::new(new())));
        entry.0 = Instant::now();
        let log = Arc::clone(&entry.1);
        if logs.len() > MAX_LOGS {
            let oldest = logs.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) {
                logs.remove(&oldest);
            }
        }
        log
    }
}

/// Tells if a job in this state may have written to its log.
pub(super) fn has_output(state: JobState) -> bool {
    matches!(
        state,
        JobState::Running | JobState::Succeeded | JobState::Failed
    )
}

/// The log of one cloud job.
#[derive(Debug)]
pub(super) struct CloudLog {
    permits: Arc<Semaphore>,
    state: Mutex<CloudLogState>,
}

#[derive(Debug, Default)]
struct CloudLogState {
    has_begun: bool,
    /// The first time at which the job was seen to have ended.
    ended_at: Option<Instant>,
    /// The start of the last fetch, and a channel that closes with its end.
    fetch: Option<(Instant, watch::Receiver<()>)>,
    reading: Option<LogReading>,
}

impl CloudLogState {
    fn is_due(&self) -> bool {
        let Some((started, end)) = &self.fetch else {
            return self.has_begun;
        };
        let is_running = end.has_changed().is_ok();
        match self.ended_at {
            _ if is_running => false,
            Some(ended) if *started < ended => true,
            // The log is complete.
            Some(_) if self.reading.is_some() => false,
            _ => started.elapsed() >= FETCH_INTERVAL,
        }
    }
}

impl CloudLog {
    pub(super) fn note_status(&self, status: &JobStatus) {
        let mut state = lock(&self.state);
        state.has_begun |= has_output(status.state);
        if status.is_done {
            state.ended_at.get_or_insert_with(Instant::now);
        }
    }

    /// Starts to fetch the log where that is due. The fetch goes on when the poll does not wait for it.
    pub(super) fn fetch(self: &Arc<Self>, launcher: &Arc<dyn Launcher>, identity: &JobIdentity) {
        let mut state = lock(&self.state);
        if !state.is_due() {
            return;
        }
        let (running, end) = watch::channel(());
        state.fetch = Some((Instant::now(), end));
        drop(state);
        let (log, launcher, identity) = (Arc::clone(self), Arc::clone(launcher), identity.clone());
        let permits = Arc::clone(&self.permits);
        tokio::spawn(async move {
            let _running = running;
            let Ok(_permit) = permits.acquire_owned().await else {
                return;
            };
            let text = match launcher.logs(&identity).await.map(|log| log.content) {
                Ok(LogContent::Text { text, .. }) => text,
                // Of a deleted cluster only the log of the launch is left, which tells nothing of the job.
                Ok(LogContent::File(_)) => return,
                Err(error) => {
                    tracing::info!(job_id = identity.job_id, %error, "cannot read the log for the progress");
                    return;
                }
            };
            let before = lock(&log.state).reading.clone();
            let read = move || LogReading::from_text(&text, before);
            if let Ok(reading) = tokio::task::spawn_blocking(read).await {
                lock(&log.state).reading = Some(reading);
            }
        });
    }

    /// Returns the newest reading, after the end of a fetch under way or at most `wait`.
    pub(super) async fn reading(&self, wait: Duration) -> Option<LogReading> {
        let fetch = lock(&self.state).fetch.clone();
        if let Some((_, mut end)) = fetch {
            // Nothing is ever sent: the channel closes, or the time is up.
            let _ = tokio::time::timeout(wait, end.changed()).await;
        }
        lock(&self.state).reading.clone()
    }
}

/// A log as it was read.
#[derive(Debug, Clone, Default)]
pub(super) struct LogReading {
    pub(super) progress: Option<Progress>,
    /// The writes to the log, as far as its losses tell.
    pub(super) writes: u32,
    /// The time of the last write.
    pub(super) written: Option<SystemTime>,
    /// `true` when the newest metric may be older than `written`.
    pub(super) is_age_unknown: bool,
    /// The end of the log of a cloud job.
    pub(super) text: Option<Arc<str>>,
}

impl LogReading {
    /// Reads the end of a log that comes without the time of its last write: what differs from the reading before was written
    /// since.
    fn from_text(text: &str, before: Option<Self>) -> Self {
        let is_age_unknown = before.is_none();
        let before = before.unwrap_or_default();
        let text = &text[text.ceil_char_boundary(text.len().saturating_sub(failure::LOOKED_AT))..];
        let is_same = before.text.as_deref() == Some(text);
        let now = SystemTime::now();
        let written = before.written.filter(|_| is_same).unwrap_or(now);
        let mut scanner = Scanner::default();
        scanner.push(text.as_bytes());
        let (mut progress, history) = scanner.read(written);
        if let (Some(progress), Some(before)) = (&mut progress, before.progress)
            && progress.metrics == before.metrics
        {
            progress.measured_at = before.measured_at;
        }
        Self {
            progress,
            writes: writes(&history),
            written: Some(written),
            is_age_unknown,
            text: Some(text.into()),
        }
    }

    /// Tells if the log of a job that began at `started` has been silent for too long.
    pub(super) fn stalled(&self, started: Option<SystemTime>, now: SystemTime) -> Option<Stall> {
        let written = self.written?;
        let since_epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let (first, last) = (since_epoch(started?)?, since_epoch(written)?);
        let silent = now.duration_since(written).ok()?;
        StallDetector::new(first, last, self.writes).check(silent)
    }
}

/// Counts the writes that a history proves.
pub(super) fn writes(history: &History) -> u32 {
    u32::try_from(history.points().len()).unwrap_or(u32::MAX)
}
