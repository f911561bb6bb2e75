//! Explains why a job failed, from the end of its log, its exit, and the reason that its launcher gave.
//!
//! The causes are a table ([`causes`]). A cause counts only in what ended the job ([`ending`]): not in what steps or losses
//! follow, and of several processes in the one that failed first. What the table does not know is not guessed: then there
//! are the exit, the traceback, and the last lines.

pub(crate) mod causes;
mod ending;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::progress::tqdm::Bar;
use crate::text::traceback::{Problem, names_exception};
use crate::text::{end_of, shorten, signal_name};
use causes::{Cause, Place, TABLE};
use ending::Ending;

/// The most of a log that is looked at, from its end, in bytes.
pub(crate) const LOOKED_AT: usize = 256 * 1024;
/// The longest evidence, and the longest quote of other lines, in bytes.
const EVIDENCE: usize = 400;
const EXCERPT: usize = 2_000;
/// The least of a quote that is given however long the rest of an answer is, in bytes.
const MIN_QUOTE: usize = 60;
/// Stands in the first line of a traceback.
pub(crate) const TRACEBACK: &str = "(most recent call last)";
/// The most lines of a message and of errors; of the end of a log half as many.
const EXCERPT_LINES: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// Why a job failed, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Failure {
    /// The kind of cause, a word that stays the same; none when it is not known.
    pub cause: Option<String>,
    /// What happened, in a sentence.
    pub what: Option<String>,
    /// What to change, in a sentence.
    pub advice: Option<String>,
    /// What the log says of it.
    pub evidence: Option<String>,
    /// How the process ended.
    pub exit: Option<String>,
    /// The last frame and the message of the exception that ended it, and of what raised it, or the lines that report an error.
    pub traceback_end: Option<String>,
    /// The last lines of the log, where no error is found in it.
    pub last_lines: Option<String>,
}

impl Exit {
    /// The signal that killed it, also where a shell passed that on as a code.
    fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal),
            Self::Code(code @ 129..=159) => Some(code - 128),
            Self::Code(_) => None,
        }
    }

    fn sentence(self) -> String {
        match (self, self.signal()) {
            (Self::Code(code), Some(signal)) => {
                format!("exit code {code}, as after signal {}", signal_name(signal))
            }
            (Self::Code(127), None) => "exit code 127: a command was not found".to_owned(),
            (Self::Code(code), None) => format!("exit code {code}"),
            (Self::Signal(signal), _) => format!("killed by signal {}", signal_name(signal)),
        }
    }
}

impl Failure {
    /// Cuts the quotes of the log, so that an answer of `length` bytes has `limit`; [`MIN_QUOTE`] always stays. Evidence that is
    /// in the other quote goes first, then the frame of a traceback, what stands above the evidence, or the first of the last lines.
    pub(crate) fn cut_quotes(&mut self, length: usize, limit: usize) {
        let (is_traceback, mut none) = (self.traceback_end.is_some(), String::new());
        let quote = self.traceback_end.as_mut().or(self.last_lines.as_mut());
        let quote = quote.unwrap_or(&mut none);
        let evidence = self.evidence.take().unwrap_or_default();
        let quoted = json_length(&evidence) + json_length(quote);
        let room = limit.saturating_sub(length.saturating_sub(quoted));
        let mut room = room.max(MIN_QUOTE);
        let shown = words(evidence.trim_end_matches('…'));
        let shows = |text: &str| words(text).contains(&shown);
        if !shows(quote) {
            let evidence = shorten(&evidence, room / 2).into_owned();
            room -= evidence.len();
            self.evidence = Some(evidence);
        }
        while json_length(quote) > room
            && let Some((first, below)) = quote.split_once('\n')
            && (is_frame(first) || !is_traceback || !shown.is_empty() && shows(below))
        {
            *quote = below.to_owned();
        }
        let room = (room + quote.len()).saturating_sub(json_length(quote));
        *quote = shorten(quote, room.max(MIN_QUOTE / 2)).into_owned();
    }

