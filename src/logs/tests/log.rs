//! A log that a job writes, in a test's own folder.

use std::fs::{self, OpenOptions};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::logs::Log;
use crate::logs::read::{Excerpt, ReadOptions, read_since, tail};
use crate::redact::Redactor;
use crate::text::cursor::Cursor;

/// A log of a folder of its own.
pub struct TestLog {
    _home: tempfile::TempDir,
    pub path: PathBuf,
}

impl TestLog {
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

/// Nothing is secret.
pub fn no_secrets() -> &'static Redactor {
    static NONE: LazyLock<Redactor> = LazyLock::new(Redactor::default);
    &NONE
}

pub fn file_tail(path: &Path, lines: usize, options: ReadOptions) -> io::Result<Excerpt> {
    tail(&mut Log::open(path, no_secrets())?, lines, options)
}

pub fn file_since(path: &Path, cursor: &Cursor, options: ReadOptions) -> Excerpt {
    let mut log = Log::open(path, no_secrets()).unwrap();
    read_since(&mut log, cursor, options).unwrap()
}

pub fn text_tail(text: &[u8], lines: usize, options: ReadOptions) -> Excerpt {
    let mut log = Log::from_text(text, true, no_secrets());
    tail(&mut log, lines, options).unwrap()
}

pub fn text_since(text: &[u8], whole: bool, cursor: &Cursor, options: ReadOptions) -> Excerpt {
    let mut log = Log::from_text(text, whole, no_secrets());
    read_since(&mut log, cursor, options).unwrap()
}
