//! Reads what `oumi launch` prints. There is no JSON, so sentences and tables are read. The server runs `oumi` with
//! `COLUMNS=4096`, so that no sentence is wrapped.

use serde::{Deserialize, Serialize};

use super::after;
use crate::text::strip_escapes;

/// The identity that `oumi launch up` printed for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrintedJobId {
    pub(crate) oumi_job_id: String,
    pub(crate) cluster: Option<String>,
}

/// One row of `oumi launch status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OumiStatusRow {
    pub(crate) cluster: String,
    pub(crate) oumi_job_id: String,
    /// The launcher's word.
    pub(crate) status: String,
}

/// Reads the job's id from the output of `oumi launch up`: `Job <id> queued on cluster <cluster>.`, else SkyPilot's earlier
/// `Job submitted, ID: <id>`, after which the launch can still fail or be killed.
pub(crate) fn printed_job_id(output: &str) -> Option<PrintedJobId> {
    let text = strip_escapes(output);
    let queued = text.lines().find_map(|line| {
        let sentence = line.trim_end().strip_prefix("Job ")?.strip_suffix('.')?;
        let (id, cluster) = sentence.split_once(" queued on cluster ")?;
        Some((id.to_owned(), Some(cluster.to_owned())))
    });
    let submitted = || {
        let word_after = |marker| after(&text, marker)?.split_whitespace().next();
        let id = word_after("Job submitted, ID: ")?.to_owned();
        let cluster = word_after("Running on cluster: ").map(ToOwned::to_owned);
        Some((id, cluster.or_else(|| existing_cluster(&text))))
    };
    let (oumi_job_id, cluster) = queued.or_else(submitted)?;
    Some(PrintedJobId {
        oumi_job_id,
        cluster,
    })
}

/// Reads the name of the cluster that existed before the launch. SkyPilot skips the job's `setup` there.
pub(crate) fn existing_cluster(output: &str) -> Option<String> {
    let text = strip_escapes(output);
    let name = |line: &str| {
        let name = line.strip_prefix("Found an existing cluster: ")?;
        Some(name.trim_end().strip_suffix('.')?.to_owned())
    };
    text.lines().find_map(name)
}

/// Reads the rows of all tables of `oumi launch status`.
pub(crate) fn status_rows(output: &str) -> Vec<OumiStatusRow> {
    let text = strip_escapes(output);
    let mut rows: Vec<OumiStatusRow> = Vec::new();
    let mut cluster = "";
    let mut columns = None;
    for line in text.lines() {
        if let Some(title) = box_title(line) {
            (cluster, columns) = (title, None);
            continue;
        }
        let cells = table_cells(line);
        let place = |name| cells.iter().position(|cell| *cell == name);
        if let (Some(job), Some(status)) = (place("Job"), place("Status")) {
            columns = Some((job, status));
        } else if let Some((job, status)) = columns
            && let (Some(job), Some(status)) = (cells.get(job), cells.get(status))
            && !job.is_empty()
            && status.contains(char::is_alphanumeric)
        {
            rows.push(OumiStatusRow {
                cluster: cluster.to_owned(),
                oumi_job_id: (*job).to_owned(),
                status: (*status).to_owned(),
            });
        }
    }
    rows
}

/// The line of `oumi launch logs` before the log.
pub(crate) const LOG_BEGINS: &str = "Logging to console...";

/// Returns the job's own lines in the output of `oumi launch logs`, unchanged.
pub(crate) fn log_lines(output: &str) -> String {
    let mut lines = output.split_inclusive('\n');
    lines.find(|line| strip_escapes(line).starts_with(LOG_BEGINS));
    lines.collect()
}

/// Reads the cluster from the upper edge of a box.
fn box_title(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (_, title) = line.split_once("Cluster: ")?;
    let title = title.split_whitespace().next()?;
    line.starts_with(['╭', '+']).then_some(title)
}

/// Returns the cells of a row of a table in a box. Rich draws `|` on terminals without box characters.
fn table_cells(line: &str) -> Vec<&str> {
    let pieces: Vec<&str> = line.trim().split(['│', '┃', '|']).map(str::trim).collect();
    // The edge of the box with nothing before it, and the space between the box and the table; the same at the end.
    match pieces.as_slice() {
        ["", "", cells @ .., "", ""] => cells.to_vec(),
        _ => Vec::new(),
    }
}
