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

/// Finds how many of `bytes` can be returned as text: those before the unfinished line. Of one that is too long to wait for, those
/// before its newest state, where a carriage return tells its states apart, and else all but its last word. Tells also if what
/// comes before is overwritten by that state.
pub(super) fn complete_part(bytes: &[u8], ended: bool, raw: bool) -> (usize, bool) {
    if ended {
        return (bytes.len(), false);
    }
    let line = memrchr(b'\n', bytes).map_or(0, |line_end| line_end + 1);
    let unfinished = &bytes[line..];
    if unfinished.len() <= MAX_HELD {
        return (line, false);
    }
    match memrchr(b'\r', unfinished).filter(|_| !raw) {
        Some(at) if unfinished.len() - at <= MAX_HELD => (line + at, true),
        _ => {
            let known = bytes.len() - HELD_BACK;
            let near = &bytes[known.saturating_sub(WORD_SEARCH)..known];
            // Half a word is not known as a token, and half a character is none.
            let half = match memrchr2(b' ', b'\t', near) {
                Some(blank) => near.len() - blank - 1,
                None => near
                    .utf8_chunks()
                    .last()
                    .map_or(0, |chunk| chunk.invalid().len()),
            };
            (known - half, false)
        }
    }
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
    let unknown = MAX_UNKNOWN * usize::from(log.secrets.knows_values());
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
