//! Readable text from the raw bytes of a log: what a terminal would show in the end, line by line.
//!
//! - [`Terminal`] applies carriage returns, cursor movements and backspaces, and removes escapes and controls.
//! - A line that comes again at once is given once, with how often it was repeated. Only exact repeats count: lines that
//!   differ in a number may differ in what matters. There are two exceptions. Of the states of one progress bar on lines of
//!   their own, as loggers and line-wise transports leave them, the last is kept, as on a terminal. And of lines of metrics
//!   that differ in numbers alone the first and the last are kept, where [`FoldOptions::is_summary`].
//! - Blanks at the ends of lines are removed, and so is every blank line after a blank line.
//! - Of a line longer than [`FoldOptions::max_line`] the end is kept.

use memchr::{memchr, memmem};

use crate::progress::tqdm::Bar;
use crate::redact::{HIDDEN, Redactor, unmask};
use crate::text::{Row, Terminal};

/// The longest line that is kept whole, in bytes.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// The distance from a cut in which a blank is looked for, in bytes. Words of a text, and tokens, are no longer.
pub(super) const WORD_SEARCH: usize = 512;

/// The shortest line without a letter or digit that counts as decoration, in characters.
const MIN_DECORATION: usize = 8;

/// A line of the folded log.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub text: String,
    /// Offset of its first byte in the log.
    pub start: u64,
    /// Its beginning was left out.
    pub is_cut: bool,
    /// It says which lines after the last one were left out, and is none of the log.
    pub is_note: bool,
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
#[derive(Clone, Copy)]
pub(super) struct FoldOptions<'s> {
    /// Lines stay as they are, apart from bytes that are no text and controls other than tab and carriage return.
    pub raw: bool,
    /// Runs of metrics are shortened, and lines that only decorate are left out.
    pub is_summary: bool,
    /// A last line without a line end is returned and not given to the sink.
    pub hold_last: bool,
    /// The longest line that is kept whole, in bytes.
    pub max_line: usize,
    /// Hides tokens in a line before it is cut.
    pub secrets: Option<&'s Redactor>,
}

impl FoldOptions<'_> {
    /// For a text that is at hand.
    pub const WHOLE: Self = Self {
        raw: false,
        is_summary: false,
        hold_last: false,
        max_line: MAX_LINE,
        secrets: None,
    };
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
    options: FoldOptions<'_>,
    sink: &mut impl FnMut(Line),
) -> Option<String> {
    let mut collapser = Collapser {
        held: None,
        is_summary: options.is_summary,
        sink,
    };
    let (mut terminal, mut unfinished) = (Terminal::default(), None);
    for (mut bytes, mut start, mut left_out) in pieces {
        while !bytes.is_empty() {
            let length = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let (line, rest) = bytes.split_at(length);
            bytes = rest;
            let text = line.strip_suffix(b"\n");
            let is_held = text.is_none() && options.hold_last;
            let text = text.unwrap_or(line);
            if options.raw {
                let text = raw_text(text);
                let line = cut_line(
                    Row {
                        text,
                        start,
                        left_out,
                    },
                    options,
                );
                if is_held {
                    return Some(line.text);
                }
                (collapser.sink)(line);
            } else {
                let done = terminal.write(text, start, left_out);
                done.into_iter()
                    .for_each(|row| collapser.take(folded_line(row, options)));
                if is_held {
                    unfinished = terminal.rows.pop_back();
                }
                terminal.end_line();
            }
            start += line.len() as u64 + left_out;
            left_out = 0;
        }
    }
    for row in terminal.rows {
        collapser.take(folded_line(row, options));
    }
    // A blank line at the end of the log is none.
    collapser.held = collapser.held.filter(|held| !held.first.text.is_empty());
    collapser.finish_held();
    let unfinished = unfinished.map(|row| folded_line(row, options).text);
    unfinished.filter(|text| !text.is_empty())
}

/// Folds a log that is at hand.
pub fn fold(bytes: &[u8]) -> String {
    let mut text = String::new();
    fold_pieces([(bytes, 0, 0)], FoldOptions::WHOLE, &mut |line| {
        text.push_str(&line.text);
        text.push('\n');
    });
    text
}

/// Replaces controls; a carriage return tells the states of a line apart.
fn raw_text(line: &[u8]) -> String {
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\r');
    unmask(&String::from_utf8_lossy(line)).replace(is_control, "\u{fffd}")
}

fn folded_line(mut row: Row, options: FoldOptions<'_>) -> Line {
    let length = row.text.trim_end_matches([' ', '\t']).len();
    row.text.truncate(length);
    cut_line(row, options)
}

/// Keeps the end of a line that is too long, and says how much is missing.
fn cut_line(mut row: Row, options: FoldOptions<'_>) -> Line {
    let length = row.left_out + row.text.len() as u64;
    if row.left_out > 0 {
        // Half a token is not known as one: on to the next word, if that is near.
        let near = row.text.floor_char_boundary(WORD_SEARCH);
        let word = row.text[..near].find([' ', '\t']).unwrap_or(near);
        row.text.drain(..word);
    }
    if row.text.len() > options.max_line {
        if let Some(secrets) = options.secrets {
            row.text = secrets.redact(&row.text);
        }
        let excess = row.text.len().saturating_sub(options.max_line);
        row.text.drain(..row.text.ceil_char_boundary(excess));
    }
    let left_out = length.saturating_sub(row.text.len() as u64);
    if left_out > 0 {
        row.text = format!("[… {left_out} bytes of this line left out] {}", row.text);
    }
    Line {
        text: row.text,
        start: row.start,
        is_cut: left_out > 0,
        is_note: false,
    }
}

