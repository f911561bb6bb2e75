//! The files that a run writes into its output folder, for a log that lacks the step or the total: Oumi's
//! `metrics_rank*.jsonl`, and the `trainer_state.json` of the Hugging Face Trainer, there and in checkpoints.
//!
//! They are read with the lenient reader of the log, since they hold `NaN`, which is no JSON.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::grammar::dictionary;
use super::metrics::Report;
use super::{Progress, Scanner};
use crate::text::read_tail;

const STATE: &str = "trainer_state.json";

/// The most entries of a folder that are considered, and the most bytes of a file, from its end.
const MAX_ENTRIES: usize = 10_000;
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Reads the newest file of each kind in `dir`. What was last written before `started` is of an earlier run.
pub(crate) fn read(dir: &Path, started: Option<SystemTime>) -> Option<Progress> {
    let entries = fs::read_dir(dir).ok()?.flatten().take(MAX_ENTRIES);
    let files = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (path, is_checkpoint) = (entry.path(), name.starts_with("checkpoint-"));
        let path = if is_checkpoint {
            path.join(STATE)
        } else {
            path
        };
        let is_run_file = is_checkpoint || name == STATE || name.starts_with("metrics_rank");
        let written = fs::metadata(&path).and_then(|file| file.modified()).ok()?;
        (is_run_file && started.is_none_or(|started| written >= started)).then_some((written, path))
    });
    let (states, metrics): (Vec<_>, Vec<_>) = files.partition(|(_, path)| path.ends_with(STATE));
    let newest = [states, metrics]
        .into_iter()
        .filter_map(|kind| kind.into_iter().max());
    let mut newest: Vec<_> = newest.collect();
    // The older first: what the newer one lacks, such as the total, is the older one's.
    newest.sort();
    let read = newest
        .into_iter()
        .filter_map(|(written, path)| read_file(written, &path));
    read.reduce(|mut older, newer| {
        older.metrics.update(newer.metrics);
        Progress {
            metrics: older.metrics,
            ..newer
        }
    })
}

fn read_file(written: SystemTime, path: &Path) -> Option<Progress> {
    let bytes = read_tail(path, MAX_BYTES).ok()?;
    let (mut scanner, mut state) = (Scanner::default(), Report::default());
    if path.ends_with(STATE) {
        dictionary(&String::from_utf8_lossy(&bytes), |name, value| match name {
            "log_history" => {
                let entries: String = value.split_whitespace().collect();
                scanner.push(entries.replace('}', "}\n").as_bytes());
            }
            "max_steps" | "global_step" => state.add(name, value, ""),
            _ => {}
        });
    } else {
        scanner.push(&bytes);
    }
    let mut progress = scanner.read(written).0?;
    progress.source = path.file_name()?.to_string_lossy().into_owned();
    progress.metrics.update(state.metrics);
    Some(progress)
}
