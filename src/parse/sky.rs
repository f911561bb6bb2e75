//! Reads what `sky` prints: JSON behind lines of text for the queue and the clusters, sentences for everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value;

use super::reasons::{failure_reason, last_line, one_line};
use super::{Row, is_name_char, split_json};
use crate::error::{JobError, Result};
use crate::text::{from_yaml, split_skypilot_prefix, strip_escapes};

/// The jobs of the queried clusters, newest first, from `sky queue -o json`, which exits 0 in any case. An error is SkyPilot's reason why
/// a queue could not be read: `NotFound` where there is no such cluster (any more), `Unavailable` where it is being set up, or stopped.
pub(crate) type Queue = BTreeMap<String, Result<Vec<QueuedJob>>>;

/// A job on a cluster. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct QueuedJob {
    /// SkyPilot's id; it counts from 1 on each cluster.
    pub(crate) job_id: String,
    /// The `name` of the job config.
    pub(crate) job_name: String,
    pub(crate) status: String,
    /// Such as `1x[A100:8]`.
    pub(crate) resources: String,
    pub(crate) submitted_at: Option<f64>,
    pub(crate) start_at: Option<f64>,
    pub(crate) end_at: Option<f64>,
    /// The folder of its log, named after the launch: `~/sky_logs/sky-2026-11-24-19-07-32-946443`.
    pub(crate) log_path: String,
    pub(crate) user_hash: Option<String>,
    /// The name of its user, or their hash.
    pub(crate) user: Option<String>,
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
    /// The vCPUs and the GiB that a launch asks for, such as `8+`. Those of a cluster are not read: its machines are known.
    pub(crate) cpus: Option<String>,
    pub(crate) memory: Option<String>,
    pub(crate) is_spot: bool,
    pub(crate) nodes: u64,
    /// The name of the user who launched it.
    pub(crate) user: Option<String>,
    pub(crate) user_hash: Option<String>,
    /// In dollars. SkyPilot 0.12 does not report it.
    pub(crate) hourly_price: Option<f64>,
}

pub(crate) fn queue(stdout: &str) -> Result<Queue> {
    let (before, clusters) = split_json::<BTreeMap<String, Vec<Value>>>(stdout)?;
    let answered = clusters.into_iter();
    let answered = answered.map(|(cluster, jobs)| (cluster, rows(&jobs, "job_id", job)));
    Ok(answered.chain(unanswered(&before)).collect())
}

/// Reads the output of `sky status -o json`, or the answer of the API server.
pub(crate) fn clusters(stdout: &str) -> Result<Vec<Cluster>> {
    let (_, clusters) = split_json::<Vec<Value>>(stdout)?;
    rows(&clusters, "name", cluster)
}

/// Tells if a cluster is one with which SkyPilot runs managed jobs or services. Its own queue says nothing of these.
pub(crate) fn is_controller(cluster: &str) -> bool {
    cluster.starts_with("sky-jobs-controller") || cluster.starts_with("sky-serve-controller")
}

pub(crate) fn named<'c>(clusters: &'c [Cluster], name: &str) -> Option<&'c Cluster> {
    clusters.iter().find(|cluster| cluster.name == name)
}

/// Reads the clouds of `sky check -o json`, which are named by workspace.
pub(crate) fn enabled_clouds(stdout: &str) -> Result<BTreeSet<String>> {
    let (_, workspaces) = split_json::<BTreeMap<String, BTreeMap<String, Value>>>(stdout)?;
    let clouds = workspaces.into_values().flat_map(BTreeMap::into_keys);
    Ok(clouds.collect())
}

/// Reads the output of `sky api info -o json`. Without a server it is a text.
pub(crate) fn api_info(stdout: &str) -> Option<Value> {
    split_json(stdout).ok().map(|(_, info)| info)
}

/// Reads rows by their `key`. Fails where a row has none: it could be anything's.
fn rows<T>(values: &[Value], key: &str, read: fn(String, &Row) -> T) -> Result<Vec<T>> {
    let key_of = |row: &Row| match row.get(key)? {
        Value::String(text) => {
            Some(text.clone()).filter(|text| !text.is_empty() && *text == one_line(text))
        }
        number => number.as_u64().map(|number| number.to_string()),
    };
    let read_row = |value: &Value| {
        let row = value.as_object()?;
        Some(read(key_of(row)?, row))
    };
    let rows: Option<Vec<T>> = values.iter().map(read_row).collect();
    rows.ok_or_else(|| JobError::failed(format!("answered with a row without a usable `{key}`")))
}

/// The lines with which SkyPilot heads a log, without what follows.
const HEADINGS: [&str; 3] = [
    "Tailing logs of ",
    "├── Waiting for task resources on ",
    "└── Job started. Streaming logs... ",
];

