//! The choice of the training's bar among the bars in a log. Its rules stand at the top of [`crate::progress`].

use super::Scanner;
use crate::progress::Activity;
use crate::progress::grammar::number;
use crate::progress::metrics::{Metrics, Report};
use crate::progress::tqdm::Bar;

/// The speed of a resumed bar counts the steps that were skipped, until so many more are done. One is resumed when its
/// second count is at least this part of its total.
const UNSETTLED_STEPS: u64 = 10;
const RESUMED_PART: u64 = 20;

/// The most steps that the bar of one rank is behind that of another.
const MAX_LAG: u64 = 2;

/// The words of which one is in the label of a training's bar, where that has a label.
const TRAINING: [&str; 8] = [
    "train", "tuning", "learning", "optimiz", "sft", "step", "iter", "progress",
];

/// What runs beside a training, by words in the labels of its bars.
const BESIDE: [(&str, &str); 3] = [
    (
        "inference",
        "processed prompts| requests|model responses|requesting api",
    ),
    ("evaluation", "eval|valid|test|predict|sanity"),
    ("saving", "saving|writing model"),
];

/// The label and the total of a bar.
type Name = (String, Option<u64>);

#[derive(Debug, Clone, Default)]
pub(super) struct Bars {
    pub(super) training: Option<Name>,
    /// The bar that may be the training's and was drawn last, and the one that was so at the newest loss, with their counts.
    newest: Option<(Name, u64)>,
    at_loss: Option<(Name, u64)>,
    /// A training has started whose bar has not come yet.
    pub(super) training_started: bool,
    /// The training has printed its summary.
    pub(super) training_ended: bool,
    pub(super) announced_total: Option<u64>,
    /// The training's bar was drawn since the newest loss.
    is_drawn: bool,
    /// The count from which on the speed is true.
    settled_at: u64,
}

impl Bars {
    /// Takes note of a bar that may be the training's. Tells if it was drawn before the newest loss.
    fn watch(&mut self, bar: &Bar<'_>) -> bool {
        let (name, done) = ((bar.label.to_owned(), bar.total), bar.done);
        // One that begins anew, as that of each evaluation does, is another.
        let at_loss = &mut self.at_loss;
        at_loss.take_if(|it| it.0 == name && done + MAX_LAG < it.1);
        let was_at_loss = at_loss.as_ref().is_some_and(|it| it.0 == name);
        self.newest = Some((name, done));
        was_at_loss
    }
}

impl Scanner {
    /// Binds the bar that stands at a printed loss: at its `step`, or moved since the loss before. Where another bar is bound that
    /// is no longer drawn, the training has begun anew, as after an error.
    pub(super) fn bind_bar(&mut self, step: Option<u64>) {
        let is_drawn = std::mem::take(&mut self.bars.is_drawn);
        let is_bound = self.bars.training.is_some();
        let Some((name, done)) = self.bars.newest.clone() else {
            return;
        };
        let before = self.bars.at_loss.replace((name.clone(), done));
        let has_moved = before.is_some_and(|(other, before)| other == name && done > before);
        let is_at_loss = step.map_or(has_moved, |step| step == done);
        if is_at_loss && (!is_bound || (has_moved && !is_drawn)) {
            if is_bound {
                self.start_training();
                self.train();
            }
            self.metrics.step = self.metrics.step.max(Some(done));
            self.metrics.total_steps = name.1;
            self.bars.training = Some(name);
        }
    }

    pub(super) fn bar(&mut self, bar: &Bar<'_>, is_nested: bool) {
        let mut report = Report::default();
        if !bar.postfix.is_empty() {
            report.add_line(bar.postfix);
        }
        let known = self.bars.training.as_ref();
        let is_known =
            known.is_some_and(|(label, total)| *total == bar.total && label == bar.label);
        if is_known && !self.bars.training_ended {
            return self.training_state(bar, report);
        }
        if is_known && self.metrics.step == Some(bar.done) {
            // The training's own, drawn a last time, or that of an evaluation as long, at its end.
            self.activity = None;
            return;
        }
        let label = bar.label.to_lowercase();
        // Nested, or drawn after the training.
        let is_beside = (is_nested && known.is_some()) || self.bars.training_ended;
        let is_of = |words: &str| words.split('|').any(|word| label.contains(word));
        // Most bars have no label.
        let mut besides = BESIDE.iter().filter(|_| !label.is_empty());
        let beside = besides.find(|(_, words)| is_of(words));
        let beside = beside.map(|(what, _)| *what);
        let beside = beside.or((label.is_empty() && is_beside).then_some("evaluation"));
        let last = label.rsplit(": ").next();
        let is_training = matches!(last, Some("training" | "training progress"));
        // torchtune: `1|25|Loss: 1.63` is epoch 1, step 25, a loss of 1.63.
        if !label.is_empty()
            && let [epoch, step, loss] = *label.split('|').collect::<Vec<_>>()
            && loss.starts_with("loss: ")
        {
            report.add_line(&format!("epoch {epoch}/1, step {step}, {loss}"));
            self.epoch_bar(bar, report);
        } else if let Some(what) = beside {
            if label.is_empty() && bar.total.is_some() {
                self.bars.watch(bar);
            }
            self.beside_training(what, bar);
        } else if label.contains("epoch") {
            if report.has_figure() || bar.postfix.contains("v_num=") {
                report.add_line(bar.label);
                self.epoch_bar(bar, report);
            }
        } else if report.is_loss() || is_training || (!is_nested && self.is_training_bar(bar)) {
            self.bars.training = Some((bar.label.to_owned(), bar.total));
            self.bars.training_started = false;
            self.training_state(bar, report);
        }
    }

