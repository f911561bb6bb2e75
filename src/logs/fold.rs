//! Readable text from the raw bytes of a log: what a terminal would show in the end, line by line.
//!
//! - [`Terminal`] applies carriage returns, cursor movements and backspaces, and removes escapes and controls.
//! - A line that comes again at once is given once, with how often it was repeated. Only exact repeats count: lines that
//!   differ in a number may differ in what matters. The one exception are states of one progress bar on lines of their own,
//!   as loggers and line-wise transports leave them: the last of them is kept, as on a terminal.
//! - Blanks at the ends of lines are removed, and so is every blank line after a blank line.
//! - Of a line longer than [`MAX_LINE`] the end is kept.

use std::borrow::Cow;

use memchr::{memchr_iter, memrchr};

use crate::text::{Row, Terminal, lossy};

/// The longest line that is kept whole, in bytes.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// The longest raw line that is kept whole, in bytes: all that one answer can have.
pub const LARGEST_MAX_BYTES: usize = 256 * 1024;

/// The distance from a cut in which a blank is looked for, in bytes. Words of a text, and secrets, are no longer.
pub(super) const WORD_SEARCH: usize = 512;

/// A line of the folded log.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub text: Cow<'a, str>,
    /// Repetitions that followed at once; 0 for nearly every line.
    pub repeated: u64,
    /// Offset of its first byte in the log.
    pub start: u64,
    /// Its beginning was left out.
    pub is_cut: bool,
}

/// A part of a log, from the beginning of a line on.
#[derive(Debug)]
pub(super) struct Block {
    /// Offset of its first line in the log.
    pub start: u64,
    /// Bytes at the beginning of its first line that are not in `bytes`.
    pub left_out: u64,
    pub bytes: Vec<u8>,
}

/// Turns bytes into lines.
#[derive(Clone, Copy, Default)]
pub(super) struct FoldOptions {
    /// Lines stay as they are, apart from bytes that are no text and controls other than tab and carriage return.
    pub raw: bool,
    /// A last line without a line end is returned and not given to the sink.
    pub hold_last: bool,
}

impl Block {
    pub fn as_piece(&self) -> Piece<'_> {
        (&self.bytes, self.start, self.left_out)
    }
}

/// The fields of a [`Block`], borrowed: the bytes, the start and what is left out.
pub(super) type Piece<'a> = (&'a [u8], u64, u64);

/// Gives `sink` the lines of pieces that follow on each other. Returns the unfinished line if that is held.
pub(super) fn fold_pieces<'a>(
    pieces: impl IntoIterator<Item = Piece<'a>>,
    options: FoldOptions,
    sink: &mut impl FnMut(Line<'a>),
) -> Option<String> {
    let lines = pieces.into_iter().flat_map(raw_lines);
    if options.raw {
        let mut unfinished = None;
        for line in lines {
            let is_held = options.hold_last && !line.is_ended;
            let line = line.into_text();
            if is_held {
                unfinished = Some(line.text.into_owned());
            } else {
                sink(line);
            }
        }
        return unfinished;
    }
    let mut unfinished = None;
    let mut collapser = RepeatCollapser { held: None, sink };
    let mut terminal = Terminal::new(|row: Row<'a>| collapser.take(fold_row(row)));
    for line in lines {
        terminal.write(line.bytes, line.start, line.left_out);
        if line.is_ended {
            terminal.end_line();
        } else if options.hold_last {
            unfinished = terminal.take_last();
        }
    }
    terminal.finish();
    collapser.finish();
    unfinished
        .map(|row| fold_row(row).text.into_owned())
        .filter(|text| !text.is_empty())
}

/// Folds a log that is at hand.
pub fn fold(bytes: &[u8]) -> String {
    let mut text = String::new();
    fold_pieces([(bytes, 0, 0)], FoldOptions::default(), &mut |line| {
        for line in line.with_repeats() {
            text.push_str(&line.text);
            text.push('\n');
        }
    });
    text
}

struct RawLine<'a> {
    /// Without the line end.
    bytes: &'a [u8],
    start: u64,
    left_out: u64,
    is_ended: bool,
}

impl<'a> RawLine<'a> {
    fn into_text(self) -> Line<'a> {
        let mut text = lossy(self.bytes);
        if text.contains(is_control) {
            text = Cow::Owned(text.replace(is_control, "\u{fffd}"));
        }
        cut_line(text, self.start, self.left_out, LARGEST_MAX_BYTES)
    }
}

fn raw_lines<'a>((bytes, start, left_out): Piece<'a>) -> impl Iterator<Item = RawLine<'a>> {
    let mut from = 0;
    let ends = memchr_iter(b'\n', bytes).map(|at| (at, true));
    let rest = (!bytes.is_empty() && !bytes.ends_with(b"\n")).then_some((bytes.len(), false));
    ends.chain(rest).map(move |(end, is_ended)| {
        let line = RawLine {
            bytes: bytes.get(from..end).unwrap_or_default(),
            start: if from == 0 {
                start
            } else {
                start + left_out + from as u64
            },
            left_out: if from == 0 { left_out } else { 0 },
            is_ended,
        };
        from = end + 1;
        line
    })
}

