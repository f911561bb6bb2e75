//! Bad news of a training: figures that are no finite numbers, and a loss that has grown.

use super::metrics::Metrics;

/// A loss this many times its best is bad news; below the floor the best counts as that, since small losses leap.
const GROWTH: f64 = 10.0;
const FLOOR: f64 = 0.01;

/// A fact that a person should know at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BadNews {
    /// The newest values of a figure are NaN or infinite, since this step or epoch where the trainer prints it.
    NotFinite {
        figure: &'static str,
        value: f64,
        since_step: Option<u64>,
        since_epoch: Option<f64>,
    },
    /// The newest loss is at least ten times the best.
    LossGrew {
        loss: f64,
        best: f64,
        best_step: Option<u64>,
    },
}

/// The state of the figures over a training.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    not_finite: Vec<BadNews>,
    best: Option<(f64, Option<u64>)>,
    loss: Option<f64>,
}

impl Health {
    /// Takes note of new metrics.
    pub(super) fn update(&mut self, metrics: &Metrics) {
        let figures = [
            ("loss", metrics.loss),
            ("grad_norm", metrics.grad_norm),
            ("eval_loss", metrics.eval_loss),
            ("reward", metrics.reward),
        ];
        for (name, value) in figures {
            let Some(value) = value else { continue };
            let is_name = |news: &BadNews| matches!(news, BadNews::NotFinite { figure, .. } if *figure == name);
            if value.is_finite() {
                self.not_finite.retain(|news| !is_name(news));
            } else if !self.not_finite.iter().any(is_name) {
                self.not_finite.push(BadNews::NotFinite {
                    figure: name,
                    value,
                    since_step: metrics.step,
                    since_epoch: metrics.epoch,
                });
            }
        }
        self.loss = metrics.loss.or(self.loss);
        // The loss of reinforcement learning tells nothing.
        if let Some(loss) = metrics
            .loss
            .filter(|loss| *loss > 0.0 && metrics.reward.is_none())
            && loss.is_finite()
            && self.best.is_none_or(|(best, _)| loss < best)
        {
            self.best = Some((loss, metrics.step));
        }
    }

    pub(super) fn bad_news(&self) -> Vec<BadNews> {
        let grown = self
            .loss
            .zip(self.best)
            .and_then(|(loss, (best, best_step))| {
                let is_grown = loss.is_finite() && loss >= GROWTH * best.max(FLOOR);
                is_grown.then_some(BadNews::LossGrew {
                    loss,
                    best,
                    best_step,
                })
            });
        self.not_finite.iter().cloned().chain(grown).collect()
    }
}

impl BadNews {
    /// Describes a figure that is no number: `grad_norm is nan since step 2`.
    pub(super) fn warning(&self) -> Option<String> {
        let Self::NotFinite {
            figure,
            value,
            since_step,
            since_epoch,
        } = self
        else {
            return None;
        };
        let since = match (since_step, since_epoch) {
            (Some(step), _) => format!(" since step {step}"),
            (None, Some(epoch)) => format!(" since epoch {epoch}"),
            _ => String::new(),
        };
        Some(format!("{figure} is {value}{since}").replace("NaN", "nan"))
    }
}
