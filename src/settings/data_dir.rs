//! The data folder. Files in it are replaced as a whole, so that a kill at any instant leaves them whole, and read with a bound.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tempfile::NamedTempFile;

use crate::settings::env_vars;

/// The longest file name on Linux and macOS, in bytes.
const NAME_MAX: usize = 255;
/// The beginning of the names of temporary files; the pid of the writer follows.
const TEMPORARY: &str = ".tmp-";

/// A data folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("no home folder is known; set {} to an absolute path", env_vars::HOME.name)]
    NoHome,
    /// A relative `OUMI_MCP_HOME` would be another folder for each client.
    #[error("{variable} must be an absolute path, not {0:?}; set it to one", variable = env_vars::HOME.name)]
    Relative(PathBuf),
    /// The paths of jobs are written into JSON and shown.
    #[error("{variable} must be UTF-8, not {0:?}; set it to such a path", variable = env_vars::HOME.name)]
    NotUnicode(PathBuf),
    #[error(
        "cannot use the data folder {path}: {source}; make it writable or set {} to another folder",
        env_vars::HOME.name
    )]
    Unusable { path: PathBuf, source: io::Error },
}

/// The folder of the registry and of one folder a job; 0700, its files 0600.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Returns `OUMI_MCP_HOME`, else `~/.cache/oumi-mcp` on every platform (the Python server's place). Creates nothing.
    pub(crate) fn from_environment() -> Result<Self, DataDirError> {
        let variable = std::env::var_os(env_vars::HOME.name).filter(|value| !value.is_empty());
        let root = match variable {
            Some(value) => PathBuf::from(value),
            None => dirs::home_dir()
                .ok_or(DataDirError::NoHome)?
                .join(".cache/oumi-mcp"),
        };
        if root.to_str().is_none() {
            Err(DataDirError::NotUnicode(root))
        } else if root.is_absolute() {
            Ok(Self { root })
        } else {
            Err(DataDirError::Relative(root))
        }
    }

    /// Returns a folder at `root`, for tests and the demo. Creates nothing.
    #[cfg(test)]
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Creates the folder and its `jobs` folder, readable by the owner alone. Folders that are there keep their rights.
    pub(crate) fn create(&self) -> Result<(), DataDirError> {
        let mut private = DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(self.jobs());
        made.map_err(|source| DataDirError::Unusable {
            path: self.root.clone(),
            source,
        })
    }

    /// Removes what a kill left of files that were being written.
    pub(crate) fn remove_temporary_files(&self) -> io::Result<()> {
        remove_temporary_files(&self.root)?;
        for entry in fs::read_dir(self.jobs())? {
            let path = entry?.path();
            if path.is_dir() {
                remove_temporary_files(&path)?;
            }
        }
        Ok(())
    }

    /// Checks that a job can be started in it.
    pub(crate) fn check(&self) -> Result<(), DataDirError> {
        let unusable = |source| DataDirError::Unusable {
            path: self.root.clone(),
            source,
        };
        self.create()?;
        tempfile::tempfile_in(self.jobs()).map_err(unusable)?;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The registry file, under the Python server's name.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root.join("oumi-jobs.json")
    }

    /// The file whose lock guards every change of the registry.
    pub(crate) fn registry_lock(&self) -> PathBuf {
        self.root.join("oumi-jobs.lock")
    }

    /// The folder that holds one folder a job.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// The file that holds the last reading of the clock.
    pub(crate) fn clock(&self) -> PathBuf {
        self.root.join("clock")
    }

    /// The folder that holds one folder a change of a cluster.
    pub(crate) fn changes(&self) -> PathBuf {
        self.root.join("changes")
    }

    /// Returns the folder of a job; `None` when the id is not a plain file name. Anyone may have written the registry.
    pub(crate) fn job(&self, job_id: &str) -> Option<PathBuf> {
        let mut parts = Path::new(job_id).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None)
                if name == job_id && !job_id.contains('\0') && job_id.len() <= NAME_MAX =>
            {
                Some(self.jobs().join(name))
            }
            _ => None,
        }
    }
}

/// Replaces `path` by `bytes`, 0600: writes and syncs a temporary file, renames it, syncs the folder. Readers see the old file
/// or the new one, never a part; on an error, the old one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes)?.sync_all()
}

/// Like [`write_atomic`], but leaves the sync of the returned folder to the caller. Until then, a machine that goes down may
/// come up with the old file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let (folder, temporary) = write_temporary(path, bytes)?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(folder)
}

/// Like [`write_atomic`], but a file that is there keeps its rights.
pub(crate) fn write_keeping_rights(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (folder, temporary) = write_temporary(path, bytes)?;
    if let Ok(old) = fs::metadata(path) {
        temporary.as_file().set_permissions(old.permissions())?;
    }
    temporary.persist(path).map_err(|error| error.error)?;
    folder.sync_all()
}

/// Writes a temporary file beside `path`, and opens their folder: once the file is written, there may be no handle left.
fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<(File, NamedTempFile)> {
    let parent = path
        .parent()
        .ok_or_else(|| io::Error::other("a file to write has no folder"))?;
    let folder = File::open(parent)?;
    // tempfile creates it 0600. The pid tells later that its writer was killed.
    let prefix = format!("{TEMPORARY}{}-", std::process::id());
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .tempfile_in(parent)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    Ok((folder, temporary))
}

/// Removes the temporary files in `folder` whose writer was killed.
fn remove_temporary_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = || {
            name.to_str()?
                .strip_prefix(TEMPORARY)?
                .split_once('-')?
                .0
                .parse()
                .ok()
        };
        let pid = pid().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
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
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is not a file"))
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

#[cfg(test)]
#[path = "tests/data_dir.rs"]
mod tests;
