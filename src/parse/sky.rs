//! Reads what `sky` prints: JSON behind lines of text for the queue and the clusters, sentences for everything else.

use std::collections::BTreeMap;

use serde_json::Value;

use super::reasons::{failure_reason, last_line, one_line};
use super::{Members, OutputError, Row, is_name_char, split_json};
use crate::text::{split_skypilot_prefix, strip_escapes};

/// The jobs of the queried clusters, from `sky queue -o json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Queue {
    /// The jobs of each cluster that answered, newest first.
    pub(crate) jobs: BTreeMap<String, Vec<QueuedJob>>,
    /// The clusters that did not answer. `sky` exits 0 all the same.
    pub(crate) unanswered: BTreeMap<String, QueueFailure>,
    /// The rows that could not be used, a sentence each.
    pub(crate) left_out: Vec<String>,
}

/// A job on a cluster. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct QueuedJob {
    /// SkyPilot's id; it counts from 1 on each cluster.
    pub(crate) job_id: String,
    /// The `name` of the job config.
    pub(crate) job_name: String,
    /// SkyPilot's word.
    pub(crate) status: String,
    /// Such as `1x[A100:8]`.
    pub(crate) resources: String,
    pub(crate) submitted_at: Option<f64>,
    pub(crate) start_at: Option<f64>,
    pub(crate) end_at: Option<f64>,
    /// The folder of its log, named after the launch: `~/sky_logs/sky-2026-11-24-19-07-32-946443`.
    pub(crate) log_path: String,
}

/// The reason why a cluster's queue could not be read; the texts are SkyPilot's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueFailure {
    /// No such cluster (any more).
    ClusterGone,
    /// The cluster is being set up, or stopped.
    ClusterNotUp(String),
    Other(String),
}

/// The answer of `sky status -o json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ClusterList {
    pub(crate) clusters: Vec<Cluster>,
    /// The rows that could not be used, a sentence each. With none the list has every cluster.
    pub(crate) left_out: Vec<String>,
}

impl Queue {
    /// The answer of a cluster that failed with SkyPilot's `error`.
    pub(crate) fn of_failure(cluster: &str, error: &str) -> Self {
        let failure = QueueFailure::classify(cluster, &strip_escapes(error));
        let unanswered = BTreeMap::from([(cluster.to_owned(), failure)]);
        Self {
            unanswered,
            ..Self::default()
        }
    }

    fn add_jobs(&mut self, cluster: &str, rows_of_jobs: &[Value]) {
        let what = format!("a job of cluster {}", one_line(cluster));
        let jobs = rows(rows_of_jobs, "job_id", &what, job, &mut self.left_out);
        self.jobs.insert(cluster.to_owned(), jobs);
    }

    /// Adds the answer of other clusters.
    pub(crate) fn add(&mut self, other: Self) {
        self.jobs.extend(other.jobs);
        self.unanswered.extend(other.unanswered);
        self.left_out.extend(other.left_out);
    }
}

impl ClusterList {
    pub(crate) fn get(&self, name: &str) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }
}

/// A cluster, from `sky status -o json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// Given when the cluster is made; another one of the same name has another.
    pub(crate) cluster_hash: Option<String>,
    /// SkyPilot's word: `INIT`, `UP`, `STOPPED`, or one of newer versions.
    pub(crate) status: String,
    /// Idle minutes until the cluster stops itself; `None` when it does not.
    pub(crate) autostop_minutes: Option<u64>,
    /// In seconds since 1970.
    pub(crate) launched_at: Option<f64>,
    /// The autostop deletes the cluster.
    pub(crate) to_down: bool,
    /// In SkyPilot's spelling.
    pub(crate) cloud: Option<String>,
    pub(crate) region: Option<String>,
    /// Each node, in SkyPilot's words.
    pub(crate) resources: Option<String>,
    /// Type and count a node, such as `A100:8` or `{'A100': 8}`.
    pub(crate) accelerators: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) is_spot: bool,
    pub(crate) nodes: u64,
    /// In dollars. SkyPilot 0.12 does not report it.
    pub(crate) hourly_price: Option<f64>,
}

/// The result of `sky stop` or `sky down`, which exit 0 in each case. The texts are SkyPilot's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TeardownResult {
    Done,
    ClusterNotFound,
    /// Such a cluster can only be deleted.
    CannotStop(String),
    Failed(String),
}

/// Reads the output of `sky queue -o json`.
pub(crate) fn queue(stdout: &str) -> Result<Queue, OutputError> {
    let (before, Members(clusters)) = split_json(stdout)?;
    let mut queue = Queue {
        unanswered: unanswered(&before),
        ..Queue::default()
    };
    for (cluster, jobs) in clusters {
        let failure = match jobs {
            Value::Array(jobs) if !queue.jobs.contains_key(&cluster) => {
                queue.add_jobs(&cluster, &jobs);
                continue;
            }
            Value::Array(_) => "it was named twice",
            _ => "its jobs were no list",
        };
        queue.jobs.remove(&cluster);
        let failure = QueueFailure::Other(failure.to_owned());
        queue.unanswered.insert(cluster, failure);
    }
    queue
        .jobs
        .retain(|cluster, _| !queue.unanswered.contains_key(cluster));
    Ok(queue)
}

