//! What is read out of a log: its end, or what is new since a cursor, folded and within a byte budget.
//!
//! **The end** ([`tail`]) is the last lines, counted after folding. If they do not fit the budget the newest are kept, and
//! it is said how many were left out.
//!
//! **What is new** ([`read_on`]) begins right after what the cursor's answer ended with. If it does not fit the budget the
//! *oldest* of it are given, so that nothing is ever skipped: the answer says how much remains, its cursor goes on there,
//! and a reader who does not want all of it drops the cursor and asks for the end.
//!
//! **The line that is still being written** is never part of the text, since it would come twice: it is given beside it, as
//! it stands now, and becomes text when it ends. For a progress bar, which is one such line for hours, that is its newest
//! state. When the log is known to be complete (`ended`) its last line is text like any other.
//!
//! **Secrets** are hidden in lines before they are cut to the budget: half of one would not be known.

mod rest;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memchr::memchr;

use super::backwards::{Backwards, Block, read_at};
use super::cursor::{Change, Cursor};
use super::fold::{Folder, Line, Text, has_cut_line, whole_words};
use rest::{Rest, RestKind};

/// The budget of an answer unless the caller says otherwise; it fits under the 25,000 tokens at which clients cut.
pub const DEFAULT_MAX_BYTES: usize = 24 * 1024;

/// The largest budget there is.
pub const LARGEST_MAX_BYTES: usize = 256 * 1024;

/// The first block of a tail; each further one doubles what was read.
const FIRST_BLOCK: usize = 64 * 1024;

/// A tail keeps no more than this of a log in memory…
const KEPT: usize = 8 * 1024 * 1024;

/// … and reads no more than this of it: what lies between are the beginnings of lines that are longer than a block.
const READ: u64 = 128 * 1024 * 1024;

/// How a log is to be read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The most text that is given, in bytes.
    pub max_bytes: usize,
    /// The lines as they are: not folded, only made valid text, and of control characters only tabs and carriage returns
    /// are left.
    pub raw: bool,
    /// Nothing more will be written: the last line has ended, however it looks.
    pub ended: bool,
    /// Makes of lines what may be shown of them: the same number of lines, none longer.
    pub shown: &'a dyn Fn(&str) -> String,
}

impl Default for View<'_> {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_MAX_BYTES,
            raw: false,
            ended: false,
            shown: &str::to_owned,
        }
    }
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The lines, joined by line ends.
    pub text: String,
    /// How many lines that is.
    pub lines: usize,
    /// The line that is still being written, as it stands now. It comes as text when it has ended.
    pub unfinished: Option<String>,
    /// How many of the lines that were asked for are not here, for want of room: the oldest of them.
    pub left_out_lines: usize,
    /// Lines are left out, or remain, or the beginning of a line is cut.
    pub truncated: bool,
    /// How many bytes of the log, unfolded, are new and not here: the newest of them. The cursor goes on there.
    pub remaining_bytes: u64,
    /// Where to go on the next time.
    pub cursor: Cursor,
    /// The size of the log.
    pub log_bytes: u64,
    /// Why this does not follow on what was read last.
    pub change: Option<Change>,
    /// Sentences for the reader: what is missing here and how to get it.
    pub notes: Vec<String>,
}

/// The last `lines` lines of the log at `path`. Its cost does not depend on the size of the log.
///
/// # Errors
/// What the file system said.
pub fn tail(path: &Path, lines: usize, view: View) -> io::Result<Excerpt> {
    let mut file = File::open(path)?;
    let inode = file.metadata()?.ino();
    tail_of(&mut file, Some(inode), lines, view)
}

/// As [`tail`], of a log that is at hand.
///
/// # Errors
/// None that is known: memory does not fail.
pub fn tail_bytes(bytes: &[u8], lines: usize, view: View) -> io::Result<Excerpt> {
    tail_of(&mut io::Cursor::new(bytes), None, lines, view)
}

