//! A log read from its end, in blocks of whole lines, so that its size does not matter.

use std::io::{self, Read, Seek, SeekFrom};
use std::time::Instant;

use memchr::{memchr, memrchr};

/// Of a line longer than a block, this much of its end is kept.
const KEPT_OF_A_LINE: usize = 64 * 1024;

/// How much is read at once while the beginning of such a line is looked for.
const STRIDE: usize = 1024 * 1024;

/// Reads a log from its end towards its beginning.
#[derive(Debug)]
pub(super) struct Backwards<S> {
    log: S,
    /// Where what has been read begins.
    at: u64,
    /// How many more bytes may be read.
    budget: u64,
    /// When to stop.
    deadline: Option<Instant>,
}

/// Some lines of a log, whole but for the last of all, which may not have ended.
#[derive(Debug)]
pub(super) struct Block {
    /// Where in the log they begin.
    pub start: u64,
    /// How many bytes of their first line are not in `bytes`: its beginning.
    pub left_out: u64,
    /// The lines.
    pub bytes: Vec<u8>,
}

impl<S: Read + Seek> Backwards<S> {
    /// From `end` backwards, reading no more than about `budget` bytes.
    pub fn new(log: S, end: u64, budget: u64) -> Self {
        Self {
            log,
            at: end,
            budget,
            deadline: None,
        }
    }

    /// Stops at `deadline`, also within a line that takes longer than that.
    pub fn until(self, deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// Where what has been read begins: 0 when it is the whole log.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The lines before those that were given last, about `size` bytes of them. None at the beginning of the log, and when
    /// the budget is used up. The deadline does not stop it before it has given what one read brings.
    pub fn next(&mut self, size: usize) -> io::Result<Option<Block>> {
        if self.at == 0 || self.budget == 0 {
            return Ok(None);
        }
        let end = self.at;
        let mut bytes = self.read_before(end, size)?;
        let mut start = end - bytes.len() as u64;
        if start == 0 {
            self.at = 0;
            return Ok(Some(Block {
                start,
                left_out: 0,
                bytes,
            }));
        }
        // The first line end is that of a line that begins before; unless it ends the last line of the block.
        let inner = bytes.len().saturating_sub(1);
        if let Some(line_end) = memchr(b'\n', bytes.get(..inner).unwrap_or_default()) {
            bytes.drain(..=line_end);
            self.at = end - bytes.len() as u64;
            return Ok(Some(Block {
                start: self.at,
                left_out: 0,
                bytes,
            }));
        }
        // One line that is longer than the block: its beginning is looked for, and its end kept.
        let mut left_out = 0;
        let late = |deadline| Instant::now() >= deadline;
        while start > 0 && self.budget > 0 && !self.deadline.is_some_and(late) {
            let mut before = self.read_before(start, STRIDE)?;
            let from = memrchr(b'\n', &before).map_or(0, |line_end| line_end + 1);
            let found = from > 0;
            start -= (before.len() - from) as u64;
            before.drain(..from);
            if bytes.len() < KEPT_OF_A_LINE {
                let spare = KEPT_OF_A_LINE - bytes.len();
                let excess = before.len().saturating_sub(spare);
                left_out += excess as u64;
                before.drain(..excess);
                before.append(&mut bytes);
                bytes = before;
            } else {
                left_out += before.len() as u64;
            }
            if found {
                break;
            }
        }
        self.at = start;
        Ok(Some(Block {
            start,
            left_out,
            bytes,
        }))
    }

    fn read_before(&mut self, end: u64, size: usize) -> io::Result<Vec<u8>> {
        let length = (size as u64).min(end).max(1);
        self.budget = self.budget.saturating_sub(length);
        read_at(&mut self.log, end - length, length)
    }
}

/// The `length` bytes at `start`. That the log became shorter meanwhile is an error: ask again.
pub(super) fn read_at(
    log: &mut (impl Read + Seek),
    start: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    log.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
    log.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the log became shorter while it was read",
        ));
    }
    Ok(bytes)
}