/// Reads the answer of the API server about one cluster: the list of its jobs.
pub(crate) fn cluster_queue(cluster: &str, answer: &str) -> Result<Queue, OutputError> {
    let (_, jobs) = split_json::<Vec<Value>>(answer)?;
    let mut queue = Queue::default();
    queue.add_jobs(cluster, &jobs);
    Ok(queue)
}

/// Reads the output of `sky status -o json`, or the answer of the API server.
pub(crate) fn clusters(stdout: &str) -> Result<ClusterList, OutputError> {
    let (_, clusters) = split_json::<Vec<Value>>(stdout)?;
    let mut left_out = Vec::new();
    Ok(ClusterList {
        clusters: rows(&clusters, "name", "a cluster", cluster, &mut left_out),
        left_out,
    })
}

/// Reads rows by their `key`. A row without one, or with that of another row, is left out: it could be anything's.
fn rows<T>(
    values: &[Value],
    key: &str,
    what: &str,
    read: fn(String, &Row) -> T,
    left_out: &mut Vec<String>,
) -> Vec<T> {
    let key_of = |value: &Value| match value.get(key)? {
        Value::String(text) => {
            Some(text.clone()).filter(|text| !text.is_empty() && *text == one_line(text))
        }
        number => number.as_u64().map(|number| number.to_string()),
    };
    let keys: Vec<Option<String>> = values.iter().map(key_of).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for key in keys.iter().flatten() {
        *counts.entry(key).or_default() += 1;
    }
    let read_row = |(value, own): (&Value, &Option<String>)| match (own, value) {
        (Some(own), Value::Object(row)) if counts.get(own.as_str()) == Some(&1) => {
            Some(read(own.clone(), row))
        }
        (own, _) => {
            let problem = own.as_ref().map_or_else(
                || format!("has no usable `{key}`"),
                |own| format!("shares its `{key}` {own} with another"),
            );
            left_out.push(format!(
                "{what} {problem} in SkyPilot's answer, and is left out"
            ));
            None
        }
    };
    values.iter().zip(&keys).filter_map(read_row).collect()
}

/// Returns the job's lines in the output of `sky logs`, without SkyPilot's heading and without the prefix `(name, pid=…) `
/// of each line. The prefix of a job on several nodes tells them apart and stays. Each line is changed regardless of the
/// others, so that it reads the same in each answer.
pub(crate) fn log_lines(stdout: &str) -> String {
    let is_heading = |line: &str| {
        (line.contains("Tailing logs of ") && strip_escapes(line).starts_with("Tailing logs of "))
            // A message of the API server to its client.
            || (line.starts_with("<sky-payload") && line.trim_end().ends_with("</sky-payload>"))
    };
    let without_prefix = |line| match split_skypilot_prefix(line) {
        (prefix, rest) if !prefix.contains("rank=") => rest,
        _ => line,
    };
    stdout
        .split_inclusive(['\n', '\r'])
        .filter(|line| !is_heading(line))
        .map(without_prefix)
        .collect()
}

/// Reads the exit code of a failed job from the end of its log: that of the first node that failed.
pub(crate) fn exit_code(log: &str) -> Option<i32> {
    let log = strip_escapes(log);
    let (_, codes) = log.rsplit_once("failed with return code list: [")?;
    let (codes, _) = codes.split_once(']')?;
    let codes = codes.split(',').map(|code| code.trim().parse().ok());
    codes.flatten().find(|code| *code != 0)
}

/// Returns `true` when `sky cancel` accepted the cancel of a job. It exits 0 in any case.
pub(crate) fn accepted_cancel(output: &str) -> bool {
    strip_escapes(output).contains("Cancelled job ID(s): ")
}

/// Reads the stdout and stderr of `sky stop` or `sky down` of one cluster.
pub(crate) fn teardown(output: &str) -> TeardownResult {
    let text = strip_escapes(output);
    if text.lines().any(|line| line.ends_with("...done.")) {
        return TeardownResult::Done;
    }
    if text.contains("Cluster(s) not found") {
        return TeardownResult::ClusterNotFound;
    }
    let mut lines = text.lines();
    if lines.any(|line| line.starts_with("Stopping ") && line.ends_with("skipped.")) {
        let reason = lines.next().unwrap_or_default();
        return TeardownResult::CannotStop(one_line(reason));
    }
    TeardownResult::Failed(reason_or_last_line(&text))
}

impl QueueFailure {
    fn classify(cluster: &str, text: &str) -> Self {
        let is_named = |line: &str| {
            let mut words = line.split(|c| !is_name_char(c));
            words.any(|word| word == cluster)
        };
        let says_gone = |line: &str| line.contains("ClusterDoesNotExist") && is_named(line);
        if text.lines().any(says_gone) {
            Self::ClusterGone
        } else if text.contains("ClusterNotUpError") {
            Self::ClusterNotUp(reason_or_last_line(text))
        } else {
            Self::Other(reason_or_last_line(text))
        }
    }
}

