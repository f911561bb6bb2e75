//! The table of causes, `causes.yaml`: what a log says where, what that means, and what to change.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

/// A cause of failure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cause {
    /// A word for it, which stays the same.
    pub(crate) name: String,
    /// What happened.
    pub(crate) what: String,
    /// What to change.
    pub(crate) advice: String,
    /// It comes of other causes, and counts where none of them is found.
    #[serde(default)]
    pub(super) follows: bool,
    #[serde(default)]
    error: Patterns,
    #[serde(default)]
    verdict: Patterns,
    #[serde(default)]
    line: Patterns,
    #[serde(default)]
    exit: Patterns,
}

/// The text in which a pattern counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The exception or the error lines that ended the job.
    Error,
    /// The end of the log, whatever exception there is.
    Verdict,
    /// The end of the log.
    Line,
    /// The sentence about how the process ended.
    Exit,
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) causes: Vec<Cause>,
    /// Exceptions and lines that come of the death of another process.
    consequences: Patterns,
}

/// Regular expressions, of which one must match.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Patterns(Option<Regex>);

impl TryFrom<Vec<String>> for Patterns {
    type Error = regex::Error;

    fn try_from(patterns: Vec<String>) -> Result<Self, regex::Error> {
        let any = (!patterns.is_empty()).then(|| Regex::new(&patterns.join("|")));
        any.transpose().map(Self)
    }
}

impl Patterns {
    fn find(&self, text: &str) -> Option<usize> {
        Some(self.0.as_ref()?.find(text)?.start())
    }
}

/// Reads the table. A test reads it too, and fails where one row is wrong.
pub(crate) fn read() -> Result<Table, serde_saphyr::Error> {
    serde_saphyr::from_str(include_str!("causes.yaml"))
}

pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| read().unwrap_or_default());

impl Table {
    /// Finds the first cause that `text` shows, and the place that shows it. `follows` chooses between the causes that come
    /// of others and the rest.
    pub(super) fn find(&self, text: &str, place: Place, follows: bool) -> Option<(&Cause, usize)> {
        let mut causes = self.causes.iter().filter(|cause| cause.follows == follows);
        causes.find_map(|cause| {
            let patterns = match place {
                Place::Error => &cause.error,
                Place::Verdict => &cause.verdict,
                Place::Line => &cause.line,
                Place::Exit => &cause.exit,
            };
            Some((cause, patterns.find(text)?))
        })
    }

    /// Tells if an error comes of the death of another process, or only points to another error.
    pub(super) fn is_consequence(&self, text: &str) -> bool {
        self.find(text, Place::Error, false).is_none() && self.points_elsewhere(text)
    }

    /// Tells if an error tells of another one, which it may name.
    pub(super) fn points_elsewhere(&self, text: &str) -> bool {
        self.consequences.find(text).is_some() || self.find(text, Place::Error, true).is_some()
    }
}
