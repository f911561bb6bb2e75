//! The prompts: what a person picks from a menu instead of typing it. Each is a file `prompts/*.md`: what the menu shows, and the
//! message.

use rmcp::ErrorData;
use rmcp::model::{
    GetPromptRequestParams, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage,
    Role,
};
use serde::Deserialize;

use super::truncated;
use crate::error::JobError;

/// Longer than any real path or name.
const MAX_ARGUMENT_BYTES: usize = 4096;

/// The prompts, in the order in which they are needed.
const FILES: [(&str, &str); 3] = [
    ("train", include_str!("prompts/train.md")),
    ("watch_job", include_str!("prompts/watch_job.md")),
    ("why_failed", include_str!("prompts/why_failed.md")),
];

#[derive(Deserialize)]
struct Head {
    title: String,
    description: String,
    arguments: Vec<Argument>,
}

#[derive(Deserialize)]
struct Argument {
    name: String,
    description: String,
    /// The text in place of an argument that was not given; `None` if it is required.
    default: Option<String>,
}

/// Returns the name, the head and the message of the prompts; where no job may be started, without the one that does.
fn offered(read_only: bool) -> impl Iterator<Item = (&'static str, Head, &'static str)> {
    let files = FILES
        .iter()
        .filter(move |(name, _)| !read_only || *name != "train");
    // Every file has a head: tests read them all.
    files.filter_map(|(name, file)| {
        let (head, message) = file.strip_prefix("---\n")?.split_once("---\n")?;
        Some((*name, serde_saphyr::from_str(head).ok()?, message))
    })
}

pub(super) fn list(read_only: bool) -> Vec<Prompt> {
    let prompts = offered(read_only).map(|(name, head, _)| {
        let arguments = head.arguments.iter().map(|argument| {
            PromptArgument::new(&argument.name)
                .with_description(&argument.description)
                .with_required(argument.default.is_none())
        });
        Prompt::new(name, Some(head.description), Some(arguments.collect())).with_title(head.title)
    });
    prompts.collect()
}

/// Returns the message of a prompt, with its arguments filled in.
pub(super) fn get(
    request: GetPromptRequestParams,
    read_only: bool,
) -> Result<GetPromptResult, ErrorData> {
    let invalid = |error: String| ErrorData::invalid_params(error, None);
    let mut prompts = offered(read_only);
    let (name, head, message) = prompts
        .find(|(name, ..)| *name == request.name)
        .ok_or_else(|| invalid(format!("Unknown prompt: {}", truncated(&request.name))))?;
    let filled = fill(
        message,
        &head.arguments,
        request.arguments.unwrap_or_default(),
    );
    let message = filled.map_err(|error| invalid(format!("the prompt {name}: {error}")))?;
    let message = PromptMessage::new_text(Role::User, message);
    Ok(GetPromptResult::new(vec![message]).with_description(head.description))
}

/// Puts the arguments into the text, quoted as JSON. An empty one counts as not given: clients send what was left blank.
fn fill(text: &str, known: &[Argument], mut given: JsonObject) -> Result<String, JobError> {
    given.retain(|_, value| !value.is_null() && value != "");
    let mut text = text.trim_end().to_owned();
    for Argument {
        name,
        description,
        default,
    } in known
    {
        let value = match (given.shift_remove(name), default) {
            (Some(value), _) if value.as_str().is_some_and(is_one_line) => value.to_string(),
            (Some(_), _) => {
                let error = format!(
                    "the argument `{name}` does not fit: it is one line of text, of at most {MAX_ARGUMENT_BYTES} bytes"
                );
                return Err(JobError::invalid(error));
            }
            (None, Some(default)) => default.clone(),
            (None, None) => {
                let error = format!("it needs the argument `{name}`: {description}");
                return Err(JobError::invalid(error));
            }
        };
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    Ok(text)
}

fn is_one_line(text: &str) -> bool {
    text.len() <= MAX_ARGUMENT_BYTES && !text.contains(char::is_control)
}
