//! A log that a job writes, in a test's own folder.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// A log of a folder of its own.
pub struct Log {
    _home: tempfile::TempDir,
    pub path: PathBuf,
}

impl Log {
    pub fn new(content: impl AsRef<[u8]>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("output.log");
        fs::write(&path, content).unwrap();
        Self { _home: home, path }
    }

    pub fn append(&self, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).open(&self.path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }
}
