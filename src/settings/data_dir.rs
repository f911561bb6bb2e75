//! The data folder. Files in it are replaced as a whole, so that a kill at any instant leaves them whole, and read with a bound.

use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::error::{JobError, Result};
use crate::settings::env_vars::HOME;

/// The longest file name on Linux and macOS, in bytes.
const NAME_MAX: usize = 255;
/// The beginning of the names of temporary files; the pid of the writer follows.
const TEMPORARY: &str = ".tmp-";

/// The folder of the registry and of one folder a job; 0700, its files 0600.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Returns `OUMI_MCP_HOME`, else `~/.cache/oumi-mcp` on every platform (the Python server's place). Creates nothing. A relative
    /// path is refused, since it would be another folder for each client; the paths of jobs are written into JSON.
    pub(crate) fn from_environment() -> Result<Self> {
        let set = std::env::var_os(HOME).filter(|value| !value.is_empty());
        let home = || dirs::home_dir().unwrap_or_default();
        let root = set.map_or_else(|| home().join(".cache/oumi-mcp"), PathBuf::from);
        // The processes of jobs are marked with it, and servers may name it differently.
        let real = real_path(&root).filter(|real| root.is_absolute() && real.to_str().is_some());
        if let Some(real) = real {
            return Ok(Self(real));
        }
        let error = format!("{HOME} must be an absolute path in UTF-8, not {root:?}");
        Err(JobError::invalid(error).with_hint("set it to one"))
    }

    /// Creates the folder and its `jobs` folder, readable by the owner alone. Folders that are there keep their rights.
    pub(crate) fn create(&self) -> Result<()> {
        create_private(&self.jobs()).map_err(|error| self.unusable(error))
    }

    fn unusable(&self, error: io::Error) -> JobError {
        let root = self.0.display();
        JobError::failed(format!("cannot use the data folder {root}: {error}")).with_hint(format!(
            "make it writable, make room, or set {HOME} to another folder"
        ))
    }

    /// Removes the temporary files of servers that were killed.
    pub(crate) fn remove_temporary_files(&self) -> io::Result<()> {
        let jobs = fs::read_dir(self.jobs())?.flatten().map(|job| job.path());
        let folders = jobs.chain([self.0.clone()]);
        let entries = folders.flat_map(fs::read_dir).flatten().flatten();
        let is_abandoned = |file: &DirEntry| file.file_name().to_str().is_some_and(is_abandoned);
        let mut abandoned = entries.filter(is_abandoned);
        abandoned.try_for_each(|file| fs::remove_file(file.path()))
    }

    /// Checks that a job may be started in it: by its permissions, and by a lock, which some disks of clusters have not. Room is
    /// not looked at.
    pub(crate) fn check(&self) -> Result<()> {
        self.create()?;
        let check = || {
            let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            rustix::fs::access(self.jobs(), all)?;
            let mut options = open_options();
            let lock = options.create(true).write(true).read(true);
            match lock.open(self.registry_lock())?.try_lock_shared() {
                Err(TryLockError::Error(error)) => Err(error),
                _ => Ok(()),
            }
        };
        check().map_err(|error| self.unusable(error))
    }

    /// The registry file, under the Python server's name.
    pub(crate) fn registry(&self) -> PathBuf {
        self.0.join("oumi-jobs.json")
    }

    /// The file whose lock guards every change of the registry.
    pub(crate) fn registry_lock(&self) -> PathBuf {
        self.0.join("oumi-jobs.lock")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    pub(crate) fn clock(&self) -> PathBuf {
        self.0.join("clock")
    }

    /// The folder that holds one folder a change of a cluster.
    pub(crate) fn changes(&self) -> PathBuf {
        self.0.join("changes")
    }

    /// Returns the folder of a job; `None` when the id is not a plain file name. Anyone may have written the registry.
    pub(crate) fn job(&self, job_id: &str) -> Option<PathBuf> {
        let name = Path::new(job_id).file_name();
        let is_name = name == Some(job_id.as_ref()) && !job_id.contains('\0');
        (is_name && job_id.len() <= NAME_MAX).then(|| self.jobs().join(job_id))
    }
}

/// Follows the links of a path as far as it exists: a job that has just begun has not made its folder.
pub(crate) fn real_path(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|known| {
        let resolved = known.canonicalize().ok()?;
        Some(resolved.join(path.strip_prefix(known).ok()?))
    })
}

/// Replaces `path` by `bytes`, 0600: writes and syncs a temporary file, renames it, syncs the folder. Readers see the old file
/// or the new one, never a part; on an error, the old one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes)?.sync_all()
}

/// Like [`write_atomic`], but leaves the folder's sync to the caller: a crash of the machine before it may bring the old file back.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
    // First: once the file is written, there may be no handle left.
    let folder = File::open(parent)?;
    // tempfile creates it 0600. The pid tells later that its writer was killed.
    let prefix = format!("{TEMPORARY}{}-", std::process::id());
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .tempfile_in(parent)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(folder)
}

/// Tells by the name of a temporary file if its writer is gone.
fn is_abandoned(name: &str) -> bool {
    let writer = name.strip_prefix(TEMPORARY).unwrap_or_default();
    let pid = writer.split('-').next().and_then(|pid| pid.parse().ok());
    let pid = pid.and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// Creates a folder and those above it, 0700. Those that are there keep their rights.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700).create(path)
}

/// Returns options that create files 0600 and never wait for the other end of a pipe.
pub(crate) fn open_options() -> OpenOptions {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a file that others may have written, to read it. Fails with `InvalidInput` for anything but a regular file: a pipe or
/// a device could keep whoever opens or reads it for ever.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = open_options().read(true).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a file")),
    }
}

/// Reads a file through [`open_regular`]. Fails with `FileTooLarge` beyond `max_bytes`.
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let size = file.metadata()?.len().min(max_bytes);
    // Room for all of it, so that one call reads it.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let reason = format!("it is larger than {} KiB", max_bytes / 1024);
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// Returns what was done with a file, or none where there is no such file.
pub(crate) fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;
