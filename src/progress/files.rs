//! How far a run is, from what it writes into its output folder: Oumi's `metrics_rank*.jsonl`, and the `trainer_state.json`
//! of the Hugging Face Trainer, in the folder and in its newest checkpoint.
//!
//! Both are read with the lenient reader of the log, since they hold `NaN`, which is no JSON. Of a file that is larger than
//! what is read, the end counts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Progress;
use super::figures::Figures;
use super::history::History;

/// The most that is read of a file, from its end.
const READ: u64 = 16 * 1024 * 1024;

/// The most entries of a folder that are looked at.
const ENTRIES: usize = 10_000;

/// How far the run is whose output folder is `dir`, and its losses. Files that were last written before `started` are of
/// an earlier run and are passed over. None when there is nothing.
///
/// # Errors
/// What the file system said; a folder that is not there is none.
pub fn read_output_dir(
    dir: &Path,
    started: Option<SystemTime>,
) -> io::Result<Option<(Progress, History)>> {
    let mut metrics: Option<Found> = None;
    let mut state: Option<Found> = None;
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("metrics_rank") && name.ends_with(".jsonl") {
            newest(&mut metrics, &path, started);
        } else if name == "trainer_state.json" {
            newest(&mut state, &path, started);
        } else if name.starts_with("checkpoint-") {
            newest(&mut state, &path.join("trainer_state.json"), started);
        }
    }
    let metrics = metrics
        .map(|found| found.read(read_metrics))
        .transpose()?
        .flatten();
    let state = state
        .map(|found| found.read(read_state))
        .transpose()?
        .flatten();
    Ok(match (metrics, state) {
        (Some((metrics, history)), Some((state, of_state))) => {
            let longer = match history.points().len() >= of_state.points().len() {
                true => history,
                false => of_state,
            };
            Some((metrics.merged(state), longer))
        }
        (one, other) => one.or(other),
    })
}

/// A file and when it was last written to.
struct Found {
    path: PathBuf,
    written: SystemTime,
}

impl Found {
    fn read(self, how: fn(&str) -> (Figures, History)) -> io::Result<Option<(Progress, History)>> {
        let text = read_end(&self.path)?;
        let (figures, history) = how(&text);
        if figures == Figures::default() {
            return Ok(None);
        }
        let source = self.path.file_name().unwrap_or_default().to_string_lossy();
        let progress = Progress {
            figures,
            measured_at: None,
            source: source.into_owned(),
        };
        Ok(Some((progress.measured(self.written), history)))
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .take(ENTRIES)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Takes the file at `path` if it is there, not of an earlier run, and newer than what was found.
fn newest(found: &mut Option<Found>, path: &Path, started: Option<SystemTime>) {
    let Ok(written) = fs::metadata(path).and_then(|metadata| metadata.modified()) else {
        return;
    };
    let too_old = started.is_some_and(|started| written < started);
    let older = found.as_ref().is_some_and(|found| found.written >= written);
    if !too_old && !older {
        *found = Some(Found {
            path: path.to_owned(),
            written,
        });
    }
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(READ);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Oumi's metrics: a dictionary a line. What was appended by an earlier run is replaced as its steps come again.
fn read_metrics(text: &str) -> (Figures, History) {
    let mut figures = Figures::default();
    let mut history = History::default();
    let mut last_step = None;
    for line in text.lines() {
        let Some((said, kind, _)) = Figures::of_dictionary(line) else {
            continue;
        };
        if !kind.is_training() {
            continue;
        }
        if said.step.is_some() && said.step < last_step {
            // Another run: what the one before said is past.
            figures = Figures::default();
        }
        last_step = said.step.or(last_step);
        history.push(&said);
        figures.update(&said);
    }
    (figures, history)
}

/// The Trainer's state: its keys are sorted, so `log_history`, a list of flat dictionaries, stands in the midst of them.
fn read_state(text: &str) -> (Figures, History) {
    let mut history = History::default();
    let mut figures = Figures::default();
    let (before, entries) = text.split_once("\"log_history\"").unwrap_or(("", text));
    let mut rest = entries;
    while let Some(start) = rest.find('{') {
        if rest[..start].contains(']') {
            // The list has ended.
            break;
        }
        let Some((said, kind, length)) = Figures::of_dictionary(&rest[start..]) else {
            break;
        };
        if kind.is_training() {
            history.push(&said);
            figures.update(&said);
        }
        rest = &rest[start + length..];
    }
    let value = |text: &str, name: &str| {
        let (_, after) = text.rsplit_once(&format!("\"{name}\":"))?;
        let end = after.find([',', '}', '\n']).unwrap_or(after.len());
        super::figures::number(&after[..end])
    };
    let whole = |number: f64| (number >= 1.0).then_some(number as u64);
    figures.total_steps = value(rest, "max_steps").and_then(whole);
    if let Some(step) = value(before, "global_step") {
        figures.step = whole(step).max(figures.step);
    }
    (figures, history)
}
