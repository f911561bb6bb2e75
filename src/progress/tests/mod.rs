//! Progress in logs and in the files of a run.

mod fixtures;
mod grammar;
mod history;
mod reader;
mod run_files;
mod scanner;
mod shapes;
mod stall;
mod tqdm;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::history::History;
use super::metrics::Metrics;
use super::{Progress, Scanner};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/logs")
        .join(name)
}

pub(crate) fn scan(log: impl AsRef<[u8]>) -> (Option<Progress>, History) {
    let mut scanner = Scanner::default();
    scanner.push(log.as_ref());
    let training = scanner.ahead().into_owned();
    (training.progress(SystemTime::now()), training.history)
}

fn metrics(log: impl AsRef<[u8]>) -> Metrics {
    scan(log).0.expect("progress").metrics
}

fn is_close(one: Option<f64>, other: f64) -> bool {
    one.is_some_and(|one| (one - other).abs() <= other.abs() * 1e-9)
}

/// A line of a trainer that prints its step.
fn step_line(step: u64, loss: f64) -> String {
    format!("{{'loss': {loss}, 'epoch': 0.1, 'step': {step}}}\n")
}
