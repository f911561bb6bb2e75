//! The folder of one supervised process: its log, its lock, its exit record and what was asked of it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::paths::write_atomic;
use crate::secrets::Fingerprints;

/// The folder of one job. Everything known of a process that outlives the server is in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDir {
    path: PathBuf,
}

/// How the process of a job ended, written whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code, when it exited by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// A cancel reached it while it lived (or before it was ever started).
    pub cancelled: bool,
    /// Which step it was in: `setup`, `run`, `launch`.
    pub step: String,
    /// Why it could not be started, when it never ran.
    pub error: Option<String>,
    /// When it ended, RFC 3339 in UTC.
    pub ended_at: String,
}

impl ExitRecord {
    /// A record of an end that happens now; the rest is empty.
    pub fn now(step: &str) -> Self {
        Self {
            code: None,
            signal: None,
            cancelled: false,
            step: step.to_owned(),
            error: None,
            ended_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        }
    }

    /// The end of a job that was cancelled.
    pub fn cancelled(step: &str) -> Self {
        Self {
            cancelled: true,
            ..Self::now(step)
        }
    }

    /// The end of a job that could not be started.
    pub fn not_started(step: &str, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::now(step)
        }
    }

    /// It exited with code 0 and was not cancelled.
    pub fn succeeded(&self) -> bool {
        !self.cancelled && self.code == Some(0)
    }

    /// The end in words: `exit code 1`, `killed by signal 9 (SIGKILL)`, `cancelled`.
    pub fn describe(&self) -> String {
        match (self.cancelled, &self.error, self.code, self.signal) {
            (true, ..) => "cancelled".to_owned(),
            (_, Some(error), ..) => error.clone(),
            (_, _, Some(code), _) => format!("`{}` ended with exit code {code}", self.step),
            (_, _, _, Some(signal)) => format!(
                "`{}` was ended by signal {}",
                self.step,
                signal_name(signal)
            ),
            _ => "ended".to_owned(),
        }
    }
}

fn signal_name(signal: i32) -> String {
    // The numbers that are the same on Linux and macOS.
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return signal.to_string(),
    };
    format!("{signal} ({name})")
}

/// What the supervisor is asked: to end the whole tree of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRequest {
    /// SIGKILL instead of SIGTERM.
    pub force: bool,
}

/// The lock of a job, held. Whoever inherits it holds it too, and it is free when the last of them is gone.
#[derive(Debug)]
pub struct JobLock(pub(crate) File);

