//! Regular expressions that stand in data files and in the code: one that is wrong matches nothing.

use regex::{Captures, Match, Regex};
use serde::Deserialize;

/// A list of regular expressions, of which one must match. An empty list matches nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct Patterns(Option<Regex>);

impl TryFrom<Vec<String>> for Patterns {
    type Error = regex::Error;

    fn try_from(patterns: Vec<String>) -> Result<Self, regex::Error> {
        let any = (!patterns.is_empty()).then(|| Regex::new(&ascii(&patterns.join("|"))));
        any.transpose().map(Self)
    }
}

impl Patterns {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(Regex::new(&ascii(pattern)).ok())
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    pub(crate) fn find<'a>(&self, text: &'a str) -> Option<Match<'a>> {
        self.0.as_ref()?.find(text)
    }

    pub(crate) fn captures_iter<'a>(&self, text: &'a str) -> impl Iterator<Item = Captures<'a>> {
        self.0.iter().flat_map(|regex| regex.captures_iter(text))
    }
}

/// Restricts `\d`, `\w` and `\b` to ASCII. Programs print their messages in it, and the tables of Unicode would take megabytes.
fn ascii(pattern: &str) -> String {
    // A class may stand in another one.
    let pattern = pattern
        .replace(r"\d", "[0-9]")
        .replace(r"\w", "[A-Za-z0-9_]");
    pattern.replace(r"\b", r"(?-u:\b)")
}
