//! Regular expressions that stand in data files and in the code: one that is wrong matches nothing.

use std::ops::Range;

use regex::bytes::{Captures, Regex, RegexBuilder};
use serde::Deserialize;

/// A list of regular expressions, of which one must match. An empty list matches nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct Patterns(Option<Regex>);

impl TryFrom<Vec<String>> for Patterns {
    type Error = regex::Error;

    fn try_from(patterns: Vec<String>) -> Result<Self, regex::Error> {
        let any = (!patterns.is_empty()).then(|| compile(&patterns.join("|")));
        any.transpose().map(Self)
    }
}

impl Patterns {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(compile(pattern).ok())
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        let regex = self.0.as_ref();
        regex.is_some_and(|regex| regex.is_match(text.as_bytes()))
    }

    /// Finds the first match, without a character of which it holds a part.
    pub(crate) fn find(&self, text: &str) -> Option<Range<usize>> {
        let found = self.0.as_ref()?.find(text.as_bytes())?;
        Some(text.floor_char_boundary(found.start())..text.floor_char_boundary(found.end()))
    }

    pub(crate) fn captures_iter<'a>(&self, text: &'a str) -> impl Iterator<Item = Captures<'a>> {
        let regex = self.0.iter();
        regex.flat_map(|regex| regex.captures_iter(text.as_bytes()))
    }
}

/// Returns what a group has matched.
pub(crate) fn group<'a>(found: &Captures<'a>, name: &str) -> Option<&'a str> {
    str::from_utf8(found.name(name)?.as_bytes()).ok()
}

/// Without Unicode: programs print their messages in ASCII, and its tables would take megabytes, and twice the time.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}
