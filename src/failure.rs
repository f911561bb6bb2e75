//! Explains why a job failed, from the end of its log, its exit, and the reason that its launcher gave.
//!
//! The causes are a table ([`causes`]). A cause counts only in what ended the job ([`ending`]): not in what steps or losses
//! follow, and of several processes in the one that failed first. What the table does not know is not guessed: then there
//! are the exit, the traceback, and the last lines.

pub(crate) mod causes;
mod ending;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Serialize;

use crate::text::traceback::Exception;
use crate::text::{shorten, signal_name};
use causes::{Cause, Place, TABLE};
use ending::Ending;

/// The most of a log that is looked at, from its end.
pub(crate) const LOOKED_AT: usize = 256 * 1024;

/// The longest line that is given as evidence, in characters.
const EVIDENCE: usize = 400;

/// The most that is given of a traceback or of other lines, in bytes.
const EXCERPT: usize = 2_000;

/// The most lines of a message, of errors, and of the end of a log that are given.
const EXCERPT_LINES: usize = 10;

/// The width at which Oumi wraps its lines where nobody gives it that of a terminal.
const WRAPPED_AT: usize = 80;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited.
    Code(i32),
    /// A signal killed it.
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
    /// The last frame and the message of the exception that ended it, or the lines that report an error.
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
    /// The reason in one line: the sentence of the cause, else the exception or the line that reports the error.
    #[allow(dead_code, reason = "for the message of a poll")]
    pub(crate) fn summary(&self) -> Option<&str> {
        let lines = || self.traceback_end.as_deref().unwrap_or_default().lines();
        let line = || lines().find(|line| !line.starts_with([' ', '│', '\t']));
        self.what.as_deref().or_else(line)
    }
}

/// Explains why a job failed. `log_tail` is the end of its log, folded; `reason` is what its launcher gave as the reason.
/// `None` when nothing at all is known.
pub(crate) fn explain(log_tail: &str, exit: Option<Exit>, reason: Option<&str>) -> Option<Failure> {
    let start = log_tail.len().saturating_sub(LOOKED_AT);
    let log = &log_tail[log_tail.ceil_char_boundary(start)..];
    let reason = reason.filter(|reason| !log.contains(reason.trim()));
    let ending = Ending::read(log, reason);
    let root = ending.root();
    let errors = ending.errors();
    let exit_text = exit.map(Exit::sentence);
    let is_killed = exit.and_then(Exit::signal) == Some(9);
    let found = find(&ending, root, &errors, exit_text.as_deref(), is_killed);
    let mut failure = Failure {
        traceback_end: match root {
            Some(root) => Some(traceback(&ending, root)),
            None => reported(
                &ending,
                &errors,
                found.as_ref().and_then(|found| found.line),
            ),
        },
        exit: exit_text,
        ..Failure::default()
    };
    if let Some(Found {
        cause, evidence, ..
    }) = found
    {
        failure.cause = Some(cause.name.clone());
        failure.what = Some(cause.what.clone());
        failure.advice = Some(cause.advice.clone());
        failure.evidence = evidence;
    }
    if failure.traceback_end.is_none() && (exit.is_some() || reason.is_some()) {
        failure.last_lines = last_lines(log);
    }
    (failure != Failure::default()).then_some(failure)
}

/// A cause, and what shows it.
struct Found {
    cause: &'static Cause,
    evidence: Option<String>,
    /// The line that shows it.
    line: Option<usize>,
}

/// Finds the cause that the end of a log shows.
fn find(
    ending: &Ending<'_>,
    root: Option<&Exception>,
    errors: &[Vec<usize>],
    exit: Option<&str>,
    is_killed: bool,
) -> Option<Found> {
    let search = |lines: Vec<usize>, place: Place, follows: bool| {
        let (text, starts) = ending.passage(lines);
        let (cause, at) = TABLE.find(&text, place, follows)?;
        let of = starts
            .partition_point(|(start, _)| *start <= at)
            .saturating_sub(1);
        Some(Found {
            cause,
            evidence: Some(evidence(ending, &text, &starts, at)),
            line: starts.get(of).map(|(_, line)| *line),
        })
    };
    let by_exit = || {
        let cause = [false, true]
            .into_iter()
            .find_map(|follows| TABLE.find(exit?, Place::Exit, follows))?
            .0;
        Some(Found {
            cause,
            evidence: None,
            line: None,
        })
    };
    let end = || ending.last_lines().collect::<Vec<usize>>();
    let verdict = search(end(), Place::Verdict, false);
    // What is killed did not end by itself; but a launcher is as its last process, and kills the others.
    if verdict.is_some() || is_killed && !ending.has_launcher() {
        return verdict.or_else(by_exit);
    }
    if let Some(root) = root {
        let own = [root.at]
            .into_iter()
            .chain(root.message.iter().copied())
            .collect();
        return search(own, Place::Error, false)
            .or_else(|| search(root.raised_from.clone(), Place::Error, false));
    }
    errors
        .iter()
        .rev()
        .find_map(|error| search(error.clone(), Place::Error, false))
        .or_else(|| search(end(), Place::Line, false))
        .or_else(|| search(errors.concat(), Place::Error, true))
        .or_else(|| search(end(), Place::Line, true))
        .or_else(by_exit)
}

