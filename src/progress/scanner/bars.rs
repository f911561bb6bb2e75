//! The choice of the training's bar among the bars in a log. Its rules stand at the top of [`crate::progress`].

use super::Scanner;
use crate::progress::Activity;
use crate::progress::grammar::number;
use crate::progress::metrics::{Metrics, Report};
use crate::progress::tqdm::Bar;

/// The most bars that are watched until the training's bar is known.
const MAX_CANDIDATES: usize = 8;

/// A bar whose first count is this part of its total was resumed: its speed counts the steps that were skipped, until so
/// many more are done.
const RESUMED_PART: u64 = 20;
const RESUMED_STEPS: u64 = 10;

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
    /// The count from which on the speed of a resumed bar is true.
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
        let is_it = |(label, total): &(String, Option<u64>)| {
            *total == bar.total && label.eq_ignore_ascii_case(bar.label)
        };
        !self.training_ended && self.training_bar.as_ref().is_some_and(is_it)
    }
}

impl Scanner {
    /// Binds the bar that stands at a printed loss: at its `step`, or moved since the loss before.
    pub(super) fn bind_bar(&mut self, step: Option<u64>) {
        self.bars.training_ended = false;
        let mut bound = None;
        for candidate in &mut self.bars.candidates {
            let has_moved = candidate
                .at_loss
                .is_some_and(|(done, _)| candidate.done > done);
            let is_at_loss = match step {
                Some(step) => candidate.done == step,
                None => has_moved && is_of_training(&candidate.label),
            };
            if candidate.total > 0 && is_at_loss {
                bound = Some(candidate.clone());
            }
            candidate.at_loss = Some((candidate.done, step));
        }
        if let Some(candidate) = bound
            && !self.bars.has_training_bar()
        {
            self.bind(candidate.label, candidate.total);
            self.metrics.step = self.metrics.step.max(Some(candidate.done));
        }
    }

    fn bind(&mut self, label: String, total: u64) {
        self.bars.training_bar = Some((label, Some(total)));
        self.metrics.total_steps = Some(total);
        self.bars.training_started = false;
    }

