//! The end of a log, or what is new in it since a cursor, within a byte budget.
//!
//! **The end** ([`tail`]) is the last lines, counted after folding. If they do not fit the budget, the newest are kept and
//! the answer says so.
//!
//! **New text** ([`read_since`]) begins right after the text of the cursor's answer. If it does not fit the budget, the
//! *oldest* of it is returned, so that nothing is ever skipped: the cursor goes on there.
//!
//! **The unfinished line**, the one that is still being written, is never part of the text, since it would come twice: it
//! stands beside the text, and becomes text when it ends. A progress bar is one such line for hours. When the log is known
//! to be complete (`ended`), its last line is text like any other.

use std::collections::VecDeque;
use std::io;

use indicatif::HumanBytes;
use memchr::{memrchr, memrchr2};

use super::Log;
use super::fold::{FoldOptions, Line, MAX_LINE, fold_lines};
use super::source::MAX_LEFT_OUT;
use crate::progress::tqdm::Bar;
use crate::redact::{HIDDEN, Redactor};
use crate::text::cursor::Cursor;

/// The budget of an answer unless the caller says otherwise: with the other fields an answer has some 6 KB.
pub const DEFAULT_MAX_BYTES: usize = 5632;

/// The most text that one answer can have.
pub const LARGEST_MAX_BYTES: usize = 256 * 1024;

/// The first block of a tail; each further one doubles what was read. It is longer than an unfinished line that is waited for.
const FIRST_BLOCK: u64 = 128 * 1024;

/// The most bytes of a log that are kept in memory for one answer.
const WINDOW: usize = 16 * 1024 * 1024;

/// The longest unfinished line that is read again each time. Of a longer one only the newest state is.
pub(super) const MAX_HELD: usize = 64 * 1024;

/// The visible bytes at the end of an unfinished line that may be the first of a secret value. More of them are known as one.
const MAX_UNKNOWN: usize = 7;

#[derive(Clone, Copy)]
pub struct ReadOptions {
    /// The most text that is returned, in bytes.
    pub max_bytes: usize,
    /// Lines stay as they are, apart from bytes that are no text and controls other than tab and carriage return.
    pub raw: bool,
    /// `true` once nothing more will be written: the last line has then ended, with or without a newline.
    pub ended: bool,
}

impl ReadOptions {
    /// No line takes more than half of the budget.
    pub(super) fn max_line(self) -> usize {
        MAX_LINE.min(self.max_bytes / 2).saturating_sub(64)
    }