/// The lines that show the place `at` of a passage, joined where Oumi wrapped them, not too long.
fn evidence(ending: &Ending<'_>, text: &str, starts: &[(usize, usize)], at: usize) -> String {
    let of = starts
        .partition_point(|(start, _)| *start <= at)
        .saturating_sub(1);
    let is_wrapped = |of: usize| {
        let line = |of: usize| starts.get(of).map(|(_, line)| ending.lines[*line].text);
        let (Some(line), Some(next)) = (line(of), line(of + 1)) else {
            return false;
        };
        let word = next.split(' ').next().unwrap_or_default();
        let width = line.chars().count();
        !word.is_empty() && width <= WRAPPED_AT && width + 1 + word.chars().count() > WRAPPED_AT
    };
    let first = (0..of)
        .rev()
        .take_while(|of| is_wrapped(*of))
        .last()
        .unwrap_or(of);
    let last = (of..starts.len()).find(|of| !is_wrapped(*of)).unwrap_or(of);
    if first == last
        && let Some((_, line)) = starts.get(first)
    {
        let raw = ending.lines[*line].raw.trim();
        if raw.chars().count() <= EVIDENCE {
            return raw.to_owned();
        }
    }
    let start = starts.get(first).map_or(0, |(start, _)| *start);
    let end = starts.get(last + 1).map_or(text.len(), |(start, _)| *start);
    // Of a long line what stands at the place counts.
    let skipped = text[start..at].chars().count().saturating_sub(EVIDENCE / 2);
    let line = text[start..end].trim_end();
    let shown: String = line.chars().skip(skipped).take(EVIDENCE).collect();
    match line.chars().count() > skipped + EVIDENCE {
        true => format!("{shown}…"),
        false => shown,
    }
}

/// The last frame of an exception and what it says.
fn traceback(ending: &Ending<'_>, exception: &Exception) -> String {
    let is_rule = |at: &&usize| {
        let text = ending.lines[**at].text.trim();
        text.starts_with("====") || text.starts_with("----")
    };
    let message = exception
        .message
        .iter()
        .take_while(|at| !is_rule(at))
        .take(EXCERPT_LINES);
    let lines = exception.frame.iter().chain([&exception.at]).chain(message);
    excerpt(lines.map(|at| ending.lines[*at].text.trim_end_matches([' ', '│'])))
}

/// The lines that report the error at `line`, or the last error that does not come of another; with those below it.
fn reported(ending: &Ending<'_>, errors: &[Vec<usize>], line: Option<usize>) -> Option<String> {
    let of_line = |error: &Vec<usize>| line.is_some_and(|line| error.contains(&line));
    let is_own = |error: &Vec<usize>| !ending.is_consequence(error);
    let mut first = errors
        .iter()
        .rposition(of_line)
        .or_else(|| errors.iter().rposition(is_own))
        .unwrap_or(0);
    while first > 0
        && let (Some(before), Some(error)) = (errors.get(first - 1), errors.get(first))
        && before.last().map(|last| last + 1) == error.first().copied()
        && is_own(before)
    {
        first -= 1;
    }
    let error = errors.get(first)?;
    let of_error =
        |exception: &&Exception| exception.is_traceback() && error.contains(&exception.at);
    if let Some(exception) = ending.exceptions.iter().find(of_error) {
        return Some(traceback(ending, exception));
    }
    let lines = errors.iter().skip(first).flatten().take(EXCERPT_LINES);
    Some(excerpt(lines.map(|at| ending.lines[*at].raw.trim_end())))
}

fn last_lines(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.len().saturating_sub(EXCERPT_LINES / 2);
    (!lines.is_empty()).then(|| excerpt(lines[last..].iter().map(|line| line.trim_end())))
}

/// Joins lines, each of bounded length.
fn excerpt<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<_> = lines.map(|line| shorten(line, EXCERPT / 2)).collect();
    shorten(lines.join("\n").trim_end(), EXCERPT).into_owned()
}
