//! The files that a run writes into its output folder: Oumi's `metrics_rank*.jsonl`, and the `trainer_state.json` of the
//! Hugging Face Trainer, in the folder and in its newest checkpoint.
//!
//! Both are read with the lenient reader of the log, since they hold `NaN`, which is no JSON.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::grammar;
use super::metrics::Report;
use super::{Progress, Scanner};
use crate::text;

/// The most bytes that are read of a file, from its end. Of a longer state nothing is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The most entries of a folder that are considered.
const MAX_ENTRIES: usize = 10_000;

/// Reads the progress of the run whose output folder is `dir`. Files last written before `started` are of an earlier run
/// and are passed over. A folder that does not exist has no progress.
pub(crate) fn read_output_dir(
    dir: &Path,
    started: Option<SystemTime>,
) -> io::Result<Option<Progress>> {
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
    let metrics = read_newest(metrics, started)?;
    let state = read_newest(states, started)?;
    Ok(match (metrics, state) {
        (Some(metrics), Some(state)) => Some(metrics.merged(state)),
        (one, other) => one.or(other),
    })
}

/// Reads the newest of some files, unless that is of an earlier run: dictionaries a line, or the Trainer's state, whose
/// `log_history` is a list of them.
fn read_newest(paths: Vec<PathBuf>, started: Option<SystemTime>) -> io::Result<Option<Progress>> {
    let newest = paths
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .filter(|(written, _)| started.is_none_or(|started| *written >= started))
        .max();
    let Some((written, path)) = newest else {
        return Ok(None);
    };
    let bytes = text::read_tail(&path, MAX_BYTES)?;
    let (mut lines, mut state) = (bytes.clone(), Report::default());
    grammar::dictionary(&String::from_utf8_lossy(&bytes), |name, value| match name {
        "log_history" => {
            let entries: String = value.split_whitespace().collect();
            lines = entries.replace('}', "}\n").into_bytes();
        }
        "max_steps" | "global_step" => state.add(name, value, ""),
        _ => {}
    });
    let mut scanner = Scanner::default();
    scanner.push(&lines);
    let Some(mut progress) = scanner.read(written).0 else {
        return Ok(None);
    };
    let name = path.file_name().unwrap_or_default();
    progress.source = name.to_string_lossy().into_owned();
    let (metrics, state) = (&mut progress.metrics, state.metrics);
    metrics.total_steps = state.total_steps.or(metrics.total_steps);
    metrics.step = metrics.step.max(state.step);
    Ok(Some(progress))
}
