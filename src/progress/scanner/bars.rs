//! Which of the bars in a log is that of the training, and what it says. The rules stand at the top of [`crate::progress`].

use super::Scanner;
use crate::progress::figures::{self, Figures, Kind};
use crate::progress::tqdm::Bar;

/// How many bars are watched until it is known which of them is that of the training.
const CANDIDATES: usize = 8;

/// Which bar it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BarKey {
    label: String,
    total: Option<u64>,
}

/// A bar that may be the training's.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    total: u64,
    done: u64,
    /// Where it stood at the last loss, and the step of that loss if it was printed.
    at_loss: Option<(u64, Option<u64>)>,
}

impl Scanner {
    /// Finds out which bar is that of the training, when a loss is printed.
    pub(super) fn tie_bar(&mut self, step: Option<u64>) {
        let mut tied = None;
        for candidate in &mut self.candidates {
            let moved = candidate
                .at_loss
                .is_some_and(|(done, _)| candidate.done > done);
            if candidate.total > 0
                && match step {
                    Some(step) => candidate.done == step,
                    None => moved,
                }
            {
                tied = Some((candidate.total, candidate.done));
            }
            candidate.at_loss = Some((candidate.done, step));
        }
        if self.training_bar.is_none()
            && let Some((total, done)) = tied
        {
            self.tie(total, done);
        }
    }

    fn tie(&mut self, total: u64, done: u64) {
        self.training_bar = Some(BarKey {
            label: String::new(),
            total: Some(total),
        });
        self.figures.total_steps = Some(total);
        self.figures.step = self.figures.step.max(Some(done));
        self.source.get_or_insert(BAR);
        self.begun = false;
    }

    /// Reads a state of a bar; whether it told anything of the training.
    pub(super) fn bar(&mut self, bar: &Bar<'_>, nested: bool) -> bool {
        let total = bar.total.map(|total| total as u64);
        let done = bar.done as u64;
        let (carried, carried_kind) = Figures::of(bar.metrics());
        if self
            .training_bar
            .as_ref()
            .is_some_and(|key| key.total == total && key.label.eq_ignore_ascii_case(bar.label))
        {
            self.training_state(bar, total, done, carried, carried_kind);
            return true;
        }
        let lower = bar.label.to_lowercase();
        let evaluates = ["eval", "valid", "test", "predict", "sanity"]
            .iter()
            .any(|word| lower.contains(word));
        if lower == "processed prompts"
            || (lower.starts_with("running ") && lower.ends_with(" requests"))
        {
            return self.requests(bar, total, done);
        }
        if evaluates {
            return false;
        }
        if let Some(epoch) = epoch_label(bar.label) {
            return self.epoch_bar(bar, epoch, carried, carried_kind);
        }
        if let Some((epoch, step, loss)) = torchtune_label(bar.label) {
            let part = total.map_or(0.0, |total| done as f64 / total.max(1) as f64);
            let figures = Figures {
                step: Some(step),
                epoch: Some(epoch.saturating_sub(1) as f64 + part.min(1.0)),
                loss: Some(loss),
                steps_per_second: bar.per_second,
                ..Figures::default()
            };
            self.history.push(&figures);
            self.figures.update(&figures);
            self.source = Some(BAR);
            return true;
        }
        if lower.starts_with("epoch") {
            // Somebody's own loop: its bar counts within an epoch, from 0 or 1, nobody knows.
            if !carried_kind.loss {
                return false;
            }
            self.source.get_or_insert(BAR);
            self.figures.update(&Figures {
                steps_per_second: bar.per_second,
                ..carried
            });
            return true;
        }
        let labelled = matches!(lower.as_str(), "training" | "training progress");
        let key = BarKey {
            label: lower,
            total,
        };
        if !labelled && !carried_kind.loss {
            return self.candidate(bar, total, done, nested);
        }
        self.training_bar = Some(key);
        self.begun = false;
        self.training_state(bar, total, done, carried, carried_kind);
        true
    }

