//! The choice of the training's bar among the bars in a log. Its rules stand at the top of [`crate::progress`].

use super::Scanner;
use crate::progress::Activity;
use crate::progress::grammar::number;
use crate::progress::metrics::{Metrics, Report};
use crate::progress::tqdm::Bar;

/// The most bars that are watched until the training's bar is known.
const MAX_CANDIDATES: usize = 8;

/// The speed of a resumed bar counts the steps that were skipped, until so many more are done. One is resumed when its
/// second count is at least this part of its total.
const UNSETTLED_STEPS: u64 = 10;
const RESUMED_PART: u64 = 20;

const SOURCE: &str = "the progress bar in the log";

#[derive(Debug, Clone, Default)]
pub(super) struct Bars {
    /// The label and the total of the training's bar.
    training_bar: Option<(String, Option<u64>)>,
    candidates: Vec<Candidate>,
    /// A training has started whose bar has not come yet.
    pub(super) training_started: bool,
    /// The training has printed its summary.
    pub(super) training_ended: bool,
    pub(super) announced_total: Option<u64>,
    /// The count from which on the speed is true.
    settled_at: u64,
}

/// A bar that may be the training's.
#[derive(Debug, Clone)]
struct Candidate {
    label: String,
    total: u64,
    done: u64,
    /// Its count at the newest loss, and the step of that loss if it was printed.
    at_loss: Option<(u64, Option<u64>)>,
}

impl Bars {
    pub(super) fn has_training_bar(&self) -> bool {
        self.training_bar.is_some()
    }

    fn is_training_bar(&self, bar: &Bar<'_>) -> bool {
        let known = self.training_bar.as_ref().filter(|_| !self.training_ended);
        known.is_some_and(|(label, total)| *total == bar.total && label == bar.label)
    }
}

impl Scanner {
    /// Binds the bar that stands at a printed loss: at its `step`, or moved since the loss before.
    pub(super) fn bind_bar(&mut self, step: Option<u64>) {
        self.bars.training_ended = false;
        let mut bound = None;
        for candidate in &mut self.bars.candidates {
            let (done, label) = (candidate.done, candidate.label.to_lowercase());
            let before = candidate.at_loss.replace((done, step));
            let has_moved = before.is_some_and(|(before, _)| done > before);
            let may_train = label.is_empty() || label.contains("train");
            if step.map_or(has_moved && may_train, |step| step == done) {
                bound = Some(candidate.clone());
            }
        }
        if let Some(bar) = bound.filter(|_| !self.bars.has_training_bar()) {
            self.metrics.step = self.metrics.step.max(Some(bar.done));
            self.metrics.total_steps = Some(bar.total);
            self.bars.training_bar = Some((bar.label, Some(bar.total)));
        }
    }

