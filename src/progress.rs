//! How far a training run is and how it goes, from what its trainer prints and writes.
//!
//! Only what was said is given: a figure that nobody printed is absent. The one difficulty is progress bars, since much
//! else draws them: downloads, the preparation of data sets, the loading of weights, evaluation. A bar is one of training
//! when one of these holds:
//!
//! - its label says so (`Training`, `Training Progress`, and torchtune's `1|25|Loss: 1.63`), or
//! - it carries a loss (`loss=0.12` behind its speed) and its label is not of an evaluation, or
//! - it has no label, counts plain iterations, is no nested bar, and is tied to the trainer: it is the first such bar after
//!   the line with which Oumi or the Hugging Face Trainer begins, or its total is the one that was announced, or it stands
//!   exactly at the step of which the trainer prints the loss. Where the trainer does not print the step, it must have moved
//!   between two printed losses.
//!
//! Bars of Lightning (`Epoch 3`) count batches within an epoch: from them come the epoch and the loss, no step. Bars of
//! inference (`Processed prompts`) and evaluation (`Running … requests`) are given where there is no training at all.

pub mod figures;
pub mod files;
pub mod history;
pub mod lines;
pub mod rhythm;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tqdm;

mod followed;
mod scanner;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use figures::Figures;
pub use followed::Followed;
use history::History;
pub use scanner::Scanner;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Progress {
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// When the newest of them was written, at the latest: RFC 3339, UTC.
    pub measured_at: Option<String>,
    /// Where they come from.
    pub source: String,
}

impl Progress {
    /// The age of the newest figure at `now`.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let measured_at = DateTime::parse_from_rfc3339(self.measured_at.as_deref()?).ok()?;
        now.duration_since(SystemTime::from(measured_at)).ok()
    }

    /// Says when the newest figure was written.
    pub fn measured(mut self, at: SystemTime) -> Self {
        self.measured_at =
            Some(DateTime::<Utc>::from(at).to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        self
    }

    /// The two together: what the newer one says, and what only the older one does.
    pub fn merged(self, other: Self) -> Self {
        // RFC 3339 in UTC sorts as text.
        let (mut newer, older) = match self.measured_at >= other.measured_at {
            true => (self, other),
            false => (other, self),
        };
        // Both count the same steps, so the greater count is the newer one, however late it was written.
        newer.figures.fill(&older.figures, false);
        newer.figures.step = newer.figures.step.max(older.figures.step);
        if !newer.source.contains(&older.source) {
            newer.source = format!("{}, {}", newer.source, older.source);
        }
        newer
    }
}

/// How far the run is whose log is at `path`, and the course of its loss. None when it does not say. Of a log larger than half
/// a gigabyte the beginning and the end are read. Of a log that is looked at again, [`Followed`] reads only what is new.
///
/// # Errors
/// What the file system said.
pub fn read_log(path: &Path) -> io::Result<Option<(Progress, History)>> {
    let mut log = Followed::new(path);
    let progress = log.look_at_all()?.map(|(progress, _)| progress);
    Ok(progress.map(|progress| (progress, log.into_history())))
}