    /// Reads a state of the bar that is known to be that of the training.
    fn training_state(
        &mut self,
        bar: &Bar<'_>,
        total: Option<u64>,
        done: u64,
        carried: Figures,
        kind: Kind,
    ) {
        self.take_bar(bar, total, done, carried);
        if kind.loss {
            self.history.push(&Figures {
                step: self.figures.step,
                epoch: self.figures.epoch,
                loss: self.figures.loss,
                bad_loss: self.figures.bad_loss,
                ..Figures::default()
            });
        }
    }

    fn take_bar(&mut self, bar: &Bar<'_>, total: Option<u64>, done: u64, carried: Figures) {
        self.source.get_or_insert(BAR);
        let behind = self.step_printed && self.figures.step.is_some_and(|step| step > done);
        if behind {
            // Bars are drawn a little late; what the trainer printed is newer.
            return;
        }
        if std::mem::take(&mut self.unsettled) {
            self.history.settle(done);
        }
        self.figures.update(&carried);
        self.figures.step = Some(done);
        self.figures.total_steps = total.or(self.figures.total_steps);
        self.figures.seconds_left = bar.seconds_left;
        if bar.per_second.is_some() {
            self.figures.steps_per_second = bar.per_second;
        }
    }

    /// An unlabelled bar: whether it is that of the training is to be found out.
    fn candidate(&mut self, bar: &Bar<'_>, total: Option<u64>, done: u64, nested: bool) -> bool {
        let Some(total) = total.filter(|_| bar.label.is_empty() && bar.unit == "it" && !nested)
        else {
            return false;
        };
        let mut after_loss = false;
        match self
            .candidates
            .iter_mut()
            .find(|candidate| candidate.total == total)
        {
            Some(candidate) => {
                candidate.done = done;
                // It is drawn anew right after a loss was printed, at the step of that loss.
                after_loss = candidate
                    .at_loss
                    .is_some_and(|(_, step)| step == Some(done));
            }
            None => {
                if self.candidates.len() >= CANDIDATES {
                    self.candidates.remove(0);
                }
                self.candidates.push(Candidate {
                    total,
                    done,
                    at_loss: None,
                });
            }
        }
        if self.training_bar.is_none()
            && (self.begun || self.announced_total == Some(total) || after_loss)
        {
            self.tie(total, done);
            self.take_bar(bar, Some(total), done, Figures::default());
            return true;
        }
        false
    }

    /// A bar of Lightning: one for each epoch.
    fn epoch_bar(&mut self, bar: &Bar<'_>, epoch: u64, carried: Figures, kind: Kind) -> bool {
        if !kind.loss && !bar.postfix.contains("v_num=") {
            return false;
        }
        let part = bar.total.map_or(0.0, |total| bar.done / total.max(1.0));
        let figures = Figures {
            epoch: Some(epoch as f64 + part.min(1.0)),
            steps_per_second: bar.per_second,
            ..carried
        };
        self.source = Some(BAR);
        self.training_bar = None;
        self.figures.update(&figures);
        self.figures.step = figures.step;
        self.figures.total_steps = None;
        self.figures.seconds_left = None;
        self.history.push(&figures);
        true
    }

    fn requests(&mut self, bar: &Bar<'_>, total: Option<u64>, done: u64) -> bool {
        self.requests.step = Some(done);
        self.requests.total_steps = total;
        self.requests.seconds_left = bar.seconds_left;
        self.requests.steps_per_second = bar.per_second;
        if let Some((_, speed)) = bar.postfix.split_once("output: ") {
            self.requests.tokens_per_second = speed.split(' ').next().and_then(figures::number);
        }
        true
    }
}

const BAR: &str = "the progress bar in the log";

/// `Epoch 3` is 3.
fn epoch_label(label: &str) -> Option<u64> {
    label.strip_prefix("Epoch ")?.parse().ok()
}

/// `1|25|Loss: 1.63` is epoch 1, step 25, a loss of 1.63.
fn torchtune_label(label: &str) -> Option<(u64, u64, f64)> {
    let (epoch, rest) = label.split_once('|')?;
    let (step, loss) = rest.split_once("|Loss: ")?;
    Some((
        epoch.parse().ok()?,
        step.parse().ok()?,
        loss.parse().ok().filter(|loss: &f64| loss.is_finite())?,
    ))
}
