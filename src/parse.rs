//! Reads what `oumi` and `sky` print. Pure functions over text: any text has an answer, and none causes a panic.

pub(crate) mod check;
pub(crate) mod costs;
pub(crate) mod gpus;
pub(crate) mod oumi;
mod reasons;
pub(crate) mod sky;
mod states;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::text::strip_escapes;

pub(crate) use reasons::{failure_reason, last_line};
pub(crate) use states::JobState;
pub(crate) use states::state_of;

/// The output of a program is not the JSON that was asked for. The text continues a sentence that names the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("answered without a whole JSON document{}", .0.as_ref().map_or_else(String::new, |line| format!("; its last line: {line}")))]
    NoJson(Option<String>),
    #[error("answered with JSON of an unexpected form: {0}")]
    UnexpectedForm(String),
}

/// At how many places a document is looked for. Bounds the work on an output full of brackets.
const MAX_PLACES: usize = 1000;

/// Reads the JSON document in `stdout`, and returns the text before it too. A document begins and ends with a line; the last one
/// of the expected form counts, and text behind it is passed over.
fn split_json<T: DeserializeOwned>(stdout: &str) -> Result<(String, T), OutputError> {
    let text = strip_escapes(stdout);
    let text = without_non_finite(&text);
    let begins_line = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let brackets = text.match_indices(['{', '[']).map(|(at, _)| at);
    let mut found = Err(OutputError::NoJson(last_line(&text)));
    let mut end = 0;
    for at in brackets.filter(begins_line).take(MAX_PLACES) {
        let mut documents = serde_json::Deserializer::from_str(&text[at..]).into_iter();
        if at < end || !matches!(documents.next(), Some(Ok(IgnoredAny))) {
            continue;
        }
        let length = documents.byte_offset();
        let (document, rest) = text[at..].split_at(length);
        if !rest
            .lines()
            .next()
            .is_none_or(|rest| rest.trim().is_empty())
        {
            continue;
        }
        end = at + length;
        match serde_json::from_str(document) {
            Ok(document) => found = Ok((text[..at].to_owned(), document)),
            Err(error) if found.is_err() => {
                let error = reasons::one_line(&error.to_string());
                found = Err(OutputError::UnexpectedForm(error));
            }
            Err(_) => {}
        }
    }
    found
}

/// Replaces `NaN` and `Infinity`, which Python writes and JSON does not have, by `null`.
fn without_non_finite(text: &str) -> Cow<'_, str> {
    static STRING_OR_WORD: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#""(?:[^"\\\n]|\\.)*"|-?\b(?:NaN|Infinity)\b"#).ok());
    let replaced = |found: &Captures<'_>| match &found[0] {
        string if string.starts_with('"') => string.to_owned(),
        _ => "null".to_owned(),
    };
    match &*STRING_OR_WORD {
        Some(pattern) if text.contains("NaN") || text.contains("Infinity") => {
            pattern.replace_all(text, replaced)
        }
        _ => Cow::Borrowed(text),
    }
}

/// The members of a JSON object, in order. A name may come twice.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// One row of a JSON answer.
type Row = Map<String, Value>;

/// Returns `true` for a name that SkyPilot takes for a cluster: a letter, then letters, digits, `-`, `_` and `.`, with a
/// letter or digit at the end. SkyPilot has no limit of length; it shortens the name for a cloud that has one.
pub(crate) fn is_valid_cluster_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_name_char)
}

/// Returns `true` for a cluster of Oumi's `slurm` cloud: `user@host`. Stricter than Oumi: neither part may begin with a `-`,
/// which ssh would take for an option.
pub(crate) fn is_valid_slurm_cluster_name(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('-') && part.chars().all(is_name_char);
    name.split_once('@')
        .is_some_and(|(user, host)| is_part(user) && is_part(host))
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}
