//! What was made of files, kept as long as they do not change: a look at a file costs less than to read it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::sync::lock;

/// Within this time of a change, another one may leave the file with the same time.
const CLOCK_TICK: Duration = Duration::from_secs(2);
/// The most files that are kept, some more than there are records.
const MAX_FILES: usize = 256;

/// A file as it was, by which it is known again. Its time of writing can be set, as `cp -p` does; its time of change cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    inode: u64,
    pub(crate) written: SystemTime,
    changed: (i64, i64),
    length: u64,
}

/// What was made of files, with their versions then.
#[derive(Debug, Default)]
pub(crate) struct Unchanged<T>(Mutex<HashMap<OsString, (Version, T)>>);

impl<T: Clone> Unchanged<T> {
    /// Returns what was made of the file. Where that has changed, the error is its version, for [`keep`](Self::keep) once it has
    /// been read; none for a file that is gone or was just written.
    pub(crate) fn get(&self, path: &Path) -> Result<T, Option<Version>> {
        let version = version(path);
        match lock(&self.0).get(path.as_os_str()) {
            Some((of, made)) if version == Some(*of) => Ok(made.clone()),
            _ => Err(version),
        }
    }

    /// Keeps what was made of the file in this version.
    pub(crate) fn keep(&self, path: &Path, version: Option<Version>, made: &T) {
        let Some(version) = version else { return };
        let mut files = lock(&self.0);
        if files.len() >= MAX_FILES && !files.contains_key(path.as_os_str()) {
            files.clear();
        }
        files.insert(path.into(), (version, made.clone()));
    }
}

/// Returns the version of a file, or none, as [`Unchanged::get`] does.
pub(crate) fn version(path: &Path) -> Option<Version> {
    let metadata = path.metadata().ok()?;
    let written = metadata.modified().ok()?;
    let is_old = written.elapsed().is_ok_and(|age| age > CLOCK_TICK);
    is_old.then(|| Version {
        inode: metadata.ino(),
        written,
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        length: metadata.len(),
    })
}
