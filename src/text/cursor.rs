//! A position in a log, as an opaque word that a client keeps, so that each answer gives only new text: in order, nothing
//! twice and nothing left out, also across restarts of the server.
//!
//! It holds the inode of the file, the offset, and a checksum of the bytes before the offset. So a log that was replaced,
//! truncated or rewritten in place is noticed, and then read from its beginning. The device is not part of the identity: its
//! number changes when a disk is mounted again, and the checksum tells files apart as well.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::JobError;

/// Bytes before the offset that are checked.
const CHECKED: u64 = 256;

/// The first part of a cursor: what it is, and the version of what follows.
const KIND: &str = "log2";

/// A position in a log: everything before it has been given. The default is the beginning of any log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The inode; `None` for a log that was fetched.
    pub(crate) file: Option<u64>,
    offset: u64,
    check: u64,
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
            let file = match file {
                "" => None,
                file => Some(number(file)?),
            };
            let (offset, check) = (number(offset)?, number(check)?);
            Some(Self {
                file,
                offset,
                check,
            })
        };
        parse().ok_or_else(|| {
            JobError::invalid("this is not a cursor of this server: pass the `cursor` of an earlier answer as it is, or leave it out to get the end of the log")
        })
    }

    pub(crate) fn at(
        log: &mut (impl Read + Seek),
        file: Option<u64>,
        offset: u64,
    ) -> io::Result<Self> {
        let length = CHECKED.min(offset);
        let check = hash(&read_at(log, offset - length, length)?);
        Ok(Self {
            file,
            offset,
            check,
        })
    }

    /// Finds where to go on in `log`, which is `end` bytes long: `None` where it is another log by now.
    pub(crate) fn resume(
        &self,
        log: &mut (impl Read + Seek),
        file: Option<u64>,
        end: u64,
    ) -> io::Result<Option<u64>> {
        let may_be_same = self.offset <= end && (self.offset == 0 || self.file == file);
        let is_same = may_be_same && Self::at(log, file, self.offset)?.check == self.check;
        Ok(is_same.then_some(self.offset))
    }

    /// Finds where to go on in `bytes`, the end of a log: at the first place with the text before it that the cursor had. If
    /// there are several, lines are rather given twice than never.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u64> {
        let length = CHECKED.min(self.offset) as usize;
        // It also stops at a carriage return, when its line had not ended.
        let mut ends = memchr::memchr2_iter(b'\n', b'\r', bytes)
            .map(|at| at + usize::from(bytes[at] == b'\n'))
            .filter(|end| (1..=*end).contains(&length));
        let end = ends.find(|end| hash(&bytes[end - length..*end]) == self.check);
        end.map(|end| end as u64)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.map(|file| format!("{file:x}"));
        let (file, offset, check) = (file.unwrap_or_default(), self.offset, self.check);
        write!(f, "{KIND}.{file}.{offset:x}.{check:x}")
    }
}

/// Reads the `length` bytes at `start`. Fails when the log became shorter meanwhile: ask again.
pub(crate) fn read_at(
    log: &mut (impl Read + Seek),
    start: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    log.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    log.read_exact(&mut bytes).map_err(|error| {
        let what = format!("the log changed while it was read: {}", error.kind());
        io::Error::new(error.kind(), what)
    })?;
    Ok(bytes)
}

/// FNV-0: the same in every version of this program, which the standard library's hash is not.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash: u64, byte| {
        hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte)
    })
}
