//! The reader of a log that grows: each read costs only what is new.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{Progress, Scanner};
use crate::settings::data_dir::open_regular;
use crate::text::cursor::Cursor;

/// The part of the beginning that is always read, since the number of steps is announced there.
const HEAD: u64 = 256 * 1024;

/// The most that the first read takes of the end, and each later one. If more is new, the text before it is skipped.
const TAIL: u64 = 4 * 1024 * 1024;
const NEWEST: u64 = 512 * 1024;

/// The most of the end that is read for a curve: a few seconds' work.
pub(super) const WHOLE: u64 = 512 * 1024 * 1024;

const PIECE: u64 = 256 * 1024;

/// Reads the progress in a log again and again. A log that was cut short, replaced or rewritten is read from its
/// beginning, and its earlier content is forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct IncrementalReader {
    pub(crate) path: PathBuf,
    read_to: Cursor,
    pub(crate) scanner: Scanner,
    last: Option<Progress>,
}

impl IncrementalReader {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// Reads what is new, and gives the progress so far. After an error the next read starts over.
    pub(crate) fn read(&mut self) -> io::Result<Option<Progress>> {
        self.read_tail(TAIL)
    }

    /// As [`read`](Self::read), at the first time no more than the beginning and the last `max_bytes`.
    pub(super) fn read_tail(&mut self, max_bytes: u64) -> io::Result<Option<Progress>> {
        let mut log = open_regular(&self.path)?;
        let metadata = log.metadata()?;
        let (inode, end) = (Some(metadata.ino()), metadata.len());
        let resumed = self.read_to.resume(&mut log, inode, end)?;
        // Left empty until all is read, so that nothing is counted twice when a read fails midway.
        let before = std::mem::replace(self, Self::new(self.path.clone()));
        let (mut scanner, last) = match resumed {
            Some(_) => (before.scanner, before.last),
            None => Default::default(),
        };
        let mut at = resumed.unwrap_or(0);
        let max_bytes = if at == 0 { max_bytes } else { NEWEST };
        let tail = end.saturating_sub(max_bytes).max(at);
        if at == 0 {
            at = read_range(&mut log, 0, HEAD.min(tail), &mut scanner)?;
        }
        if at < tail {
            scanner.skip();
        }
        let at = read_range(&mut log, tail, end, &mut scanner)?;
        let mut progress = scanner.ahead().progress(metadata.modified()?);
        if let (Some(progress), Some(last)) = (&mut progress, last)
            && progress.metrics == last.metrics
        {
            // The metrics are as old as they were, whatever else was written.
            progress.measured_at = last.measured_at;
        }
        self.read_to = Cursor::at(&mut log, inode, at)?;
        self.scanner = scanner;
        self.last.clone_from(&progress);
        Ok(progress)
    }
}

/// Reads a part of `log`, and returns where it ended: the log may be cut meanwhile.
fn read_range(log: &mut File, from: u64, to: u64, scanner: &mut Scanner) -> io::Result<u64> {
    let mut piece = Vec::with_capacity(PIECE as usize);
    let mut at = from;
    log.seek(SeekFrom::Start(from))?;
    while log.take(PIECE.min(to - at)).read_to_end(&mut piece)? > 0 {
        scanner.push(&piece);
        at += piece.len() as u64;
        piece.clear();
    }
    Ok(at)
}
