//! Who the jobs are: a JSON file of identities that servers share, and that the Python server reads and writes too.
//!
//! Nothing here says how a job is. Every change is read, made and written under a lock between processes; every look reads
//! the file anew, since another server may have changed it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::launcher::JobIdentity;
use crate::process::job_dir::JobDir;
use crate::settings::data_dir::{DataDir, DataDirError, replace};

/// How long a record is kept after its submission, in days.
pub const KEEP_DAYS: i64 = 7;
/// How many records are kept at most.
pub const KEEP_RECORDS: usize = 200;

const LOCK_DEADLINE: Duration = Duration::from_secs(10);
/// How often a caller looks whether the lock is free, at first and in the end. It halves with every second, so that of many
/// callers those who have waited long come first.
const LOCK_LOOKS: [Duration; 4] = [
    Duration::from_millis(8),
    Duration::from_millis(4),
    Duration::from_millis(2),
    Duration::from_millis(1),
];

/// The registry could not be read or changed; on disk it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file system refused.
    #[error(
        "cannot {doing} the job registry {path}: {source}; check the folder's permissions and free space"
    )]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The data folder cannot be made.
    #[error(transparent)]
    Folder(#[from] DataDirError),
    /// Another process holds the lock.
    #[error(
        "another process has held {0} for {seconds} s; end a hanging oumi-mcp-server and try again",
        seconds = LOCK_DEADLINE.as_secs()
    )]
    Locked(PathBuf),
    /// There is a job of that id.
    #[error(
        "there is already a job {0:?}; choose another job_name, or call poll_status with it to see how it is"
    )]
    Duplicate(String),
    /// The change itself failed.
    #[error("{0}")]
    Change(String),
}

/// Who a job is. The fields and their names are the Python server's; all are texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobRecord {
    /// Our id.
    pub job_id: String,
    /// What Oumi does: `train`, `evaluate`, …
    pub command: String,
    /// The config file, absolute.
    pub config_path: String,
    /// The cloud, `local` for this machine.
    pub cloud: String,
    /// The cluster; empty on this machine.
    pub cluster_name: String,
    /// The launcher's id; empty until the launch has ended.
    pub oumi_job_id: String,
    /// The model the config names.
    pub model_name: String,
    /// When it was submitted, ISO 8601.
    pub submit_time: String,
    /// Where the job writes what it makes.
    pub output_dir: String,
    /// What a newer version wrote beside; it survives a rewrite.
    pub other: Map<String, Value>,
}

impl JobRecord {
    /// Who the job is, in the words a launcher is asked with.
    pub fn identity(&self) -> JobIdentity {
        JobIdentity {
            job_id: self.job_id.clone(),
            cloud: self.cloud.clone(),
            cluster: self.cluster_name.clone(),
            oumi_job_id: self.oumi_job_id.clone(),
        }
    }

    /// When it was submitted; nothing when the text is no time. `Z`, an offset, or none (then it is UTC) are read.
    pub fn submitted_at(&self) -> Option<DateTime<Utc>> {
        let text = self.submit_time.trim();
        DateTime::parse_from_rfc3339(text)
            .map(|time| time.to_utc())
            .or_else(|_| text.parse::<NaiveDateTime>().map(|time| time.and_utc()))
            .ok()
    }

    fn fields(&mut self) -> [(&'static str, &mut String); 9] {
        [
            ("job_id", &mut self.job_id),
            ("command", &mut self.command),
            ("config_path", &mut self.config_path),
            ("cloud", &mut self.cloud),
            ("cluster_name", &mut self.cluster_name),
            ("oumi_job_id", &mut self.oumi_job_id),
            ("model_name", &mut self.model_name),
            ("submit_time", &mut self.submit_time),
            ("output_dir", &mut self.output_dir),
        ]
    }

    /// A record from a JSON object; nothing when it is none: no id, or a field of ours that is no text.
    fn from_json(value: Value) -> Option<Self> {
        let Value::Object(mut object) = value else {
            return None;
        };
        // Old files of the Python server hold it; how a job is, is never stored.
        object.remove("status");
        let mut record = Self::default();
        for (name, field) in record.fields() {
            match object.remove(name) {
                Some(Value::String(text)) => *field = text,
                None | Some(Value::Null) => {}
                Some(_) => return None,
            }
        }
        record.other = object;
        (!record.job_id.is_empty()).then_some(record)
    }

    fn to_json(&self) -> Value {
        let mut record = self.clone();
        let mut object: Map<String, Value> = record
            .fields()
            .into_iter()
            .map(|(name, field)| (name.to_owned(), Value::from(std::mem::take(field))))
            .collect();
        object.extend(record.other);
        Value::Object(object)
    }
}

/// What may change once a job is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityUpdate {
    /// The cluster it runs on.
    pub cluster_name: String,
    /// The launcher's id.
    pub oumi_job_id: String,
}

