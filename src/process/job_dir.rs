//! The folder of one supervised process: its log, its lock, its exit record and what was asked of it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::redact::Redactor;
use crate::settings::data_dir::write_atomic;

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

/// A signal by its number, and by its name where it is one that ends processes.
pub(crate) fn signal_name(signal: i32) -> String {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    match names.iter().find(|(named, _)| named.as_raw() == signal) {
        Some((_, name)) => format!("{signal} ({name})"),
        None => signal.to_string(),
    }
}

/// What the supervisor is asked: to end the whole tree of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndRequest {
    /// SIGKILL instead of SIGTERM.
    pub force: bool,
}

/// One empty file, which is renamed when an end is asked for: that takes no room, so that a job can be ended on a full disk.
const END_NOT_REQUESTED: &str = "end-not-requested";
const END_REQUESTED: &str = "end-requested";
const END_FORCED: &str = "end-forced";

/// The right to see to the end of a job, held. While it is, the job is not called lost.
#[derive(Debug)]
pub struct EndTurn(#[allow(dead_code, reason = "it is the lock")] File);

/// Room for the exit record, taken before the job begins: one that fills the disk is seen to end all the same.
const EXIT_SPARE: &str = "exit.spare";
const EXIT_SPARE_BYTES: usize = 4096;

const SECRETS: &str = "secrets.json";

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
            dir.write_new(END_NOT_REQUESTED, b"")?;
            dir.write_new(EXIT_SPARE, &[0; EXIT_SPARE_BYTES])?;
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

    fn in_it(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file of a folder that nobody knows yet, 0600.
    fn write_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut options = private();
        let mut file = options
            .create_new(true)
            .write(true)
            .open(self.in_it(name))?;
        file.write_all(bytes)
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

    /// Writes how the process ended; on a full disk into the room that was kept for it.
    ///
    /// # Errors
    /// What the file system said; nothing is then written.
    pub fn write_exit_record(&self, record: &ExitRecord) -> io::Result<()> {
        let bytes = serde_json::to_vec(record)?;
        match write_atomic(&self.exit_path(), &bytes) {
            Ok(()) => remove_if_there(&self.in_it(EXIT_SPARE)),
            Err(error) => self.write_exit_into_spare(&bytes).map_err(|_| error),
        }
    }

    fn write_exit_into_spare(&self, bytes: &[u8]) -> io::Result<()> {
        // Renamed first: there is one spare, and it is one writer's.
        let ours = self.in_it("exit.new");
        fs::rename(self.in_it(EXIT_SPARE), &ours)?;
        let mut file = OpenOptions::new().write(true).open(&ours)?;
        file.write_all(bytes)?;
        file.set_len(u64::try_from(bytes.len()).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(ours, self.exit_path())
    }

    /// What the supervisor was asked, if it was.
    pub fn end_request(&self) -> Option<EndRequest> {
        // In this order: while one is looked for, a request turns into a forced one only.
        [(END_REQUESTED, false), (END_FORCED, true)]
            .into_iter()
            .find(|(name, _)| self.in_it(name).exists())
            .map(|(_, force)| EndRequest { force })
    }

    /// Whether an end was asked for and has not come.
    pub fn is_end_open(&self) -> bool {
        self.end_request().is_some() && !self.exit_path().exists()
    }

    /// Asks the supervisor to end the processes. A request that is forced stays so.
    ///
    /// # Errors
    /// What the file system said.
    pub fn request_end(&self, request: EndRequest) -> io::Result<()> {
        let (name, earlier): (_, &[&str]) = if request.force {
            (END_FORCED, &[END_NOT_REQUESTED, END_REQUESTED])
        } else {
            (END_REQUESTED, &[END_NOT_REQUESTED])
        };
        for from in earlier {
            match fs::rename(self.in_it(from), self.in_it(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => return renamed,
            }
        }
        match self.end_request() {
            Some(asked) if asked.force || !request.force => Ok(()),
            // Somebody has removed it.
            _ => self.write_new(name, b""),
        }
    }

    /// Takes that back.
    ///
    /// # Errors
    /// What the file system said, unless there was none.
    pub fn clear_end_request(&self) -> io::Result<()> {
        for name in [END_REQUESTED, END_FORCED] {
            match fs::rename(self.in_it(name), self.in_it(END_NOT_REQUESTED)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the turn to see to an end that was asked for. Nothing while another has it, here or in another process.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn take_end_turn(&self) -> io::Result<Option<EndTurn>> {
        let Some(file) = self.open_end_request()? else {
            return Ok(None);
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(EndTurn(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether somebody sees to the end of it.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn is_being_ended(&self) -> io::Result<bool> {
        match self.open_end_request()?.map(|file| file.try_lock_shared()) {
            None | Some(Ok(())) => Ok(false),
            Some(Err(TryLockError::WouldBlock)) => Ok(true),
            Some(Err(TryLockError::Error(error))) => Err(error),
        }
    }

    /// The file of the request; the same one by whichever name.
    fn open_end_request(&self) -> io::Result<Option<File>> {
        for name in [END_REQUESTED, END_FORCED] {
            match File::open(self.in_it(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened.map(Some),
            }
        }
        Ok(None)
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
    pub fn secrets(&self) -> io::Result<Redactor> {
        Ok(read_json(&self.in_it(SECRETS))?.unwrap_or_default())
    }

    /// Keeps the fingerprints in a folder that was just made. It is not waited until they are on the disk, since others wait
    /// for the registry meanwhile: should the machine go down before, the file is empty, and nothing of the log is shown.
    ///
    /// # Errors
    /// What the file system said.
    pub fn keep_secrets(&self, secrets: &Redactor) -> io::Result<()> {
        self.write_new(SECRETS, &serde_json::to_vec(secrets)?)
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

    #[test]
    fn an_end_that_was_forced_stays_so_and_one_that_was_taken_back_can_be_asked_for_again() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
        let (asked, forced) = (EndRequest { force: false }, EndRequest { force: true });
        assert_eq!(dir.end_request(), None);
        for _ in 0..2 {
            for (request, then) in [
                (asked, asked),
                (asked, asked),
                (forced, forced),
                (asked, forced),
                (forced, forced),
            ] {
                dir.request_end(request).unwrap();
                assert_eq!(dir.end_request(), Some(then));
            }
            dir.clear_end_request().unwrap();
            assert_eq!(dir.end_request(), None);
        }
        // Also where somebody has tidied up.
        fs::remove_file(dir.in_it(END_NOT_REQUESTED)).unwrap();
        dir.request_end(forced).unwrap();
        assert_eq!(dir.end_request(), Some(forced));
    }

    #[test]
    fn one_at_a_time_sees_to_an_end_whatever_it_is_turned_into() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
        assert!(dir.take_end_turn().unwrap().is_none(), "nobody asked");
        dir.request_end(EndRequest { force: false }).unwrap();
        assert!(!dir.is_being_ended().unwrap());
        let turn = dir.take_end_turn().unwrap();
        assert!(turn.is_some() && dir.take_end_turn().unwrap().is_none());
        dir.request_end(EndRequest { force: true }).unwrap();
        assert!(dir.take_end_turn().unwrap().is_none());
        assert!(dir.is_being_ended().unwrap());
        drop(turn);
        assert!(!dir.is_being_ended().unwrap());
        assert!(dir.take_end_turn().unwrap().is_some());
    }

    #[test]
    fn an_exit_record_goes_into_the_room_that_was_kept_for_it_once() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
        let record = ExitRecord::not_started("run", "no room");
        dir.write_exit_into_spare(&serde_json::to_vec(&record).unwrap())
            .unwrap();
        assert_eq!(dir.exit_record().unwrap(), Some(record.clone()));
        dir.write_exit_into_spare(b"again").unwrap_err();
        assert_eq!(dir.exit_record().unwrap(), Some(record));
    }
}
