//! Readable text from the raw bytes of a log: what a terminal would show in the end, line by line.
//!
//! - [`Terminal`] applies carriage returns, cursor movements and backspaces, and removes escapes and controls.
//! - A line that comes again at once is given once, with how often it was repeated. Only exact repeats count: lines that
//!   differ in a number may differ in what matters. There are two exceptions. Of the states of one progress bar on lines of
//!   their own, as loggers and line-wise transports leave them, the last is kept, as on a terminal. And of lines of metrics
//!   that differ in numbers alone the first and the last are kept, where [`FoldOptions::is_summary`]; the bars and blank lines
//!   between those go.
//! - Blanks at the ends of lines are removed, and so is every blank line after a blank line.
//! - Of a line longer than [`FoldOptions::max_line`] the end is kept.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::{memchr, memmem};

use crate::progress::tqdm::Bar;
use crate::redact::{HIDDEN, Redactor, unmask};
use crate::text::patterns::{Patterns, group};
use crate::text::{Row, Terminal, lossy};

/// The longest line that is kept whole, in bytes.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// The distance from a cut in which a blank is looked for, in bytes. Words of a text, and tokens, are no longer.
pub(super) const WORD_SEARCH: usize = 512;

/// Stands before the end of a line that is too long.
pub(super) const CUT: &str = "[… the beginning of this line is left out] ";

/// Stands behind the part of a line that is too long.
const CUT_END: &str = " [… the end of this line is left out]";

/// The shortest line without a letter or digit that counts as decoration, in characters.
const MIN_DECORATION: usize = 8;

#[derive(Debug, Clone, Default)]
pub(super) struct Line<'a> {
    pub text: Cow<'a, str>,
    /// Offset of its first byte in the log.
    pub start: u64,
    /// Its beginning was left out.
    pub is_cut: bool,
    /// It says which lines after the last one were left out, and is none of the log.
    pub is_note: bool,
}

#[derive(Clone, Copy, Default)]
pub(super) struct FoldOptions<'s> {
    pub raw: bool,
    /// Runs of metrics are shortened, and lines that only decorate are left out.
    pub is_summary: bool,
    pub max_line: usize,
    /// Hides tokens in a line before it is cut.
    pub secrets: Option<&'s Redactor>,
}

/// Gives `sink` the lines of a part of a log that begins at `start`.
pub(super) fn fold_lines<'a>(
    mut bytes: &'a [u8],
    mut start: u64,
    options: FoldOptions<'_>,
    sink: &mut impl FnMut(Line<'a>),
) {
    let mut collapser = Collapser {
        held: None,
        is_summary: options.is_summary,
        sink,
    };
    let mut terminal = Terminal::default();
    while !bytes.is_empty() {
        let line_end = memchr(b'\n', bytes).unwrap_or(bytes.len());
        let text = &bytes[..line_end];
        if options.raw {
            (collapser.sink)(cut_line(raw_text(text).into(), start, options));
        } else {
            let done = terminal.write(text, start);
            done.into_iter()
                .for_each(|row| collapser.take(folded_line(row, options)));
            terminal.end_line();
        }
        let length = bytes.len().min(line_end + 1);
        (bytes, start) = (&bytes[length..], start + length as u64);
    }
    for row in terminal.rows {
        collapser.take(folded_line(row, options));
    }
    if let Some(mut held) = collapser.held.take() {
        // A blank line at the end of the log is none.
        held.behind.take_if(|line| line.text.is_empty());
        if !held.first.text.is_empty() {
            collapser.finish(held);
        }
    }
}

/// Folds the end of a log in which known secrets are masked.
pub fn fold(bytes: &[u8]) -> String {
    let options = FoldOptions {
        max_line: MAX_LINE,
        secrets: Some(&Redactor::default()),
        ..FoldOptions::default()
    };
    let mut text = String::new();
    fold_lines(bytes, 0, options, &mut |line| {
        text.push_str(&line.text);
        text.push('\n');
    });
    text
}

/// Replaces controls; a carriage return tells the states of a line apart.
fn raw_text(line: &[u8]) -> String {
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\r');
    unmask(&lossy(line)).replace(is_control, "\u{fffd}")
}

fn folded_line<'a>(mut row: Row<'a>, options: FoldOptions<'_>) -> Line<'a> {
    let length = row.text.trim_ascii_end().len();
    match &mut row.text {
        Cow::Borrowed(text) => *text = &text[..length],
        Cow::Owned(text) => text.truncate(length),
    }
    cut_line(row.text, row.start, options)
}

fn cut_line<'a>(mut text: Cow<'a, str>, start: u64, options: FoldOptions<'_>) -> Line<'a> {
    let is_cut = text.len() > options.max_line;
    if is_cut {
        if let Some(secrets) = options.secrets {
            // Half a token is not known as one. None is as long as what is read besides.
            let longer = cut(&text, None, options.max_line + MAX_LINE);
            text = secrets.redact(&longer).into();
        }
        text = cut(&text, None, options.max_line).into_owned().into();
    }
    Line {
        text,
        start,
        is_cut,
        is_note: false,
    }
}

/// Cuts a line that is too long: to what was found in it, or to its end.
pub(super) fn cut(line: &str, found: Option<Range<usize>>, longest: usize) -> Cow<'_, str> {
    let excess = line.len().saturating_sub(longest);
    if excess == 0 {
        return line.into();
    }
    let found = found.map_or(excess, |found| found.start.saturating_sub(longest / 4));
    let start = line.ceil_char_boundary(found.min(excess));
    let end = line.floor_char_boundary(start + longest);
    let before = if start > 0 { CUT } else { "" };
    let behind = if end < line.len() { CUT_END } else { "" };
    format!("{before}{}{behind}", &line[start..end]).into()
}

