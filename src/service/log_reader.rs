//! Reads the logs of jobs for polls, and keeps the readings, so that each poll costs only what is new. A log on this machine is read
//! at each poll. That of a cloud job costs a run of `sky logs`: it is fetched at most once a minute, once more after the end, and
//! only of a job that has begun. What does not come in time is part of the next poll.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use memchr::{memchr, memchr2};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::{JobError, Result};
use crate::failure;
use crate::launcher::{JobIdentity, JobState, JobStatus, Launcher, LogContent};
use crate::process::on_file_threads;
use crate::progress::links::Links;
use crate::progress::stall::Stall;
use crate::progress::{IncrementalReader, Progress, Scanner};
use crate::settings::unchanged::{Unchanged, Version, version};
use crate::sync::lock;
use crate::text::{end_of, read_tail};

const MAX_LOGS: usize = 64;
/// The permits to fetch logs of cloud jobs: few programs may run, and a status counts for more.
static FETCHES: Semaphore = Semaphore::const_new(2);
const FETCH_INTERVAL: Duration = Duration::from_secs(60);
/// The permits to read output folders. Fewer than the threads for files: a folder that hangs keeps its thread.
pub(super) static FOLDER_READS: Semaphore = Semaphore::const_new(3);

/// The logs of the jobs that were polled last.
#[derive(Default)]
pub(super) struct LogReaders {
    readers: Mutex<HashMap<JobIdentity, Arc<LogReader>>>,
    /// How far jobs on this machine are, by their logs: rows of more jobs than have a reader.
    pub(super) phrases: Unchanged<Option<String>>,
}

impl LogReaders {
    /// Returns the reader of a job's log, and forgets another one when there are too many.
    fn get(&self, job: &JobIdentity) -> Arc<LogReader> {
        let mut readers = lock(&self.readers);
        if readers.len() >= MAX_LOGS && !readers.contains_key(job) {
            // Any one will do: calls that go round all jobs come to the oldest next.
            let other = readers.keys().next().cloned();
            drop(other.and_then(|other| readers.remove(&other)));
        }
        Arc::clone(readers.entry(job.clone()).or_default())
    }

    /// Returns the newest reading of a job's log, and reads nothing.
    pub(super) fn newest(&self, job: &JobIdentity) -> Option<LogReading> {
        lock(&lock(&self.readers).get(job)?.newest).clone()
    }

    /// Reads the log of a job with this status where that is due, and returns the newest reading, within at most `wait`.
    pub(super) async fn reading(
        &self,
        launcher: &Arc<dyn Launcher>,
        job: &JobIdentity,
        status: &JobStatus,
        wait: Duration,
    ) -> Option<LogReading> {
        let reader = self.get(job);
        let reading = async {
            let mut work = Arc::clone(&reader.work).lock_owned().await;
            if launcher.is_local() {
                return reader.read_file(&mut work, &**launcher, job).await;
            }
            if !work.is_due(job, status) {
                return Ok(());
            }
            work.last = Some((Instant::now(), status.is_done));
            let (reader, launcher) = (Arc::clone(&reader), Arc::clone(launcher));
            let job = job.clone();
            let fetch = async move {
                let _permit = FETCHES.acquire().await.map_err(JobError::failed)?;
                reader.fetch(&mut work, &*launcher, &job).await
            };
            // In a task, which goes on when the poll no longer waits.
            let task = tokio::spawn(on_file_threads(fetch.boxed()));
            task.await.map_err(JobError::failed)?
        };
        if let Ok(Err(error)) = tokio::time::timeout(wait, reading).await {
            let job_id = &job.job_id;
            tracing::info!(job_id, %error, "cannot read the log for the progress");
        }
        lock(&reader.newest).clone()
    }
}

#[derive(Default)]
struct LogReader {
    newest: Mutex<Option<LogReading>>,
    /// Held by the read under way. Those who wait for it have a deadline.
    work: Arc<tokio::sync::Mutex<Work>>,
}

#[derive(Default)]
struct Work {
    /// The start of the last fetch, and whether the job was over by then.
    last: Option<(Instant, bool)>,
    /// The log was fetched after the job was over.
    is_complete: bool,
    file: Option<IncrementalReader>,
    /// Of the file when it was read last.
    version: Option<Version>,
}

impl Work {
    /// Tells if the log of a job on a cloud is to be fetched.
    fn is_due(&self, job: &JobIdentity, status: &JobStatus) -> bool {
        let has_output = [JobState::Running, JobState::Succeeded, JobState::Failed];
        match self.last {
            _ if self.is_complete => false,
            // A job that is still being launched has no log there.
            None => has_output.contains(&status.state) && !job.oumi_job_id.is_empty(),
            Some((_, false)) if status.is_done => true,
            Some((started, _)) => started.elapsed() >= FETCH_INTERVAL,
        }
    }
}

impl LogReader {
    /// Reads the log of a job on this machine, whose file stays where it is.
    async fn read_file(
        &self,
        work: &mut Work,
        launcher: &dyn Launcher,
        job: &JobIdentity,
    ) -> Result<()> {
        let mut file = match work.file.take() {
            Some(file) => file,
            None => match launcher.logs(job).await?.content {
                LogContent::File(path) => IncrementalReader::new(&path),
                LogContent::Text { .. } => return Ok(()),
            },
        };
        let version = version(&file.path);
        if version.is_none() || version != work.version {
            *lock(&self.newest) = Some(LogReading::of_file(&mut file)?);
        }
        (work.file, work.version) = (Some(file), version);
        Ok(())
    }

