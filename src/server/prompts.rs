//! The prompts: what a person picks from a menu instead of typing it. Their texts are `prompts/*.md`.

use rmcp::ErrorData;
use rmcp::model::{
    GetPromptRequestParams, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage,
    Role,
};

use super::truncated;

/// Longer than any real path or name.
const MAX_ARGUMENT_BYTES: usize = 4096;

struct Template {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    arguments: &'static [Argument],
    /// The message, with `{name}` in place of each argument.
    text: &'static str,
    /// Offered only where jobs may be started.
    starts_jobs: bool,
}

struct Argument {
    name: &'static str,
    description: &'static str,
    /// The text that replaces an argument that was not given; `None` if the argument is required.
    default: Option<&'static str>,
}

const fn job(default: &'static str) -> Argument {
    Argument {
        name: "job_id",
        description: "The job. Default: the newest that fits.",
        default: Some(default),
    }
}

const TEMPLATES: [Template; 3] = [
    Template {
        name: "train",
        title: "Train from a config",
        description: "Preview a training run, launch it once you agree, and see it start.",
        arguments: &[
            Argument {
                name: "config_path",
                description: "The Oumi YAML file, in the project or absolute.",
                default: None,
            },
            Argument {
                name: "cloud",
                description: "Where: local, or a cloud such as gcp, aws, slurm. Default: this machine.",
                default: Some("\"local\""),
            },
        ],
        text: include_str!("prompts/train.md"),
        starts_jobs: true,
    },
    Template {
        name: "watch_job",
        title: "Watch a job",
        description: "Follow a job to its end, with few words in between.",
        arguments: &[job(
            "the newest that list_jobs shows with status=\"running\"; tell me which. If there is none, say so and stop",
        )],
        text: include_str!("prompts/watch_job.md"),
        starts_jobs: false,
    },
    Template {
        name: "why_failed",
        title: "Why did it fail?",
        description: "Find out why a job failed, and what to change.",
        arguments: &[job(
            "the newest failed one that list_jobs shows with status=\"completed\"; tell me which. If there is none, say so and stop",
        )],
        text: include_str!("prompts/why_failed.md"),
        starts_jobs: false,
    },
];

/// Lists the prompts, in the order in which they are needed.
pub(super) fn list(read_only: bool) -> Vec<Prompt> {
    offered(read_only).map(Template::prompt).collect()
}

fn offered(read_only: bool) -> impl Iterator<Item = &'static Template> {
    (TEMPLATES.iter()).filter(move |template| !read_only || !template.starts_jobs)
}

/// Returns the message of a prompt, with its arguments filled in.
pub(super) fn get(
    request: GetPromptRequestParams,
    read_only: bool,
) -> Result<GetPromptResult, ErrorData> {
    let template = offered(read_only)
        .find(|template| template.name == request.name)
        .ok_or_else(|| invalid(format!("Unknown prompt: {}", truncated(&request.name))))?;
    let message = template.fill(request.arguments.unwrap_or_default())?;
    let message = PromptMessage::new_text(Role::User, message);
    Ok(GetPromptResult::new(vec![message]).with_description(template.description))
}

impl Template {
    fn prompt(&self) -> Prompt {
        let arguments = self.arguments.iter().map(|argument| {
            PromptArgument::new(argument.name)
                .with_description(argument.description)
                .with_required(argument.default.is_none())
        });
        Prompt::new(self.name, Some(self.description), Some(arguments.collect()))
            .with_title(self.title)
    }

    /// Puts the arguments into the text, quoted as JSON. An empty one counts as not given: clients send what was left blank.
    fn fill(&self, mut given: JsonObject) -> Result<String, ErrorData> {
        given.retain(|_, value| !value.is_null() && value != "");
        let known: Vec<_> = self.arguments.iter().map(|known| known.name).collect();
        if let Some(unknown) = given.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(invalid(format!(
                "the prompt {} has no argument `{}`; it takes {}",
                self.name,
                truncated(unknown),
                known.join(", ")
            )));
        }
        let mut text = self.text.trim_end().to_owned();
        for Argument {
            name,
            description,
            default,
        } in self.arguments
        {
            let value = match (given.shift_remove(*name), default) {
                (Some(value), _) if value.as_str().is_some_and(is_one_line) => value.to_string(),
                (Some(_), _) => {
                    return Err(invalid(format!(
                        "the argument `{name}` does not fit: it is one line of text, of at most {MAX_ARGUMENT_BYTES} bytes"
                    )));
                }
                (None, Some(default)) => (*default).to_owned(),
                (None, None) => {
                    return Err(invalid(format!(
                        "the prompt {} needs the argument `{name}`: {description}",
                        self.name
                    )));
                }
            };
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        Ok(text)
    }
}

fn is_one_line(text: &str) -> bool {
    text.len() <= MAX_ARGUMENT_BYTES && !text.contains(char::is_control)
}

fn invalid(error: String) -> ErrorData {
    ErrorData::invalid_params(error, None)
}