    /// Reads a state of a bar, and returns whether it told anything of the training.
    pub(super) fn bar(&mut self, bar: &Bar<'_>, is_nested: bool) -> bool {
        let mut report = Report::default();
        report.add_line(bar.postfix);
        if self.bars.is_training_bar(bar) {
            return self.training_state(bar, report);
        }
        if let Some(report) = torchtune_report(bar) {
            return self.report(report, SOURCE, true);
        }
        let label = bar.label.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| label.contains(word));
        let is_beside = (is_nested && self.bars.has_training_bar()) || self.bars.training_ended;
        if has(&[
            "processed prompts",
            " requests",
            "model responses",
            "requesting api",
        ]) {
            self.requests(bar);
            self.beside_training("inference", bar)
        } else if has(&["eval", "valid", "test", "predict", "sanity"])
            || (label.is_empty() && is_beside)
        {
            self.beside_training("evaluation", bar)
        } else if has(&["saving", "writing model"]) {
            self.beside_training("saving", bar)
        } else if has(&["epoch"]) || self.table.read(bar.label, &mut report) {
            self.epoch_bar(bar, report)
        } else if report.is_loss()
            || matches!(
                label.rsplit(": ").next(),
                Some("training" | "training progress")
            )
        {
            self.bars.training_bar = Some((bar.label.to_owned(), bar.total));
            self.bars.training_started = false;
            self.training_state(bar, report)
        } else {
            !is_nested && self.candidate(bar)
        }
    }

    /// Takes note of a bar that is not the training's.
    fn beside_training(&mut self, what: &'static str, bar: &Bar<'_>) -> bool {
        let is_over = bar.total.is_some_and(|total| total <= bar.done);
        self.activity = (!is_over).then_some(Activity {
            what,
            done: Some(bar.done),
            total: bar.total,
            seconds_left: bar.seconds_left,
        });
        what == "inference"
    }

    /// Reads a state of the training's bar.
    fn training_state(&mut self, bar: &Bar<'_>, mut report: Report) -> bool {
        self.source.get_or_insert(SOURCE);
        self.activity = None;
        self.bar_cleared = false;
        if self.prints_steps && self.metrics.step > Some(bar.done) {
            // Bars are drawn a little late; the printed step is newer.
            return true;
        }
        if std::mem::take(&mut self.step_pending) {
            self.history.assign_step(bar.done);
            self.loss_step = Some(bar.done);
        }
        let skipped = bar.total.map_or(u64::MAX, |total| total / RESUMED_PART);
        if self.metrics.step == Some(0) && bar.done > skipped.max(1) {
            self.bars.settled_at = bar.done + UNSETTLED_STEPS;
        }
        let is_settled = bar.done >= self.bars.settled_at;
        if report.is_loss() {
            report.metrics.step = Some(bar.done);
            self.history.push(&report.metrics);
            self.health.update(&report.metrics);
            self.loss_step = Some(bar.done);
            self.metrics.update(report.metrics);
        }
        let metrics = &mut self.metrics;
        (metrics.step, metrics.total_steps) = (Some(bar.done), bar.total.or(metrics.total_steps));
        let speed = bar.per_second.filter(|_| is_settled);
        metrics.steps_per_second = speed.or(metrics.steps_per_second);
        metrics.seconds_left = bar.seconds_left.filter(|_| is_settled);
        true
    }

    /// Watches a bar of which it is not known yet whether it is the training's.
    fn candidate(&mut self, bar: &Bar<'_>) -> bool {
        let (Some(total), "it" | "step" | "steps") = (bar.total, bar.unit) else {
            return false;
        };
        let candidates = &mut self.bars.candidates;
        let is_known = |known: &&mut Candidate| known.total == total && known.label == bar.label;
        let mut is_training = self.bars.announced_total == Some(total)
            || (self.bars.training_started && bar.label.is_empty());
        if let Some(known) = candidates.iter_mut().find(is_known) {
            known.done = bar.done;
            // It is drawn again right after a loss was printed, at the step of that loss.
            is_training |= known
                .at_loss
                .is_some_and(|(_, step)| step == Some(bar.done));
        } else {
            candidates.truncate(MAX_CANDIDATES - 1);
            let label = bar.label.to_owned();
            candidates.insert(
                0,
                Candidate {
                    label,
                    total,
                    done: bar.done,
                    at_loss: None,
                },
            );
        }
        if self.bars.has_training_bar() || !is_training {
            return false;
        }
        self.bars.training_bar = Some((bar.label.to_owned(), bar.total));
        self.bars.training_started = false;
        self.training_state(bar, Report::default())
    }

    /// Reads a bar that counts within an epoch.
    fn epoch_bar(&mut self, bar: &Bar<'_>, mut report: Report) -> bool {
        let is_new = report.has_figure();
        if !is_new && !bar.postfix.contains("v_num=") && !self.table.is_open() {
            return false;
        }
        report.add_line(bar.label);
        report.set_batch(bar.done, bar.total);
        report.metrics.steps_per_second = bar.per_second;
        self.report(report, SOURCE, is_new)
    }

    fn requests(&mut self, bar: &Bar<'_>) {
        let speed = bar
            .postfix
            .split_once("output: ")
            .and_then(|(_, speed)| number(speed));
        self.requests.update(Metrics {
            step: Some(bar.done),
            total_steps: bar.total,
            seconds_left: bar.seconds_left,
            steps_per_second: bar.per_second,
            tokens_per_second: speed.map(|(speed, _)| speed),
            ..Metrics::default()
        });
    }
}

/// Reads torchtune's label: `1|25|Loss: 1.63` is epoch 1, step 25, a loss of 1.63.
fn torchtune_report(bar: &Bar<'_>) -> Option<Report> {
    let (epoch, rest) = bar.label.split_once('|')?;
    let (step, loss) = rest.split_once("|Loss: ")?;
    let epoch: u64 = epoch.parse().ok()?;
    let part = bar.done as f64 / bar.total.map_or(1.0, |total| total.max(1) as f64);
    let mut report = Report::default();
    report.metrics = Metrics {
        step: Some(step.parse().ok()?),
        epoch: Some(epoch.saturating_sub(1) as f64 + part.min(1.0)),
        loss: Some(loss.parse().ok()?),
        steps_per_second: bar.per_second,
        ..Metrics::default()
    };
    Some(report)
}
