//! Where the program keeps its files, and how it writes one so that a kill at any instant leaves it whole.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::settings::env_vars;

/// The longest file name on Linux and macOS, in bytes.
const NAME_MAX: usize = 255;

/// The data folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Neither `OUMI_MCP_HOME` nor a home folder is known.
    #[error("no home folder is known; set {} to an absolute path", env_vars::HOME.name)]
    NoHome,
    /// `OUMI_MCP_HOME` is not absolute: it would mean another place for every client.
    #[error("{variable} must be an absolute path, not {0:?}; set it to one", variable = env_vars::HOME.name)]
    Relative(PathBuf),
    /// The folder could not be made or entered.
    #[error(
        "cannot use the data folder {path}: {source}; make it writable or set {} to another folder",
        env_vars::HOME.name
    )]
    Unusable {
        /// The folder in question.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The folder that holds the registry and one folder a job; 0700, its files 0600.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The folder `OUMI_MCP_HOME` names, else `~/.cache/oumi-mcp` on every platform (the Python server's place).
    /// Nothing is created yet.
    ///
    /// # Errors
    /// When no home is known, or the variable holds a relative path.
    pub fn from_environment() -> Result<Self, DataDirError> {
        match std::env::var_os(env_vars::HOME.name).filter(|value| !value.is_empty()) {
            Some(value) => {
                let root = PathBuf::from(value);
                if root.is_absolute() {
                    Ok(Self { root })
                } else {
                    Err(DataDirError::Relative(root))
                }
            }
            None => dirs::home_dir()
                .map(|home| Self {
                    root: home.join(".cache").join("oumi-mcp"),
                })
                .ok_or(DataDirError::NoHome),
        }
    }

    /// A folder at `root`, for tests and the demo. Nothing is created yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the folder and its `jobs` folder where they are missing, readable by the owner alone.
    ///
    /// # Errors
    /// When the file system refuses; the error names the folder and what to do.
    pub fn create(&self) -> Result<(), DataDirError> {
        let made =
            create_private_dir_all(&self.root).and_then(|()| create_private_dir_all(&self.jobs()));
        made.map_err(|source| DataDirError::Unusable {
            path: self.root.clone(),
            source,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The registry file, under the Python server's name.
    pub fn registry(&self) -> PathBuf {
        self.root.join("oumi-jobs.json")
    }

    /// The file whose lock guards every change of the registry.
    pub fn registry_lock(&self) -> PathBuf {
        self.root.join("oumi-jobs.lock")
    }

    /// The folder that holds one folder a job.
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// The folder of one job, or nothing when the id is no plain file name (a registry may have been written by anyone).
    pub fn job(&self, job_id: &str) -> Option<PathBuf> {
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

fn create_private_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // An older version, or a person, may have made it with wider permissions.
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces `path` with `bytes`, 0600: a temporary file beside it, synced, renamed over it, the folder synced. A reader sees
/// the old file or the new one, never a part.
///
/// # Errors
/// What the file system said; the old file is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes)?.sync_all()
}

/// The same without the last step, which is left to the caller: until the folder that is returned is synced, a machine that
/// goes down may come up with the old file.
///
/// # Errors
/// What the file system said; the old file is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let parent = path
        .parent()
        .ok_or_else(|| io::Error::other("a file to write has no folder"))?;
    // Before anything is changed: there may be no handle left for it.
    let folder = File::open(parent)?;
    // tempfile creates it 0600.
    let mut temporary = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(parent)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_folder_is_only_given_for_a_plain_name() {
        let folder = DataDir::at("/data");
        assert_eq!(
            folder.job("train_1"),
            Some(PathBuf::from("/data/jobs/train_1"))
        );
        let long = "x".repeat(NAME_MAX + 1);
        for hostile in ["", ".", "..", "a/b", "../x", "/etc", "a\0b", "a/", &long] {
            assert_eq!(folder.job(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn an_atomic_write_replaces_the_whole_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, b"a longer first text").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
