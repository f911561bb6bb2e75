//! The choice of the training's bar among the bars in a log. Its rules stand at the top of [`crate::progress`].

use super::Training;
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

/// The activities beside a training, by words in the labels of their bars.
const ACTIVITIES: [(&str, &str); 3] = [
    (
        "inference",
        "processed prompts| requests|model responses|requesting api",
    ),
    ("evaluation", "eval|valid|test|predict|sanity"),
    ("saving", "saving|writing model"),
];

/// A bar as it was drawn.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    label: String,
    total: Option<u64>,
    done: u64,
}

impl Drawn {
    fn new(bar: &Bar<'_>) -> Self {
        Self {
            label: bar.label.to_owned(),
            total: bar.total,
            done: bar.done,
        }
    }

    /// Tells if a bar of this label and total is the same bar.
    fn is(&self, label: &str, total: Option<u64>) -> bool {
        self.total == total && self.label == label
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Bars {
    /// The training's bar, as it was bound.
    pub(super) training: Option<Drawn>,
    /// The bar drawn last that may be the training's, and the one that was so at the newest loss.
    newest: Option<Drawn>,
    at_loss: Option<Drawn>,
    /// The training's bar was drawn since the newest loss.
    is_drawn: bool,
    /// The count from which on the speed is true.
    settled_at: u64,
}

impl Bars {
    /// Notes a bar that may be the training's. Tells if it was drawn before the newest loss too.
    fn watch(&mut self, bar: &Bar<'_>) -> bool {
        let is_same = |other: &Drawn| other.is(bar.label, bar.total);
        // A bar that starts again, as that of each evaluation does, is another.
        let is_restart = |before: &mut Drawn| is_same(before) && bar.done + MAX_LAG < before.done;
        self.at_loss.take_if(is_restart);
        self.newest = Some(Drawn::new(bar));
        self.at_loss.as_ref().is_some_and(is_same)
    }
}

impl Training {
    /// Binds the bar that stands at a printed loss: at its `step`, or moved since the loss before. Where another bar is bound that
    /// is no longer drawn, the training has begun anew, as after an error.
    pub(super) fn bind_bar(&mut self, step: Option<u64>) {
        let is_drawn = std::mem::take(&mut self.bars.is_drawn);
        let is_bound = self.bars.training.is_some();
        let Some(newest) = self.bars.newest.clone() else {
            return;
        };
        let before = self.bars.at_loss.replace(newest.clone());
        let has_moved = before.is_some_and(|before| {
            before.is(&newest.label, newest.total) && newest.done > before.done
        });
        let is_at_loss = step.map_or(has_moved, |step| step == newest.done);
        if is_at_loss && (!is_bound || (has_moved && !is_drawn)) {
            if is_bound {
                self.start();
                self.begin_metrics();
            }
            self.metrics.step = self.metrics.step.max(Some(newest.done));
            self.metrics.total_steps = newest.total;
            self.bars.training = Some(newest);
        }
    }

    pub(in crate::progress) fn read_bar(&mut self, bar: &Bar<'_>, is_nested: bool) {
        let mut report = Report::default();
        if !bar.postfix.is_empty() {
            report.add_line(bar.postfix);
        }
        let own = self.bars.training.as_ref();
        let is_own = own.is_some_and(|own| own.is(bar.label, bar.total));
        if is_own && !self.has_ended {
            return self.add_state(bar, report);
        }
        if is_own && self.metrics.step == Some(bar.done) {
            // Drawn a last time; or the bar of an evaluation as long, at its end.
            self.activity = None;
            return;
        }
        let label = bar.label.to_lowercase();
        let is_beside = (is_nested && own.is_some()) || self.has_ended;
        let last = || label.rsplit(": ").next();
        if label.contains('|')
            && let [epoch, step, loss] = *label.split('|').collect::<Vec<_>>()
            && loss.starts_with("loss: ")
        {
            // torchtune: `1|25|Loss: 1.63` is epoch 1, step 25, a loss of 1.63.
            report.add_line(&format!("epoch {epoch}/1, step {step}, {loss}"));
            self.add_epoch_state(bar, report);
        } else if let Some(what) = activity_of(&label) {
            self.add_activity(what, bar);
        } else if label.is_empty() && is_beside {
            if bar.total.is_some() {
                self.bars.watch(bar);
            }
            self.add_activity("evaluation", bar);
        } else if label.contains("epoch") {
            if report.has_figure() || bar.postfix.contains("v_num=") {
                report.add_line(bar.label);
                self.add_epoch_state(bar, report);
            }
        } else if report.is_loss()
            || matches!(last(), Some("training" | "training progress"))
            || (!is_nested && self.is_training_bar(bar, &label))
        {
            self.bars.training = Some(Drawn::new(bar));
            self.has_started = false;
            self.add_state(bar, report);
        }
    }

    /// Adds a state of a bar that is not the training's.
    fn add_activity(&mut self, what: &'static str, bar: &Bar<'_>) {
        let is_over = bar.total.is_some_and(|total| total <= bar.done);
        self.activity = (!is_over).then_some(Activity {
            what,
            done: Some(bar.done),
            total: bar.total,
        });
        if what == "inference" && !self.is_training {
            let speed = bar.postfix.split_once("output: ");
            let speed = speed.and_then(|(_, speed)| number(speed));
            self.metrics.update(Metrics {
                step: Some(bar.done),
                total_steps: bar.total,
                seconds_left: bar.seconds_left,
                steps_per_second: bar.per_second,
                tokens_per_second: speed.map(|(speed, _)| speed),
                ..Metrics::default()
            });
        }
    }

    /// Adds a state of the training's bar.
    fn add_state(&mut self, bar: &Bar<'_>, mut report: Report) {
        self.begin_metrics();
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
            self.metrics.update(report.metrics);
        }
        let metrics = &mut self.metrics;
        (metrics.step, metrics.total_steps) = (Some(bar.done), bar.total.or(metrics.total_steps));
        let speed = bar.per_second.filter(|_| is_settled);
        metrics.steps_per_second = speed.or(metrics.steps_per_second);
        metrics.seconds_left = bar.seconds_left.filter(|_| is_settled);
    }

    /// Adds a state of a bar that counts within an epoch. Where nothing names the epoch, it may count epochs.
    fn add_epoch_state(&mut self, bar: &Bar<'_>, mut report: Report) {
        if report.metrics.epoch.is_some() {
            let total = bar.total.map(|total| total as f64);
            report.batch = Some((bar.done as f64 - 1.0, total));
            report.metrics.steps_per_second = bar.per_second;
        }
        self.add_report(report, true);
    }

    /// Tells if a bar is known as the training's: its total was announced, or it is the first after the start, or it is drawn
    /// again right after a loss was printed, at the step of that loss. Else it is watched.
    fn is_training_bar(&mut self, bar: &Bar<'_>, label: &str) -> bool {
        let (Some(total), "it" | "step" | "steps") = (bar.total, bar.unit) else {
            return false;
        };
        // A label that ends so is a prefix; one with a time in it is another each time.
        let is_prefix = label.is_empty() || label.ends_with(['|', ']']);
        let is_of_data = || label.contains("data") && !label.contains("step");
        let is_training = || TRAINING.iter().any(|word| label.contains(word)) && !is_of_data();
        let is_time = |at: &[u8]| matches!(at, [b'0'..=b'9', b':', b'0'..=b'9']);
        let has_time = label.as_bytes().windows(3).any(is_time);
        if has_time || !(is_prefix || is_training()) {
            return false;
        }
        let was_at_loss = self.bars.watch(bar);
        let is_at_loss = was_at_loss && self.prints_steps && self.loss_step == Some(bar.done);
        self.bars.training.is_none()
            && (is_at_loss
                || self.announced_total == Some(total)
                || (self.has_started && label.is_empty()))
    }
}

fn activity_of(label: &str) -> Option<&'static str> {
    let is_of = |words: &str| words.split('|').any(|word| label.contains(word));
    // Most bars have no label.
    let mut activities = ACTIVITIES.iter().filter(|_| !label.is_empty());
    let (what, _) = activities.find(|(_, words)| is_of(words))?;
    Some(*what)
}