    /// The line that names the exception, or reports the error, that ended the job, with the next where that goes on with it.
    pub(crate) fn error_line(&self) -> Option<String> {
        let lines = self.traceback_end.as_deref()?.lines();
        let mut lines = lines.filter(|line| line.contains(char::is_alphanumeric));
        let line = lines.find(|line| !is_frame(line))?.trim();
        let goes_on = |below: &&str| line.ends_with(':') || is_frame(below);
        let below = lines.next().filter(goes_on).unwrap_or_default().trim();
        Some(format!("{line} {below}").trim_end().to_owned())
    }
}

fn is_frame(line: &str) -> bool {
    line.starts_with([' ', '│', '\t'])
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn json_length(text: &str) -> usize {
    text.len() + text.matches(['\n', '"', '\\']).count()
}

/// Explains why a job failed. `log_tail` is the end of its log, folded; `reason` is what its launcher gave as the reason.
/// `None` when nothing at all is known.
pub(crate) fn explain(log_tail: &str, exit: Option<Exit>, reason: Option<&str>) -> Option<Failure> {
    let log = &with_tracebacks(end_of(log_tail, LOOKED_AT));
    let reason = reason.filter(|reason| !log.contains(reason.trim()));
    let ending = Ending::read(log, reason);
    let (root, errors) = (ending.root(), ending.errors());
    let (cause, evidence) = find(&ending, root, &errors, exit).unzip();
    let mut failure = Failure {
        cause: cause.map(|cause| cause.name.clone()),
        what: cause.map(|cause| cause.what.clone()),
        advice: cause.map(|cause| cause.advice.clone()),
        exit: exit.map(Exit::sentence),
        traceback_end: match root {
            Some(root) => Some(traceback(&ending, root)),
            None => reported(&ending, &errors),
        },
        evidence: evidence.flatten(),
        last_lines: None,
    };
    if failure.traceback_end.is_none() && (exit.is_some() || reason.is_some()) {
        let lines = log.lines().filter(|line| !line.trim().is_empty());
        failure.last_lines = excerpt(lines.collect(), EXCERPT_LINES / 2);
    }
    (failure != Failure::default()).then_some(failure)
}

/// Returns the exception that a log ends with, if it ends with one.
pub(crate) fn last_exception(log: &str) -> Option<String> {
    let error = explain(log, None, None)?.error_line()?;
    let last = log.lines().rev().filter(|line| !line.trim().is_empty());
    let mut last = last.take(EXCERPT_LINES / 2);
    let is_last = names_exception(&error) && last.any(|line| line.ends_with(&error));
    is_last.then_some(error)
}

/// Puts the text of a traceback in place of the line of JSON that holds it.
fn with_tracebacks(log: &str) -> Cow<'_, str> {
    let text = |line: &str| {
        let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        let mut texts = fields.values().filter_map(Value::as_str);
        let traceback = texts.find(|text| text.contains(TRACEBACK))?;
        Some(traceback.to_owned())
    };
    if !log.contains(&format!("{TRACEBACK}:\\n")) {
        return log.into();
    }
    let lines = log
        .lines()
        .map(|line| text(line).unwrap_or(line.to_owned()));
    lines.collect::<Vec<_>>().join("\n").into()
}