    async fn fetch(
        &self,
        work: &mut Work,
        launcher: &dyn Launcher,
        job: &JobIdentity,
    ) -> Result<()> {
        // A file is the log of the launch, which is all that is left of a deleted cluster and says nothing of the job.
        if let LogContent::Text { text, .. } = launcher.logs(job).await?.content {
            let before = lock(&self.newest).clone();
            *lock(&self.newest) = Some(LogReading::of_text(&text, before));
            work.is_complete = work.last.is_some_and(|(_, is_over)| is_over);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct LogReading {
    pub(super) progress: Option<Progress>,
    /// The writes to the log, as far as its losses tell.
    writes: usize,
    pub(super) written: Option<SystemTime>,
    tail: Tail,
    pub(super) links: Vec<String>,
}

#[derive(Debug, Clone, Default)]
enum Tail {
    #[default]
    None,
    Text(Arc<str>),
    File(PathBuf),
}

impl LogReading {
    fn of_file(file: &mut IncrementalReader) -> io::Result<Self> {
        let written = file.path.metadata()?.modified()?;
        Ok(Self {
            progress: file.read()?,
            writes: file.scanner.training.history.points().len(),
            written: Some(written),
            tail: Tail::File(file.path.clone()),
            links: file.scanner.links.to_vec(),
        })
    }

    /// The file at `path`, of which nothing was read.
    pub(super) fn at(path: PathBuf) -> Self {
        Self {
            tail: Tail::File(path),
            ..Self::default()
        }
    }

    /// Reads the end of a log that comes without the time of its last write. What differs from `before` was written since.
    fn of_text(text: &str, before: Option<Self>) -> Self {
        let mut links = Links::default();
        links.read(text.as_bytes());
        let end = end_of(text, failure::LOOKED_AT);
        let below = end.split_once(['\n', '\r']).map(|(_, below)| below);
        let text = below.filter(|_| end.len() < text.len()).unwrap_or(end);
        let is_first = before.is_none();
        let before = before.unwrap_or_default();
        let is_same = matches!(&before.tail, Tail::Text(before) if **before == *text);
        let written = before.written.filter(|_| is_same);
        let written = written.unwrap_or_else(SystemTime::now);
        let mut scanner = Scanner::default();
        scanner.push(text.as_bytes());
        let training = scanner.ahead();
        let mut progress = training.progress(written);
        if let Some(progress) = &mut progress {
            progress.measured_at = match before.progress {
                _ if is_first => None,
                Some(before) if before.metrics == progress.metrics => before.measured_at,
                _ => progress.measured_at.take(),
            };
        }
        Self {
            progress,
            writes: training.history.points().len(),
            written: Some(written),
            tail: Tail::Text(text.into()),
            // Links stand at the beginning of a log, which is no longer fetched once the log is long.
            links: match before.links.as_slice() {
                [] => links.to_vec(),
                _ => before.links,
            },
        }
    }

    /// Reads the end of the log, from a whole line or at least word on: half a secret is not recognized. Does file work.
    pub(super) fn tail(&self, max_bytes: u64) -> Vec<u8> {
        match &self.tail {
            Tail::None => Vec::new(),
            Tail::Text(text) => text.as_bytes().to_vec(),
            Tail::File(path) => {
                let mut tail = read_tail(path, max_bytes).unwrap_or_default();
                let end = memchr2(b'\n', b'\r', &tail).or_else(|| memchr(b' ', &tail));
                if let Some(end) = end.filter(|_| tail.len() as u64 == max_bytes) {
                    tail.drain(..=end);
                }
                tail
            }
        }
    }

    /// Tells if the log of a job that began at `started` has been silent for too long.
    pub(super) fn stalled(&self, started: Option<SystemTime>, now: SystemTime) -> Option<Stall> {
        let written = self.written?;
        let writes = u32::try_from(self.writes).ok()?;
        let time = written.duration_since(started?).unwrap_or_default();
        Stall::check(time, writes, now.duration_since(written).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::{JobIdentity, LogReaders, LogReading, MAX_LOGS, lock};
    use crate::failure;

    #[test]
    fn one_reader_too_many_costs_one() {
        let readers = LogReaders::default();
        for number in 0..=MAX_LOGS {
            readers.get(&JobIdentity::of(&number.to_string()));
        }
        assert_eq!(lock(&readers.readers).len(), MAX_LOGS);
        assert!(readers.newest(&JobIdentity::of("other")).is_none());
        assert_eq!(lock(&readers.readers).len(), MAX_LOGS);
    }

    #[test]
    fn links_outlive_the_beginning_of_a_log() {
        let link = "https://wandb.ai/me/llama/runs/1";
        let text = format!("wandb: View run at {link}\n{{'loss': 1.0}}\n");
        let first = LogReading::of_text(&text, None);
        assert_eq!(first.links, [link]);
        let second = LogReading::of_text("{'loss': 0.9}\n", Some(first));
        assert_eq!(second.links, [link]);
    }

    #[test]
    fn kept_end_begins_with_a_whole_line() {
        let text = format!("secret-{}\nwhole\n", "x".repeat(failure::LOOKED_AT));
        let reading = LogReading::of_text(&text, None);
        assert_eq!(reading.tail(5), b"whole\n");
        let whole = LogReading::of_text("short", None);
        assert_eq!(whole.tail(5), b"short");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\rsecond\nthird").unwrap();
        let reading = LogReading::at(file.path().to_owned());
        assert_eq!(reading.tail(10), b"third");
        assert_eq!(reading.tail(100), b"first\rsecond\nthird");
        std::fs::write(file.path(), "half-a-token whole").unwrap();
        assert_eq!(reading.tail(10), b"whole");
    }
}