/// Holds the newest line back, and the lines like it that follow.
struct Collapser<'s, 'a, F> {
    held: Option<Held<'a>>,
    is_summary: bool,
    sink: &'s mut F,
}

/// A line, and those after it that say no more, or little more.
#[derive(Default)]
struct Held<'a> {
    first: Line<'a>,
    /// The last of the lines after it that differ from it in numbers alone; it starts where the first of them does, so that the
    /// run is given as a whole or not at all.
    last: Option<Line<'a>>,
    /// The lines after the first that say the same, or else those between it and the last.
    more: u64,
    /// The steps of the first and the last of the lines between.
    steps: Option<(u64, u64)>,
    /// The newest bar or blank line after a line of metrics, which goes where another follows.
    behind: Option<Line<'a>>,
}

impl<'a, F: FnMut(Line<'a>)> Collapser<'_, 'a, F> {
    fn take(&mut self, line: Line<'a>) {
        if self.is_summary && is_decoration(&line.text) {
            return;
        }
        let other = match &mut self.held {
            Some(held) => held.absorb(line, self.is_summary),
            None => Some(line),
        };
        let other = other.map(|first| Held {
            first,
            ..Held::default()
        });
        if let Some(held) = other.and_then(|other| self.held.replace(other)) {
            self.finish(held);
        }
    }

    fn finish(&mut self, held: Held<'a>) {
        let Held { first, last, .. } = held;
        let note = |text: String, start| Line {
            text: text.into(),
            start,
            is_note: true,
            ..Line::default()
        };
        let between = match (&last, held.more) {
            (_, 0) => None,
            (None, 1) => Some(first.clone()),
            (None, times) => Some(note(format!("… repeated {times} times"), first.start)),
            (Some(last), lines) => {
                let unit = if lines == 1 { "line" } else { "lines" };
                let steps = match held.steps {
                    Some((from, to)) if from < to => format!(", steps {from} to {to}"),
                    Some((step, _)) => format!(", step {step}"),
                    None => String::new(),
                };
                Some(note(format!("… {lines} {unit} like it{steps}"), last.start))
            }
        };
        (self.sink)(first);
        between.into_iter().for_each(&mut *self.sink);
        last.into_iter().for_each(&mut *self.sink);
        held.behind.into_iter().for_each(&mut *self.sink);
    }
}

impl<'a> Held<'a> {
    /// Takes a line that says no more than those that are held, or little more, and gives any other back.
    fn absorb(&mut self, line: Line<'a>, is_summary: bool) -> Option<Line<'a>> {
        let is_at_first = self.last.is_none() && self.behind.is_none();
        if is_at_first && is_next_state(&self.first.text, &line.text) {
            self.first.text = line.text;
            return None;
        }
        let is_bar = || Bar::parse_whole(&line.text).is_some();
        let is_metrics = is_summary && has_figure(&self.first.text);
        let is_alike = || without_numbers(&self.first.text).eq(without_numbers(&line.text));
        if is_metrics && (line.text.is_empty() || is_bar()) {
            if self.behind.is_none() || !line.text.is_empty() {
                self.behind = Some(line);
            }
            return None;
        }
        if self.last.is_none() && self.first.text == line.text {
            self.more += u64::from(!line.text.is_empty() && !is_bar());
        } else if !is_metrics || !is_alike() {
            return Some(line);
        } else if let Some(last) = &mut self.last {
            let before = std::mem::replace(&mut last.text, line.text);
            if let Some(step) = step_of(&before) {
                self.steps.get_or_insert((step, step)).1 = step;
            }
            self.more += 1;
        } else if self.more == 0 {
            self.last = Some(line);
        } else {
            return Some(line);
        }
        self.behind = None;
        None
    }
}

fn is_next_state(earlier: &str, later: &str) -> bool {
    let earlier = || Bar::parse_whole(earlier);
    Bar::parse_whole(later).is_some_and(|later| earlier().is_some_and(|one| later.continues(&one)))
}

/// Tells a frame, a rule or a picture made of characters.
fn is_decoration(line: &str) -> bool {
    let is_text = |c: char| c.is_alphanumeric() || c == char::REPLACEMENT_CHARACTER;
    line.chars().nth(MIN_DECORATION - 1).is_some()
        && !line.contains(is_text)
        && !line.contains(HIDDEN)
}

fn has_figure(line: &str) -> bool {
    let figures = ["loss", "Loss", "LOSS", "reward"];
    let is_in = |name: &str| memmem::find(line.as_bytes(), name.as_bytes()).is_some();
    figures.into_iter().any(is_in)
}

/// What lines of metrics that differ in numbers alone have in common. One that has no number where the other has, such as `nan`, is
/// another.
fn without_numbers(line: &str) -> impl Iterator<Item = u8> {
    let mut before = 0_u8;
    line.bytes().filter(move |byte| {
        let is_exponent = *byte == b'e' && before.is_ascii_digit();
        before = *byte;
        !is_exponent && !matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b' ')
    })
}

fn step_of(line: &str) -> Option<u64> {
    let step = group(&STEP.captures_iter(line).next()?, "step")?;
    step.parse().ok()
}

static STEP: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns::new(r#"(?:[sS]tep(?:/max_steps)?|\b(?:global_)?[sS]teps)['": =\[#]*(?P<step>\d+)"#)
});
