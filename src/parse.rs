//! Reads what `oumi` and `sky` print. Pure functions over text: any text has an answer, and none causes a panic.

pub(crate) mod oumi;
pub(crate) mod prices;
mod reasons;
pub(crate) mod sky;
mod states;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{JobError, Result};
use crate::text::strip_escapes;

pub(crate) use reasons::{failure_reason, last_line};
pub(crate) use states::{JobState, state_of};

/// At how many places a document is looked for. Bounds the work on an output full of brackets.
const MAX_PLACES: usize = 1000;

/// Reads the JSON document in `stdout`, and returns the text before it too. A document begins and ends with a line; the last one
/// of the expected form counts, and text behind it is passed over. An error continues a sentence that names the program.
fn split_json<T: DeserializeOwned>(stdout: &str) -> Result<(String, T)> {
    let text = strip_escapes(stdout);
    let text = without_non_finite(&text);
    let begins_line = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let brackets = text.match_indices(['{', '[']).map(|(at, _)| at);
    let (mut found, mut end) = (None, 0);
    for at in brackets.filter(begins_line).take(MAX_PLACES) {
        let mut documents = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        let document = documents.next().and_then(Result::ok);
        let rest = at + documents.byte_offset();
        let after = text[rest..].lines().next().unwrap_or_default();
        let Some(document) = document.filter(|_| after.trim().is_empty() && at >= end) else {
            continue;
        };
        end = rest;
        if let Ok(document) = serde_json::from_value(document) {
            found = Some((text[..at].to_owned(), document));
        }
    }
    found.ok_or_else(|| {
        let last = last_line(&text).map(|line| format!("; its last line: {line}"));
        let last = last.unwrap_or_default();
        JobError::failed(format!("answered without a whole JSON document{last}"))
    })
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
