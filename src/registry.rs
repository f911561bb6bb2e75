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
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{JobError, Result};
use crate::job_identity::JobIdentity;
use crate::settings::data_dir::{DataDir, open_options};
use crate::settings::unchanged::Unchanged;
#[cfg(test)]
pub(crate) use record::KEEP_RECORDS;
pub(crate) use record::{JobRecord, expired};

const LOCK_DEADLINE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(2);

/// The registry of a data folder. Clones share the queue in front of its lock.
#[derive(Debug, Clone)]
pub(crate) struct JobRegistry {
    data_dir: DataDir,
    /// Callers in this process queue here; only one of them at a time tries for the lock between processes.
    turn: Arc<tokio::sync::Mutex<()>>,
    known: Arc<Unchanged<Arc<Vec<JobRecord>>>>,
    written: Arc<file::Written>,
}

impl JobRegistry {
    pub(crate) fn new(data_dir: DataDir) -> Self {
        Self {
            data_dir,
            turn: Arc::default(),
            known: Arc::default(),
            written: Arc::default(),
        }
    }

    /// Returns all records, oldest first. A damaged file is repaired first: its whole records are kept, and a copy is quarantined.
    pub(crate) async fn records(&self) -> Result<Arc<Vec<JobRecord>>> {
        let path = self.data_dir.registry();
        let version = match self.known.get(&path) {
            Ok(records) => return Ok(records),
            Err(version) => version,
        };
        let (records, is_damaged) = self.read()?;
        if is_damaged {
            // A repair needs the lock.
            return self.change(|records| Ok(Arc::new(records.clone()))).await;
        }
        self.known.keep(&path, version, &records);
        Ok(records)
    }

    /// Reads the file. Returns its records and if it is damaged; then those that are whole.
    pub(crate) fn read(&self) -> Result<(Arc<Vec<JobRecord>>, bool)> {
        let path = self.data_dir.registry();
        file::read(&path, &self.written).map_err(io_error("read", &path))
    }

    pub(crate) async fn get(&self, job_id: &str) -> Result<Option<JobRecord>> {
        let records = self.records().await?;
        let record = records.iter().find(|record| record.job_id == job_id);
        Ok(record.cloned())
    }

    /// Adds a record. `prepare` runs under the lock once the id is known to be free; when it fails nothing is added.
    pub(crate) async fn insert<T>(
        &self,
        record: JobRecord,
        prepare: impl FnOnce(&[JobRecord]) -> Result<T> + Send,
    ) -> Result<T> {
        self.change(move |records| {
            if records.iter().any(|known| known.is_named(&record.job_id)) {
                return Err(duplicate(&record.job_id));
            }
            let prepared = prepare(records)?;
            records.push(record);
            Ok(prepared)
        })
        .await
    }

    /// Writes the cluster and the launcher's id of a job. An unknown job is logged and changes nothing.
    pub(crate) async fn update(&self, identity: JobIdentity) -> Result<()> {
        self.change(move |records| {
            let job_id = identity.job_id;
            match records.iter_mut().find(|record| record.job_id == job_id) {
                Some(record) => {
                    record.cluster_name = identity.cluster;
                    record.oumi_job_id = identity.oumi_job_id;
                }
                None => tracing::warn!(job_id, "no such job in the registry; nothing updated"),
            }
            Ok(())
        })
        .await
    }

    /// Removes records, but for those that differ by now: their ids are other jobs'. `cleanup` runs before a new job can have the id.
    pub(crate) async fn remove(
        &self,
        unwanted: Vec<JobRecord>,
        cleanup: impl Fn(&JobRecord) + Send,
    ) -> Result<()> {
        if unwanted.is_empty() {
            return Ok(());
        }
        self.change(move |records| {
            for record in records.extract_if(.., |record| unwanted.contains(record)) {
                cleanup(&record);
            }
            Ok(())
        })
        .await
    }

    /// Lists the damaged files that are still there, oldest first.
    pub(crate) async fn quarantined(&self) -> Result<Vec<PathBuf>> {
        let path = self.data_dir.registry();
        file::quarantined(&path).map_err(io_error("list", &path))
    }

    /// Reads, changes and writes under the lock; writes only where the records differ or the file was damaged. A `change` that fails
    /// leaves the records as they are.
    async fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<JobRecord>) -> Result<T> + Send,
    ) -> Result<T> {
        let turn = self.turn.lock().await;
        let lock = self.lock().await?;
        let path = self.data_dir.registry();
        let (known, is_damaged) = self.read()?;
        if is_damaged {
            let copy = file::quarantine(&path).map_err(io_error("quarantine", &path))?;
            let kept = known.len();
            tracing::warn!(copy = %copy.display(), kept, "the job registry was damaged");
        }
        let mut records = Vec::clone(&known);
        let outcome = change(&mut records);
        if is_damaged || records != *known {
            let folder =
                file::write(&path, records, &self.written).map_err(io_error("write", &path))?;
            // The disk may be slow, and the next change need not wait for it.
            drop((lock, turn));
            if let Err(error) = folder.sync_all() {
                // The records are there for every reader: only a machine that goes down now may lose them.
                tracing::warn!(%error, "cannot sync the folder of the job registry");
            }
        }
        outcome
    }

    async fn lock(&self) -> Result<Lock> {
        let path = self.data_dir.registry_lock();
        self.data_dir.create()?;
        let file = open_options().create(true).write(true).open(&path);
        let file = file.map_err(io_error("lock", &path))?;
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let (path, seconds) = (path.display(), LOCK_DEADLINE.as_secs());
                    let error = format!("another process has held {path} for {seconds} s");
                    let hint = "end a hanging oumi-mcp-server and try again";
                    return Err(JobError::failed(error).with_hint(hint));
                }
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
            }
        }
    }
}

/// The lock between processes, held. The kernel frees it when its holder is killed.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Not with the file alone: a program that is just being started has a copy of it.
        let _ = self.0.unlock();
    }
}

pub(crate) fn duplicate(job_id: &str) -> JobError {
    JobError::invalid(format!("there is already a job {job_id:?}"))
        .with_hint("choose another job_name, or call poll_status with it to see its status")
}

/// Names the file in an error; on disk the registry is as it was.
fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> JobError {
    let problem = format!("cannot {doing} the job registry {}", path.display());
    move |error| {
        let error = JobError::failed(error).context(&problem);
        error.with_hint("check that file, and the folder's permissions and free space")
    }
}
