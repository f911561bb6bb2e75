//! The files that a run writes into its output folder: Oumi's `metrics_rank*.jsonl`, and the `trainer_state.json` of the
//! Hugging Face Trainer, in the folder and in its newest checkpoint.
//!
//! Both are read with the lenient reader of the log, since they hold `NaN`, which is no JSON.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::grammar;
use super::history::History;
use super::metrics::{Metrics, Report};
use super::{Progress, Scanner};
use crate::text;

/// The most bytes that are read of a file, from its end. Of a longer state nothing is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The most entries of a folder that are considered.
const MAX_ENTRIES: usize = 10_000;

/// Reads the progress of the run whose output folder is `dir`, and its losses. Files last written before `started` are of
/// an earlier run and are passed over. A folder that does not exist has no progress.
pub(crate) fn read_output_dir(
    dir: &Path,
    started: Option<SystemTime>,
) -> io::Result<Option<(Progress, History)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let (mut metrics, mut states) = (Vec::new(), Vec::new());
    for entry in entries.take(MAX_ENTRIES).flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("metrics_rank") && name.ends_with(".jsonl") {
            metrics.push(entry.path());
        } else if name == "trainer_state.json" {
            states.push(entry.path());
        } else if name.starts_with("checkpoint-") {
            states.push(entry.path().join("trainer_state.json"));
        }
    }
    let metrics = read_newest(metrics, started, read_metrics)?;
    let state = read_newest(states, started, read_state)?;
    Ok(match (metrics, state) {
        (Some((metrics, losses)), Some((state, other_losses))) => {
            let is_longer = losses.points().len() >= other_losses.points().len();
            let longer = if is_longer { losses } else { other_losses };
            Some((metrics.merged(state), longer))
        }
        (one, other) => one.or(other),
    })
}

/// Reads the newest of some files, unless that is of an earlier run.
fn read_newest(
    paths: Vec<PathBuf>,
    started: Option<SystemTime>,
    read: fn(&str, &mut Scanner) -> Metrics,
) -> io::Result<Option<(Progress, History)>> {
    let newest = paths
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .filter(|(written, _)| started.is_none_or(|started| *written >= started))
        .max();
    let Some((written, path)) = newest else {
        return Ok(None);
    };
    let bytes = text::read_tail(&path, MAX_BYTES)?;
    let mut scanner = Scanner::default();
    let state = read(&String::from_utf8_lossy(&bytes), &mut scanner);
    let (progress, history) = scanner.read(written);
    let Some(mut progress) = progress else {
        return Ok(None);
    };
    progress.source = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    progress.metrics.total_steps = state.total_steps.or(progress.metrics.total_steps);
    progress.metrics.step = progress.metrics.step.max(state.step);
    Ok(Some((progress, history.into_owned())))
}

/// Reads Oumi's metrics: a dictionary a line.
fn read_metrics(text: &str, scanner: &mut Scanner) -> Metrics {
    scanner.push(text.as_bytes());
    Metrics::default()
}

/// Reads the Trainer's state, whose `log_history` is a list of dictionaries.
fn read_state(text: &str, scanner: &mut Scanner) -> Metrics {
    let mut state = Report::default();
    grammar::dictionary(text, |name, value| match name {
        "log_history" => {
            let entries: String = value.split_whitespace().collect();
            scanner.push(entries.replace('}', "}\n").as_bytes());
        }
        "max_steps" | "global_step" => state.add(name, value, ""),
        _ => {}
    });
    state.metrics
}
