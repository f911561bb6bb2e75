//! The prompts, which a person picks from a menu. Each is a file `prompts/*.md`: what the menu shows, and the message.

use std::collections::HashMap;

use rmcp::ErrorData;
use rmcp::model::{GetPromptRequestParams, GetPromptResult, Prompt, PromptMessage, Role};
use serde::Deserialize;

use super::{Answer, truncated};
use crate::text::from_yaml;

/// The longest argument. It may stand in a message several times.
const MAX_ARGUMENT_BYTES: usize = 4096;

/// The prompts, in the order in which they are needed.
const FILES: [&str; 3] = [
    include_str!("prompts/train.md"),
    include_str!("prompts/watch_job.md"),
    include_str!("prompts/why_failed.md"),
];

#[derive(Deserialize)]
struct Head {
    #[serde(flatten)]
    prompt: Prompt,
    /// The texts in place of arguments that were not given.
    defaults: HashMap<String, String>,
}

/// Returns the heads and the messages of the prompts; where no job may be started, without the one that does.
fn offered(read_only: bool) -> impl Iterator<Item = (Head, &'static str)> {
    // Every file has a head: tests read them all.
    let prompts = FILES.iter().filter_map(|file| {
        let (head, message) = file.strip_prefix("---\n")?.split_once("---\n")?;
        Some((from_yaml::<Head>(head).ok()?, message))
    });
    prompts.filter(move |(head, _)| !read_only || head.prompt.name != "train")
}

pub(super) fn list(read_only: bool) -> Vec<Prompt> {
    offered(read_only).map(|(head, _)| head.prompt).collect()
}

/// Returns the message of a prompt with its arguments, quoted as JSON. Clients send an empty text for what was left blank.
pub(super) fn get(request: GetPromptRequestParams, read_only: bool) -> Answer<GetPromptResult> {
    let invalid = |error: String| ErrorData::invalid_params(error, None);
    let mut prompts = offered(read_only);
    let (Head { prompt, defaults }, message) = prompts
        .find(|(head, _)| head.prompt.name == request.name)
        .ok_or_else(|| invalid(format!("Unknown prompt: {}", truncated(&request.name))))?;
    let mut given = request.arguments.unwrap_or_default();
    given.retain(|_, value| !value.is_null() && value != "");
    let fits = |text: &str| text.len() <= MAX_ARGUMENT_BYTES && !text.contains(char::is_control);
    let mut values = HashMap::new();
    for argument in prompt.arguments.into_iter().flatten() {
        let name = argument.name;
        let value = match (given.get(&name), defaults.get(&name)) {
            (Some(value), _) if value.as_str().is_some_and(fits) => value.to_string(),
            (None, Some(default)) => default.clone(),
            _ => {
                return Err(invalid(format!(
                    "the prompt {} needs the argument `{name}` as one line of text, of at most {MAX_ARGUMENT_BYTES} bytes: {}",
                    prompt.name,
                    argument.description.unwrap_or_default()
                )));
            }
        };
        values.insert(name, value);
    }
    // Between braces stand the names of arguments. A value may have braces too.
    let parts = message.trim_end().split(['{', '}']);
    let parts = parts.map(|part| values.get(part).map_or(part, String::as_str));
    let message = PromptMessage::new_text(Role::User, parts.collect::<String>());
    let description = prompt.description.unwrap_or_default();
    Ok(GetPromptResult::new(vec![message]).with_description(description))
}
