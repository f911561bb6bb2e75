//! The line that is still being written: where the text before it ends, and what of it may be shown.

use memchr::memrchr;

use super::Log;
use super::fold::{FoldOptions, fold_lines};
use crate::progress::tqdm::Bar;
use crate::redact::HIDDEN;

/// The longest unfinished line that is read again each time. Of a longer one only the newest state is.
pub(super) const MAX_HELD: usize = 64 * 1024;

/// The visible bytes at the end of an unfinished line that may be the first of a secret value. More of them are known as one.
const MAX_UNKNOWN: usize = 7;

/// Finds how many of `bytes` are text: those before the unfinished line. Finds also where that line goes on: of a long one, such
/// as a bar that has run for hours, what was written over is passed over.
pub(super) fn complete_part(bytes: &[u8], ended: bool, raw: bool) -> (usize, usize) {
    if ended {
        return (bytes.len(), bytes.len());
    }
    let line = memrchr(b'\n', bytes).map_or(0, |line_end| line_end + 1);
    let is_long = bytes.len() - line > MAX_HELD && !raw;
    let state = memrchr(b'\r', &bytes[line..]).filter(|_| is_long);
    (line, line + state.unwrap_or(0))
}

/// Folds a line that is still being written, hides its secrets, and removes the last words where they may be the start of one:
/// too little of it to be recognized. The state of a progress bar is written at once.
pub(super) fn unfinished_text(log: &Log<'_>, line: &[u8], fold: FoldOptions<'_>) -> Option<String> {
    let mut text = None;
    fold_lines(line, 0, fold, &mut |line| text = Some(line.text));
    let line = log.secrets.redact(&text?);
    if Bar::parse_whole(&line).is_some() {
        return Some(line);
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
    Some(match (removed, kept) {
        (0, _) => line,
        (_, "") => "…".to_owned(),
        _ => format!("{kept} …"),
    })
}
