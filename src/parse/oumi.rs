//! Reads what `oumi launch` prints: sentences and tables, since it has no JSON. It is run with `COLUMNS=4096`, which wraps none.

use std::collections::BTreeSet;

use super::is_name_char;
use super::sky::QueuedJob;
use crate::text::{strip_escapes, without_colours};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LaunchOutput {
    pub(crate) oumi_job_id: Option<String>,
    /// The output ends as that of a launch that succeeded, with this job.
    pub(crate) is_detached: bool,
    /// SkyPilot has a job of this launch, though the launch can still fail or be killed.
    pub(crate) is_submitted: bool,
    /// SkyPilot's name for the launch, such as `sky-2026-11-24-19-18-45-442134`. The folder of the job's log has it too.
    pub(crate) run: Option<String>,
    /// The cluster was there before. SkyPilot skips the job's `setup` and mounts then.
    pub(crate) is_onto_existing: bool,
}

/// Reads the output of a launch onto `cluster`. The user's own scripts may print into it, so only a line that is the launcher's
/// as a whole counts: `Job <id> queued on cluster <cluster>.`, the last one of several where the launch was cut off there, else
/// the one that `Running job <id> in detached mode.` fits. Where several of these differ, none is believed.
pub(crate) fn launch_output(output: &str, cluster: &str) -> LaunchOutput {
    let mut read = LaunchOutput::default();
    let (mut queued, mut detached, mut runs) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let queued_end = format!(" queued on cluster {cluster}.");
    let existing = format!("Found an existing cluster: {cluster}.");
    let mut last = None;
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        queued.extend(id_between(line, "Job ", &queued_end));
        last = id_between(line, "Running job ", " in detached mode.");
        detached.extend(last);
        read.is_onto_existing |= line == existing;
        // SkyPilot puts colours and a mark in front of its lines.
        let Some(line) = plain(line) else {
            continue;
        };
        let line = line.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '(');
        read.is_submitted |= id_between(line, "Job submitted, ID: ", "").is_some();
        let log = line.strip_prefix("Synced workdir.").map(str::trim_start);
        let run =
            log.and_then(|log| id_between(log, "View logs: sky api logs -l ", "/workdir_sync.log"));
        runs.extend(run.map(ToOwned::to_owned));
    }
    read.is_submitted |= !queued.is_empty();
    let id = if detached.is_empty() {
        queued.pop()
    } else {
        only(detached.into_iter().filter(|id| queued.contains(id)))
    };
    read.is_detached = last.is_some() && last == id;
    read.oumi_job_id = id.map(ToOwned::to_owned);
    read.run = only(runs.into_iter());
    read
}

fn id_between<'l>(line: &'l str, before: &str, after: &str) -> Option<&'l str> {
    let id = line.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && id.chars().all(is_name_char)).then_some(id)
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// Removes the colours of a line; `None` where it has other controls, by which a script could write over the launcher's words.
fn plain(line: &str) -> Option<String> {
    let plain = without_colours(line)?;
    (!plain.contains(char::is_control)).then_some(plain)
}

/// Reads the jobs of all tables of `oumi launch status`, each with its cluster.
pub(crate) fn status_rows(output: &str) -> Vec<(String, QueuedJob)> {
    let text = strip_escapes(output);
    let mut rows = Vec::new();
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
            let job = QueuedJob {
                job_id: (*job).to_owned(),
                status: (*status).to_owned(),
                ..QueuedJob::default()
            };
            rows.push((cluster.to_owned(), job));
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

fn box_title(line: &str) -> Option<&str> {
    let top = line.trim_start().strip_prefix(['╭', '+'])?;
    let (_, title) = top.split_once("Cluster: ")?;
    title.split_whitespace().next()
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
