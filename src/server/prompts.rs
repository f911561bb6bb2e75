//! The prompts: what a person picks from a menu instead of typing it.

use rmcp::ErrorData;
use rmcp::model::{
    GetPromptRequestParams, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage,
    Role,
};

use super::shown;
use crate::launcher::local::LOCAL;

const JOB_ID: &str = "job_id";

const TRAIN: &str = "train";

/// Longer than any path or name that is meant.
const MAX_ARGUMENT_BYTES: usize = 4096;

struct Template {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    arguments: &'static [Argument],
    text: fn(&JsonObject) -> String,
}

struct Argument {
    name: &'static str,
    description: &'static str,
    required: bool,
}

const JOB: Argument = Argument {
    name: JOB_ID,
    description: "The job. Default: the newest that fits.",
    required: false,
};

const TEMPLATES: [Template; 3] = [
    Template {
        name: TRAIN,
        title: "Train from a config",
        description: "Preview a training run, launch it once you agree, and see it start.",
        arguments: &[
            Argument {
                name: "config_path",
                description: "The Oumi YAML file, in the project or absolute.",
                required: true,
            },
            Argument {
                name: "cloud",
                description: "Where: local, or a cloud such as gcp, aws, slurm. Default: this machine.",
                required: false,
            },
        ],
        text: train,
    },
    Template {
        name: "watch_job",
        title: "Watch a job",
        description: "Follow a job to its end, with few words in between.",
        arguments: &[JOB],
        text: watch,
    },
    Template {
        name: "why_failed",
        title: "Why did it fail?",
        description: "Find out why a job failed, and what to change.",
        arguments: &[JOB],
        text: why,
    },
];

fn train(given: &JsonObject) -> String {
    let said = |name: &str, otherwise: &str| {
        given
            .get(name)
            .map_or_else(|| format!("{otherwise:?}"), ToString::to_string)
    };
    let (config, cloud) = (said("config_path", ""), said("cloud", LOCAL));
    format!(
        "Run an Oumi training from {config}, on cloud {cloud}.\n\
         1. Call run_job with config_path={config}, command=\"train\", cloud={cloud} and client_cwd, the absolute path of my \
         project folder. Leave dry_run=true: that starts nothing.\n\
         2. OnProgress me in a few lines what would run and where: the model, the command, the machines and what they may cost, where \
         the output goes, and every warning. If the preview fails, say why and what to change, and stop.\n\
         3. Ask me whether to launch it. Only when I have agreed, call run_job again as the preview's message says, and tell me \
         the job_id.\n\
         4. Call poll_status until the job runs or has ended, and tell me how it is. If it failed, read get_job_logs and tell \
         me why."
    )
}

fn watch(given: &JsonObject) -> String {
    let job = which(given, "status=\"running\"", "running");
    format!(
        "Watch an Oumi job until it ends. {job}\n\
         1. Call poll_status. OnProgress me in one or two sentences how the job is: its state and, where the answer or the end of \
         get_job_logs shows it, the step, the loss and the time left.\n\
         2. While is_done is false, call poll_status again with wait_seconds=55, when its `next` says, and speak only when \
         something changed: a new state, a loss that rises or is not a number, a log that has gone silent. \
         Change nothing by yourself; if the job looks wrong, say so and ask me what to do.\n\
         3. When it is done, say how it ended and where its output is. If it failed, read get_job_logs and tell me why. If it \
         ran on a cloud and its cluster is still up, remind me that it costs money."
    )
}

fn why(given: &JsonObject) -> String {
    let job = which(given, "status=\"completed\"", "failed");
    format!(
        "Find out why an Oumi job failed. {job}\n\
         1. Call poll_status: `failure` is what is known of the end. If the job did not fail, say how it is, and stop.\n\
         2. Call get_job_logs and read the end. If the first error is further up, ask for more lines.\n\
         3. OnProgress me the cause in a sentence, with the line of the log that shows it, apart from what only followed from it.\n\
         4. Say what to change, in the config (read the file at config_path), the environment or the machine. Change and \
         launch nothing before I agree. If the log does not show the cause, say so; do not guess."
    )
}

/// How the job that is meant is found.
fn which(given: &JsonObject, filter: &str, wanted: &str) -> String {
    match given.get(JOB_ID) {
        Some(job) => format!("Its job_id is {job}."),
        None => format!(
            "Call list_jobs with {filter} and take the newest that is {wanted}, and tell me which. If there is none, say so, \
             and stop."
        ),
    }
}

/// The prompts, in the order in which they are wanted.
pub(super) fn list(read_only: bool) -> Vec<Prompt> {
    offered(read_only).map(Template::prompt).collect()
}

/// What changes something is offered only where that is allowed.
fn offered(read_only: bool) -> impl Iterator<Item = &'static Template> {
    TEMPLATES
        .iter()
        .filter(move |template| !read_only || template.name != TRAIN)
}

/// The messages of a prompt.
pub(super) fn get(
    request: GetPromptRequestParams,
    read_only: bool,
) -> Result<GetPromptResult, ErrorData> {
    let template = find(&request.name, read_only)?;
    let given = template.check(request.arguments.unwrap_or_default())?;
    let message = PromptMessage::new_text(Role::User, (template.text)(&given));
    Ok(GetPromptResult::new(vec![message]).with_description(template.description))
}

fn find(name: &str, read_only: bool) -> Result<&'static Template, ErrorData> {
    offered(read_only)
        .find(|template| template.name == name)
        .ok_or_else(|| invalid(format!("Unknown prompt: {}", shown(name))))
}

impl Template {
    fn prompt(&self) -> Prompt {
        let arguments = self.arguments.iter().map(|argument| {
            PromptArgument::new(argument.name)
                .with_description(argument.description)
                .with_required(argument.required)
        });
        Prompt::new(self.name, Some(self.description), Some(arguments.collect()))
            .with_title(self.title)
    }

    fn argument(&self, name: &str) -> Option<&Argument> {
        self.arguments.iter().find(|argument| argument.name == name)
    }

    /// The arguments that were given. An empty one counts as not given: clients send what a person left blank.
    fn check(&self, mut given: JsonObject) -> Result<JsonObject, ErrorData> {
        given.retain(|_, value| !value.is_null() && value != "");
        for (name, value) in &given {
            if self.argument(name).is_none() {
                let known: Vec<_> = self.arguments.iter().map(|known| known.name).collect();
                let error = format!(
                    "the prompt {} has no argument `{}`; it takes {}",
                    self.name,
                    shown(name),
                    known.join(", ")
                );
                return Err(invalid(error));
            }
            let fits = |text: &str| {
                text.len() <= MAX_ARGUMENT_BYTES && !text.contains(|other: char| other.is_control())
            };
            if !value.as_str().is_some_and(fits) {
                let error = format!(
                    "the argument `{name}` does not fit: it is one line of text, of at most {MAX_ARGUMENT_BYTES} bytes"
                );
                return Err(invalid(error));
            }
        }
        match self
            .arguments
            .iter()
            .find(|argument| argument.required && !given.contains_key(argument.name))
        {
            Some(missing) => Err(invalid(format!(
                "the prompt {} needs the argument `{}`: {}",
                self.name, missing.name, missing.description
            ))),
            None => Ok(given),
        }
    }
}

fn invalid(error: String) -> ErrorData {
    ErrorData::invalid_params(error, None)
}