/// What is new in the log at `path` since `cursor`.
///
/// # Errors
/// What the file system said.
pub fn read_on(path: &Path, cursor: &Cursor, view: View) -> io::Result<Excerpt> {
    let mut file = File::open(path)?;
    let inode = file.metadata()?.ino();
    let end = file.seek(SeekFrom::End(0))?;
    let (start, change) = cursor.resume(&mut file, Some(inode), end)?;
    read_from(&mut file, Some(inode), start, change, end, view)
}

/// As [`read_on`], of a log that is at hand. Unless it is `whole`, `bytes` is only the end of it, and the position is found
/// by what came before it; it is looked for so as well when something else was put before a whole one.
///
/// # Errors
/// None that is known: memory does not fail.
pub fn read_on_bytes(
    bytes: &[u8],
    whole: bool,
    cursor: &Cursor,
    view: View,
) -> io::Result<Excerpt> {
    let mut log = io::Cursor::new(bytes);
    let end = bytes.len() as u64;
    let (start, change) = match whole {
        false => cursor.find(bytes),
        true => match cursor.resume(&mut log, None, end)? {
            (_, Some(change)) => match cursor.find(bytes) {
                (start, None) => (start, None),
                (_, Some(_)) => (0, Some(change)),
            },
            found => found,
        },
    };
    read_from(&mut log, None, start, change, end, view)
}

fn tail_of<S: Read + Seek>(
    log: &mut S,
    file: Option<u64>,
    lines: usize,
    view: View,
) -> io::Result<Excerpt> {
    let end = log.seek(SeekFrom::End(0))?;
    let rest = Rest::of(log, 0, end, view)?;
    let (text, mut unfinished, looked_at) = match lines {
        0 => (Text::default(), None, end),
        _ => last_lines(log, end, lines, view)?,
    };
    let mut notes = Vec::new();
    let all_were_looked_at = text.lines >= lines || looked_at == 0 || lines == 0;
    if !all_were_looked_at {
        notes.push(format!(
            "Only the last {} of the log were looked at, which is {} long.",
            size(end - looked_at),
            size(end)
        ));
    }
    let body = text.text.strip_suffix('\n').unwrap_or(&text.text);
    let asked = match lines {
        0 => String::new(),
        lines => (view.shown)(&body[nth_line_from_end(body, lines).unwrap_or(0)..]),
    };
    let asked = asked.as_str();
    if let Some(line) = &mut unfinished {
        *line = keep_end(&(view.shown)(line), view.max_bytes / 2).to_owned();
    }
    let room = view.max_bytes - unfinished.as_ref().map_or(0, String::len);
    let kept = keep_lines(asked, room);
    let count = |text: &str| match text {
        "" if body.is_empty() => 0,
        text => text.split('\n').count(),
    };
    let (asked_lines, kept_lines) = match lines {
        0 => (0, 0),
        _ => (count(asked), count(kept)),
    };
    let left_out_lines = asked_lines.saturating_sub(kept_lines);
    if left_out_lines > 0 {
        notes.push(format!(
            "The oldest {left_out_lines} of these {asked_lines} lines, {}, were left out to stay within max_bytes={}: {}, or find what you want of them with grep.",
            size((asked.len() - kept.len()) as u64),
            view.max_bytes,
            with_room_for(asked.len() + view.max_bytes - room)
        ));
    } else if kept.len() < asked.len() {
        notes.push(cut_note(asked, kept, view));
    }
    Ok(Excerpt {
        truncated: kept.len() < asked.len() || !all_were_looked_at || has_cut_line(kept),
        text: kept.to_owned(),
        lines: kept_lines,
        unfinished,
        left_out_lines,
        remaining_bytes: 0,
        cursor: Cursor::at(log, file, rest.at)?,
        log_bytes: end,
        change: None,
        notes,
    })
}