impl JobDir {
    /// The folder at `path`, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the folder, 0700, and takes its lock, so that from the first instant on it is seen to live.
    ///
    /// # Errors
    /// `AlreadyExists` when the folder is there; else what the file system said, with the folder removed again.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<(Self, JobLock)> {
        let dir = Self::at(path);
        DirBuilder::new().mode(0o700).create(&dir.path)?;
        let locked = || -> io::Result<JobLock> {
            let file = private()
                .create_new(true)
                .write(true)
                .read(true)
                .open(dir.lock_path())?;
            file.try_lock().map_err(io::Error::from)?;
            Ok(JobLock(file))
        };
        match locked() {
            Ok(lock) => Ok((dir, lock)),
            Err(error) => {
                dir.remove()?;
                Err(error)
            }
        }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where both output streams of the job go.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("output.log")
    }

    /// What the supervisor is to run.
    pub fn plan_path(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    fn exit_path(&self) -> PathBuf {
        self.path.join("exit.json")
    }

    fn secrets_path(&self) -> PathBuf {
        self.path.join("secrets.json")
    }

    fn end_path(&self) -> PathBuf {
        self.path.join("end-requested")
    }

    fn cancel_path(&self) -> PathBuf {
        self.path.join("cancel-requested")
    }

    fn supervisor_path(&self) -> PathBuf {
        self.path.join("supervisor.pid")
    }

    /// Whether the folder is there at all.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Whether anyone who holds the lock lives. A probe takes it shared, so that two probes do not see each other.
    ///
    /// # Errors
    /// When the lock file cannot be opened for another reason than that it is not there.
    pub fn is_locked(&self) -> io::Result<bool> {
        match File::open(self.lock_path()) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How the process ended; nothing while it has not, or when nobody saw it.
    ///
    /// # Errors
    /// When the record is there and cannot be read.
    pub fn exit_record(&self) -> io::Result<Option<ExitRecord>> {
        read_json(&self.exit_path())
    }

    /// Writes how the process ended.
    ///
    /// # Errors
    /// What the file system said; nothing is then written.
    pub fn write_exit_record(&self, record: &ExitRecord) -> io::Result<()> {
        write_atomic(&self.exit_path(), &serde_json::to_vec(record)?)
    }

    /// What the supervisor was asked, if it was.
    ///
    /// # Errors
    /// When the request is there and cannot be read.
    pub fn end_request(&self) -> io::Result<Option<EndRequest>> {
        read_json(&self.end_path())
    }

    /// Asks the supervisor to end the processes.
    ///
    /// # Errors
    /// What the file system said.
    pub fn request_end(&self, request: EndRequest) -> io::Result<()> {
        write_atomic(&self.end_path(), &serde_json::to_vec(&request)?)
    }

    /// Takes that back.
    ///
    /// # Errors
    /// What the file system said, unless there was none.
    pub fn clear_end_request(&self) -> io::Result<()> {
        remove_if_there(&self.end_path())
    }

    /// Keeps beside a launch that its job is to be cancelled once it is known, so that this survives the server.
    ///
    /// # Errors
    /// What the file system said.
    pub fn keep_cancel(&self) -> io::Result<()> {
        write_atomic(&self.cancel_path(), b"")
    }

    /// Whether a cancel is kept.
    pub fn is_cancel_kept(&self) -> bool {
        self.cancel_path().exists()
    }

    /// Forgets the kept cancel, once it has been carried out.
    ///
    /// # Errors
    /// What the file system said, unless there was none.
    pub fn clear_cancel(&self) -> io::Result<()> {
        remove_if_there(&self.cancel_path())
    }

    /// The fingerprints of the secret values that the job was given; none when it was given none.
    ///
    /// # Errors
    /// When they are there and cannot be read.
    pub fn secrets(&self) -> io::Result<Fingerprints> {
        Ok(read_json(&self.secrets_path())?.unwrap_or_default())
    }

    /// Keeps the fingerprints.
    ///
    /// # Errors
    /// What the file system said.
    pub fn keep_secrets(&self, secrets: &Fingerprints) -> io::Result<()> {
        write_atomic(&self.secrets_path(), &serde_json::to_vec(secrets)?)
    }

    /// The pid that the supervisor wrote down. Whether it still is the supervisor is for the caller to find out.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn supervisor_pid(&self) -> io::Result<Option<u32>> {
        match fs::read_to_string(self.supervisor_path()) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes down the supervisor's pid.
    ///
    /// # Errors
    /// What the file system said.
    pub fn write_supervisor_pid(&self, pid: u32) -> io::Result<()> {
        write_atomic(&self.supervisor_path(), pid.to_string().as_bytes())
    }

    /// Opens the log to append to, 0600. Both streams share the one open file, so their order is the order of writing.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open_log(&self) -> io::Result<File> {
        private().create(true).append(true).open(self.log_path())
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// What the file system said, unless it was not there.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_seen_while_it_is_held_and_free_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, lock) = JobDir::create(parent.path().join("job")).unwrap();
        assert!(dir.is_locked().unwrap());
        drop(lock);
        assert!(!dir.is_locked().unwrap());
    }

    #[test]
    fn a_folder_that_is_there_is_not_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let (_dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
        let again = JobDir::create(parent.path().join("job")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn an_exit_record_reads_back_as_written() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
        assert_eq!(dir.exit_record().unwrap(), None);
        let record = ExitRecord {
            signal: Some(9),
            ..ExitRecord::now("run")
        };
        dir.write_exit_record(&record).unwrap();
        assert_eq!(dir.exit_record().unwrap(), Some(record));
    }
}
