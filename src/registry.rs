//! The registry of job identities: a JSON file that servers share, and that the Python server reads and writes too.
//!
//! It never stores the state of a job. Every change is read, made and written under a lock between processes; every query
//! reads the file again, since another server may have changed it.

mod file;
mod record;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::JobError;
use crate::job_identity::JobIdentity;
use crate::process::run_blocking;
use crate::settings::data_dir::{DataDir, open_options};
use crate::sync::lock;
use file::Content;
#[cfg(test)]
pub(crate) use record::KEEP_RECORDS;
pub(crate) use record::{JobRecord, expired};

const LOCK_DEADLINE: Duration = Duration::from_secs(10);
/// The wait between two tries for the lock, by the seconds waited so far. It halves, so that of many callers those who have
/// waited long come first.
const LOCK_POLL: [Duration; 4] = [
    Duration::from_millis(8),
    Duration::from_millis(4),
    Duration::from_millis(2),
    Duration::from_millis(1),
];

/// The registry could not be read or changed; on disk it is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error(
        "cannot {doing} the job registry {path}: {source}; check the folder's permissions and free space"
    )]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "another process has held {0} for {seconds} s; end a hanging oumi-mcp-server and try again",
        seconds = LOCK_DEADLINE.as_secs()
    )]
    Locked(PathBuf),
    #[error(
        "there is already a job {0:?}; choose another job_name, or call poll_status with it to see its status"
    )]
    Duplicate(String),
    /// The data folder, or the caller's own part of an insertion, failed.
    #[error(transparent)]
    Prepare(#[from] JobError),
}

impl From<RegistryError> for JobError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Prepare(error) => error,
            RegistryError::Duplicate(_) => Self::invalid(error),
            _ => Self::failed(error),
        }
    }
}

/// The registry of a data folder. Clones share the queue in front of its lock.
#[derive(Debug, Clone)]
pub(crate) struct JobRegistry {
    data_dir: DataDir,
    /// Callers in this process queue here; only one of them at a time tries for the lock between processes.
    turn: Arc<tokio::sync::Mutex<()>>,
    known: Arc<Mutex<file::Known>>,
}

