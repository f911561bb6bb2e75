//! Follows the progress in a log as it grows: each look reads only what is new.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::history::History;
use super::{Progress, Scanner};
use crate::logs::cursor::Cursor;

/// Of a log, this much of the beginning is read, where it is said how many steps there will be…
const HEAD: u64 = 256 * 1024;

/// … and at each look no more than this of the end. If more is new, what lies before is passed over.
const TAIL: u64 = 4 * 1024 * 1024;

/// How much of the end is read where the whole course of a run is wanted: a second's work.
const WHOLE: u64 = 512 * 1024 * 1024;

/// How much is read at once.
const PIECE: u64 = 256 * 1024;

/// The progress in a log that is looked at again and again. A look costs what is new, and never more than a few MiB,
/// whatever the size of the log. A log that was cut short, replaced, or written anew is read from its beginning, and what
/// the one before said is forgotten.
#[derive(Debug, Clone)]
pub struct Followed {
    path: PathBuf,
    read_to: Cursor,
    scanner: Scanner,
    last: Option<Progress>,
}

impl Followed {
    /// The log at `path`, of which nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_to: Cursor::start(),
            scanner: Scanner::default(),
            last: None,
        }
    }

    /// Reads what is new. What the log has said so far, or nothing if that is no progress.
    ///
    /// # Errors
    /// What the file system said. The next look goes on as if this one had not been, or begins anew.
    pub fn look(&mut self) -> io::Result<Option<(Progress, &History)>> {
        self.look_back(TAIL)
    }

    /// As [`look`](Self::look), for a log that is read once: a gap in the losses only beyond half a gigabyte.
    ///
    /// # Errors
    /// What the file system said.
    pub fn look_at_all(&mut self) -> io::Result<Option<(Progress, &History)>> {
        self.look_back(WHOLE)
    }

    fn look_back(&mut self, most: u64) -> io::Result<Option<(Progress, &History)>> {
        let mut log = File::open(&self.path)?;
        let metadata = log.metadata()?;
        let (inode, end) = (Some(metadata.ino()), metadata.len());
        let (mut at, change) = self.read_to.resume(&mut log, inode, end)?;
        // Begun anew until all is read, so that nothing is read twice when reading fails midway.
        let anew = Self::new(self.path.clone());
        let before = std::mem::replace(self, anew);
        let Self {
            mut scanner, last, ..
        } = match change {
            None => before,
            Some(_) => self.clone(),
        };
        let tail = end.saturating_sub(most).max(at);
        if at == 0 {
            at = read(&mut log, 0, HEAD.min(tail), &mut scanner)?;
        }
        if at < tail {
            scanner.skip();
        }
        let at = read(&mut log, tail, end, &mut scanner)?;
        let mut progress = scanner.progress(metadata.modified()?);
        if let (Some(progress), Some(last)) = (&mut progress, last)
            && progress.figures == last.figures
        {
            // Nothing new was said, whatever else was written.
            progress.measured_at = last.measured_at;
        }
        self.read_to = Cursor::at(&mut log, inode, at)?;
        self.scanner = scanner;
        self.last = progress;
        Ok(self
            .last
            .clone()
            .map(|progress| (progress, self.scanner.history())))
    }

    /// The losses so far, at the end.
    pub fn into_history(self) -> History {
        self.scanner.into_history()
    }
}

/// Reads `log` into `scanner`, and says how far it came: the log may be cut meanwhile.
fn read(log: &mut File, from: u64, to: u64, scanner: &mut Scanner) -> io::Result<u64> {
    let mut piece = Vec::new();
    let mut at = from;
    log.seek(SeekFrom::Start(from))?;
    while at < to {
        piece.clear();
        let length = log.take(PIECE.min(to - at)).read_to_end(&mut piece)?;
        if length == 0 {
            break;
        }
        scanner.push(&piece);
        at += length as u64;
    }
    Ok(at)
}