    /// Folds for a reader.
    pub(super) fn fold(self, secrets: &Redactor) -> FoldOptions<'_> {
        FoldOptions {
            raw: self.raw,
            is_summary: true,
            max_line: self.max_line(),
            secrets: Some(secrets),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excerpt {
    /// The lines, joined by line ends.
    pub text: String,
    pub lines: usize,
    /// The line that is still being written, as it stands now.
    pub unfinished: Option<String>,
    /// The number of lines that match, of a search.
    pub matches: Option<usize>,
    /// The log was read or searched to its beginning.
    pub reaches_start: bool,
    /// Lines are left out, or remain, or the beginning of a line is cut.
    pub truncated: bool,
    /// Bytes of the log, unfolded, that are new and not here: the newest ones. The cursor goes on there.
    pub remaining_bytes: u64,
    /// The position from which the next read goes on.
    pub cursor: Cursor,
    pub log_bytes: u64,
    /// The reason why the text does not continue the last read, a sentence.
    pub change: Option<&'static str>,
    /// Sentences for the reader: what is missing here and how to get it.
    pub notes: Vec<String>,
}

/// Reads the last `lines` lines. The cost does not depend on the size of the log.
pub fn tail(log: &mut Log<'_>, lines: usize, options: ReadOptions) -> io::Result<Excerpt> {
    let (end, fold) = (log.end, options.fold(log.secrets));
    let (mut from, mut bytes) = (end, Vec::new());
    let (mut newest, mut line, mut unfinished) = (VecDeque::<Line<'_>>::new(), 0, None);
    let (mut is_full, mut lacks_room, mut is_endless) = (false, false, false);
    while from > 0 && bytes.len() < WINDOW / 2 && !is_full && !is_endless {
        // What has been read doubles each time, so that folding it again costs no more than reading it.
        let block = log.lines_before(from, FIRST_BLOCK.max(bytes.len() as u64))?;
        is_endless = from - block.start > MAX_LEFT_OUT;
        from = block.start;
        bytes.splice(..0, block.bytes);
        let complete;
        (complete, line) = complete_part(&bytes, options.ended, options.raw);
        unfinished = unfinished_text(log, &bytes[line..], fold);
        let room = unfinished.as_ref().map_or(0, String::len);
        let room = options.max_bytes.saturating_sub(room);
        let (mut count, mut length, mut used) = (0, 0, 0);
        newest = VecDeque::new();
        fold_lines(&bytes[..complete], from, fold, &mut |line| {
            (count, length) = (count + 1, length + line.text.len());
            used += line.text.len() + 1;
            newest.push_back(line);
            while newest.len() > lines || used > room + 1 {
                used -= newest.pop_front().map_or(0, |line| line.text.len() + 1);
            }
        });
        is_full = count > lines || length > LARGEST_MAX_BYTES;
        lacks_room = newest.len() < count.min(lines);
    }
    let cursor = log.cursor_at(place_in_log(line, &bytes, from, end))?;
    let is_partial = from > 0 && !is_full;
    let is_cut = newest.iter().any(|line| line.is_cut);
    let text = log.secrets.redact(&join(newest));
    let count = text.lines().count();
    let mut notes = Vec::new();
    if is_partial {
        let (read, all) = (HumanBytes(end - from), HumanBytes(end));
        notes.push(format!(
            "Only the last {read} of the log were read, which is {all} long."
        ));
    }
    if lacks_room {
        let max_bytes = options.max_bytes;
        notes.push(format!("These are the newest {count} lines, as many as fit max_bytes={max_bytes}: raise it, or find what you want of the older ones with grep."));
    }
    Ok(Excerpt {
        truncated: lacks_room || is_partial || is_cut,
        lines: count,
        unfinished,
        reaches_start: from == 0 && !is_full,
        notes,
        text,
        cursor,
        log_bytes: end,
        ..Excerpt::default()
    })
}

/// Returns the place in the log of `line`, a place in the `block` of its bytes from `start` to `end`. The beginning of a block may be
/// replaced by what says that it was cut.
pub(super) fn place_in_log(line: usize, block: &[u8], start: u64, end: u64) -> u64 {
    match line {
        0 => start,
        line => end - (block.len() - line) as u64,
    }
}

/// Joins the texts of lines.
pub(super) fn join<'a>(lines: impl IntoIterator<Item = Line<'a>>) -> String {
    let texts = lines.into_iter().map(|line| line.text);
    texts.collect::<Vec<_>>().join("\n")
}

pub fn read_since(log: &mut Log<'_>, cursor: &Cursor, options: ReadOptions) -> io::Result<Excerpt> {
    let (start, change) = log.resume(cursor)?;
    let (end, fold) = (log.end, options.fold(log.secrets));
    let window_end = end.min(start + WINDOW as u64);
    let bytes = log.read(start, window_end)?;
    let ended = options.ended && window_end == end;
    let (mut complete, mut line) = complete_part(&bytes, ended, options.raw);
    if line == 0 && window_end < end {
        // A line that is too long to wait for its end is given in parts, between words.
        line = memrchr2(b' ', b'\t', &bytes).map_or(bytes.len(), |blank| blank + 1);
        complete = line;
    }
    let (mut lines, mut beyond) = (Vec::<Line<'_>>::new(), None);
    let mut room = options.max_bytes + 1;
    fold_lines(&bytes[..complete], start, fold, &mut |line| {
        // The first line, with its repeats, always fits.
        let is_first = lines.first().is_none_or(|first| first.start == line.start);
        let has_room = is_first || room > line.text.len();
        room = room.saturating_sub(line.text.len() + 1);
        match beyond.is_none() && has_room {
            true => lines.push(line),
            false => _ = beyond.get_or_insert(line.start),
        }
    });
    // A run is given as a whole or not at all, and a blank line at the end is none.
    lines.retain(|line| beyond.is_none_or(|beyond| line.start < beyond));
    lines.pop_if(|line| line.text.is_empty() && !options.raw);
    let length = beyond.map_or(line, |beyond| (beyond - start) as usize);
    let (mut unfinished, mut remaining_bytes) = (None, 0);
    if length == line && window_end == end {
        unfinished = unfinished_text(log, &bytes[line..], fold);
    } else {
        remaining_bytes = end - start - length as u64;
    }
    let mut notes: Vec<String> = change.map(str::to_owned).into_iter().collect();
    if remaining_bytes > 0 {
        notes.push(format!(
            "{} more of the log are new: call again with this cursor for what follows, or without a cursor for the end of the log.",
            HumanBytes(remaining_bytes)
        ));
    }
    let cursor = log.cursor_at(start + length as u64)?;
    Ok(Excerpt {
        truncated: remaining_bytes > 0 || lines.iter().any(|line| line.is_cut),
        lines: lines.len(),
        unfinished,
        remaining_bytes,
        change,
        notes,
        text: log.secrets.redact(&join(lines)),
        cursor,
        log_bytes: end,
        ..Excerpt::default()
    })
}

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
