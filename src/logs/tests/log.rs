//! A log that a job writes, in a test's own folder.

use std::fs::{self, OpenOptions};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::logs::Log;
use crate::logs::cursor::Cursor;
use crate::logs::read::{Excerpt, ReadOptions, read_since, tail};

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

pub fn file_tail(path: &Path, lines: usize, options: ReadOptions) -> io::Result<Excerpt> {
    tail(&mut Log::open(path)?, lines, options)
}

pub fn file_since(path: &Path, cursor: &Cursor, options: ReadOptions) -> Excerpt {
    read_since(&mut Log::open(path).unwrap(), cursor, options).unwrap()
}

pub fn text_tail(text: &[u8], lines: usize, options: ReadOptions) -> Excerpt {
    tail(&mut Log::from_text(text, true), lines, options).unwrap()
}

pub fn text_since(text: &[u8], whole: bool, cursor: &Cursor, options: ReadOptions) -> Excerpt {
    read_since(&mut Log::from_text(text, whole), cursor, options).unwrap()
}
