//! The prompts: what a person picks from a menu instead of typing it. Each is a file `prompts/*.md`: what the menu shows, and the
//! message.

use rmcp::ErrorData;
use rmcp::model::{
    GetPromptRequestParams, GetPromptResult, Prompt, PromptArgument, PromptMessage, Role,
};
use serde::Deserialize;

use super::{Answer, truncated};
use crate::text::from_yaml;

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
        Some((*name, from_yaml(head).ok()?, message))
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

/// Returns the message of a prompt, with its arguments filled in, quoted as JSON. An empty one counts as not given: clients send
/// what was left blank.
pub(super) fn get(request: GetPromptRequestParams, read_only: bool) -> Answer<GetPromptResult> {
    let invalid = |error: String| ErrorData::invalid_params(error, None);
    let mut prompts = offered(read_only);
    let (prompt, head, message) = prompts
        .find(|(name, ..)| *name == request.name)
        .ok_or_else(|| invalid(format!("Unknown prompt: {}", truncated(&request.name))))?;
    let mut given = request.arguments.unwrap_or_default();
    given.retain(|_, value| !value.is_null() && value != "");
    let mut message = message.trim_end().to_owned();
    for argument in head.arguments {
        let Argument {
            name,
            description,
            default,
        } = argument;
        let value = match (given.get(&name), default) {
            (Some(value), _) if value.as_str().is_some_and(is_one_line) => value.to_string(),
            (None, Some(default)) => default,
            _ => {
                return Err(invalid(format!(
                    "the prompt {prompt} needs the argument `{name}` as one line of text, of at most {MAX_ARGUMENT_BYTES} bytes: {description}"
                )));
            }
        };
        message = message.replace(&format!("{{{name}}}"), &value);
    }
    let message = PromptMessage::new_text(Role::User, message);
    Ok(GetPromptResult::new(vec![message]).with_description(head.description))
}

fn is_one_line(text: &str) -> bool {
    text.len() <= MAX_ARGUMENT_BYTES && !text.contains(char::is_control)
}
