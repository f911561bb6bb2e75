//! What `sky` prints: JSON behind lines of text for the queue and the clusters, sentences for everything else.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::reasons::{failure_reason, last_line, sentence};
use super::{OutputError, after, document, strip_terminal};

/// The jobs of the clusters that were asked, from `sky queue -o json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Queue {
    /// The jobs of each cluster that answered, newest first.
    pub jobs: BTreeMap<String, Vec<QueuedJob>>,
    /// Why the other clusters did not. `sky` exits 0 all the same.
    pub unanswered: BTreeMap<String, QueueFailure>,
}

/// A job on a cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueuedJob {
    /// SkyPilot's id; it counts from 1 on each cluster.
    pub job_id: String,
    /// The name in the job config.
    pub job_name: String,
    /// SkyPilot's word.
    pub status: String,
    /// Who submitted it.
    pub username: String,
    /// What it runs on, such as `1x[A100:8]`.
    pub resources: String,
    /// When it was submitted, in seconds since 1970.
    pub submitted_at: Option<f64>,
    /// When it began to run.
    pub start_at: Option<f64>,
    /// When it ended.
    pub end_at: Option<f64>,
}

/// Why a cluster's queue could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueFailure {
    /// There is no such cluster (any more).
    ClusterGone,
    /// It is being set up, or stopped. The text is SkyPilot's.
    ClusterNotUp(String),
    /// Anything else. The text is SkyPilot's.
    Other(String),
}

/// A cluster, from `sky status -o json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// SkyPilot's word: `INIT`, `UP`, `STOPPED`, or one of newer versions.
    pub status: String,
    /// After how many idle minutes it stops itself; nothing when it does not.
    pub autostop_minutes: Option<u64>,
    /// It is turned down instead of stopped then.
    pub to_down: bool,
    /// The cloud, in SkyPilot's spelling.
    pub cloud: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// How many nodes.
    pub nodes: Option<u64>,
    /// What each node is, in SkyPilot's words.
    pub resources: Option<String>,
    /// Its accelerators, in SkyPilot's words.
    pub accelerators: Option<String>,
    /// When it was launched, in seconds since 1970.
    pub launched_at: Option<f64>,
    /// What it costs an hour, in dollars. SkyPilot 0.12 does not say.
    pub hourly_price: Option<f64>,
}

/// What the exit code of `sky logs` says about the job. Only one of them is a failure of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkyLogsExit {
    /// 0: it runs, or it ended well.
    RunningOrSucceeded,
    /// 100: it failed.
    Failed,
    /// 101: it has not ended.
    NotFinished,
    /// 102: there is no such job.
    NotFound,
    /// 103: it was cancelled.
    Cancelled,
    /// Anything else: there are no logs to be had; the reason is on stderr.
    NoLogs,
}

/// How `sky cancel` went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkyCancel {
    /// These jobs were cancelled.
    Cancelled(Vec<String>),
    /// None was: they had ended, or never were.
    NoneCancelled,
    /// There is no such cluster (any more).
    ClusterGone,
    /// It is being set up, or stopped. The text is SkyPilot's.
    ClusterNotUp(String),
    /// Anything else. The text is SkyPilot's.
    Failed(String),
}

/// How `sky stop` or `sky down` went. They exit 0 in each case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkyTeardown {
    /// It was stopped, or turned down.
    Done,
    /// There is no such cluster (any more).
    ClusterNotFound,
    /// Such a cluster cannot be stopped, only turned down. The text is SkyPilot's.
    CannotStop(String),
    /// Anything else. The text is SkyPilot's.
    Failed(String),
}

/// The jobs in the output of `sky queue -o json`.
///
/// # Errors
/// When there is no whole JSON document in it.
pub fn queue(stdout: &str) -> Result<Queue, OutputError> {
    let text = strip_terminal(stdout);
    let (start, rows) = document::<BTreeMap<String, Vec<Map<String, Value>>>>(&text)?;
    let jobs = rows
        .into_iter()
        .map(|(cluster, rows)| (cluster, rows.iter().filter_map(job).collect()))
        .collect();
    Ok(Queue {
        jobs,
        unanswered: unanswered(&text[..start]),
    })
}

