//! The progress of a training run, from its log, and where that lacks the step or the total from the files it writes.
//!
//! A metric that nobody printed is absent. Metrics are found by one [grammar] and one table of names, whatever the
//! trainer. The one difficulty is progress bars, since much else draws them: downloads, the preparation of data sets, the
//! loading of weights, evaluation. A bar is the training's when one of these holds:
//!
//! - its label says so (`Training`, `Training Progress`, torchtune's `1|25|Loss: 1.63`), or
//! - it carries a loss (`loss=0.12` behind its speed) and its label is not an evaluation's, or
//! - it counts iterations, is not nested, has no label or one with a word such as `train` or `step`, and is tied to the
//!   trainer: it is the first bar without a label after the line
//!   with which Oumi or the Hugging Face Trainer starts, or its total was announced, or it stands exactly at the step of
//!   a printed loss. Where the trainer does not print the step, the bar must have moved between two losses.
//!
//! A bar whose label names an epoch (`Epoch 3`) counts within it: it gives the loss, no step. Bars of inference
//! (`Processed prompts`) and evaluation (`Running … requests`) count where there is no training at all.

mod grammar;
mod health;
pub mod history;
pub(crate) mod links;
pub mod metrics;
mod names;
mod reader;
pub(crate) mod run_files;
mod scanner;
pub(crate) mod stall;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tqdm;
mod training;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use health::BadNews;
use history::History;
use metrics::Metrics;
pub(crate) use reader::IncrementalReader;
pub use scanner::Scanner;

#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Progress {
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The time at which the newest metric was written, at the latest.
    #[serde(skip)]
    pub measured_at: Option<SystemTime>,
    /// The name of the file that it was read from; empty for the log.
    pub source: String,
    /// Absent while the training itself runs.
    pub activity: Option<Activity>,
    #[serde(skip)]
    pub(crate) bad_news: Vec<BadNews>,
    /// The metrics are those of a training, not of inference or an evaluation.
    #[serde(skip)]
    pub(crate) is_training: bool,
}

/// What runs beside a training or after it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Activity {
    /// `evaluation`, `inference` or `saving`.
    pub what: &'static str,
    pub done: Option<u64>,
    pub total: Option<u64>,
}

impl Progress {
    /// The age of the newest metric at `now`.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.measured_at?).ok()
    }

    /// Tells if the log lacks the step or the total.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.metrics.step.and(self.metrics.total_steps).is_none()
    }

    /// Takes what the log lacks from the files of the run.
    pub(crate) fn completed(mut self, files: Option<Self>) -> Self {
        if let Some(mut files) = files.filter(|_| self.is_incomplete()) {
            // The time left in the files is out of date; that in the log is of a step that the log does not have.
            files.metrics.seconds_left = None;
            if self.metrics.step.is_none() {
                self.metrics.seconds_left = None;
                (self.source, self.measured_at) = (files.source, files.measured_at);
            }
            files.metrics.update(self.metrics);
            self.metrics = files.metrics;
        }
        self
    }
}

/// Reads the progress and the losses out of the log at `path`. Of a log larger than half a gigabyte the beginning and the
/// end are read. For repeated reads of a growing log, use [`IncrementalReader`].
pub(crate) fn read_log(path: &Path) -> io::Result<(Option<Progress>, History)> {
    let mut reader = IncrementalReader::new(path);
    let progress = reader.read_tail(reader::WHOLE)?;
    Ok((progress, reader.scanner.ahead().into_owned().history))
}

/// Describes what a log of this progress lacks for a curve.
pub(crate) fn without_curve(progress: Option<&Progress>) -> &'static str {
    match progress {
        None => "no line of the log reads as a loss or a reward",
        Some(progress) if !progress.is_training => "inference and evaluation print no loss",
        Some(_) => "the log has steps, but no loss and no reward",
    }
}
