//! The table of causes, `causes.yaml`: what a log says where, what that means, and what to change.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::text::from_yaml;
use crate::text::patterns::Patterns;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) causes: Vec<Cause>,
    /// Exceptions and lines that come of the death of another process.
    consequences: Patterns,
    pub(super) signs: Signs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Cause {
    /// A word for it, which stays the same.
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) advice: String,
    /// It comes of other causes, and counts where none of them is found.
    #[serde(default)]
    follows: bool,
    #[serde(flatten)]
    patterns: BTreeMap<Place, Patterns>,
}

/// The text in which a pattern counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    /// The exception or the error lines that ended the job.
    Error,
    /// The last frame of that exception, and its first line.
    Frame,
    /// The end of the log, whatever exception there is.
    Verdict,
    /// The end of the log.
    Line,
    /// The sentence about how the process ended.
    Exit,
}

/// The lines that tell what ended a job; the file says what each is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signs {
    pub(super) error: Patterns,
    pub(super) goes_on: Patterns,
    pub(super) figure: Patterns,
    pub(super) stage: Patterns,
    pub(super) report: Patterns,
    pub(super) shutdown: Patterns,
    pub(super) launcher: Patterns,
    pub(super) root_was_killed: Patterns,
    pub(super) first_to_fail: Vec<Patterns>,
}

pub(crate) fn read() -> serde_json::Result<Table> {
    from_yaml(include_str!("causes.yaml"))
}

/// The table, read once. A test reads it too, and fails where one row is wrong.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| read().unwrap_or_default());

impl Table {
    /// Finds the first cause that `text` shows, and the place that shows it; of those that come of others where `follows`.
    pub(super) fn find(&self, text: &str, place: Place, follows: bool) -> Option<(&Cause, usize)> {
        let mut causes = self.causes.iter().filter(|cause| cause.follows == follows);
        causes.find_map(|cause| Some((cause, cause.patterns.get(&place)?.find(text)?.start)))
    }

    /// Tells if an error comes of the death of another process, or only points to another error.
    pub(super) fn is_consequence(&self, text: &str) -> bool {
        self.find(text, Place::Error, false).is_none() && self.points_elsewhere(text)
    }

    /// Tells if an error tells of another one, which it may name.
    pub(super) fn points_elsewhere(&self, text: &str) -> bool {
        self.consequences.is_match(text) || self.find(text, Place::Error, true).is_some()
    }
}
