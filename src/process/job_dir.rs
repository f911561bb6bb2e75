//! The folder of one supervised process: its log, its lock, its exit record and the requests made of it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::plan::{Epilogue, SupervisorPlan};
use super::table::Termination;
use crate::redact::Redactor;
use crate::settings::data_dir::{if_found, open_options, open_regular, read_bounded, write_atomic};
use crate::text::{hours, signal_name};

const LOG: &str = "output.log";
const LOCK: &str = "lock";
const EXIT_RECORD: &str = "exit.json";
pub(super) const PLAN: &str = "plan.json";
const SECRETS: &str = "secrets.json";
const SUPERVISOR_PID: &str = "supervisor.pid";
const TERMINATE_REQUEST: &str = "terminate-requested";
const KILL_REQUEST: &str = "kill-requested";
const PENDING_CANCEL: &str = "cancel-requested";
/// The file that holds the [`Epilogue`] of a plan until it is done with.
pub(crate) const EPILOGUE: &str = "epilogue.json";

/// The largest JSON file that is read, in bytes: the folder may have been written by anyone.
const MAX_JSON: u64 = 8 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobDir {
    path: PathBuf,
}

/// The lock of a job, held. Every process of the job inherits it, so it is free once the last of them has ended.
#[derive(Debug)]
pub(crate) struct JobLock(pub(super) File);

/// The end of a supervised process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// A cancel reached the job before it ended by itself.
    pub(crate) cancelled: bool,
    /// The step that ended: `setup`, `run` or `launch`.
    pub(crate) step: String,
    /// The reason why the step could not be started.
    pub(crate) error: Option<String>,
    /// Processes that the step started lived on when this was written. The supervisor writes it again once they have ended.
    #[serde(default)]
    pub(crate) processes_left: bool,
    /// The time limit ended the step.
    #[serde(default)]
    pub(crate) timed_out: bool,
    /// RFC 3339, in UTC.
    pub(crate) ended_at: String,
}

impl ExitRecord {
    /// A record of an end that happens now, without code, signal or error.
    pub(crate) fn now(step: &str) -> Self {
        Self {
            step: step.to_owned(),
            ended_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            ..Self::default()
        }
    }

    pub(crate) fn cancelled(step: &str) -> Self {
        Self {
            cancelled: true,
            ..Self::now(step)
        }
    }

    pub(crate) fn not_started(step: &str, error: &str) -> Self {
        Self {
            error: Some(error.to_owned()),
            ..Self::now(step)
        }
    }

    pub(crate) fn succeeded(&self) -> bool {
        !self.cancelled && self.code == Some(0)
    }

    pub(crate) fn describe(&self) -> String {
        match (&self.error, self.code, self.signal) {
            _ if self.cancelled => "was cancelled".to_owned(),
            (Some(error), ..) => error.clone(),
            (_, Some(code), _) => format!("ended with exit code {code}"),
            (.., Some(signal)) => format!("ended by signal {}", signal_name(signal)),
            _ => "ended".to_owned(),
        }
    }
}

impl JobDir {
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the folder, 0700, or fails with `AlreadyExists`, and takes its lock: the job counts as alive from the first instant on.
    pub(crate) fn create(path: impl Into<PathBuf>) -> io::Result<(Self, JobLock)> {
        let dir = Self::at(path);
        DirBuilder::new().mode(0o700).create(&dir.path)?;
        let lock = dir.create_lock().inspect_err(|_| {
            let _ = dir.remove();
        })?;
        Ok((dir, lock))
    }

    fn create_lock(&self) -> io::Result<JobLock> {
        let mut options = open_options();
        options.create_new(true).write(true).read(true);
        let mut file = options.open(self.file(LOCK))?;
        file.try_lock()?;
        file.write_all(&serde_json::to_vec(&Machine::current()?)?)?;
        Ok(JobLock(file))
    }

    /// Returns the machine that the job was started on; `None` where that was not written down.
    pub(crate) fn machine(&self) -> io::Result<Option<Machine>> {
        let text = self.read(LOCK)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that both output streams of the job are appended to.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.file(LOG)
    }

    pub(crate) fn secrets_path(&self) -> PathBuf {
        self.file(SECRETS)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn exists(&self) -> io::Result<bool> {
        self.path.try_exists()
    }

    /// Tells if a process that holds the lock lives. The probe takes a shared lock, so that two probes do not see each other.
    pub(crate) fn is_locked(&self) -> io::Result<bool> {
        let file = if_found(open_options().read(true).open(self.file(LOCK)))?;
        match file.map(|file| file.try_lock_shared()) {
            Some(Err(TryLockError::Error(error))) => Err(error),
            probe => Ok(matches!(probe, Some(Err(_)))),
        }
    }

    /// Reads how the job ended; `None` while it has not, and when its supervisor died before.
    pub(crate) fn exit_record(&self) -> io::Result<Option<ExitRecord>> {
        self.read_json(EXIT_RECORD)
    }

    /// Writes how the job ended, also where it has removed its own folder.
    pub(crate) fn write_exit_record(&self, record: &ExitRecord) -> io::Result<()> {
        // Not its parents: then nobody will read the record.
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => write_atomic(&self.file(EXIT_RECORD), &serde_json::to_vec(record)?),
        }
    }

