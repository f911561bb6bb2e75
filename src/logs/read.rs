//! The end of a log, or what is new in it since a cursor, within a byte budget.
//!
//! **The end** ([`tail`]) is the last lines, counted after folding. If they do not fit the budget, the newest are kept and
//! the answer says how many are left out.
//!
//! **New text** ([`read_since`]) begins right after the text of the cursor's answer. If it does not fit the budget, the
//! *oldest* of it is returned, so that nothing is ever skipped: the cursor goes on there.
//!
//! **The unfinished line**, the one that is still being written, is never part of the text, since it would come twice: it
//! stands beside the text, and becomes text when it ends. A progress bar is one such line for hours. When the log is known
//! to be complete (`ended`), its last line is text like any other.
//!
//! **Secrets** are hidden in lines before they are cut to the budget: half of one would not be known.

use std::io;

use memchr::{memrchr, memrchr2};

use super::Log;
use super::cursor::{Change, Cursor};
pub use super::fold::LARGEST_MAX_BYTES;
use super::fold::{Block, FoldOptions, Line, Piece, WORD_SEARCH, fold_pieces, skip_partial_word};
use super::source::ReverseReader;

/// The budget of an answer unless the caller says otherwise; it fits under the 25,000 tokens at which clients cut.
pub const DEFAULT_MAX_BYTES: usize = 24 * 1024;

/// The first block of a tail; each further one doubles what was read.
const FIRST_BLOCK: u64 = 64 * 1024;

/// The most bytes of a log that are kept in memory for one answer.
const WINDOW: u64 = 16 * 1024 * 1024;

/// The most bytes that a tail reads: beyond the window, the beginnings of lines longer than a block.
const MAX_READ: u64 = 128 * 1024 * 1024;

/// The longest unfinished line that is read again each time. Of a longer one only the newest state is.
const MAX_HELD: usize = 64 * 1024;

/// Options of a read.
#[derive(Clone, Copy)]
pub struct ReadOptions<'a> {
    /// The most text that is returned, in bytes.
    pub max_bytes: usize,
    /// Lines stay as they are, apart from bytes that are no text and controls other than tab and carriage return.
    pub raw: bool,
    /// `true` once nothing more will be written: the last line has then ended, with or without a newline.
    pub ended: bool,
    /// Hides the secrets in lines: the same number of lines, none longer.
    pub redact: &'a dyn Fn(&str) -> String,
}

impl Default for ReadOptions<'_> {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_MAX_BYTES,
            raw: false,
            ended: false,
            redact: &str::to_owned,
        }
    }
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The lines, joined by line ends.
    pub text: String,
    /// Number of lines in the text.
    pub lines: usize,
    /// The line that is still being written, as it stands now.
    pub unfinished: Option<String>,
    /// Number of requested lines left out for want of room: the oldest ones.
    pub left_out_lines: usize,
    /// Lines are left out, or remain, or the beginning of a line is cut.
    pub truncated: bool,
    /// Bytes of the log, unfolded, that are new and not here: the newest ones. The cursor goes on there.
    pub remaining_bytes: u64,
    /// The position from which the next read goes on.
    pub cursor: Cursor,
    /// The size of the log.
    pub log_bytes: u64,
    /// The reason why the text does not continue the last read.
    pub change: Option<Change>,
    /// Sentences for the reader: what is missing here and how to get it.
    pub notes: Vec<String>,
}

/// Reads the last `lines` lines. The cost does not depend on the size of the log.
pub fn tail(log: &mut Log<'_>, lines: usize, options: ReadOptions<'_>) -> io::Result<Excerpt> {
    let end = log.end;
    let cursor = end_cursor(log, options)?;
    let (blocks, from) = if lines == 0 {
        (Vec::new(), end)
    } else {
        last_blocks(log, lines, options)?
    };
    let (folded, unfinished) = Lines::fold(blocks.iter().map(Block::as_piece), options, true);
    let requested = folded.newest(lines, options);
    let unfinished = unfinished.map(|line| redact_unfinished(&line, options));
    let room = options.max_bytes - unfinished.as_ref().map_or(0, String::len);
    let kept = requested.newest_within(room);
    let mut notes = Vec::new();
    let is_partial = requested.len() < lines && from > 0;
    if is_partial {
        notes.push(format!(
            "Only the last {} of the log were read, which is {} long.",
            size(end - from),
            size(end)
        ));
    }
    let left_out_lines = requested.len() - kept.len();
    if left_out_lines > 0 {
        notes.push(format!(
            "The oldest {left_out_lines} of these {} lines, {}, were left out to stay within max_bytes={}: {}, or find what you want of them with grep.",
            requested.len(),
            size((requested.text.len() - kept.text.len()) as u64),
            options.max_bytes,
            how_to_get(requested.text.len() + options.max_bytes - room)
        ));
    }
    notes.extend(kept.cut_note(&requested, options));
    Ok(Excerpt {
        truncated: left_out_lines > 0 || is_partial || kept.has_cut(),
        lines: kept.len(),
        text: kept.text,
        unfinished,
        left_out_lines,
        remaining_bytes: 0,
        cursor,
        log_bytes: end,
        change: None,
        notes,
    })
}