/// The controls that are not shown even in raw lines; a carriage return tells the states of a line apart.
fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\r')
}

fn fold_row(row: Row<'_>) -> Line<'_> {
    let blanks = [' ', '\t'];
    let text = match row.text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(blanks)),
        Cow::Owned(mut text) => {
            text.truncate(text.trim_end_matches(blanks).len());
            Cow::Owned(text)
        }
    };
    cut_line(text, row.start, row.left_out, MAX_LINE)
}

/// Keeps the end of a line that is longer than `max_bytes`, and says how much is missing.
fn cut_line(text: Cow<'_, str>, start: u64, left_out: u64, max_bytes: usize) -> Line<'_> {
    let excess = text.len().saturating_sub(max_bytes);
    let left_out = left_out + excess as u64;
    let is_cut = left_out > 0;
    let text = if is_cut {
        let end = &text[text.ceil_char_boundary(excess)..];
        let end = skip_partial_secret(end);
        Cow::Owned(format!("[… {left_out} bytes of this line left out] {end}"))
    } else {
        text
    };
    Line {
        text,
        repeated: 0,
        start,
        is_cut,
    }
}

/// Skips to the next word of a text whose front was cut off, if that is near: half a word misleads.
pub(super) fn skip_partial_word(text: &str) -> &str {
    let near = text.floor_char_boundary(WORD_SEARCH);
    text[..near]
        .find([' ', '\t'])
        .map_or(text, |blank| &text[blank..])
}

/// Skips what may be half a secret, in a text that was cut before its secrets were hidden: half of one is not known as one.
fn skip_partial_secret(text: &str) -> &str {
    let words = skip_partial_word(text);
    if words.len() < text.len() || text.starts_with([' ', '\t']) {
        words
    } else {
        skip_partial_word(&text[text.floor_char_boundary(WORD_SEARCH)..])
    }
}

impl<'a> Line<'a> {
    /// The line, and how often it was repeated as a line of its own. One that came twice is given twice.
    pub fn with_repeats(self) -> impl Iterator<Item = Line<'a>> {
        let repeats = match self.repeated {
            0 => None,
            1 => Some(self.clone()),
            times => Some(Line {
                text: repeat_note(times).into(),
                ..self.clone()
            }),
        };
        std::iter::once(self).chain(repeats)
    }
}

pub(super) fn repeat_note(times: u64) -> String {
    let unit = if times == 1 { "time" } else { "times" };
    format!("… repeated {times} {unit}")
}

/// Holds the newest line back to see whether it is repeated.
struct RepeatCollapser<'a, 's, F> {
    held: Option<(Line<'a>, Option<BarState>)>,
    sink: &'s mut F,
}

impl<'a, F: FnMut(Line<'a>)> RepeatCollapser<'a, '_, F> {
    fn take(&mut self, line: Line<'a>) {
        let bar = BarState::parse(&line.text);
        if let Some((held, held_bar)) = &mut self.held {
            if held.text == line.text {
                if !line.text.is_empty() && held_bar.is_none() {
                    held.repeated += 1;
                }
                return;
            }
            if let (Some(earlier), Some(bar)) = (&held_bar, &bar)
                && earlier.is_continued_by(bar, &held.text, &line.text)
            {
                let start = held.start;
                self.held = Some((Line { start, ..line }, Some(bar.clone())));
                return;
            }
        }
        if let Some((line, _)) = self.held.replace((line, bar)) {
            (self.sink)(line);
        }
    }

    /// Gives the line that is held, unless it is a blank line at the end of the log.
    fn finish(mut self) {
        if let Some((line, _)) = self.held.take().filter(|(line, _)| !line.text.is_empty()) {
            (self.sink)(line);
        }
    }
}

/// A state of a tqdm bar: `<label> 12%|███  | 12/100 [00:01<00:07, 9.51it/s]`.
#[derive(Debug, Clone)]
struct BarState {
    label: std::ops::Range<usize>,
    total: std::ops::Range<usize>,
    percent: u32,
}

impl BarState {
    fn parse(line: &str) -> Option<Self> {
        let bytes = line.as_bytes();
        if bytes.last() != Some(&b']') {
            return None;
        }
        let percent = memchr_iter(b'%', bytes).find(|at| bytes.get(at + 1) == Some(&b'|'))?;
        let open = memrchr(b'[', bytes)?;
        let slash = memrchr(b'/', bytes.get(percent..open)?)? + percent;
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let label = line.get(..percent)?.trim_end_matches(number);
        Some(Self {
            percent: line.get(label.len()..percent)?.parse::<f32>().ok()? as u32,
            label: 0..label.trim_end_matches(' ').len(),
            total: slash..open,
        })
    }

    /// Says whether `next` is a later state of the same bar. After 100 % another bar begins.
    fn is_continued_by(&self, next: &Self, text: &str, next_text: &str) -> bool {
        self.percent < 100
            && self.percent <= next.percent
            && text.get(self.label.clone()) == next_text.get(next.label.clone())
            && text.get(self.total.clone()) == next_text.get(next.total.clone())
    }
}
