//! Reads what `oumi` and `sky` print. Pure functions over text: any text has an answer, and none causes a panic.

pub(crate) mod oumi;
mod reasons;
pub(crate) mod sky;
mod states;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
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
const MAX_PLACES: usize = 64;

/// Reads the JSON document at the end of `stdout`, and returns the text before it too. A document begins a line, and text
/// within one does not end the output, so the last line from which a whole document can be read is its first.
fn split_json<T: DeserializeOwned>(stdout: &str) -> Result<(String, T), OutputError> {
    let text = strip_escapes(stdout);
    let begins_line = |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let brackets = text.rmatch_indices(['{', '[']).map(|(at, _)| at);
    let found = brackets
        .filter(begins_line)
        .take(MAX_PLACES)
        .find_map(|at| {
            let document = serde_json::from_str::<Value>(&text[at..]).ok()?;
            Some((text[..at].to_owned(), document))
        });
    let (before, document) = found.ok_or_else(|| OutputError::NoJson(last_line(&text)))?;
    match serde_json::from_value(document) {
        Ok(document) => Ok((before, document)),
        Err(error) => Err(OutputError::UnexpectedForm(reasons::one_line(
            &error.to_string(),
        ))),
    }
}

/// One row of a JSON answer.
type Row = Map<String, Value>;

/// Returns the rest of the line behind `marker`.
fn after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    text.split_once(marker)?.1.lines().next()
}

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
