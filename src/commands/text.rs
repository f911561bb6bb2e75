//! Answers as a person reads them: a table, or a line for each thing there is to know.

use std::time::Duration;

use serde_json::Value;

use super::note;
use crate::text::span;

/// The tools that the service's sentences name, and the commands that do the same.
const COMMANDS: [(&str, &str); 8] = [
    ("list_jobs", "`list`"),
    ("poll_status", "`status`"),
    ("get_job_logs", "`logs`"),
    ("cancel_job", "`cancel`"),
    ("force=true", "--force"),
    ("stop_cluster", "`sky stop`"),
    ("down_cluster", "`sky down`"),
    ("oumi_job_id", "(in an MCP client) the launcher's id"),
];

pub(crate) fn for_person(text: &str) -> String {
    let replace = |text: String, (tool, command): &(&str, &str)| text.replace(tool, command);
    COMMANDS.iter().fold(text.to_owned(), replace)
}

/// Renders the answer of `list_jobs`.
pub(super) fn list(answer: &Value) -> String {
    let times = answer["times"].as_str().unwrap_or("UTC");
    let heads = ["JOB", "STATUS", "WHERE", times, "DETAILS"].map(str::to_owned);
    let mut rows = vec![heads];
    rows.extend(elements(answer, "jobs").map(row));
    let mut text = match rows.len() {
        1 => "No jobs to show.\n".to_owned(),
        _ => table(&rows),
    };
    let mut note = |sentence: &str| text += &labelled("note", &for_person(sentence));
    answer["error"].as_str().into_iter().for_each(&mut note);
    if let Some(count) = answer["not_shown"].as_u64() {
        note(&format!("{count} older jobs are not shown; -n shows more"));
    }
    let warnings = elements(answer, "warnings").filter_map(Value::as_str);
    warnings.for_each(note);
    text
}

fn elements<'a>(answer: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    answer[field].as_array().into_iter().flatten()
}

fn row(job: &Value) -> [String; 5] {
    let text = |field: &str| job[field].as_str().unwrap_or_default();
    let place = match (text("cloud"), text("cluster")) {
        ("", _) => "local".to_owned(),
        (cloud, "") => cloud.to_owned(),
        (cloud, cluster) => format!("{cloud}/{cluster}"),
    };
    let details = ["progress", "output", "config", "name"].map(text);
    let details = details.into_iter().find(|text| !text.is_empty());
    [
        text("job_id").to_owned(),
        text("status").to_lowercase(),
        place,
        text("submitted").to_owned(),
        details.unwrap_or_default().to_owned(),
    ]
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let length = |column: usize| rows.iter().map(move |row| row[column].chars().count());
    let widths: [usize; N] = std::array::from_fn(|column| length(column).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Renders the answer of `poll_status` or `cancel_job`: how the job is, and below why, where its output is, and its cost.
pub(super) fn job(answer: &Value) -> String {
    let first = for_person(&first_line(answer));
    let is_new = |text: &&str| !first.contains(text.trim_end_matches('.'));
    let why = answer["failure"]["what"].as_str().filter(is_new);
    let left = time_left(answer["progress"]["seconds_left"].as_f64());
    let left = left.filter(|_| answer["is_done"] != true);
    let left = left.map(|left| format!("about {left}"));
    let fields = [
        ("why", why),
        ("advice", answer["failure"]["advice"].as_str()),
        ("log", answer["failure"]["last_lines"].as_str()),
        ("left", left.as_deref()),
        ("output", answer["output_dir"].as_str()),
        ("saved", answer["last_checkpoint"].as_str()),
        ("cost", answer["spent"].as_str()),
    ];
    let links = elements(answer, "links").map(|link| ("link", link.as_str()));
    let notes = elements(answer, "warnings").map(|warning| ("note", warning.as_str()));
    let lines = fields.into_iter().chain(links).chain(notes);
    let lines = lines.filter_map(|(label, text)| Some(labelled(label, &for_person(text?))));
    format!("{first}\n{}", lines.collect::<String>())
}

pub(super) fn time_left(seconds: Option<f64>) -> Option<String> {
    let left = Duration::try_from_secs_f64(seconds?).ok()?;
    Some(span(left))
}

/// Renders the answer of `get_job_logs`; what is said beside the lines goes to stderr.
pub(super) fn log(answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let beside = [text("error"), text("message")];
    for sentence in beside.into_iter().filter(|text| !text.is_empty()) {
        note(&for_person(sentence).replace("log_file", text("log_file")));
    }
    let lines = [text("logs"), text("unfinished")].join("\n");
    lines.trim_matches('\n').to_owned()
}

/// Renders how a job is in a sentence: the launcher's word, and what there is to say.
pub(crate) fn first_line(answer: &Value) -> String {
    let field = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
    let sentence = field("error").or_else(|| field("message"));
    let parts: Vec<&str> = field("status").into_iter().chain(sentence).collect();
    parts.join(": ")
}

fn labelled(label: &str, text: &str) -> String {
    format!("{label:8}{}\n", text.replace('\n', "\n        "))
}

#[cfg(test)]
mod tests;