    pub(crate) fn plan(&self) -> io::Result<SupervisorPlan> {
        let plan = self.read_json(PLAN)?;
        plan.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("there is no {PLAN}")))
    }

    /// Writes a new file, 0600, or fails with `AlreadyExists`. It is not synced: a crash of the machine ends the job too.
    pub(crate) fn write_new(&self, name: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let mut options = open_options();
        let new = options.create_new(true).write(true);
        new.open(self.path.join(name))?.write_all(bytes)
    }

    pub(crate) fn termination_request(&self) -> io::Result<Option<Termination>> {
        let requested = |file| self.file(file).try_exists();
        Ok(match requested(KILL_REQUEST)? {
            true => Some(Termination::Forced),
            false => requested(TERMINATE_REQUEST)?.then_some(Termination::Graceful),
        })
    }

    /// Requests that all processes of the job be ended. The file is empty: on most file systems that takes no room, so that
    /// a job which fills the disk can be cancelled. It stays, and says later why the job ended.
    pub(crate) fn request_termination(&self, termination: Termination) -> io::Result<()> {
        let file = match termination {
            Termination::Graceful => TERMINATE_REQUEST,
            Termination::Forced => KILL_REQUEST,
        };
        self.open_to_append(file).map(drop)
    }

    /// Writes beside a launch that its job is to be cancelled once its id is known, so that the cancel survives the server.
    pub(crate) fn set_pending_cancel(&self) -> io::Result<()> {
        write_atomic(&self.file(PENDING_CANCEL), b"")
    }

    pub(crate) fn has_pending_cancel(&self) -> io::Result<bool> {
        self.file(PENDING_CANCEL).try_exists()
    }

    pub(crate) fn clear_pending_cancel(&self) -> io::Result<()> {
        if_found(fs::remove_file(self.file(PENDING_CANCEL))).map(drop)
    }

    /// Reads the program that is still to be run after the steps. Removes its file where they have printed the line that rules it out.
    pub(crate) fn epilogue(&self) -> io::Result<Option<Epilogue>> {
        let epilogue = self.read_json::<Epilogue>(EPILOGUE)?;
        let unless = epilogue.as_ref().and_then(|it| it.unless_printed.as_ref());
        if let Some(unless) = unless
            && let Some(log) = if_found(open_regular(&self.log_path()))?
        {
            for line in BufReader::new(log).split(b'\n') {
                if line? == unless.as_bytes() {
                    self.clear_epilogue()?;
                    return Ok(None);
                }
            }
        }
        Ok(epilogue)
    }

    pub(crate) fn clear_epilogue(&self) -> io::Result<()> {
        if_found(fs::remove_file(self.file(EPILOGUE))).map(drop)
    }

    /// Reads the fingerprints of the secret values that the job was given. A folder is made with them and with its lock: one with its
    /// lock alone is an error, since which values are secret is not known any more.
    pub(crate) fn secrets(&self) -> io::Result<Redactor> {
        match self.read_json(SECRETS)? {
            Some(secrets) => Ok(secrets),
            None if self.file(LOCK).try_exists()? => {
                let error = format!("{SECRETS} was removed");
                Err(io::Error::new(ErrorKind::NotFound, error))
            }
            None => Ok(Redactor::default()),
        }
    }

    /// Writes the fingerprints. After a crash of the machine the file may be empty, and then nothing of the log is shown.
    pub(crate) fn write_secrets(&self, secrets: &Redactor) -> io::Result<()> {
        self.write_new(SECRETS, &serde_json::to_vec(secrets)?)
    }

    /// Decides once if the job starts: the supervisor claims the start with its pid before the first step, and a server that gives
    /// it up claims it without one. Returns `false` when the other was first.
    pub(crate) fn claim_start(&self, supervisor: Option<u32>) -> io::Result<bool> {
        let pid = supervisor.map_or_else(String::new, |pid| pid.to_string());
        match self.write_new(SUPERVISOR_PID, pid.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            written => written.map(|()| true),
        }
    }

    pub(crate) fn is_start_claimed(&self) -> io::Result<bool> {
        self.file(SUPERVISOR_PID).try_exists()
    }

    /// Reads the pid by which the supervisor claimed the start.
    pub(crate) fn supervisor(&self) -> Option<u32> {
        self.read_json(SUPERVISOR_PID).ok()?
    }

    /// Opens the log to append to. Both streams share the open file, which keeps their order.
    pub(crate) fn open_log(&self) -> io::Result<File> {
        self.open_to_append(LOG)
    }

    /// Opens a file to append to, 0600.
    pub(super) fn open_to_append(&self, name: &str) -> io::Result<File> {
        let mut options = open_options();
        options.create(true).append(true).open(self.file(name))
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        if_found(fs::remove_dir_all(&self.path)).map(drop)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let read = read_bounded(&self.file(name), MAX_JSON);
        if_found(read).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    }

    pub(crate) fn read_json<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let bytes = self.read(name)?;
        let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes));
        Ok(parsed.transpose()?)
    }
}

/// Says that a time limit ended a job. It is in the log of the job too, also on a cloud: there its script prints it.
pub(crate) fn time_limit_line(seconds: u64) -> String {
    format!("time limit: ended after {}", hours(seconds))
}