/// The clusters in the output of `sky status -o json`.
///
/// # Errors
/// When there is no whole JSON document in it.
pub fn clusters(stdout: &str) -> Result<Vec<Cluster>, OutputError> {
    let rows: Vec<Map<String, Value>> = super::json_document(stdout)?;
    Ok(rows.iter().filter_map(cluster).collect())
}

/// The job's lines in the output of `sky logs`, as they are, but without the line that says what is tailed, and without the
/// prefix `(name, pid=…) ` or `(setup pid=…) ` of each: one that says more tells nodes apart and stays. What becomes of a
/// line depends on that line alone, so that it reads the same in each answer.
pub fn sky_log_lines(stdout: &str) -> String {
    stdout
        .split_inclusive(['\n', '\r'])
        .filter(|line| !after_colours(line).starts_with("Tailing logs of "))
        .map(|line| without_prefix(line).unwrap_or(line))
        .collect()
}

/// The exit code of a job that failed, by what SkyPilot says at the end of its log: that of the first node that failed.
pub fn exit_code(log: &str) -> Option<i32> {
    let log = strip_terminal(log);
    let (_, said) = log.rsplit_once("failed with return code list: [")?;
    let (codes, _) = said.split_once(']')?;
    let codes = codes.split(',').map(|code| code.trim().parse().ok());
    codes.flatten().find(|code| *code != 0)
}

impl SkyLogsExit {
    /// What `code` says; nothing when a signal ended the call.
    pub fn from_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::RunningOrSucceeded,
            Some(100) => Self::Failed,
            Some(101) => Self::NotFinished,
            Some(102) => Self::NotFound,
            Some(103) => Self::Cancelled,
            _ => Self::NoLogs,
        }
    }
}

/// How `sky cancel` went, from its stdout and stderr together.
pub fn sky_cancel(output: &str) -> SkyCancel {
    let text = strip_terminal(output);
    if let Some(ids) = after(&text, "Cancelled job ID(s): ") {
        let ids = ids.split([',', ' ']).filter(|id| !id.is_empty());
        return SkyCancel::Cancelled(ids.map(ToOwned::to_owned).collect());
    }
    if text.contains("No jobs cancelled") {
        return SkyCancel::NoneCancelled;
    }
    match QueueFailure::said(&text) {
        QueueFailure::ClusterGone => SkyCancel::ClusterGone,
        QueueFailure::ClusterNotUp(reason) => SkyCancel::ClusterNotUp(reason),
        QueueFailure::Other(reason) => SkyCancel::Failed(reason),
    }
}

/// How `sky stop` or `sky down` of one cluster went, from its stdout and stderr together.
pub fn sky_teardown(output: &str) -> SkyTeardown {
    let text = strip_terminal(output);
    if text.lines().any(|line| line.ends_with("...done.")) {
        return SkyTeardown::Done;
    }
    if text.contains("Cluster(s) not found") {
        return SkyTeardown::ClusterNotFound;
    }
    let mut lines = text.lines();
    if lines.any(|line| line.starts_with("Stopping ") && line.ends_with("skipped.")) {
        let reason = lines.next().unwrap_or_default();
        return SkyTeardown::CannotStop(sentence(reason));
    }
    SkyTeardown::Failed(reason_or_last_line(&text))
}

impl QueueFailure {
    /// The one that `text` tells of.
    fn said(text: &str) -> Self {
        let is_gone = text.contains("ClusterDoesNotExist")
            || (text.contains("Cluster '") && text.contains("' does not exist."));
        if is_gone {
            Self::ClusterGone
        } else if text.contains("ClusterNotUpError") {
            Self::ClusterNotUp(reason_or_last_line(text))
        } else {
            Self::Other(reason_or_last_line(text))
        }
    }
}