/// The registry of a data folder. Clones share the queue in front of its lock.
#[derive(Debug, Clone)]
pub struct JobRegistry {
    folder: DataDir,
    /// Callers in this process wait here in turn; only one of them at a time tries for the lock between processes.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The ids of the jobs, as the file was last read or written here.
    known: watch::Sender<Vec<String>>,
}

impl JobRegistry {
    /// The registry in `folder`.
    pub fn new(folder: DataDir) -> Self {
        Self {
            folder,
            turn: Arc::default(),
            known: watch::Sender::default(),
        }
    }

    /// The ids of the jobs, as this process last saw them: it hears of what another server does when it looks again.
    pub fn known(&self) -> watch::Receiver<Vec<String>> {
        self.known.subscribe()
    }

    fn note(&self, records: &[JobRecord]) {
        self.known.send_if_modified(|known| {
            let is_same = known.iter().eq(records.iter().map(|record| &record.job_id));
            if !is_same {
                *known = records.iter().map(|record| record.job_id.clone()).collect();
            }
            !is_same
        });
    }

    /// All records, in the order of their submission. A damaged file is put aside first, and what is whole in it is kept.
    ///
    /// # Errors
    /// When the file cannot be read, or a damaged one not put aside.
    pub async fn records(&self) -> Result<Vec<JobRecord>, RegistryError> {
        let path = self.folder.registry();
        match self.off_thread(move || read(&path)).await? {
            Content::Whole(records) => {
                self.note(&records);
                Ok(records)
            }
            // Whoever repairs it does so alone.
            Content::Damaged { .. } => self
                .change(|records| Ok(((), records)))
                .await
                .map(|(records, ())| records),
        }
    }

