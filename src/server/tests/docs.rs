//! The pages of `docs/` that are made from the code, and the links of every page.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use rmcp::handler::server::common::schema_for_output;
use schemars::JsonSchema;
use serde_json::Value;

use crate::failure::Failure;
use crate::progress::Progress;
use crate::server::tools::{is_read_only, router};
use crate::service::answers::{
    CancelAnswer, ClusterAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer,
};
use crate::settings::env_vars;

const MADE: &str = "<!-- Made from the code: UPDATE_DOCS=1 cargo test --lib docs:: -->\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a page with what the code says, or writes it.
fn is_up_to_date(page: &str, text: &str) {
    let path = root().join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|old| old == text),
        "{page} is stale: run UPDATE_DOCS=1 cargo test --lib docs:: and commit it"
    );
}

/// The meanings of fields whose names say enough to those who read the code.
const MEANINGS: &[(&str, &str)] = &[
    ("cloud", "The cloud; absent on this machine."),
    ("cluster_name", "The name of the cluster."),
    ("command", "The command of Oumi: `train`, …"),
    ("done", "What is done of it, such as batches."),
    ("dry_run", "`true` for a preview."),
    ("error", "Why the call failed, and what to do."),
    ("failure", "Why it failed, for a failed job."),
    ("job_id", "The id of the job."),
    ("jobs", "The jobs, newest first."),
    ("learning_rate", "The learning rate."),
    ("lines_requested", "The lines asked for."),
    ("lines_returned", "The lines in the answer."),
    ("message", "What happened, in a sentence."),
    ("metadata", "What else the launcher says of the job."),
    ("model_name", "The `model.model_name` of the config."),
    ("next", "What to do next, and when to ask again."),
    ("oumi_job_id", "The launcher's own id."),
    (
        "progress",
        "How far it is, by its own words; absent where it prints no figures.",
    ),
    ("samples_per_second", "Samples a second."),
    ("stalled", "Bad news: the log has been silent for long."),
    (
        "state",
        "The meaning of `status`: `PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED`, `CANCELLED` or `UNKNOWN`.",
    ),
    ("status", "The launcher's own word."),
    ("steps_per_second", "Steps a second."),
    ("success", "`false` when the call failed."),
    ("total", "All that is to be done of it."),
    ("total_steps", "All steps of the run."),
    ("warnings", "What else to know."),
];

const UNDOCUMENTED: &str = "(no doc comment)";

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ")
        .replace('|', "\\|")
        .replace("`None`", "absent")
}

fn kind(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let choices = choices
            .iter()
            .map(|it| format!("`{}`", it.as_str().unwrap()));
        return choices.collect::<Vec<_>>().join(", ");
    }
    let kind = schema["type"].as_str().unwrap();
    match &schema["default"] {
        Value::Null => kind.to_owned(),
        default => format!("{kind}, `{default}`"),
    }
}

/// The rows of the fields of an object, and of those of the objects in it.
fn fields(schema: &Value, before: &str, page: &mut String) {
    for (name, schema) in schema["properties"].as_object().unwrap() {
        let known = MEANINGS.iter().find(|(field, _)| field == name);
        // A `$ref` brings the doc of the type.
        let own = schema["description"]
            .as_str()
            .filter(|_| schema["$ref"].is_null());
        let meaning = own.or(known.map(|(_, meaning)| *meaning));
        let meaning = meaning.unwrap_or(UNDOCUMENTED);
        writeln!(page, "| `{before}{name}` | {} |", cell(meaning)).unwrap();
        let (inner, mark) = match name.as_str() {
            "progress" if before.is_empty() => (schema_of::<Progress>(), "."),
            "failure" => (schema_of::<Failure>(), "."),
            _ if schema["items"]["properties"].is_object() => (schema["items"].clone(), "[]."),
            _ => continue,
        };
        fields(&inner, &format!("{before}{name}{mark}"), page);
        if name == "progress" {
            let age = "The age of these figures; absent once the job is over.";
            writeln!(page, "| `progress.age_seconds` | {age} |").unwrap();
        }
    }
}

fn schema_of<T: JsonSchema + 'static>() -> Value {
    Value::Object((*schema_for_output::<T>()).clone())
}

#[test]
fn the_page_of_tools() {
    let mut page = format!(
        "{MADE}# The tools\n\nThe descriptions are those that the assistant reads. An answer leaves out what says nothing: `null`, `false`, \
         and what is empty, but for `success`, `is_done`, `logs` and `jobs`.\n"
    );
    for tool in router().list_all() {
        let changes = if is_read_only(&tool) {
            "It changes nothing."
        } else {
            "It changes something: a client may ask you before each call."
        };
        let description = tool.description.unwrap();
        write!(page, "\n## {}\n\n{description}\n\n{changes}\n\n", tool.name).unwrap();
        page += "| argument | type, default | meaning |\n|---|---|---|\n";
        let input = Value::Object((*tool.input_schema).clone());
        for (name, schema) in input["properties"].as_object().unwrap() {
            let needed = input["required"]
                .as_array()
                .is_some_and(|all| all.contains(&name.as_str().into()));
            let needed = if needed { ", needed" } else { "" };
            let meaning = cell(schema["description"].as_str().unwrap_or_default());
            writeln!(page, "| `{name}` | {}{needed} | {meaning} |", kind(schema)).unwrap();
        }
        page += "\n| field of the answer | meaning |\n|---|---|\n";
        let answer = match &*tool.name {
            "run_job" => schema_of::<RunAnswer>(),
            "poll_status" => schema_of::<PollAnswer>(),
            "get_job_logs" => schema_of::<LogsAnswer>(),
            "cancel_job" => schema_of::<CancelAnswer>(),
            "list_jobs" => schema_of::<ListAnswer>(),
            "stop_cluster" | "down_cluster" => schema_of::<ClusterAnswer>(),
            new => panic!("the answer of {new} is to be named here"),
        };
        fields(&answer, "", &mut page);
    }
    let undocumented: Vec<_> = page
        .lines()
        .filter(|line| line.contains(UNDOCUMENTED))
        .collect();
    assert!(
        undocumented.is_empty(),
        "give these fields a doc comment: {undocumented:#?}"
    );
    is_up_to_date("docs/tools.md", &page);
}

#[test]
fn the_page_of_variables() {
    let mut page = format!(
        "{MADE}# The variables\n\nSet them in the client's configuration of this server (`env`). `oumi-mcp-server --help` prints them too.\n\n\
         | variable | meaning |\n|---|---|\n"
    );
    for (variable, meaning) in env_vars::all() {
        let meaning = cell(meaning).replace('<', "&lt;");
        writeln!(page, "| `{variable}` | {meaning} |").unwrap();
    }
    is_up_to_date("docs/variables.md", &page);
}

/// The pages of the repository.
fn pages() -> Vec<PathBuf> {
    fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
        for path in folder
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["target", ".git", "node_modules"].contains(&name) {
                collect(&path, pages);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    let mut pages = Vec::new();
    collect(root(), &mut pages);
    pages
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let leads = match fs::read_to_string(&file) {
                Ok(text) => anchor.is_empty() || anchors(&text).iter().any(|it| it == anchor),
                Err(_) => file.is_dir() && anchor.is_empty(),
            };
            if !leads {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