/// Returns the job's lines in the output of `sky logs`, without SkyPilot's heading and without the prefix `(name, pid=…) `
/// of each line. The prefix of a job on several nodes tells them apart and stays. Each line is changed regardless of the
/// others, so that it reads the same in each answer.
pub(crate) fn log_lines(stdout: &str) -> String {
    let is_heading = |line: &str| {
        let begins = |heading: &&str| strip_escapes(line).starts_with(heading);
        // Few lines begin so, and may be cleaned.
        let may_be_one = line.starts_with(['T', '├', '└', '\u{1b}']);
        may_be_one && HEADINGS.iter().any(begins)
            // A message of the API server to its client.
            || (line.starts_with("<sky-payload") && line.trim_end().ends_with("</sky-payload>"))
    };
    let without_prefix = |line| match split_skypilot_prefix(line) {
        (prefix, rest) if !prefix.contains("rank=") => rest,
        _ => line,
    };
    let lines = stdout.split_inclusive(['\n', '\r']);
    let lines = lines.filter(|line| !is_heading(line)).map(without_prefix);
    // At once: a text of megabytes that grows is copied, and there twice meanwhile.
    let mut log = String::with_capacity(stdout.len());
    log.extend(lines);
    log
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

/// Reads from the output of `sky stop` or `sky down` of one cluster, which exit 0 in any case, that SkyPilot does not do it.
pub(crate) fn refused_teardown(cluster: &str, output: &str) -> Option<JobError> {
    let text = strip_escapes(output);
    if is_teardown_done(&text) {
        return None;
    }
    if text.contains("Cluster(s) not found") {
        return Some(no_such_cluster(cluster));
    }
    let mut lines = text.lines();
    lines.find(|line| line.starts_with("Stopping ") && line.ends_with("skipped."))?;
    let reason = one_line(lines.next().unwrap_or_default());
    let error = format!("cluster {cluster} cannot be stopped: {reason}");
    Some(JobError::failed(error).with_hint("call down_cluster to delete it"))
}

/// Tells if `sky stop` or `sky down` says that it has done it. Below that line it prints how to go on.
pub(crate) fn is_teardown_done(output: &str) -> bool {
    output.lines().any(|line| line.ends_with("...done."))
}

pub(crate) fn no_such_cluster(cluster: &str) -> JobError {
    JobError::not_found(format!("SkyPilot knows no cluster {cluster:?}"))
        .with_hint("call list_jobs for the clusters it knows")
}

/// Returns `true` when `sky autostop` did what it was asked to, or found no such cluster. It exits 0 in any case.
pub(crate) fn set_autostop(output: &str) -> bool {
    let is_done = |line: &str| line.trim_end_matches('.').ends_with("...done");
    let mut lines = output.lines().map(strip_escapes);
    lines.any(|line| is_done(&line) || line.contains("Cluster(s) not found"))
}

fn queue_failure(cluster: &str, text: &str) -> JobError {
    let is_named = |line: &str| {
        let mut words = line.split(|c| !is_name_char(c));
        words.any(|word| word == cluster)
    };
    let says_gone = |line: &str| line.contains("ClusterDoesNotExist") && is_named(line);
    let reason = failure_reason(text).or_else(|| last_line(text));
    let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
    if text.lines().any(says_gone) {
        JobError::not_found(reason)
    } else if text.contains("ClusterNotUpError") {
        JobError::unavailable(reason)
    } else {
        JobError::failed(reason)
    }
}

/// What failures of `sky` say that asking again does not mend, and what to do about them.
static REMEDIES: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| from_yaml(include_str!("remedies.yaml")).unwrap_or_default());

pub(crate) fn remedy(output: &str) -> Option<&'static str> {
    let is_said = |said: &str| said.split('|').any(|said| output.contains(said));
    let (_, remedy) = REMEDIES.iter().find(|(said, _)| is_said(said))?;
    Some(remedy)
}

/// Reads the clusters that did not answer from the lines before the JSON.
fn unanswered(text: &str) -> Queue {
    let failure = |failure: &str| {
        let (cluster, reason) = failure.split_once("'.")?;
        // A reason is looked for at the margin.
        let lines: Vec<&str> = reason.lines().map(str::trim).collect();
        let error = queue_failure(cluster, &lines.join("\n"));
        Some((cluster.to_owned(), Err(error)))
    };
    let failures = text.split("Failed to get the job queue for cluster '");
    failures.skip(1).filter_map(failure).collect()
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
        user_hash: text(row, "user_hash"),
        user: text(row, "username").or_else(|| text(row, "user_hash")),
    }
}

fn cluster(name: String, row: &Row) -> Cluster {
    // Such as `2x[spot](gpus=A100:8, cpus=96, mem=1152, p4d.24xlarge, disk=256)`.
    let whole = text(row, "resources_str_full").unwrap_or_default();
    let (before, parts) = whole.split_once('(').unwrap_or_default();
    let parts: Vec<&str> = parts.split([',', ')']).map(str::trim).collect();
    let gpus = parts.iter().find_map(|part| part.strip_prefix("gpus="));
    let is_type = |part: &&&str| !part.is_empty() && !part.contains('=');
    let instance_type = parts.iter().find(is_type);
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
        user: text(row, "user_name"),
        user_hash: text(row, "user_hash"),
        hourly_price: row.get("hourly_price").and_then(price),
        ..Cluster::default()
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
    let seconds = row.get(key)?.as_f64()?;
    (seconds > 0.0).then_some(seconds)
}

pub(super) fn price(value: &Value) -> Option<f64> {
    let dollars = match value {
        Value::String(text) => text.trim().trim_start_matches('$').trim().parse().ok(),
        other => other.as_f64(),
    };
    dollars.filter(|dollars| dollars.is_finite() && *dollars >= 0.0)
}