    /// The record of a job.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub async fn get(&self, job_id: &str) -> Result<Option<JobRecord>, RegistryError> {
        Ok(self
            .records()
            .await?
            .into_iter()
            .find(|record| record.job_id == job_id))
    }

    /// Adds a record. `prepare` runs under the lock once it is clear that the id is free; when it fails nothing is added.
    ///
    /// # Errors
    /// When the id is taken, `prepare` fails, or the file cannot be changed.
    pub async fn insert<T: Send + 'static>(
        &self,
        record: JobRecord,
        prepare: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let changed = self.change(move |mut records| {
            if records.iter().any(|known| known.job_id == record.job_id) {
                return Err(RegistryError::Duplicate(record.job_id));
            }
            let prepared = prepare().map_err(RegistryError::Change)?;
            records.push(record);
            Ok((prepared, records))
        });
        changed.await.map(|(_, prepared)| prepared)
    }

    /// Completes who a job is. An unknown id warns and does nothing.
    ///
    /// # Errors
    /// When the file cannot be changed.
    pub async fn update(&self, job_id: &str, update: IdentityUpdate) -> Result<(), RegistryError> {
        let job_id = job_id.to_owned();
        let changed = self.change(move |mut records| {
            match records.iter_mut().find(|record| record.job_id == job_id) {
                Some(record) => {
                    record.cluster_name = update.cluster_name;
                    record.oumi_job_id = update.oumi_job_id;
                }
                None => tracing::warn!(job_id, "no such job in the registry; nothing updated"),
            }
            Ok(((), records))
        });
        changed.await.map(|_| ())
    }

    /// Removes records, with the folders of their jobs. One that has changed meanwhile stays: the id may be another job's now.
    ///
    /// # Errors
    /// When the file cannot be changed. A folder that cannot be removed is logged, and no error.
    pub async fn remove(&self, unwanted: Vec<JobRecord>) -> Result<(), RegistryError> {
        if unwanted.is_empty() {
            return Ok(());
        }
        let folder = self.folder.clone();
        let changed = self.change(move |records| {
            let (gone, kept): (Vec<_>, Vec<_>) =
                records.into_iter().partition(|record| unwanted.contains(record));
            // Under the lock, so that no new job of the same name can be there yet.
            for dir in gone.iter().filter_map(|record| folder.job(&record.job_id)).map(JobDir::at) {
                if let Err(error) = dir.remove() {
                    tracing::warn!(folder = %dir.path().display(), %error, "cannot remove the folder of a pruned job");
                }
            }
            Ok(((), kept))
        });
        changed.await.map(|_| ())
    }

    /// The damaged files that were put aside and are still there, by name, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn put_aside(&self) -> Result<Vec<PathBuf>, RegistryError> {
        let (root, path) = (self.folder.root().to_owned(), self.folder.registry());
        self.off_thread(move || {
            let prefix = aside_prefix(&path);
            let named =
                |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
            let entries = match fs::read_dir(&root) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(source) => return Err(io_error("read", &root, source)),
            };
            let mut found: Vec<PathBuf> = entries
                .flatten()
                .filter(named)
                .map(|entry| entry.path())
                .collect();
            found.sort();
            Ok(found)
        })
        .await
    }

    /// Reads, changes and writes under the lock. The file is written only when the change changed something.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(Vec<JobRecord>) -> Result<(T, Vec<JobRecord>), RegistryError>
        + Send
        + 'static,
    ) -> Result<(Vec<JobRecord>, T), RegistryError> {
        let _turn = self.turn.lock().await;
        let lock = self.lock().await?;
        let path = self.folder.registry();
        let changed = self.off_thread(move || {
            let (before, damaged) = match read(&path)? {
                Content::Whole(records) => (records, false),
                Content::Damaged { kept } => {
                    let aside = put_aside(&path).map_err(|source| io_error("put aside", &path, source))?;
                    tracing::warn!(kept = kept.len(), aside = %aside.display(), "the job registry was damaged");
                    (kept, true)
                }
            };
            let outcome = change(before.clone());
            let after = outcome.as_ref().map_or(&before, |(_, after)| after);
            if damaged || *after != before {
                let array: Vec<Value> = after.iter().map(JobRecord::to_json).collect();
                serde_json::to_vec_pretty(&array)
                    .map_err(io::Error::from)
                    .and_then(|bytes| replace(&path, &bytes))
                    // The disk may be slow, and whoever comes next waits for it anyway.
                    .inspect(|_| drop(lock))
                    .and_then(|folder| folder.sync_all())
                    .map_err(|source| io_error("write", &path, source))?;
            }
            outcome.map(|(value, records)| (records, value))
        });
        let changed = changed.await?;
        self.note(&changed.0);
        Ok(changed)
    }

    /// The lock between processes. It is free when the file is closed, so also when its holder is killed.
    async fn lock(&self) -> Result<File, RegistryError> {
        let path = self.folder.registry_lock();
        let (opened, folder) = (path.clone(), self.folder.clone());
        let file = self
            .off_thread(move || {
                folder.create()?;
                let mut options = OpenOptions::new();
                options.create(true).truncate(false).write(true).mode(0o600);
                options
                    .open(&opened)
                    .map_err(|source| io_error("lock", &opened, source))
            })
            .await?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= LOCK_DEADLINE => {
                    return Err(RegistryError::Locked(path));
                }
                Err(TryLockError::WouldBlock) => {
                    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap_or(usize::MAX);
                    tokio::time::sleep(LOCK_LOOKS[seconds.min(LOCK_LOOKS.len() - 1)]).await;
                }
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            }
        }
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let path = self.folder.registry();
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| io_error("use", &path, io::Error::other(error)))?
    }
}