/// Finds the cause that the end of a log shows, and what shows it.
fn find(
    ending: &Ending<'_>,
    root: Option<&Problem>,
    errors: &[Vec<usize>],
    exit: Option<Exit>,
) -> Option<(&'static Cause, Option<String>)> {
    let search = |lines: &[usize], place: Place, follows: bool| {
        let text = ending.text(lines);
        let (cause, at) = TABLE.find(&text, place, follows)?;
        // The line that shows it: the quote of all lines has what stands before, and is cut behind.
        let mut start = 0;
        let lengths = lines.iter().map(|line| ending.text(&[*line]).len());
        let mut lengths = lengths.filter(|length| *length > 0);
        while let Some(length) = lengths.next().filter(|length| start + length <= at) {
            start += length + 1;
        }
        let start = text.floor_char_boundary(start.max(at.saturating_sub(EVIDENCE / 2)));
        Some((cause, Some(shorten(&text[start..], EVIDENCE).into_owned())))
    };
    let in_last = |place: Place, follows: bool| {
        let mut last = ending.last.iter().rev();
        last.find_map(|line| search(&[*line], place, follows))
    };
    let by_exit = || {
        let text = exit?.sentence();
        let mut found = [false, true].into_iter();
        let (cause, _) = found.find_map(|follows| TABLE.find(&text, Place::Exit, follows))?;
        Some((cause, None))
    };
    let verdict = in_last(Place::Verdict, false);
    // What is killed did not end by itself; but a launcher is as its last process, and kills the others.
    let is_killed = exit.and_then(Exit::signal) == Some(9) && !ending.has_launcher();
    if verdict.is_some() || is_killed {
        return verdict.or_else(by_exit);
    }
    if let Some(root) = root {
        let own = [&[root.at], &root.message[..]].concat();
        // What it was raised from may be more particular: a row that stands above that of its own words.
        let found = [&own, &root.raised_from].into_iter();
        let found = found.filter_map(|words| search(words, Place::Error, false));
        return search(&[&root.frame, &own[..1]].concat(), Place::Frame, false)
            .or_else(|| found.min_by_key(|(cause, _)| std::ptr::from_ref(*cause)));
    }
    let mut own = errors.iter().rev();
    own.find_map(|error| search(error, Place::Error, false))
        .or_else(|| in_last(Place::Line, false))
        .or_else(|| {
            let (cause, _) = search(&errors.concat(), Place::Error, true)?;
            let found = errors.iter();
            let mut found = found.filter_map(|error| search(error, Place::Error, true));
            found.find(|(other, _)| other.name == cause.name)
        })
        .or_else(|| in_last(Place::Line, true))
        .or_else(by_exit)
}

/// The last frame of an exception and what it says.
fn traceback(ending: &Ending<'_>, exception: &Problem) -> String {
    let indent = " ".repeat(ending.lines[exception.at].indent());
    let text = |at: &usize| {
        let text = ending.lines[*at].text.trim_end_matches([' ', '│']);
        text.strip_prefix(&indent).unwrap_or(text)
    };
    let message = exception.message.iter().map(text);
    let rules = ["====", "----", "+---"];
    let is_rule = |line: &str| rules.iter().any(|rule| line.trim_start().starts_with(rule));
    let message = message.take_while(|line| !is_rule(line) && Bar::parse_whole(line).is_none());
    let above = exception.frame.iter().chain([&exception.at]).map(text);
    let message = message.chain(exception.raised_from.iter().map(text));
    let lines = above.chain(message.take(EXCERPT_LINES)).collect();
    excerpt(lines, usize::MAX).unwrap_or_default()
}

fn reported(ending: &Ending<'_>, errors: &[Vec<usize>]) -> Option<String> {
    let first = |error: &Vec<usize>| error.len().min(EXCERPT_LINES / 2);
    let forms = &TABLE.signs.first_to_fail;
    let named = |error: &Vec<usize>| forms.iter().any(|it| it.is_match(&ending.text(error)));
    let is_own = |error: &&Vec<usize>| !TABLE.is_consequence(&ending.text(error));
    // What other processes say before their launcher names the first to fail came of that.
    let (above, below) = errors.split_at(errors.iter().position(named).unwrap_or(0));
    let errors = above.iter().filter(is_own).chain(below);
    let lines = errors.flat_map(|error| &error[..first(error)]);
    let lines = lines.map(|at| ending.lines[*at].text);
    excerpt(lines.collect(), EXCERPT_LINES)
}

/// Joins the last lines, each of bounded length.
fn excerpt(lines: Vec<&str>, last: usize) -> Option<String> {
    let lines = lines[lines.len().saturating_sub(last)..].iter();
    let lines = lines.map(|line| shorten(line.trim_end(), EXCERPT / 2));
    let text = lines.collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then(|| shorten(text.trim_end(), EXCERPT).into_owned())
}
