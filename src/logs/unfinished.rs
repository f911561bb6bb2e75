//! The line that is still being written: where the text before it ends, and what of it may be shown.

use memchr::{memrchr, memrchr2};

use super::Log;
use super::fold::WORD_SEARCH;
use crate::progress::tqdm::Bar;
use crate::redact::HIDDEN;

/// The longest unfinished line that is read again each time. Of a longer one only the newest state is.
pub(super) const MAX_HELD: usize = 64 * 1024;

/// The bytes at the end of a line that is too long to wait for its end that are not given: they may be the start of a value.
const HELD_BACK: usize = 64;

/// The visible bytes at the end of an unfinished line that may be the first of a secret value. More of them are known as one.
const MAX_UNKNOWN: usize = 7;

/// The end of a log that is no whole line yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// A line that has not ended, or nothing.
    Line,
    /// The newest state of a line: what stands before it in the line is overwritten.
    Overwritten,
    /// The rest of a line that is too long to wait for its end: what stands before is returned as it is.
    PartOfLine,
}

/// Finds how many of `bytes` can be returned as text: those before the unfinished line.
pub(super) fn complete_part(bytes: &[u8], ended: bool, raw: bool) -> (usize, Held) {
    if ended {
        return (bytes.len(), Held::Line);
    }
    let line = memrchr(b'\n', bytes).map_or(0, |line_end| line_end + 1);
    let unfinished = bytes.get(line..).unwrap_or_default();
    if unfinished.len() <= MAX_HELD {
        return (line, Held::Line);
    }
    match memrchr(b'\r', unfinished).filter(|_| !raw) {
        Some(at) if unfinished.len() - at <= MAX_HELD => (line + at, Held::Overwritten),
        _ => {
            let known = &bytes[..bytes.len() - HELD_BACK];
            (known.len() - partial_word(known), Held::PartOfLine)
        }
    }
}

/// Counts the bytes at the end of `bytes` that may be half a word, or at least half a character: half a token is not known as
/// one.
fn partial_word(bytes: &[u8]) -> usize {
    let near = bytes.len().saturating_sub(WORD_SEARCH);
    let near = bytes.get(near..).unwrap_or_default();
    if let Some(blank) = memrchr2(b' ', b'\t', near) {
        return near.len() - blank - 1;
    }
    let last = near.utf8_chunks().last();
    last.map_or(0, |chunk| chunk.invalid().len())
}

/// Hides the secrets of a line that is still being written, and removes the last words where they may be the start of one:
/// too little of it to be recognized. The state of a progress bar is written at once.
pub(super) fn unfinished_text(log: &Log<'_>, line: &str) -> String {
    let line = log.secrets.redact(line);
    if Bar::parse_whole(&line).is_some() {
        return line;
    }
    let may_be_token = |word: &str| {
        let is_closed = word.ends_with([']', ')', '}', '>', '|', '%', '?', '!']);
        word.len() > 3 && word.contains(char::is_alphabetic) && !is_closed
    };
    let unknown = if log.secrets.knows_values() {
        MAX_UNKNOWN
    } else {
        0
    };
    let (mut kept, mut removed) = (line.trim_end(), 0);
    while let Some(word) = kept.rsplit([' ', '\t', '\r']).next()
        && !word.is_empty()
        && !word.ends_with(HIDDEN)
        && (removed < unknown || removed == 0 && may_be_token(word))
    {
        removed += word.len();
        kept = kept[..kept.len() - word.len()].trim_end();
    }
    match (removed, kept) {
        (0, _) => line,
        (_, "") => "…".to_owned(),
        _ => format!("{kept} …"),
    }
}
