//! Readable text from the raw bytes of a log: what a terminal would show in the end, line by line.
//!
//! - [`Terminal`] applies carriage returns, cursor movements and backspaces, and removes escapes and controls.
//! - A line that comes again at once is given once, with how often it was repeated. Only exact repeats count: lines that
//!   differ in a number may differ in what matters. There are two exceptions. Of the states of one progress bar on lines of
//!   their own, as loggers and line-wise transports leave them, the last is kept, as on a terminal. And of lines of metrics
//!   that differ in numbers alone the first and the last are kept, where [`FoldOptions::is_summary`].
//! - Blanks at the ends of lines are removed, and so is every blank line after a blank line.
//! - Of a line longer than [`FoldOptions::max_line`] the end is kept.

use std::borrow::Cow;

use memchr::{memchr_iter, memmem};

use crate::progress::tqdm::Bar;
use crate::redact::{HIDDEN, Redactor, unmask};
use crate::text::{Row, Terminal, lossy};

/// The longest line that is kept whole, in bytes.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// The distance from a cut in which a blank is looked for, in bytes. Words of a text, and tokens, are no longer.
pub(super) const WORD_SEARCH: usize = 512;

/// The shortest line without a letter or digit that counts as decoration, in characters.
const MIN_DECORATION: usize = 8;

/// A line of the folded log.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub text: Cow<'a, str>,
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

impl Default for FoldOptions<'_> {
    fn default() -> Self {
        Self {
            raw: false,
            is_summary: false,
            hold_last: false,
            max_line: MAX_LINE,
            secrets: None,
        }
    }
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
    sink: &mut impl FnMut(Line<'a>),
) -> Option<String> {
    let lines = pieces.into_iter().flat_map(raw_lines);
    let cut = |row: Row<'a>| cut_line(row, options);
    if options.raw {
        let mut unfinished = None;
        for (row, bytes, is_ended) in lines {
            let text = raw_text(bytes);
            let line = cut(Row { text, ..row });
            if options.hold_last && !is_ended {
                unfinished = Some(line.text.into_owned());
            } else {
                sink(line);
            }
        }
        return unfinished;
    }
    let mut collapser = Collapser {
        held: None,
        is_summary: options.is_summary,
        sink,
    };
    let mut unfinished = None;
    let mut terminal = Terminal::new(|row| collapser.take(cut(without_end_blanks(row))));
    for (row, bytes, is_ended) in lines {
        terminal.write(bytes, row.start, row.left_out);
        if is_ended {
            terminal.end_line();
        } else if options.hold_last {
            unfinished = terminal.take_last();
        }
    }
    terminal.finish();
    collapser.finish();
    unfinished
        .map(|row| cut(without_end_blanks(row)).text.into_owned())
        .filter(|text| !text.is_empty())
}

/// Folds a log that is at hand.
pub fn fold(bytes: &[u8]) -> String {
    let mut text = String::new();
    fold_pieces([(bytes, 0, 0)], FoldOptions::default(), &mut |line| {
        text.push_str(&line.text);
        text.push('\n');
    });
    text
}

/// Returns the lines of a piece: a row without its text, the bytes without the line end, and if there is one.
fn raw_lines<'a>(
    (bytes, start, left_out): Piece<'a>,
) -> impl Iterator<Item = (Row<'a>, &'a [u8], bool)> {
    let mut from = 0;
    let ends = memchr_iter(b'\n', bytes).map(|at| (at, true));
    let rest = (!bytes.is_empty() && !bytes.ends_with(b"\n")).then_some((bytes.len(), false));
    ends.chain(rest).map(move |(end, is_ended)| {
        let is_first = from == 0;
        let row = Row {
            text: Cow::default(),
            start: start + if is_first { 0 } else { left_out + from as u64 },
            left_out: if is_first { left_out } else { 0 },
        };
        let line = bytes.get(from..end).unwrap_or_default();
        from = end + 1;
        (row, line, is_ended)
    })
}

/// Replaces controls; a carriage return tells the states of a line apart.
fn raw_text(line: &[u8]) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\r');
    let text = lossy(line);
    if !text.contains(is_control) {
        return text;
    }
    let text = unmask(&text);
    Cow::Owned(text.replace(is_control, "\u{fffd}"))
}

fn without_end_blanks(row: Row<'_>) -> Row<'_> {
    let blanks = [' ', '\t'];
    let text = match row.text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(blanks)),
        Cow::Owned(mut text) => {
            text.truncate(text.trim_end_matches(blanks).len());
            Cow::Owned(text)
        }
    };
    Row { text, ..row }
}