/// The cursor after everything that can be returned as text now.
pub(super) fn end_cursor(log: &mut Log<'_>, options: ReadOptions<'_>) -> io::Result<Cursor> {
    let from = log.end.saturating_sub(MAX_HELD as u64 + 1);
    let bytes = log.read(from, log.end)?;
    let (complete, _) = complete_part(&bytes, options.ended, options.raw);
    log.cursor_at(from + complete as u64)
}

/// Reads blocks from the end until they hold `lines` lines; returns them in order, with where the first begins.
fn last_blocks(
    log: &mut Log<'_>,
    lines: usize,
    options: ReadOptions<'_>,
) -> io::Result<(Vec<Block>, u64)> {
    let end = log.end;
    let mut reader = ReverseReader::new(log, end, MAX_READ, None);
    let mut blocks: Vec<Block> = Vec::new();
    let mut kept = 0;
    while kept < WINDOW / 2 {
        // What has been read doubles each time, so that folding it again costs no more than reading it.
        let Some(block) = reader.next(FIRST_BLOCK.max(kept))? else {
            break;
        };
        kept += block.bytes.len() as u64;
        blocks.insert(0, block);
        // The first line may have been repeated before.
        let (folded, _) = Lines::fold(blocks.iter().map(Block::as_piece), options, true);
        let is_run = folded.rows.first().is_some_and(|row| row.repeated > 0);
        if folded.len() > lines || folded.len() == lines && !is_run {
            break;
        }
    }
    Ok((blocks, reader.at))
}

/// Reads what is new since `cursor`.
pub fn read_since(
    log: &mut Log<'_>,
    cursor: &Cursor,
    options: ReadOptions<'_>,
) -> io::Result<Excerpt> {
    let (start, change) = log.resume(cursor)?;
    let end = log.end;
    let window_end = end.min(start + WINDOW);
    let bytes = log.read(start, window_end)?;
    let (complete, held) = complete_part(&bytes, options.ended && window_end == end, options.raw);
    let (length, folded) = oldest_within(&bytes, complete, held, start, options);
    let is_all = length == complete && window_end == end;
    let unfinished = if is_all && complete < bytes.len() {
        let rest = bytes.get(complete..).unwrap_or_default();
        Lines::fold([(rest, 0, 0)], options, true).1
    } else {
        None
    };
    let remaining_bytes = if is_all {
        0
    } else {
        end - start - length as u64
    };
    let redacted = folded.newest(usize::MAX, options);
    let kept = redacted.newest_within(options.max_bytes);
    let mut notes: Vec<String> = change
        .iter()
        .map(|change| change.sentence().to_owned())
        .collect();
    notes.extend(kept.cut_note(&redacted, options));
    if length == complete && held == Held::PartOfLine {
        notes.push(
            "The last line is too long to wait for its end: what follows of it comes as a line of its own.".to_owned(),
        );
    }
    if remaining_bytes > 0 {
        notes.push(format!(
            "{} more of the log are new: call again with this cursor for what follows, or without a cursor for the end of the log.",
            size(remaining_bytes)
        ));
    }
    Ok(Excerpt {
        truncated: remaining_bytes > 0 || kept.has_cut(),
        lines: kept.len(),
        text: kept.text,
        unfinished: unfinished.map(|line| redact_unfinished(&line, options)),
        left_out_lines: 0,
        remaining_bytes,
        cursor: log.cursor_at(start + length as u64)?,
        log_bytes: end,
        change,
        notes,
    })
}

/// Folds as much of the beginning of `bytes` as fits the budget, at least one line; returns how much that is.
fn oldest_within(
    bytes: &[u8],
    complete: usize,
    held: Held,
    start: u64,
    options: ReadOptions<'_>,
) -> (usize, Lines) {
    let mut length = complete;
    loop {
        let part = bytes.get(..length).unwrap_or_default();
        // A line that is written over is not returned before it ends.
        let is_overwritten = length == complete && held == Held::Overwritten;
        let (folded, _) = Lines::fold([(part, start, 0)], options, is_overwritten);
        // What follows may still change what fits, so the part that fits is folded on its own.
        match folded.first_beyond(options.max_bytes) {
            Some(next) if ((next - start) as usize) < length => length = (next - start) as usize,
            _ => return (length, folded),
        }
    }
}

/// The end of a log that is no whole line yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// A line that has not ended, or nothing.
    Line,
    /// The newest state of a line: what stands before it in the line is overwritten.
    Overwritten,
    /// The rest of a line that is too long to wait for its end: what stands before is returned as it is.
    PartOfLine,
}

/// Finds how many of `bytes` can be returned as text: those before the unfinished line.
fn complete_part(bytes: &[u8], ended: bool, raw: bool) -> (usize, Held) {
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
        _ => (bytes.len() - partial_word(bytes), Held::PartOfLine),
    }
}