fn reason_or_last_line(text: &str) -> String {
    failure_reason(text)
        .or_else(|| last_line(text))
        .unwrap_or_else(|| "it did not say why".to_owned())
}

/// The clusters that the lines before the JSON say did not answer, and why.
fn unanswered(text: &str) -> BTreeMap<String, QueueFailure> {
    text.split("Failed to get the job queue for cluster '")
        .skip(1)
        .filter_map(|failure| failure.split_once("'."))
        .map(|(cluster, reason)| (cluster.to_owned(), QueueFailure::said(&unindented(reason))))
        .collect()
}

/// `reason` with its lines at the margin, where a reason is looked for.
fn unindented(reason: &str) -> String {
    let lines: Vec<&str> = reason.lines().map(str::trim).collect();
    lines.join("\n")
}

/// What follows `(name, pid=123) ` at the start of a line of a log.
fn without_prefix(line: &str) -> Option<&str> {
    let (prefix, rest) = after_colours(line).strip_prefix('(')?.split_once(')')?;
    let (name, pid) = prefix.split_once("pid=")?;
    let name = name.strip_suffix(' ')?;
    let name = name.strip_suffix(',').unwrap_or(name);
    let is_plain =
        !name.contains([',', '(']) && !pid.is_empty() && pid.bytes().all(|c| c.is_ascii_digit());
    after_colours(rest).strip_prefix(' ').filter(|_| is_plain)
}

/// What follows the colours at the start of `text`.
fn after_colours(text: &str) -> &str {
    let mut rest = text;
    while let Some(sequence) = rest.strip_prefix("\u{1b}[") {
        let parameters = sequence.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match parameters.strip_prefix('m') {
            Some(after) => rest = after,
            None => break,
        }
    }
    rest
}

fn job(row: &Map<String, Value>) -> Option<QueuedJob> {
    Some(QueuedJob {
        job_id: text(row, "job_id")?,
        job_name: text(row, "job_name").unwrap_or_default(),
        status: text(row, "status").unwrap_or_default(),
        username: text(row, "username").unwrap_or_default(),
        resources: text(row, "resources").unwrap_or_default(),
        submitted_at: time(row, "submitted_at"),
        start_at: time(row, "start_at"),
        end_at: time(row, "end_at"),
    })
}

fn cluster(row: &Map<String, Value>) -> Option<Cluster> {
    Some(Cluster {
        name: text(row, "name")?,
        status: text(row, "status").unwrap_or_default(),
        autostop_minutes: row.get("autostop").and_then(Value::as_u64),
        to_down: row.get("to_down").and_then(Value::as_bool).unwrap_or(false),
        cloud: text(row, "cloud"),
        region: text(row, "region"),
        nodes: row.get("nodes").and_then(Value::as_u64),
        resources: text(row, "resources_str"),
        accelerators: text(row, "accelerators"),
        launched_at: time(row, "launched_at"),
        hourly_price: ["price", "hourly_price", "cost_per_hour", "hourly_cost"]
            .into_iter()
            .find_map(|key| price(row.get(key)?)),
    })
}

/// A field as one line of text, whatever it is in this version.
fn text(row: &Map<String, Value>, key: &str) -> Option<String> {
    match row.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(sentence(&strip_terminal(text))),
        other => Some(sentence(&other.to_string())),
    }
    .filter(|text| !text.is_empty())
}

fn time(row: &Map<String, Value>, key: &str) -> Option<f64> {
    row.get(key)
        .and_then(Value::as_f64)
        .filter(|seconds| *seconds > 0.0)
}

fn price(value: &Value) -> Option<f64> {
    let dollars = match value {
        Value::String(text) => text.trim().trim_start_matches('$').trim().parse().ok(),
        other => other.as_f64(),
    };
    dollars.filter(|dollars| dollars.is_finite() && *dollars >= 0.0)
}
