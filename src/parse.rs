//! Reads what `oumi` and `sky` print. Pure functions over text: whatever the text is, they answer, and never panic.

pub mod oumi;
mod reasons;
pub mod sky;
mod states;
mod terminal;
#[cfg(test)]
mod tests;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

pub use reasons::{MAX_SENTENCE, failure_reason, last_line};
pub use states::state_of;
pub use terminal::strip_terminal;

/// A program's output is not what it was asked for. The text is the end of a sentence that begins with the program's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// No JSON is in it.
    #[error("answered without JSON{}", said(.0.as_deref()))]
    NoJson(Option<String>),
    /// It ends in the middle of its JSON.
    #[error("answered with JSON that is cut short")]
    CutShort,
    /// The JSON is not of the form that is known.
    #[error("answered with JSON of another form than is known: {0}")]
    OtherForm(String),
}

fn said(last_line: Option<&str>) -> String {
    last_line.map_or_else(String::new, |line| format!("; it said: {line}"))
}

/// At how many places the JSON is looked for, so that an output full of brackets costs no more than that many readings.
const MAX_PLACES: usize = 64;

/// The JSON document at the end of `stdout`. Lines of text may stand before it.
///
/// # Errors
/// When there is none, or half of one, or it is of another form.
pub fn json_document<T: DeserializeOwned>(stdout: &str) -> Result<T, OutputError> {
    document(&strip_terminal(stdout)).map(|(_, document)| document)
}

/// The JSON document at the end of `text`, and where it begins. A document begins a line, and what begins within one does
/// not end it, so the last line from which a whole one can be read is its first.
fn document<T: DeserializeOwned>(text: &str) -> Result<(usize, T), OutputError> {
    let begins_line = |at: usize| at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
    let places = text
        .rmatch_indices(['{', '['])
        .map(|(at, _)| at)
        .filter(|at| begins_line(*at));
    let mut cut_short = false;
    for at in places.take(MAX_PLACES) {
        match whole::<T>(&text[at..]) {
            Ok(document) => return Ok((at, document)),
            Err(reason) => match whole::<IgnoredAny>(&text[at..]) {
                Ok(_) => {
                    return Err(OutputError::OtherForm(reasons::sentence(
                        &reason.to_string(),
                    )));
                }
                Err(reason) => cut_short |= ends_too_early(reason.inner(), &text[at..]),
            },
        }
    }
    Err(if cut_short {
        OutputError::CutShort
    } else {
        OutputError::NoJson(last_line(text))
    })
}

/// Whether `error` is that `text` ends, in the middle of a number too.
fn ends_too_early(error: &serde_json::Error, text: &str) -> bool {
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    error.classify() == Category::Eof
        || (error.column() >= last_line.len() && error.line() > text.matches('\n').count())
}

/// All of `text` as one JSON document.
fn whole<T: DeserializeOwned>(
    text: &str,
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document = serde_path_to_error::deserialize(&mut deserializer)?;
    deserializer.end().map_err(|error| {
        serde_path_to_error::Error::new(serde_path_to_error::Track::new().path(), error)
    })?;
    Ok(document)
}

/// What follows `sentence` on its line.
fn after<'a>(text: &'a str, sentence: &str) -> Option<&'a str> {
    text.split_once(sentence)?.1.lines().next()
}

/// Whether SkyPilot takes `name` for a cluster: a letter, then letters, digits, `-`, `_` and `.`, with a letter or digit at
/// the end. It has no limit of length; a cloud that has one gets the name shortened.
pub fn is_valid_cluster_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_name_char)
}

/// Whether `name` can be a cluster of Oumi's `slurm` cloud: `user@host`. Stricter than Oumi, in that neither part may begin
/// with a `-`, which ssh would take for an option.
pub fn is_valid_slurm_cluster_name(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('-') && part.chars().all(is_name_char);
    name.split_once('@')
        .is_some_and(|(user, host)| is_part(user) && is_part(host))
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}