/// Counts the bytes at the end of `bytes` that may be half a word, or at least half a character: half a secret is not known
/// as one.
fn partial_word(bytes: &[u8]) -> usize {
    let near = bytes.len().saturating_sub(WORD_SEARCH);
    let near = bytes.get(near..).unwrap_or_default();
    if let Some(blank) = memrchr2(b' ', b'\t', near) {
        return near.len() - blank - 1;
    }
    let last = near.utf8_chunks().last();
    last.map_or(0, |chunk| chunk.invalid().len())
}

/// Folded lines, joined.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The lines, with a line end between each two.
    pub text: String,
    pub rows: Vec<RowInfo>,
}

/// A line of [`Lines`], without its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowInfo {
    pub start: u64,
    pub repeated: u64,
    is_cut: bool,
}

impl Lines {
    /// Folds pieces; repeats become lines of their own. Returns the unfinished line apart if `hold_last`.
    fn fold<'a>(
        pieces: impl IntoIterator<Item = Piece<'a>>,
        options: ReadOptions<'_>,
        hold_last: bool,
    ) -> (Self, Option<String>) {
        let mut lines = Self::default();
        let fold_options = FoldOptions {
            raw: options.raw,
            hold_last: hold_last && !options.ended,
        };
        let unfinished = fold_pieces(pieces, fold_options, &mut |line| {
            line.with_repeats().for_each(|line| lines.push(&line));
        });
        (lines, unfinished)
    }

    pub fn push(&mut self, line: &Line<'_>) {
        if !self.rows.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&line.text);
        self.rows.push(RowInfo {
            start: line.start,
            repeated: line.repeated,
            is_cut: line.is_cut,
        });
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn has_cut(&self) -> bool {
        self.rows.iter().any(|row| row.is_cut)
    }

    /// Keeps the last `count` lines and hides the secrets in them.
    fn newest(&self, count: usize, options: ReadOptions<'_>) -> Self {
        let from = self.len().saturating_sub(count);
        let mut lines = self.text.splitn(from + 1, '\n');
        let text = lines.nth(from).unwrap_or_default();
        Self {
            text: (options.redact)(text),
            rows: self.rows.get(from..).unwrap_or_default().to_vec(),
        }
    }

    /// Keeps the last lines that fit into `room` bytes; of a last line that does not, the end.
    fn newest_within(&self, room: usize) -> Self {
        let mut from = 0;
        let mut rows = self.rows.as_slice();
        while self.text.len() - from > room
            && let Some((_, rest @ [_, ..])) = rows.split_first()
        {
            let line_end = memchr::memchr(b'\n', &self.text.as_bytes()[from..]);
            from += line_end.map_or(0, |at| at + 1);
            rows = rest;
        }
        let text = keep_end(&self.text[from..], room);
        let mut rows = rows.to_vec();
        if let [row] = rows.as_mut_slice() {
            row.is_cut |= text.len() < self.text.len() - from;
        }
        Self {
            text: text.to_owned(),
            rows,
        }
    }

    /// Finds where the first line begins that does not fit into `room` bytes. The first line, with its repeats, always does.
    fn first_beyond(&self, room: usize) -> Option<u64> {
        let first = self.rows.first()?.start;
        let mut length = 0;
        let lines = self.rows.iter().zip(self.text.split('\n'));
        let beyond = lines.skip_while(|(_, line)| {
            length += line.len() + 1;
            length <= room + 1
        });
        beyond
            .map(|(row, _)| row.start)
            .find(|start| *start > first)
    }

    /// Says what of the one line that is kept was left out.
    fn cut_note(&self, whole: &Self, options: ReadOptions<'_>) -> Option<String> {
        let [_] = self.rows.as_slice() else {
            return None;
        };
        let line = whole.text.rsplit('\n').next().unwrap_or_default();
        let excess = line.len() - self.text.len();
        (excess > 0).then(|| {
            format!(
                "The first {} of the line were left out to stay within max_bytes={}: {}.",
                size(excess as u64),
                options.max_bytes,
                how_to_get(line.len())
            )
        })
    }
}

fn redact_unfinished(line: &str, options: ReadOptions<'_>) -> String {
    keep_end(&(options.redact)(line), options.max_bytes / 2).to_owned()
}

/// Keeps the end of `text`, at most `room` bytes.
pub(super) fn keep_end(text: &str, room: usize) -> &str {
    match text.len().saturating_sub(room) {
        0 => text,
        excess => skip_partial_word(&text[text.ceil_char_boundary(excess)..]),
    }
}

/// Says how to get `bytes` of log.
fn how_to_get(bytes: usize) -> String {
    if bytes > LARGEST_MAX_BYTES {
        "they are more than one answer may have".to_owned()
    } else {
        format!("ask with max_bytes={bytes} to get them")
    }
}

/// A size for a person to read.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 10_000 {
        return format!("{bytes} bytes");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for larger in ["MiB", "GiB"] {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, larger);
        }
    }
    format!("{value:.1} {unit}")
}
