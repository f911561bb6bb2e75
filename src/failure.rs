//! Why a job failed, from the end of its log, its exit, and what its launcher said.
//!
//! The causes are a table ([`causes`]). Of those that the log shows, the last one counts, since what comes earlier was
//! survived; but one that follows from others, as a time-out of NCCL follows from the death of another rank, counts only
//! where no other is. What the table does not know is not guessed: then there is the exit and the traceback alone.

pub(crate) mod causes;
#[cfg(test)]
mod tests;
mod traceback;

use schemars::JsonSchema;
use serde::Serialize;

use crate::text::signal_name;
use causes::{CAUSES, Cause};
pub(crate) use traceback::traceback_end;

/// The most of a log that is looked at, from its end.
pub(crate) const LOOKED_AT: usize = 256 * 1024;

/// The longest line that is given as evidence, in characters.
const EVIDENCE: usize = 400;

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
    /// The kind of cause, a word that stays the same; none when it is not one we know.
    pub cause: Option<String>,
    /// What happened, in a sentence.
    pub what: Option<String>,
    /// What to change, in a sentence.
    pub advice: Option<String>,
    /// The line of the log that shows it.
    pub evidence: Option<String>,
    /// How the process ended.
    pub exit: Option<String>,
    /// The final lines of the last traceback, or the last line that says `Error:`.
    pub traceback_end: Option<String>,
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

/// Why a job failed. `log_tail` is the end of its log, folded; `reason` is what its launcher said. None when nothing at all
/// is known.
pub(crate) fn explain(log_tail: &str, exit: Option<Exit>, reason: Option<&str>) -> Option<Failure> {
    let start = log_tail.len().saturating_sub(LOOKED_AT);
    let log = &log_tail[log_tail.ceil_char_boundary(start)..];
    let mut text = log.to_owned();
    if let Some(reason) = reason.filter(|reason| !log.contains(reason.trim())) {
        text.push('\n');
        text.push_str(reason);
    }
    let found = find(&text);
    let killed = exit.and_then(Exit::signal) == Some(9);
    let failure = Failure {
        traceback_end: traceback_end(&text),
        exit: exit.map(Exit::sentence),
        ..Failure::default()
    };
    let failure = match found {
        Some((cause, evidence)) => Failure {
            evidence: Some(evidence),
            ..failure.caused_by(cause)
        },
        None if killed => failure.caused_by(&causes::KILLED),
        None => failure,
    };
    (failure != Failure::default()).then_some(failure)
}

impl Failure {
    fn caused_by(self, cause: &Cause) -> Self {
        Self {
            cause: Some(cause.name.to_owned()),
            what: Some(cause.what.to_owned()),
            advice: Some(cause.advice.to_owned()),
            ..self
        }
    }
}

/// The cause that `text` shows, and the line that shows it.
fn find(text: &str) -> Option<(&'static Cause, String)> {
    let squeezed = Squeezed::of(text);
    let found = CAUSES
        .iter()
        .filter_map(|cause| Some((cause, cause.last_in(&squeezed.text)?)))
        .max_by_key(|(cause, at)| (!cause.follows, *at))?;
    let (cause, at) = found;
    Some((cause, line_at(text, squeezed.place(at))))
}

/// A text in which every run of blanks and line ends is one blank, since Oumi wraps its lines at 80 columns where nobody
/// tells it otherwise.
struct Squeezed {
    text: String,
    /// Where the runs are: the place after each in this text, and in the original.
    runs: Vec<(usize, usize)>,
}

impl Squeezed {
    fn of(text: &str) -> Self {
        let mut squeezed = String::with_capacity(text.len());
        let mut runs = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find([' ', '\t', '\n']) {
            let (word, blanks) = rest.split_at(start);
            squeezed.push_str(word);
            squeezed.push(' ');
            rest = blanks.trim_start_matches([' ', '\t', '\n']);
            runs.push((squeezed.len(), text.len() - rest.len()));
        }
        squeezed.push_str(rest);
        Self {
            text: squeezed,
            runs,
        }
    }

    /// Where in the original the place `at` is.
    fn place(&self, at: usize) -> usize {
        let after = self.runs.partition_point(|(place, _)| *place <= at);
        match after.checked_sub(1).and_then(|run| self.runs.get(run)) {
            Some((place, original)) => original + (at - place),
            None => at,
        }
    }
}

/// The line of `text` in which the place `at` is, not too long.
fn line_at(text: &str, at: usize) -> String {
    let (before, after) = text.split_at(text.floor_char_boundary(at));
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = &text[start..before.len() + after.find('\n').unwrap_or(after.len())];
    // Of a long line what stands at the place counts.
    let skipped = before[start..].chars().count().saturating_sub(EVIDENCE / 2);
    let shown: String = line.trim().chars().skip(skipped).take(EVIDENCE).collect();
    match line.trim().chars().count() > skipped + EVIDENCE {
        true => format!("{shown}…"),
        false => shown,
    }
}