    /// Reads a state of a bar, and returns whether it told anything of the training.
    pub(super) fn bar(&mut self, bar: &Bar<'_>, is_nested: bool) -> bool {
        let mut report = Report::default();
        report.add_line(bar.postfix);
        if self.bars.is_training_bar(bar) {
            self.training_state(bar, report);
            return true;
        }
        if let Some(report) = torchtune_report(bar) {
            return self.report(report, SOURCE, true);
        }
        let label = bar.label.to_lowercase();
        let is_any = |words: &[&str]| words.iter().any(|word| label.contains(word));
        let is_unnamed_evaluation = label.is_empty()
            && (is_nested && self.bars.has_training_bar() || self.bars.training_ended);
        if is_any(&[
            "processed prompts",
            " requests",
            "model responses",
            "requesting api",
        ]) {
            self.requests(bar);
            self.beside_training("inference", bar)
        } else if is_unnamed_evaluation || is_any(&["eval", "valid", "test", "predict", "sanity"]) {
            self.beside_training("evaluation", bar)
        } else if is_any(&["saving", "writing model"]) {
            self.beside_training("saving", bar)
        } else if is_any(&["epoch"]) || self.table.read(bar.label, &mut report) {
            self.epoch_bar(bar, report)
        } else if report.metrics.loss.or(report.metrics.reward).is_some()
            || matches!(
                label.rsplit(": ").next(),
                Some("training" | "training progress")
            )
        {
            self.bars.training_bar = Some((bar.label.to_owned(), bar.total));
            self.bars.training_started = false;
            self.training_state(bar, report);
            true
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
    fn training_state(&mut self, bar: &Bar<'_>, report: Report) {
        self.source.get_or_insert(SOURCE);
        self.activity = None;
        self.bar_cleared = false;
        if self.prints_steps && self.metrics.step > Some(bar.done) {
            // Bars are drawn a little late; the printed step is newer.
            return;
        }
        if std::mem::take(&mut self.step_pending) {
            self.history.assign_step(bar.done);
            self.loss_step = Some(bar.done);
        }
        let is_first = self.metrics.step == Some(0) && bar.done > 1;
        if is_first
            && bar
                .total
                .is_some_and(|total| bar.done >= total / RESUMED_PART)
        {
            self.bars.settled_at = bar.done + RESUMED_STEPS;
        }
        let is_settled = bar.done >= self.bars.settled_at;
        let metrics = Metrics {
            step: Some(bar.done),
            total_steps: bar.total,
            steps_per_second: bar.per_second.filter(|_| is_settled),
            ..report.metrics
        };
        if metrics.loss.or(metrics.reward).is_some() {
            self.history.push(&metrics);
            self.health.update(&metrics);
            self.loss_step = metrics.step;
        }
        self.metrics.update(metrics);
        self.metrics.seconds_left = bar.seconds_left.filter(|_| is_settled);
    }

    /// Watches a bar of which it is not known yet whether it is the training's.
    fn candidate(&mut self, bar: &Bar<'_>) -> bool {
        let (Some(total), "it" | "step" | "steps") = (bar.total, bar.unit) else {
            return false;
        };
        let candidates = &mut self.bars.candidates;
        let is_known = |known: &&mut Candidate| known.total == total && known.label == bar.label;
        let mut is_at_loss = false;
        if let Some(known) = candidates.iter_mut().find(is_known) {
            known.done = bar.done;
            // It is drawn again right after a loss was printed, at the step of that loss.
            is_at_loss = known
                .at_loss
                .is_some_and(|(_, step)| step == Some(bar.done));
        } else {
            if candidates.len() >= MAX_CANDIDATES {
                candidates.remove(0);
            }
            candidates.push(Candidate {
                label: bar.label.to_owned(),
                total,
                done: bar.done,
                at_loss: None,
            });
        }
        let is_first = self.bars.training_started && bar.label.is_empty();
        let is_training = is_first || self.bars.announced_total == Some(total) || is_at_loss;
        if self.bars.has_training_bar() || !is_training {
            return false;
        }
        self.bind(bar.label.to_owned(), total);
        self.training_state(bar, Report::default());
        true
    }

    /// Reads a bar that counts within an epoch.
    fn epoch_bar(&mut self, bar: &Bar<'_>, mut report: Report) -> bool {
        let is_lightning = bar.postfix.contains("v_num=");
        if !(report.has_figure() || is_lightning || self.table.is_open()) {
            return false;
        }
        report.add_line(bar.label);
        report.set_batch(bar.done, bar.total);
        report.metrics.steps_per_second = bar.per_second;
        let is_new = report.has_figure();
        self.report(report, SOURCE, is_new)
    }

    fn requests(&mut self, bar: &Bar<'_>) {
        let requests = &mut self.requests;
        requests.step = Some(bar.done);
        requests.total_steps = bar.total;
        requests.seconds_left = bar.seconds_left;
        requests.steps_per_second = bar.per_second;
        if let Some((_, speed)) = bar.postfix.split_once("output: ") {
            requests.tokens_per_second = number(speed).map(|(speed, _)| speed);
        }
    }
}

/// Tells whether a bar of this label may be the training's where no step is printed.
fn is_of_training(label: &str) -> bool {
    label.is_empty() || label.to_lowercase().contains("train")
}

/// Reads torchtune's label: `1|25|Loss: 1.63` is epoch 1, step 25, a loss of 1.63.
fn torchtune_report(bar: &Bar<'_>) -> Option<Report> {
    let (epoch, rest) = bar.label.split_once('|')?;
    let (step, loss) = rest.split_once("|Loss: ")?;
    let epoch: u64 = epoch.parse().ok()?;
    let part = bar.done as f64 / bar.total.map_or(1.0, |total| total.max(1) as f64);
    let metrics = Metrics {
        step: Some(step.parse().ok()?),
        epoch: Some(epoch.saturating_sub(1) as f64 + part.min(1.0)),
        loss: Some(loss.parse().ok()?),
        steps_per_second: bar.per_second,
        ..Metrics::default()
    };
    Some(Report::from(metrics))
}
