//! A position in a log, as an opaque word that a client keeps, so that each answer gives only new text: in order, nothing
//! twice and nothing left out, also across restarts of the server.
//!
//! It holds the inode of the file, the offset, and a checksum of the bytes before the offset. So a log that was replaced,
//! truncated or rewritten in place is noticed, and then read from its beginning. The device is not part of the identity: its
//! number changes when a disk is mounted again, and the checksum tells files apart as well.

use std::fmt;
use std::io::{self, Read, Seek};

use super::source::read_at;
use crate::error::JobError;

/// Bytes before the offset that are checked.
const CHECKED: u64 = 256;

/// The first part of a cursor: what it is, and the version of what follows.
const KIND: &str = "log2";

/// A position in a log: everything before it has been given. The default is the beginning of any log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The inode; `None` for a log that was fetched.
    file: Option<u64>,
    offset: u64,
    check: u64,
}

/// The reason why an answer does not go on where the last one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another log stands in its place, or it was rewritten; it is read from its beginning.
    Replaced,
    /// The log became shorter than what had been read; it is read from its beginning.
    Truncated,
    /// Only the end of the log was fetched, and it lacks what was read last: lines may be missing in between.
    Gap,
}

impl Change {
    /// A sentence for the reader.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Replaced => {
                "The log was replaced or rewritten since the cursor. This is from its beginning."
            }
            Self::Truncated => {
                "The log was truncated since the cursor. This is from its beginning."
            }
            Self::Gap => {
                "More was written since the cursor than can be fetched at once: lines may be missing before these."
            }
        }
    }
}

impl Cursor {
    /// Parses what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, JobError> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let parse = || {
            let parts: Vec<&str> = text.trim().split('.').collect();
            let [KIND, file, offset, check] = *parts else {
                return None;
            };
            let file = (!file.is_empty()).then(|| number(file));
            Some(Self {
                file: file.map_or(Some(None), |file| file.map(Some))?,
                offset: number(offset)?,
                check: number(check)?,
            })
        };
        parse().ok_or_else(|| {
            JobError::invalid("this is not a cursor of this server: pass the `cursor` of an earlier answer as it is, or leave it out to get the end of the log")
        })
    }

    /// The offset, in bytes from the beginning of the log.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The position `offset` of `log`.
    pub(crate) fn at(
        log: &mut (impl Read + Seek),
        file: Option<u64>,
        offset: u64,
    ) -> io::Result<Self> {
        let length = CHECKED.min(offset);
        Ok(Self {
            file,
            offset,
            check: hash(&read_at(log, offset - length, length)?),
        })
    }

    /// Finds where to go on in `log`, which is `end` bytes long, and what happened to it since, if anything.
    pub(crate) fn resume(
        &self,
        log: &mut (impl Read + Seek),
        file: Option<u64>,
        end: u64,
    ) -> io::Result<(u64, Option<Change>)> {
        if self.file == file && self.offset > end {
            return Ok((0, Some(Change::Truncated)));
        }
        let is_same = (self.offset == 0 || self.file == file)
            && Self::at(log, file, self.offset)?.check == self.check;
        Ok(if is_same {
            (self.offset, None)
        } else {
            (0, Some(Change::Replaced))
        })
    }

    /// Finds where to go on in `bytes`, the end of a log: at the first place with the text before it that the cursor had. If
    /// there are several, lines are rather given twice than never.
    pub(super) fn find(&self, bytes: &[u8]) -> (u64, Option<Change>) {
        if self.offset == 0 {
            return (0, Some(Change::Gap));
        }
        if self.file.is_some() {
            return (0, Some(Change::Replaced));
        }
        let length = usize::try_from(CHECKED.min(self.offset)).unwrap_or(usize::MAX);
        // It also stops at a carriage return, when its line had not ended.
        memchr::memchr2_iter(b'\n', b'\r', bytes)
            .map(|at| at + usize::from(bytes.get(at) == Some(&b'\n')))
            .find(|start| {
                start
                    .checked_sub(length)
                    .and_then(|from| bytes.get(from..*start))
                    .is_some_and(|before| hash(before) == self.check)
            })
            .map_or((0, Some(Change::Gap)), |start| (start as u64, None))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.map(|file| format!("{file:x}"));
        let (file, offset, check) = (file.unwrap_or_default(), self.offset, self.check);
        write!(f, "{KIND}.{file}.{offset:x}.{check:x}")
    }
}

/// FNV-0: the same in every version of this program, which the standard library's hash is not.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash: u64, byte| {
        hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte)
    })
}