/// Keeps the end of a line that is too long, and says how much is missing.
fn cut_line<'a>(mut row: Row<'a>, options: FoldOptions<'_>) -> Line<'a> {
    let length = row.left_out + row.text.len() as u64;
    if row.left_out > 0 {
        // Half a token is not known as one: on to the next word, if that is near.
        let near = row.text.floor_char_boundary(WORD_SEARCH);
        let word = row.text[..near].find([' ', '\t']).unwrap_or(near);
        row.text = row.text[word..].to_owned().into();
    }
    if row.text.len() > options.max_line {
        let hidden = options.secrets.map(|secrets| secrets.redact(&row.text));
        let text = hidden.unwrap_or_else(|| row.text.into_owned());
        let excess = text.len().saturating_sub(options.max_line);
        row.text = text[text.ceil_char_boundary(excess)..].to_owned().into();
    }
    let left_out = length - row.text.len() as u64;
    let is_cut = left_out > 0;
    if is_cut {
        row.text = format!("[… {left_out} bytes of this line left out] {}", row.text).into();
    }
    Line {
        text: row.text,
        start: row.start,
        is_cut,
        is_note: false,
    }
}

/// Holds the newest line back, and the lines like it that follow.
struct Collapser<'a, 's, F> {
    held: Option<Held<'a>>,
    is_summary: bool,
    sink: &'s mut F,
}

struct Held<'a> {
    first: Line<'a>,
    /// Lines after it that say the same.
    repeats: u64,
    run: Option<Run<'a>>,
}

/// The lines after a line that differ from it in numbers alone.
struct Run<'a> {
    /// Where it begins.
    start: u64,
    last: Line<'a>,
    /// The lines before the last, with the steps of the first and the last of them.
    left_out: u64,
    steps: Option<(u64, u64)>,
}

impl<'a, F: FnMut(Line<'a>)> Collapser<'a, '_, F> {
    fn take(&mut self, line: Line<'a>) {
        if self.is_summary && is_decoration(&line.text) {
            return;
        }
        if let Some(held) = &mut self.held
            && held.take(&line, self.is_summary)
        {
            return;
        }
        self.finish_held();
        self.held = Some(Held {
            first: line,
            repeats: 0,
            run: None,
        });
    }

    fn finish_held(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let note = |text: String, start| Line {
            text: text.into(),
            start,
            is_cut: false,
            is_note: true,
        };
        let start = held.first.start;
        let repeats = match held.repeats {
            0 => None,
            1 => Some(held.first.clone()),
            times => Some(note(format!("… repeated {times} times"), start)),
        };
        (self.sink)(held.first);
        repeats.into_iter().for_each(&mut *self.sink);
        if let Some(run) = held.run {
            if run.left_out > 0 {
                (self.sink)(note(run.note(), run.start));
            }
            // The run is given as a whole or not at all.
            let start = run.start;
            (self.sink)(Line { start, ..run.last });
        }
    }

    /// Gives the lines that are held, unless it is a blank line at the end of the log.
    fn finish(mut self) {
        self.held = self.held.filter(|held| !held.first.text.is_empty());
        self.finish_held();
    }
}

impl<'a> Held<'a> {
    /// Takes a line that says no more than those that are held, or little more.
    fn take(&mut self, line: &Line<'a>, is_summary: bool) -> bool {
        if let Some(run) = &mut self.run {
            let is_like = is_metric_like(&run.last.text, &line.text);
            if is_like {
                run.take(line.clone());
            }
            return is_like;
        }
        let bars = [&self.first, line].map(|line| Bar::parse_whole(&line.text));
        if self.first.text == line.text {
            self.repeats += u64::from(!line.text.is_empty() && bars[0].is_none());
        } else if let [Some(earlier), Some(later)] = bars
            && later.continues(&earlier)
        {
            let start = self.first.start;
            self.first = Line {
                start,
                ..line.clone()
            };
        } else if is_summary && self.repeats == 0 && is_metric_like(&self.first.text, &line.text) {
            self.run = Some(Run {
                start: line.start,
                last: line.clone(),
                left_out: 0,
                steps: None,
            });
        } else {
            return false;
        }
        true
    }
}

impl<'a> Run<'a> {
    fn take(&mut self, line: Line<'a>) {
        let before = std::mem::replace(&mut self.last, line);
        self.left_out += 1;
        if let Some(step) = step_of(&before.text) {
            self.steps = Some((self.steps.map_or(step, |steps| steps.0), step));
        }
    }

    fn note(&self) -> String {
        let unit = if self.left_out == 1 { "line" } else { "lines" };
        let steps = match self.steps {
            Some((from, to)) if from < to => format!(", steps {from} to {to}"),
            Some((step, _)) => format!(", step {step}"),
            None => String::new(),
        };
        format!("… {} {unit} like it{steps}", self.left_out)
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
