//! A log to read from: a file, or a text that was fetched. It is read in parts, so that its size does not matter.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memchr::{memchr, memrchr};

use super::cursor::{Change, Cursor};
use super::fold::Block;
use crate::redact::Redactor;
use crate::settings::data_dir::open_regular;

/// Bytes read at once in the search for the beginning of a long line.
const STRIDE: u64 = 1024 * 1024;

/// The most bytes of a line that are left out: a longer one counts as several.
pub(super) const MAX_LEFT_OUT: u64 = 64 * STRIDE;

trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// An open log, whose secrets are masked wherever it is read.
pub struct Log<'a> {
    content: Box<dyn ReadSeek + 'a>,
    pub(super) secrets: &'a Redactor,
    inode: Option<u64>,
    /// The text, if it is only the end of the log or may have grown at its front.
    text: Option<&'a [u8]>,
    is_whole: bool,
    /// The size when it was opened, in bytes.
    pub(super) end: u64,
}

impl<'a> Log<'a> {
    /// Opens the file of a log.
    pub fn open(path: &Path, secrets: &'a Redactor) -> io::Result<Self> {
        let mut file = open_regular(path)?;
        Ok(Self {
            secrets,
            inode: Some(file.metadata()?.ino()),
            text: None,
            is_whole: true,
            end: file.seek(SeekFrom::End(0))?,
            content: Box::new(file),
        })
    }

    /// Takes a log that was fetched; unless it `is_whole`, only the end of it.
    pub fn from_text(text: &'a [u8], is_whole: bool, secrets: &'a Redactor) -> Self {
        Self {
            content: Box::new(io::Cursor::new(text)),
            secrets,
            inode: None,
            text: Some(text),
            is_whole,
            end: text.len() as u64,
        }
    }

    /// Reads a part, masked. What stands around the part decides what is secret in it.
    pub(super) fn read(&mut self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let margin = self.secrets.margin() as u64;
        let (from, to) = (start.saturating_sub(margin), self.end.min(end + margin));
        let mut bytes = self.read_unmasked(from, to)?;
        self.secrets.mask(&mut bytes, to == self.end);
        bytes.truncate((end - from) as usize);
        bytes.drain(..(start - from) as usize);
        Ok(bytes)
    }

    /// Reads a part to find a place in it.
    pub(super) fn read_unmasked(&mut self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        read_at(&mut self.content, start, end - start)
    }

    /// Reads the lines that end at `end`, about `size` bytes of them. Of a line that is longer its end is read, and its beginning
    /// looked for.
    pub(super) fn lines_before(&mut self, end: u64, size: u64) -> io::Result<Block> {
        let mut start = end.saturating_sub(size);
        let mut bytes = self.read(start, end)?;
        let mut left_out = 0;
        // The first line end is that of a line that begins before; unless it ends the last line of the block.
        let inner = &bytes[..bytes.len().saturating_sub(1)];
        match memchr(b'\n', inner).filter(|_| start > 0) {
            Some(line_end) => {
                bytes.drain(..=line_end);
                start += line_end as u64 + 1;
            }
            None if inner.contains(&b'\n') => {}
            None => {
                let mut line_end = None;
                while line_end.is_none() && start > 0 && left_out < MAX_LEFT_OUT {
                    let before = self.read_unmasked(start.saturating_sub(STRIDE), start)?;
                    line_end = memrchr(b'\n', &before);
                    let length = (before.len() - line_end.map_or(0, |at| at + 1)) as u64;
                    left_out += length;
                    start -= length;
                }
            }
        }
        Ok(Block {
            start,
            left_out,
            bytes,
        })
    }

    pub(super) fn cursor_at(&mut self, offset: u64) -> io::Result<Cursor> {
        Cursor::at(&mut self.content, self.inode, offset)
    }

    /// Finds where to go on, and what happened to the log since the cursor. In the end of a log, and in one with something
    /// new at its front, the place is found by the text before it.
    pub(super) fn resume(&mut self, cursor: &Cursor) -> io::Result<(u64, Option<Change>)> {
        let text = self.text.unwrap_or_default();
        if !self.is_whole {
            return Ok(cursor.find(text));
        }
        let resumed = cursor.resume(&mut self.content, self.inode, self.end)?;
        Ok(match (resumed, cursor.find(text)) {
            ((_, Some(_)), (start, None)) if self.text.is_some() => (start, None),
            (resumed, _) => resumed,
        })
    }
}

/// Reads the `length` bytes at `start`. Fails when the log became shorter meanwhile: ask again.
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