    /// Takes note of a bar that is not the training's.
    fn beside_training(&mut self, what: &'static str, bar: &Bar<'_>) {
        let is_over = bar.total.is_some_and(|total| total <= bar.done);
        self.activity = (!is_over).then_some(Activity {
            what,
            done: Some(bar.done),
            total: bar.total,
        });
        if what == "inference" && !self.is_training {
            let speed = bar.postfix.split_once("output: ");
            let speed = speed.and_then(|(_, speed)| number(speed));
            self.metrics.update(&mut Metrics {
                step: Some(bar.done),
                total_steps: bar.total,
                seconds_left: bar.seconds_left,
                steps_per_second: bar.per_second,
                tokens_per_second: speed.map(|(speed, _)| speed),
                ..Metrics::default()
            });
        }
    }

    fn training_state(&mut self, bar: &Bar<'_>, mut report: Report) {
        self.train();
        (self.bar_cleared, self.bars.is_drawn) = (false, true);
        // Bars are drawn a little late; a printed step is newer, and so is what another rank has drawn.
        let newest = self.metrics.step.unwrap_or_default();
        let is_late = self.prints_steps || (bar.done > 0 && newest <= bar.done + MAX_LAG);
        if newest > bar.done && is_late {
            return;
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
            self.loss_step = Some(bar.done);
            self.metrics.update(&mut report.metrics);
        }
        let metrics = &mut self.metrics;
        (metrics.step, metrics.total_steps) = (Some(bar.done), bar.total.or(metrics.total_steps));
        let speed = bar.per_second.filter(|_| is_settled);
        metrics.steps_per_second = speed.or(metrics.steps_per_second);
        metrics.seconds_left = bar.seconds_left.filter(|_| is_settled);
    }

    /// Tells if a bar is known as the training's: its total was announced, or it is the first after the start, or it is drawn
    /// again right after a loss was printed, at the step of that loss. Else it is watched.
    fn is_training_bar(&mut self, bar: &Bar<'_>) -> bool {
        let (Some(total), "it" | "step" | "steps") = (bar.total, bar.unit) else {
            return false;
        };
        let label = bar.label.to_lowercase();
        // What ends so is a prefix, and one with a time in it is another each time.
        let has_label = !label.is_empty() && !label.ends_with(['|', ']']);
        let is_of_data = label.contains("data") && !label.contains("step");
        let is_training = TRAINING.iter().any(|word| label.contains(word)) && !is_of_data;
        let is_time = |at: &[u8]| matches!(at, [b'0'..=b'9', b':', b'0'..=b'9']);
        let has_time = label.as_bytes().windows(3).any(is_time);
        if has_time || (has_label && !is_training) {
            return false;
        }
        let at_loss = self.bars.watch(bar);
        let is_at_loss = at_loss && self.prints_steps && self.loss_step == Some(bar.done);
        self.bars.training.is_none()
            && (is_at_loss
                || self.bars.announced_total == Some(total)
                || (self.bars.training_started && bar.label.is_empty()))
    }

    /// Reads a bar that counts within an epoch. Where nothing names the epoch, it may count epochs.
    fn epoch_bar(&mut self, bar: &Bar<'_>, mut report: Report) {
        if report.metrics.epoch.is_some() {
            let total = bar.total.map(|total| total as f64);
            report.batch = Some((bar.done as f64 - 1.0, total));
            report.metrics.steps_per_second = bar.per_second;
        }
        self.report(&mut report, true);
    }
}