/// Returns what to do about a failure of `sky` that asking again does not mend. The texts are SkyPilot's and click's.
pub(crate) fn remedy(output: &str) -> &'static str {
    const REMEDIES: [(&[&str], &str); 4] = [
        (
            &["No such option", "No such command"],
            "this SkyPilot is too old: run `pip install -U skypilot` (0.12 or newer)",
        ),
        (
            &[
                "sky api login",
                "Authentication",
                "authenticat",
                "401 ",
                "Unauthorized",
            ],
            "run `sky api login` in a terminal",
        ),
        (
            &["version mismatch", "VersionMismatch"],
            "run `sky api stop`, then `sky api start` in a terminal",
        ),
        (
            &[
                "connect to SkyPilot API server",
                "start SkyPilot API server",
                "ApiServerConnectionError",
            ],
            "run `sky api start` in a terminal; `sky api info` shows which server is meant",
        ),
    ];
    let fits = |(texts, _): &&(&[&str], &str)| texts.iter().any(|text| output.contains(text));
    let found = REMEDIES.iter().find(fits);
    found.map_or("run it in a terminal to see why", |(_, remedy)| *remedy)
}

fn reason_or_last_line(text: &str) -> String {
    failure_reason(text)
        .or_else(|| last_line(text))
        .unwrap_or_else(|| "no reason was given".to_owned())
}

/// Reads the clusters that did not answer from the lines before the JSON.
fn unanswered(text: &str) -> BTreeMap<String, QueueFailure> {
    let classify = |failure: &str| {
        let (cluster, reason) = failure.split_once("'.")?;
        // A reason is looked for at the margin.
        let lines: Vec<&str> = reason.lines().map(str::trim).collect();
        let failure = QueueFailure::classify(cluster, &lines.join("\n"));
        Some((cluster.to_owned(), failure))
    };
    text.split("Failed to get the job queue for cluster '")
        .skip(1)
        .filter_map(classify)
        .collect()
}

fn job(job_id: String, row: &Row) -> QueuedJob {
    QueuedJob {
        job_id,
        job_name: text(row, "job_name").unwrap_or_default(),
        status: text(row, "status").unwrap_or_else(|| "UNKNOWN".to_owned()),
        resources: text(row, "resources").unwrap_or_default(),
        submitted_at: time(row, "submitted_at"),
        start_at: time(row, "start_at"),
        end_at: time(row, "end_at"),
        log_path: text(row, "log_path").unwrap_or_default(),
    }
}

fn cluster(name: String, row: &Row) -> Cluster {
    let prices = ["price", "hourly_price", "cost_per_hour", "hourly_cost"];
    // Such as `2x[spot](gpus=A100:8, cpus=96, mem=1152, p4d.24xlarge, disk=256)`.
    let whole = text(row, "resources_str_full").unwrap_or_default();
    let (before, parts) = whole.split_once('(').unwrap_or_default();
    let parts: Vec<&str> = parts.split([',', ')']).map(str::trim).collect();
    let gpus = parts.iter().find_map(|part| part.strip_prefix("gpus="));
    let instance_type = parts
        .iter()
        .find(|part| !part.is_empty() && !part.contains('='));
    Cluster {
        name,
        cluster_hash: text(row, "cluster_hash"),
        status: text(row, "status").unwrap_or_else(|| "UNKNOWN".to_owned()),
        autostop_minutes: row.get("autostop").and_then(Value::as_u64),
        launched_at: time(row, "launched_at"),
        to_down: row.get("to_down").and_then(Value::as_bool).unwrap_or(false),
        cloud: text(row, "cloud"),
        region: text(row, "region"),
        resources: text(row, "resources_str"),
        accelerators: gpus
            .map(|gpus| (*gpus).to_owned())
            .or_else(|| text(row, "accelerators")),
        instance_type: instance_type.map(|part| (*part).to_owned()),
        is_spot: before.contains("[spot]"),
        nodes: row.get("nodes").and_then(Value::as_u64).unwrap_or(1),
        hourly_price: prices.into_iter().find_map(|key| price(row.get(key)?)),
    }
}

/// Reads a field as one line of text. Versions of SkyPilot differ in the types of their fields.
pub(super) fn text(row: &Row, key: &str) -> Option<String> {
    match row.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(one_line(&strip_escapes(text))),
        other => Some(one_line(&other.to_string())),
    }
    .filter(|text| !text.is_empty())
}

fn time(row: &Row, key: &str) -> Option<f64> {
    row.get(key)
        .and_then(Value::as_f64)
        .filter(|seconds| *seconds > 0.0)
}

pub(super) fn price(value: &Value) -> Option<f64> {
    let dollars = match value {
        Value::String(text) => text.trim().trim_start_matches('$').trim().parse().ok(),
        other => other.as_f64(),
    };
    dollars.filter(|dollars| dollars.is_finite() && *dollars >= 0.0)
}
