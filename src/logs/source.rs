//! A log to read from: a file, or a text that was fetched. It is read in parts, so that its size does not matter.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memchr::{memchr, memchr2, memrchr};

use super::fold::{CUT, WORD_SEARCH};
use crate::redact::Redactor;
use crate::settings::data_dir::open_regular;
use crate::text::cursor::{Cursor, read_at};

/// Bytes read at once in the search for the beginning of a long line.
const STRIDE: u64 = 1024 * 1024;

/// The most bytes of a line that are left out: a longer one counts as several.
pub(super) const MAX_LEFT_OUT: u64 = 64 * STRIDE;

/// Says that the cursor is another log's, or that this one became shorter or was rewritten.
pub(super) const REPLACED: &str = "The cursor is not of this log: it is another job's, or the log was truncated, replaced or rewritten since. \
    This is from its beginning; go on with the cursor of this answer.";

/// Says that only the end of the log was fetched, and that it lacks what was read last.
pub(super) const GAP: &str = "More was written since the cursor than can be fetched at once: lines may be missing before these.";

trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// An open log, whose secrets are masked wherever it is read.
pub struct Log<'a> {
    content: Box<dyn ReadSeek + 'a>,
    pub(super) secrets: &'a Redactor,
    inode: Option<u64>,
    is_whole: bool,
    /// The size when it was opened, in bytes.
    pub(super) end: u64,
}

/// A part of a log, from the beginning of a line on.
pub(super) struct Block {
    /// Offset of its first line in the log.
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl<'a> Log<'a> {
    pub fn open(path: &Path, secrets: &'a Redactor) -> io::Result<Self> {
        let mut file = open_regular(path)?;
        Ok(Self {
            secrets,
            inode: Some(file.metadata()?.ino()),
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
            is_whole,
            end: text.len() as u64,
        }
    }

    /// Reads a part, masked. What stands around the part decides what is secret in it.
    pub(super) fn read(&mut self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let margin = self.secrets.margin() as u64;
        let (from, to) = (start.saturating_sub(margin), self.end.min(end + margin));
        let mut bytes = read_at(&mut self.content, from, to - from)?;
        self.secrets.mask(&mut bytes, to == self.end);
        bytes.truncate((end - from) as usize);
        bytes.drain(..(start - from) as usize);
        Ok(bytes)
    }

    /// Reads the lines that end at `end`, about `size` bytes of them. Of a line that is longer its end is read, which says so,
    /// and its beginning looked for.
    pub(super) fn lines_before(&mut self, end: u64, size: u64) -> io::Result<Block> {
        let mut start = end.saturating_sub(size);
        let mut bytes = self.read(start, end)?;
        if start == 0 {
            return Ok(Block { start, bytes });
        }
        // The first line end is that of a line that begins before; unless it ends the last line of the block.
        let inner = &bytes[..bytes.len().saturating_sub(1)];
        if let Some(line_end) = memchr(b'\n', inner) {
            bytes.drain(..=line_end);
            start += line_end as u64 + 1;
            return Ok(Block { start, bytes });
        }
        // Half a token is not known as one: on to the next word, if that is near.
        let near = bytes.len().min(WORD_SEARCH);
        let word = memchr2(b' ', b'\t', &bytes[..near]).unwrap_or(near);
        bytes.splice(..word, CUT.bytes());
        let mut line_end = None;
        while line_end.is_none() && start > 0 && end - start < size + MAX_LEFT_OUT {
            let from = start.saturating_sub(STRIDE);
            let before = read_at(&mut self.content, from, start - from)?;
            line_end = memrchr(b'\n', &before);
            start = from + line_end.map_or(0, |at| at as u64 + 1);
        }
        Ok(Block { start, bytes })
    }

    pub(super) fn cursor_at(&mut self, offset: u64) -> io::Result<Cursor> {
        Cursor::at(&mut self.content, self.inode, offset)
    }

    /// Finds where to go on, and says what happened to the log since the cursor. In one that was fetched, which may be only the end
    /// of the log or have something new at its front, the place is found by the text before it.
    pub(super) fn resume(&mut self, cursor: &Cursor) -> io::Result<(u64, Option<&'static str>)> {
        if self.is_whole
            && let Some(start) = cursor.resume(&mut self.content, self.inode, self.end)?
        {
            return Ok((start, None));
        }
        let is_of_file = self.inode.or(cursor.file).is_some();
        if !is_of_file && let Some(start) = cursor.find(&read_at(&mut self.content, 0, self.end)?) {
            return Ok((start, None));
        }
        let may_have_gap = !self.is_whole && !is_of_file;
        Ok((0, Some(if may_have_gap { GAP } else { REPLACED })))
    }
}
