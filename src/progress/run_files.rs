//! The files that a run writes into its output folder, for a log that lacks the step or the total: Oumi's
//! `metrics_rank*.jsonl`, and the `trainer_state.json` of the Hugging Face Trainer, there and in checkpoints.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::grammar::{number, whole};
use super::{IncrementalReader, Progress, Scanner};
use crate::text::{lossy, read_tail};

const STATE: &str = "trainer_state.json";

/// The most entries of a folder that are considered, and the most bytes of a state: a call that waits reads it each second.
const MAX_ENTRIES: usize = 10_000;
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads the newest file of each kind in `dir`. What was last written before `started` is of an earlier run.
pub(crate) fn read(dir: &Path, started: Option<SystemTime>) -> Option<Progress> {
    let entries = fs::read_dir(dir).ok()?.flatten().take(MAX_ENTRIES);
    let files = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (mut path, is_checkpoint) = (entry.path(), name.starts_with("checkpoint-"));
        if is_checkpoint {
            path.push(STATE);
        }
        let is_run_file = is_checkpoint || name == STATE || name.starts_with("metrics_rank");
        let written = fs::metadata(&path).and_then(|file| file.modified()).ok()?;
        (is_run_file && started.is_none_or(|started| written >= started)).then_some((written, path))
    });
    let (states, metrics): (Vec<_>, Vec<_>) = files.partition(|(_, path)| path.ends_with(STATE));
    let newest = [states, metrics].into_iter();
    let mut newest: Vec<_> = newest.filter_map(|kind| kind.into_iter().max()).collect();
    // The older first: what the newer one lacks, such as the total, is the older one's.
    newest.sort();
    let read = newest.into_iter();
    let read = read.filter_map(|(written, path)| read_file(written, &path));
    read.reduce(|older, newer| newer.completed(Some(older)))
}

fn read_file(written: SystemTime, path: &Path) -> Option<Progress> {
    let mut progress = if path.ends_with(STATE) {
        read_state(written, path)?
    } else {
        IncrementalReader::new(path).read().ok()??
    };
    progress.source = path.file_name()?.to_string_lossy().into_owned();
    Some(progress)
}

/// Reads the end of a state as text: that of a long run has megabytes, and may hold NaN, which is no JSON.
fn read_state(written: SystemTime, path: &Path) -> Option<Progress> {
    let text = read_tail(path, MAX_BYTES).ok()?;
    let text = lossy(&text);
    let mut scanner = Scanner::default();
    let history = text.split_once("\"log_history\"");
    for entry in history.map_or(&*text, |it| it.1).split_inclusive('}') {
        let (between, entry) = entry.split_at(entry.find('{').unwrap_or(entry.len()));
        if between.contains(']') {
            break;
        }
        scanner.push((entry.replace('\n', " ") + "\n").as_bytes());
    }
    let count = |name: &str| {
        let (_, value) = text.split_once(name)?;
        whole(number(value.trim_start_matches([':', ' ']))?.0)
    };
    let mut progress = scanner.ahead().progress(written)?;
    let figures = &mut progress.metrics;
    figures.step = count("\"global_step\"").or(figures.step);
    figures.total_steps = count("\"max_steps\"").or(figures.total_steps);
    Some(progress)
}
