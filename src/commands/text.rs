//! Answers as a person reads them: tables and sentences, as wide as the terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Utc};
use rustix::termios::tcgetwinsize;
use serde_json::Value;

use crate::progress::stall::span;

/// The widths between which sentences are wrapped, in columns.
const NARROWEST: usize = 40;
const WIDEST: usize = 100;
/// The widest column of a table but the last, on a terminal.
const WIDEST_CELL: usize = 32;
/// The width of the names in front of sentences.
const LABEL: usize = 10;

/// The tools that the service's sentences name, and the commands that do the same.
const COMMANDS: [(&str, &str); 5] = [
    ("list_jobs", "`list`"),
    ("poll_status", "`status`"),
    ("get_job_logs", "`logs`"),
    ("cancel_job", "`cancel`"),
    ("oumi_job_id", "the launcher's id"),
];

/// Names commands in place of tools.
pub(crate) fn for_person(text: &str) -> String {
    let replace = |text: String, (tool, command): &(&str, &str)| text.replace(tool, command);
    COMMANDS.iter().fold(text.to_owned(), replace)
}

/// Returns the columns of the terminal that standard output is; `None` where it is none, and lines may be of any length.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    let size = tcgetwinsize(&stdout)
        .ok()
        .filter(|_| stdout.is_terminal())?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Renders the answer of `list_jobs` at `now`.
pub(crate) fn list(answer: &Value, now: DateTime<Utc>) -> String {
    list_within(answer, now, terminal_width())
}

fn list_within(answer: &Value, now: DateTime<Utc>, width: Option<usize>) -> String {
    let mut rows = vec![["JOB", "STATE", "WHERE", "AGE", "DETAILS"].map(str::to_owned)];
    let jobs = answer["jobs"].as_array().into_iter().flatten();
    rows.extend(jobs.map(|job| row(job, now)));
    let mut text = match rows.len() {
        1 => "There are no such jobs.\n".to_owned(),
        _ => table(&rows, width),
    };
    let older = answer["not_shown"].as_u64();
    let older = older.map(|count| format!("{count} older jobs are not shown; -n shows more"));
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(Value::as_str).map(for_person);
    let error = answer["error"].as_str().map(for_person);
    let notes = error.into_iter().chain(older).chain(warnings);
    for note in notes {
        text.push('\n');
        text.push_str(&labelled("note", &note, width));
    }
    text
}

fn row(job: &Value, now: DateTime<Utc>) -> [String; 5] {
    let text = |field: &str| job[field].as_str().unwrap_or_default();
    let state = match text("state") {
        // The launcher's word says more.
        "UNKNOWN" => text("status").to_owned(),
        state => state.to_lowercase(),
    };
    let place = [text("cloud"), text("cluster")];
    let place = place.iter().copied().filter(|part| !part.is_empty());
    // A row leaves the year out: it is the last in which the day has been.
    let in_year = |year: i32| {
        let time = format!("{year}-{}", text("submitted"));
        NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M").ok()
    };
    let mut times = [in_year(now.year()), in_year(now.year() - 1)]
        .into_iter()
        .flatten();
    let submitted = times.find(|time| time.and_utc() <= now + TimeDelta::days(1));
    let age = submitted.map(|time| (now - time.and_utc()).to_std().unwrap_or_default());
    let output = match text("output") {
        "" => String::new(),
        path => format!("output: {path}"),
    };
    let details = [text("progress"), &output, text("config")];
    let details = details.into_iter().find(|text| !text.is_empty());
    [
        text("job_id").to_owned(),
        state,
        match place.collect::<Vec<_>>().join("/") {
            place if place.is_empty() => "local".to_owned(),
            place => place,
        },
        age.map_or_else(String::new, age_text),
        details.unwrap_or_default().to_owned(),
    ]
}

fn age_text(age: Duration) -> String {
    match age.as_secs() / 86_400 {
        days @ 3.. => format!("{days} d"),
        // It is known to the minute.
        _ if age.as_secs() < 120 => "< 2 min".to_owned(),
        _ => span(age),
    }
}

/// Renders rows of cells in columns. Where there is a width, cells are cut so that no line is wider.
fn table<const N: usize>(rows: &[[String; N]], width: Option<usize>) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = cell.chars().count().max(*widest);
        }
    }
    if let Some(width) = width {
        widths
            .iter_mut()
            .for_each(|cell| *cell = (*cell).min(WIDEST_CELL));
        let before: usize = widths[..N - 1].iter().map(|cell| cell + 2).sum();
        widths[N - 1] = width.saturating_sub(before).max(1);
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{:width$}  ", cut(cell, width)))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept = cell.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

/// Renders the answer of `poll_status` or `cancel_job`: how the job is, and below why, where its output is, and its cost.
pub(crate) fn job(answer: &Value) -> String {
    job_within(answer, terminal_width())
}

fn job_within(answer: &Value, width: Option<usize>) -> String {
    let text = |value: &Value| value.as_str().map(for_person);
    let first = first_line(answer);
    let failure = &answer["failure"];
    let why = text(&failure["what"]);
    let why = why.filter(|why| !first.contains(why.trim_end_matches('.')));
    let mut lines = wrapped(&first, 0, width);
    let is_done = answer["is_done"] == true;
    let left = answer["progress"]["seconds_left"].as_f64();
    let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let output =
        answer["output_dir"]
            .as_str()
            .map(|dir| match answer["last_checkpoint"].as_str() {
                Some(checkpoint) => format!("{dir}, last checkpoint {checkpoint}"),
                None => dir.to_owned(),
            });
    let fields = [
        ("why", why),
        ("advice", text(&failure["advice"])),
        (
            "left",
            left.filter(|_| !is_done)
                .map(|left| format!("about {}", span(left))),
        ),
        ("output", output),
        ("cost", text(&answer["spent"])),
        ("log", text(&answer["log_file"])),
    ];
    let list = |field: &str| answer[field].as_array().into_iter().flatten();
    let links = list("links").map(|link| ("link", text(link)));
    let notes = list("warnings").map(|warning| ("note", text(warning)));
    for (label, value) in fields.into_iter().chain(links).chain(notes) {
        if let Some(value) = value {
            lines.push('\n');
            lines.push_str(&labelled(label, &value, width));
        }
    }
    lines
}

/// Renders how a job is in a sentence: the launcher's word, and what there is to say.
pub(crate) fn first_line(answer: &Value) -> String {
    let field = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
    let sentence = field("error").or_else(|| field("message"));
    let parts: Vec<&str> = field("status").into_iter().chain(sentence).collect();
    for_person(&parts.join(": "))
}

/// Renders a sentence behind its name.
pub(crate) fn labelled(label: &str, text: &str, width: Option<usize>) -> String {
    let indent = label.chars().count().max(LABEL);
    format!("{label:indent$}{}", wrapped(text, indent, width))
}

/// Wraps a text into lines with `indent` blanks before all but the first.
fn wrapped(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let width = width.clamp(NARROWEST, WIDEST) - indent;
    let (mut lines, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            column = 0;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

#[cfg(test)]
#[path = "tests/text.rs"]
mod tests;
