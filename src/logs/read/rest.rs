//! The end of a log that is still being written: what is not text yet.

use std::io::{self, Read, Seek};

use memchr::{memrchr, memrchr2};

use super::super::backwards::read_at;
use super::super::fold::NEAR;
use super::{View, folder, keep_end};

/// An unfinished line up to this length is read again each time. Of a longer one only its newest state is looked for.
const HELD: u64 = 64 * 1024;

/// What is not text yet.
#[derive(Debug)]
pub(super) struct Rest {
    /// Where it begins: what stands before it can be given.
    pub at: u64,
    pub kind: RestKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestKind {
    /// It is a line that has not ended, or nothing.
    Line,
    /// It begins at a carriage return inside of a line: what stands before that in the line is overwritten.
    Overwritten,
    /// It begins inside of a line that is too long to wait for its end: what stands before is given as it is.
    Cut,
}

impl Rest {
    pub fn of(log: &mut (impl Read + Seek), start: u64, end: u64, view: View) -> io::Result<Self> {
        let (mut at, mut kind) = (end, RestKind::Line);
        if !view.ended {
            let from = start.max(end.saturating_sub(HELD));
            let bytes = read_at(log, from, end - from)?;
            let overwritten = || memrchr(b'\r', &bytes).filter(|_| !view.raw);
            if let Some(line_end) = memrchr(b'\n', &bytes) {
                at = from + line_end as u64 + 1;
            } else if from == start {
                at = start;
            } else if let Some(carriage_return) = overwritten() {
                at = from + carriage_return as u64;
                kind = RestKind::Overwritten;
            } else {
                at = end - begun_word(&bytes) as u64;
                kind = RestKind::Cut;
            }
        }
        Ok(Self { at, kind })
    }

    pub fn text(
        &self,
        log: &mut (impl Read + Seek),
        end: u64,
        view: View,
    ) -> io::Result<Option<String>> {
        let mut folder = folder(view);
        folder.push(&read_at(log, self.at, end - self.at)?, &mut |_| {});
        let text = folder.finish_holding(&mut |_| {});
        Ok(text.map(|text| keep_end(&(view.shown)(&text), view.max_bytes / 2).to_owned()))
    }
}

/// How many bytes at the end of `bytes` are the beginning of a word, or at least of a character, that may not be there
/// whole: half a secret is not known as one.
fn begun_word(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(NEAR);
    let near = bytes.get(from..).unwrap_or_default();
    memrchr2(b' ', b'\t', near)
        .map_or_else(|| begun_character(bytes), |blank| near.len() - blank - 1)
}

/// How many bytes at the end of `bytes` are the beginning of a character that is not there whole.
fn begun_character(bytes: &[u8]) -> usize {
    let mut last = bytes.iter().rev().take(4).zip(1..);
    match last.find(|(byte, _)| **byte & 0xc0 != 0x80) {
        Some((0xc0..=0xdf, length)) if length < 2 => length,
        Some((0xe0..=0xef, length)) if length < 3 => length,
        Some((0xf0..=0xf7, length)) if length < 4 => length,
        _ => 0,
    }
}