/// The records to let go, were none of their jobs running: those too old, then the oldest beyond the cap.
pub fn expired(records: &[JobRecord], now: DateTime<Utc>) -> Vec<&JobRecord> {
    let oldest_kept = now - TimeDelta::days(KEEP_DAYS);
    let age = |record: &JobRecord| record.submitted_at().filter(|time| *time >= oldest_kept);
    let (mut young, mut gone): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| age(record).is_some());
    if let Some(excess) = young.len().checked_sub(KEEP_RECORDS) {
        young.sort_by_key(|record| record.submitted_at());
        gone.extend(young.drain(..excess));
    }
    gone
}

enum Content {
    Whole(Vec<JobRecord>),
    Damaged { kept: Vec<JobRecord> },
}

fn read(path: &Path) -> Result<Content, RegistryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Content::Whole(Vec::new()));
        }
        Err(source) => return Err(io_error("read", path, source)),
    };
    let whole = serde_json::from_slice::<Vec<Value>>(&bytes)
        .ok()
        .and_then(|values| {
            values
                .into_iter()
                .map(JobRecord::from_json)
                .collect::<Option<Vec<_>>>()
        });
    Ok(match whole {
        Some(records) => Content::Whole(records),
        None => Content::Damaged {
            kept: salvage(&bytes),
        },
    })
}

/// Every whole record in a damaged file: wherever an object begins, it is tried whether one can be read.
fn salvage(bytes: &[u8]) -> Vec<JobRecord> {
    let mut records: Vec<JobRecord> = Vec::new();
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| *byte == b'{') {
        at += offset;
        let mut stream = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Value>();
        let parsed = stream
            .next()
            .and_then(Result::ok)
            .and_then(JobRecord::from_json);
        match parsed {
            Some(record) => {
                at += stream.byte_offset();
                if !records.iter().any(|known| known.job_id == record.job_id) {
                    records.push(record);
                }
            }
            None => at += 1,
        }
    }
    records
}

fn aside_prefix(path: &Path) -> String {
    format!(
        "{}.corrupt-",
        path.file_name().unwrap_or_default().to_string_lossy()
    )
}

/// Gives the damaged file a second name; the first is then written over, so that at no instant there is no registry.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let now = Utc::now().format("%Y%m%dT%H%M%S%.6fZ");
    let aside = path.with_file_name(format!("{}{now}", aside_prefix(path)));
    match fs::hard_link(path, &aside) {
        // Some file systems have no links.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            fs::copy(path, &aside).map(|_| ())?
        }
        linked => linked?,
    }
    Ok(aside)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> RegistryError {
    RegistryError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod salvage_tests {
    use super::*;

    fn salvaged(text: &str) -> Vec<String> {
        let ids = salvage(text.as_bytes())
            .into_iter()
            .map(|record| record.job_id);
        ids.collect()
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_with_what_a_newer_version_added() {
        let mut record = JobRecord {
            job_id: "a".to_owned(),
            output_dir: "out".to_owned(),
            ..JobRecord::default()
        };
        record.other.insert("tags".to_owned(), vec!["x"].into());
        assert_eq!(JobRecord::from_json(record.to_json()), Some(record));
    }

    #[test]
    fn a_record_is_salvaged_once_wherever_it_stands() {
        let a = r#"{"job_id": "a", "x": {"y": 1}}"#;
        let b = r#"{"job_id": "b"}"#;
        for text in [
            format!("{a}{b}"),
            format!("[{a}, {b}, {a}]"),
            format!("[{{\"job_id\": \"cut {a} {b}"),
            format!("}}}}]] {a} {{{{ {b}"),
            format!(r#"{{"job_id": "" }} {a} {{"job_id": 1}} {b}"#),
        ] {
            assert_eq!(salvaged(&text), ["a", "b"], "{text}");
        }
        assert_eq!(salvaged(r#"{"job_id": "a", "cloud": 3}"#), [""; 0]);
    }

    #[test]
    fn a_damaged_file_that_is_put_aside_keeps_its_bytes_when_the_registry_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oumi-jobs.json");
        fs::write(&path, "damaged").unwrap();
        let first = put_aside(&path).unwrap();
        replace(&path, b"damaged again").unwrap();
        let second = put_aside(&path).unwrap();
        replace(&path, b"[]").unwrap();
        assert_eq!(fs::read(&first).unwrap(), b"damaged");
        assert_eq!(fs::read(&second).unwrap(), b"damaged again");
        assert!(first < second, "their names sort by time");
    }
}
