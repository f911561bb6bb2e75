//! Regular expressions that stand in data files.

use regex::Regex;
use serde::Deserialize;

/// A list of regular expressions, of which one must match. An empty list matches nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct Patterns(Option<Regex>);

impl TryFrom<Vec<String>> for Patterns {
    type Error = regex::Error;

    fn try_from(patterns: Vec<String>) -> Result<Self, regex::Error> {
        let any = (!patterns.is_empty()).then(|| Regex::new(&patterns.join("|")));
        any.transpose().map(Self)
    }
}

impl Patterns {
    pub(crate) fn regex(&self) -> Option<&Regex> {
        self.0.as_ref()
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }

    /// Finds the first place that matches.
    pub(crate) fn find<'a>(&self, text: &'a str) -> Option<regex::Match<'a>> {
        self.regex()?.find(text)
    }
}