impl JobRegistry {
    pub(crate) fn new(data_dir: DataDir) -> Self {
        Self {
            data_dir,
            turn: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Returns all records in the order of their submission. A damaged file is repaired first: its whole records are kept,
    /// and a copy of it is quarantined.
    pub(crate) async fn records(&self) -> Result<Vec<JobRecord>, RegistryError> {
        self.read().await.map(|records| records.to_vec())
    }

    pub(crate) async fn get(&self, job_id: &str) -> Result<Option<JobRecord>, RegistryError> {
        let records = self.read().await?;
        let record = records.iter().find(|record| record.job_id == job_id);
        Ok(record.cloned())
    }

    async fn read(&self) -> Result<Arc<Vec<JobRecord>>, RegistryError> {
        let (path, known) = (self.data_dir.registry(), Arc::clone(&self.known));
        let read = move || {
            let read = file::read_known(&path, &mut lock(&known));
            read.map_err(|source| io_error("read", &path, source))
        };
        match self.blocking(read).await? {
            Some(records) => Ok(records),
            // A repair needs the lock.
            None => {
                let repaired = self.change(|records| Ok(((), records))).await;
                repaired.map(|(records, ())| Arc::new(records))
            }
        }
    }

    /// Adds a record. `prepare` is given the others, under the lock, once the id is known to be free; when it fails nothing is added.
    pub(crate) async fn insert<T: Send + 'static>(
        &self,
        record: JobRecord,
        prepare: impl FnOnce(&[JobRecord]) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let changed = self.change(move |mut records| {
            if records.iter().any(|known| known.is_named(&record.job_id)) {
                return Err(RegistryError::Duplicate(record.job_id));
            }
            let prepared = prepare(&records).map_err(RegistryError::Prepare)?;
            records.push(record);
            Ok((prepared, records))
        });
        changed.await.map(|(_, prepared)| prepared)
    }

    /// Writes the cluster and the launcher's id of a job. An unknown job is logged and changes nothing.
    pub(crate) async fn update(&self, identity: JobIdentity) -> Result<(), RegistryError> {
        let changed = self.change(move |mut records| {
            let job_id = identity.job_id;
            match records.iter_mut().find(|record| record.job_id == job_id) {
                Some(record) => {
                    record.cluster_name = identity.cluster;
                    record.oumi_job_id = identity.oumi_job_id;
                }
                None => tracing::warn!(job_id, "no such job in the registry; nothing updated"),
            }
            Ok(((), records))
        });
        changed.await.map(|_| ())
    }

    /// Removes records. One that differs by now stays: its id is another job's. `cleanup` runs for each removed one under
    /// the lock, before a new job can have its id.
    pub(crate) async fn remove(
        &self,
        unwanted: Vec<JobRecord>,
        cleanup: impl Fn(&JobRecord) + Send + 'static,
    ) -> Result<(), RegistryError> {
        if unwanted.is_empty() {
            return Ok(());
        }
        let changed = self.change(move |mut records| {
            for record in records.extract_if(.., |record| unwanted.contains(record)) {
                cleanup(&record);
            }
            Ok(((), records))
        });
        changed.await.map(|_| ())
    }

    /// Lists the damaged files that are still there, oldest first.
    pub(crate) async fn quarantined(&self) -> Result<Vec<PathBuf>, RegistryError> {
        let path = self.data_dir.registry();
        let list = move || file::quarantined(&path).map_err(|error| io_error("list", &path, error));
        self.blocking(list).await
    }

    /// Reads, changes and writes under the lock. The file is written only where the records differ, or it was damaged.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(Vec<JobRecord>) -> Result<(T, Vec<JobRecord>), RegistryError>
        + Send
        + 'static,
    ) -> Result<(Vec<JobRecord>, T), RegistryError> {
        let _turn = self.turn.lock().await;
        let lock = self.lock().await?;
        let path = self.data_dir.registry();
        let changed = self.blocking(move || {
            let failed = |doing| {
                let path = path.clone();
                move |source| io_error(doing, &path, source)
            };
            let (before, is_damaged) = match file::read(&path).map_err(failed("read"))? {
                Content::Intact(records) => (records, false),
                Content::Damaged { salvaged } => {
                    let copy = file::quarantine(&path).map_err(failed("quarantine"))?;
                    tracing::warn!(kept = salvaged.len(), copy = %copy.display(), "the job registry was damaged");
                    (salvaged, true)
                }
            };
            let outcome = change(before.clone());
            let after = outcome.as_ref().map_or(&before, |(_, after)| after);
            if is_damaged || *after != before {
                let folder = file::write(&path, after).map_err(failed("write"))?;
                // The disk may be slow, and the next process need not wait for it.
                drop(lock);
                folder.sync_all().map_err(failed("write"))?;
            }
            outcome.map(|(value, records)| (records, value))
        });
        changed.await
    }

    /// Takes the lock between processes. The kernel frees it with the file, so also when its holder is killed.
    async fn lock(&self) -> Result<File, RegistryError> {
        let path = self.data_dir.registry_lock();
        let (opened, data_dir) = (path.clone(), self.data_dir.clone());
        let open = move || {
            data_dir.create()?;
            let mut options = open_options();
            let file = options.create(true).write(true).open(&opened);
            file.map_err(|source| io_error("lock", &opened, source))
        };
        let file = self.blocking(open).await?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if start.elapsed() >= LOCK_DEADLINE => {
                    return Err(RegistryError::Locked(path));
                }
                Err(TryLockError::WouldBlock) => {
                    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap_or(usize::MAX);
                    tokio::time::sleep(LOCK_POLL[seconds.min(LOCK_POLL.len() - 1)]).await;
                }
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let working = run_blocking(work).await;
        working.map_err(|error| io_error("use", &self.data_dir.registry(), error))?
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> RegistryError {
    RegistryError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