/// The last lines of a log, at least `lines` where there are as many; the unfinished one; and from where they were read.
fn last_lines<S: Read + Seek>(
    log: &mut S,
    end: u64,
    lines: usize,
    view: View,
) -> io::Result<(Text, Option<String>, u64)> {
    let mut back = Backwards::new(log, end, READ);
    let mut blocks: VecDeque<Block> = VecDeque::new();
    let mut kept = 0;
    loop {
        // What has been read doubles each time, so that folding it again costs no more than reading it.
        let block = back.next(kept.max(FIRST_BLOCK))?;
        let all = block.is_none();
        if let Some(block) = block {
            kept += block.bytes.len();
            blocks.push_front(block);
        }
        let mut folder = folder(view);
        let mut text = Text::default();
        // How often the first line was repeated may be only a part of the truth, as long as there is more before it.
        let mut first_repeated = None;
        let mut add = |line: Line<'_>| {
            first_repeated.get_or_insert(line.repeated > 0);
            text.add(line);
        };
        for block in &blocks {
            folder.left_out(block.left_out);
            folder.push(&block.bytes, &mut add);
        }
        let unfinished = finish(folder, view.ended, &mut add);
        let enough = text.lines > lines || text.lines == lines && first_repeated != Some(true);
        if all || enough || kept >= KEPT {
            return Ok((text, unfinished, back.at()));
        }
    }
}

fn read_from<S: Read + Seek>(
    log: &mut S,
    file: Option<u64>,
    start: u64,
    change: Option<Change>,
    end: u64,
    view: View,
) -> io::Result<Excerpt> {
    let rest = Rest::of(log, start, end, view)?;
    let (fits, text) = oldest_that_fit(log, start, &rest, view)?;
    let unfinished = match fits == rest.at && rest.at < end {
        true => rest.text(log, end, view)?,
        false => None,
    };
    let remaining_bytes = rest.at - fits;
    let body = (view.shown)(text.text.strip_suffix('\n').unwrap_or(&text.text));
    let body = body.as_str();
    let kept = keep_lines(body, view.max_bytes);
    let mut notes: Vec<String> = change
        .map(|change| change.sentence().to_owned())
        .into_iter()
        .collect();
    if kept.len() < body.len() {
        notes.push(cut_note(body, kept, view));
    }
    if fits == rest.at && rest.kind == RestKind::Cut {
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
        lines: match text.lines {
            0 => 0,
            _ => kept.split('\n').count(),
        },
        text: kept.to_owned(),
        unfinished,
        left_out_lines: 0,
        truncated: remaining_bytes > 0 || kept.len() < body.len() || has_cut_line(kept),
        remaining_bytes,
        cursor: Cursor::at(log, file, fits)?,
        log_bytes: end,
        change,
        notes,
    })
}

/// The lines from `start` on that fit the budget, always at least one of them, and where they end.
fn oldest_that_fit<S: Read + Seek>(
    log: &mut S,
    start: u64,
    rest: &Rest,
    view: View,
) -> io::Result<(u64, Text)> {
    let mut budget = view.max_bytes;
    loop {
        let fits = fitting(log, start, rest.at, budget, view)?;
        let mut folder = folder(view);
        let mut text = Text::default();
        pieces(log, start, fits, |piece| {
            folder.push(piece, &mut |line| text.add(line));
            true
        })?;
        let overwritten = fits == rest.at && rest.kind == RestKind::Overwritten;
        finish(folder, !overwritten, &mut |line| text.add(line));
        // What is no valid text grows when it is made so; then with less of it.
        if text.text.len() <= view.max_bytes + 1 || budget == 0 {
            return Ok((fits, text));
        }
        budget /= 2;
    }
}

