//! The output folder of a job on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The most entries of an output folder, and of a checkpoint in it, that are considered.
const MAX_ENTRIES: usize = 10_000;
const MAX_FILES: usize = 100;

/// An output folder with what a job has written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) dir: PathBuf,
    /// The name of the checkpoint with the highest step.
    pub(super) checkpoint: Option<String>,
}

impl Output {
    /// Reads the folder. What was last written before `started` is of an earlier run; in a folder that several jobs write to
    /// at once nothing is known to be this one's.
    pub(super) fn read(dir: &Path, started: Option<SystemTime>, is_shared: bool) -> Option<Self> {
        if !dir.is_dir() {
            return None;
        }
        let mut output = Self {
            dir: dir.to_owned(),
            checkpoint: None,
        };
        if is_shared {
            return Some(output);
        }
        let is_ours = |path: &Path| {
            let written = path.metadata().and_then(|file| file.modified());
            written.is_ok_and(|written| started.is_none_or(|started| written >= started))
        };
        // The folder of a checkpoint that is written over stays as old as it was; its files do not.
        output.checkpoint = newest_checkpoint(dir, |checkpoint| {
            let files = fs::read_dir(checkpoint).into_iter().flatten().flatten();
            is_ours(checkpoint) || files.take(MAX_FILES).any(|file| is_ours(&file.path()))
        });
        Some(output)
    }
}

/// Finds the checkpoint of the highest step in a folder, among those that `counts` accepts. Does file work.
pub(super) fn newest_checkpoint(dir: &Path, counts: impl Fn(&Path) -> bool) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?.flatten().take(MAX_ENTRIES);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let numbered = names.filter_map(|name| Some((checkpoint_step(&name)?, name)));
    let mut numbered: Vec<(u64, String)> = numbered.collect();
    numbered.sort_unstable();
    let mut newest_first = numbered.into_iter().rev().map(|(_, name)| name);
    newest_first.find(|name| counts(&dir.join(name)))
}

/// Reads the step from the name that HF Trainer or VERL gives a checkpoint.
fn checkpoint_step(name: &str) -> Option<u64> {
    let number = name
        .strip_prefix("checkpoint-")
        .or_else(|| name.strip_prefix("global_step_"))?;
    number.parse().ok()
}
