//! The choice of the training's bar among the bars in a log. Its rules stand at the top of [`crate::progress`].

use super::Scanner;
use crate::progress::grammar::number;
use crate::progress::metrics::Metrics;
use crate::progress::tqdm::Bar;

/// The most bars that are watched until the training's bar is known.
const MAX_CANDIDATES: usize = 8;

const SOURCE: &str = "the progress bar in the log";

#[derive(Debug, Clone, Default)]
pub(super) struct Bars {
    /// The label and the total of the training's bar.
    training_bar: Option<(String, Option<u64>)>,
    candidates: Vec<Candidate>,
    /// A training has started whose bar has not come yet.
    pub(super) training_started: bool,
    pub(super) announced_total: Option<u64>,
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
        self.training_bar.as_ref().is_some_and(|(label, total)| {
            *total == bar.total.map(|total| total as u64) && label.eq_ignore_ascii_case(bar.label)
        })
    }
}

impl Scanner {
    /// Binds the bar that stands at a printed loss: at its `step`, or moved since the loss before.
    pub(super) fn bind_bar(&mut self, step: Option<u64>) {
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
            self.bind(candidate.label, candidate.total, candidate.done);
        }
    }

    fn bind(&mut self, label: String, total: u64, done: u64) {
        self.bars.training_bar = Some((label, Some(total)));
        self.metrics.total_steps = Some(total);
        self.metrics.step = self.metrics.step.max(Some(done));
        self.source.get_or_insert(SOURCE);
        self.bars.training_started = false;
    }

    /// Reads a state of a bar, and returns whether it told anything of the training.
    pub(super) fn bar(&mut self, bar: &Bar<'_>, is_nested: bool) -> bool {
        let mut metrics = Metrics::default();
        metrics.add_line(bar.postfix);
        if self.bars.is_training_bar(bar) {
            self.training_state(bar, metrics);
            return true;
        }
        let label = bar.label.to_lowercase();
        let is_evaluation = ["eval", "valid", "test", "predict", "sanity"]
            .iter()
            .any(|word| label.contains(word));
        let is_inference = label == "processed prompts"
            || (label.starts_with("running ") && label.ends_with(" requests"));
        if is_inference {
            self.requests(bar);
            true
        } else if is_evaluation {
            false
        } else if let Some(metrics) = torchtune_metrics(bar) {
            self.history.push(&metrics);
            self.metrics.update(metrics);
            self.source = Some(SOURCE);
            true
        } else if label.contains("epoch") {
            self.epoch_bar(bar, metrics)
        } else if metrics.loss.is_some() || matches!(&*label, "training" | "training progress") {
            self.bars.training_bar = Some((label, bar.total.map(|total| total as u64)));
            self.bars.training_started = false;
            self.training_state(bar, metrics);
            true
        } else {
            !is_nested && self.candidate(bar)
        }
    }

    /// Reads a state of the training's bar.
    fn training_state(&mut self, bar: &Bar<'_>, metrics: Metrics) {
        let has_loss = metrics.loss.is_some();
        self.update_from_bar(bar, metrics);
        if has_loss {
            self.history.push(&Metrics {
                eval_loss: None,
                ..self.metrics.clone()
            });
        }
    }

    fn update_from_bar(&mut self, bar: &Bar<'_>, metrics: Metrics) {
        let done = bar.done as u64;
        self.source.get_or_insert(SOURCE);
        if self.prints_steps && self.metrics.step > Some(done) {
            // Bars are drawn a little late; the printed step is newer.
            return;
        }
        if std::mem::take(&mut self.step_pending) {
            self.history.assign_step(done);
        }
        self.metrics.update(Metrics {
            step: Some(done),
            total_steps: bar.total.map(|total| total as u64),
            steps_per_second: bar.per_second,
            ..metrics
        });
        self.metrics.seconds_left = bar.seconds_left;
    }

    /// Watches a bar of which it is not known yet whether it is the training's.
    fn candidate(&mut self, bar: &Bar<'_>) -> bool {
        let (Some(total), "it" | "step" | "steps") = (bar.total, bar.unit) else {
            return false;
        };
        let (total, done) = (total as u64, bar.done as u64);
        let candidates = &mut self.bars.candidates;
        let known = candidates
            .iter_mut()
            .find(|known| known.total == total && known.label == bar.label);
        let mut is_at_loss = false;
        if let Some(known) = known {
            known.done = done;
            // It is drawn again right after a loss was printed, at the step of that loss.
            is_at_loss = known.at_loss.is_some_and(|(_, step)| step == Some(done));
        } else {
            if candidates.len() >= MAX_CANDIDATES {
                candidates.remove(0);
            }
            candidates.push(Candidate {
                label: bar.label.to_owned(),
                total,
                done,
                at_loss: None,
            });
        }
        let is_first = self.bars.training_started && bar.label.is_empty();
        let is_training = is_first || self.bars.announced_total == Some(total) || is_at_loss;
        if self.bars.has_training_bar() || !is_training {
            return false;
        }
        self.bind(bar.label.to_owned(), total, done);
        self.update_from_bar(bar, Metrics::default());
        true
    }

    /// Reads a bar that counts within an epoch. Lightning's `Epoch 3` counts epochs from 0; others count from 0 or 1.
    fn epoch_bar(&mut self, bar: &Bar<'_>, metrics: Metrics) -> bool {
        let label = bar.label.strip_prefix("Epoch ");
        let epoch: Option<u64> = label.and_then(|number| number.parse().ok());
        let is_lightning = epoch.is_some() && bar.postfix.contains("v_num=");
        if metrics.loss.is_none() && !is_lightning {
            return false;
        }
        let part = bar.total.map_or(0.0, |total| bar.done / total.max(1.0));
        let metrics = Metrics {
            epoch: epoch.map(|epoch| epoch as f64 + part.min(1.0)),
            steps_per_second: bar.per_second,
            ..metrics
        };
        if epoch.is_some() {
            self.source = Some(SOURCE);
            self.bars.training_bar = None;
            self.metrics.step = None;
            self.metrics.total_steps = None;
            self.metrics.seconds_left = None;
        }
        if *self.source.get_or_insert(SOURCE) == SOURCE {
            self.history.push(&metrics);
        }
        self.metrics.update(metrics);
        true
    }

    fn requests(&mut self, bar: &Bar<'_>) {
        let requests = &mut self.requests;
        requests.step = Some(bar.done as u64);
        requests.total_steps = bar.total.map(|total| total as u64);
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
fn torchtune_metrics(bar: &Bar<'_>) -> Option<Metrics> {
    let (epoch, rest) = bar.label.split_once('|')?;
    let (step, loss) = rest.split_once("|Loss: ")?;
    let epoch: u64 = epoch.parse().ok()?;
    let part = bar.total.map_or(0.0, |total| bar.done / total.max(1.0));
    Some(Metrics {
        step: Some(step.parse().ok()?),
        epoch: Some(epoch.saturating_sub(1) as f64 + part.min(1.0)),
        loss: Some(loss.parse().ok().filter(|loss: &f64| loss.is_finite())?),
        steps_per_second: bar.per_second,
        ..Metrics::default()
    })
}