/// Up to where the lines from `start` on fit `budget` when they are folded: always at least one of them.
fn fitting<S: Read + Seek>(
    log: &mut S,
    start: u64,
    end: u64,
    budget: usize,
    view: View,
) -> io::Result<u64> {
    let mut folder = folder(view);
    let mut text = 0;
    let (mut at, mut fits) = (start, start);
    let limit = end.min(start + READ);
    let mut fit = true;
    pieces(log, start, limit, |piece| {
        folder.push(piece, &mut |line| text += line.text.len() + 1);
        at += piece.len() as u64;
        fit = text + folder.pending() <= budget;
        if piece.ends_with(b"\n") && (fit || fits == start) {
            fits = at;
        }
        fit || fits == start
    })?;
    Ok(
        match at == limit && (fit || fits == start) && (limit == end || fits == start) {
            true => limit,
            false => fits,
        },
    )
}

/// Gives the bytes from `start` to `end` to `take`, line by line, a long line in pieces, until it wants no more. Whether it
/// got them all.
fn pieces<S: Read + Seek>(
    log: &mut S,
    start: u64,
    end: u64,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut at = start;
    let mut size = FIRST_BLOCK as u64;
    while at < end {
        let block = read_at(log, at, size.min(end - at))?;
        at += block.len() as u64;
        size = (size * 2).min(1024 * 1024);
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            let length = memchr(b'\n', rest).map_or(rest.len(), |line_end| line_end + 1);
            let (piece, after) = rest.split_at(length);
            if !take(piece) {
                return Ok(false);
            }
            rest = after;
        }
    }
    Ok(true)
}

fn folder(view: View) -> Folder {
    match view.raw {
        true => Folder::raw(LARGEST_MAX_BYTES),
        false => Folder::new(),
    }
}

/// Gives `sink` what `folder` still holds, the unfinished line too if it is `given`; else that is returned.
fn finish(folder: Folder, given: bool, sink: &mut impl FnMut(Line<'_>)) -> Option<String> {
    if given {
        folder.finish(sink);
        return None;
    }
    folder.finish_holding(sink)
}

/// The last lines of `text` that fit into `room` bytes; of a last line that does not, the end.
fn keep_lines(text: &str, room: usize) -> &str {
    let Some(excess) = text.len().checked_sub(room).filter(|excess| *excess > 0) else {
        return text;
    };
    // A line that begins exactly where the room does is kept.
    let from = text.ceil_char_boundary(excess - 1);
    match text[from..].find('\n') {
        Some(line_end) => &text[from + line_end + 1..],
        None => keep_end(text, room),
    }
}

/// The end of `text`, at most `room` bytes.
pub(super) fn keep_end(text: &str, room: usize) -> &str {
    let Some(excess) = text.len().checked_sub(room).filter(|excess| *excess > 0) else {
        return text;
    };
    let end = &text[text.ceil_char_boundary(excess)..];
    let whole = whole_words(end.as_bytes()).len();
    &end[end.len() - whole..]
}

fn cut_note(whole: &str, kept: &str, view: View) -> String {
    format!(
        "The first {} of the line were left out to stay within max_bytes={}: {}.",
        size((whole.len() - kept.len()) as u64),
        view.max_bytes,
        with_room_for(whole.len())
    )
}

/// How to get `bytes` of log.
fn with_room_for(bytes: usize) -> String {
    if bytes > LARGEST_MAX_BYTES {
        return "they are more than one answer may have".to_owned();
    }
    format!("ask with max_bytes={bytes} to get them")
}

/// Where the line begins of which `lines` - 1 follow in `text`; nothing when it has no more than those.
fn nth_line_from_end(text: &str, lines: usize) -> Option<usize> {
    memchr::memrchr_iter(b'\n', text.as_bytes())
        .nth(lines.checked_sub(1)?)
        .map(|at| at + 1)
}

/// A size for a person to read.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if bytes < 10_000 {
        return format!("{bytes} bytes");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for larger in UNITS.into_iter().skip(1) {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, larger);
        }
    }
    format!("{value:.1} {unit}")
}