/// Holds the newest line back, and the lines like it that follow.
struct Collapser<'s, F> {
    held: Option<Held>,
    is_summary: bool,
    sink: &'s mut F,
}

/// A line, and those after it that say no more, or little more.
struct Held {
    first: Line,
    /// Lines after it that say the same.
    repeats: u64,
    /// The last of the lines after it that differ from it in numbers alone, and where the first of them begins.
    last: Option<(Line, u64)>,
    /// The lines between the first and the last, with the steps of the first and the last of them.
    left_out: u64,
    steps: Option<(u64, u64)>,
}

impl<F: FnMut(Line)> Collapser<'_, F> {
    fn take(&mut self, line: Line) {
        if self.is_summary && is_decoration(&line.text) {
            return;
        }
        let is_summary = self.is_summary;
        let absorbs = |held: &mut Held| held.absorbs(&line, is_summary);
        if self.held.as_mut().is_some_and(absorbs) {
            return;
        }
        self.finish_held();
        self.held = Some(Held {
            first: line,
            repeats: 0,
            last: None,
            left_out: 0,
            steps: None,
        });
    }

    fn finish_held(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let note = |text: String, start| Line {
            text,
            start,
            is_cut: false,
            is_note: true,
        };
        let repeats = match held.repeats {
            0 => None,
            1 => Some(held.first.clone()),
            times => Some(note(format!("… repeated {times} times"), held.first.start)),
        };
        (self.sink)(held.first);
        repeats.into_iter().for_each(&mut *self.sink);
        // The run is given as a whole or not at all: all of it begins at one place.
        if let Some((last, start)) = held.last {
            let unit = if held.left_out == 1 { "line" } else { "lines" };
            let steps = match held.steps {
                Some((from, to)) if from < to => format!(", steps {from} to {to}"),
                Some((step, _)) => format!(", step {step}"),
                None => String::new(),
            };
            if held.left_out > 0 {
                let text = format!("… {} {unit} like it{steps}", held.left_out);
                (self.sink)(note(text, start));
            }
            (self.sink)(Line { start, ..last });
        }
    }
}

impl Held {
    /// Takes a line that says no more than those that are held, or little more.
    fn absorbs(&mut self, line: &Line, is_summary: bool) -> bool {
        if let Some((last, _)) = &mut self.last {
            let is_like = is_metric_like(&last.text, &line.text);
            if is_like {
                let before = std::mem::replace(last, line.clone());
                let step = step_of(&before.text);
                self.steps = step
                    .map(|step| (self.steps.map_or(step, |(from, _)| from), step))
                    .or(self.steps);
                self.left_out += 1;
            }
            return is_like;
        }
        let [earlier, later] = [&self.first, line].map(|line| Bar::parse_whole(&line.text));
        if self.first.text == line.text {
            self.repeats += u64::from(!line.text.is_empty() && later.is_none());
        } else if later
            .zip(earlier)
            .is_some_and(|(later, earlier)| later.continues(&earlier))
        {
            let start = self.first.start;
            self.first = Line {
                start,
                ..line.clone()
            };
        } else if is_summary && self.repeats == 0 && is_metric_like(&self.first.text, &line.text) {
            self.last = Some((line.clone(), line.start));
        } else {
            return false;
        }
        true
    }
}

/// Tells a frame, a rule or a picture made of characters.
fn is_decoration(line: &str) -> bool {
    let is_text = |c: char| c.is_alphanumeric() || c == char::REPLACEMENT_CHARACTER;
    line.chars().nth(MIN_DECORATION - 1).is_some()
        && !line.contains(is_text)
        && !line.contains(HIDDEN)
}

/// Tells two lines of metrics that differ in numbers alone. One that has no number where the other has, such as `nan`, is
/// another.
fn is_metric_like(one: &str, other: &str) -> bool {
    let figures = ["loss", "Loss", "LOSS", "reward"];
    let has_figure = |name: &&str| memmem::find(one.as_bytes(), name.as_bytes()).is_some();
    without_numbers(one).eq(without_numbers(other)) && figures.iter().any(has_figure)
}

fn without_numbers(line: &str) -> impl Iterator<Item = u8> {
    let mut before = 0_u8;
    line.bytes().filter(move |byte| {
        let is_exponent = *byte == b'e' && before.is_ascii_digit();
        before = *byte;
        !is_exponent && !matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b' ')
    })
}

/// The number behind the word `step` of a line.
fn step_of(line: &str) -> Option<u64> {
    let at = memmem::find(line.as_bytes(), b"step").or(memmem::find(line.as_bytes(), b"Step"))?;
    let rest = line.get(at + 4..)?;
    let number = rest.trim_start_matches(['s', '\'', '"', ':', '=', ' ', '[', '#']);
    let end = number.find(|c: char| !c.is_ascii_digit());
    number[..end.unwrap_or(number.len())].parse().ok()
}
