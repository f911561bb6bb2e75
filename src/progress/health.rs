//! Bad news of a training: figures that are no finite numbers, and a loss that has grown.

use std::collections::BTreeMap;

use super::history::short;
use super::metrics::Metrics;

/// A loss this many times its best is bad news; below the floor the best counts as that, since small losses leap.
const GROWTH: f64 = 10.0;
const FLOOR: f64 = 0.01;

/// A fact that a person should know at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BadNews {
    /// The newest values of a figure are NaN or infinite, since a step or an epoch where the trainer prints one.
    NotFinite(&'static str, f64, Option<String>),
    /// The newest loss is at least ten times the best, which was at this step.
    LossGrew(f64, f64, Option<u64>),
}

/// The state of the figures over a training.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    not_finite: BTreeMap<&'static str, BadNews>,
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
        let step = metrics.step.map(|step| format!("step {step}"));
        let since = step.or_else(|| metrics.epoch.map(|epoch| format!("epoch {epoch}")));
        for (figure, value) in figures {
            match value {
                Some(value) if !value.is_finite() => {
                    let news = BadNews::NotFinite(figure, value, since.clone());
                    self.not_finite.entry(figure).or_insert(news);
                }
                Some(_) => drop(self.not_finite.remove(figure)),
                None => {}
            }
        }
        self.loss = metrics.loss.or(self.loss);
        // The loss of reinforcement learning tells nothing.
        let loss = metrics.loss.filter(|_| metrics.reward.is_none());
        if let Some(loss) = loss.filter(|loss| loss.is_finite() && *loss > 0.0)
            && self.best.is_none_or(|(best, _)| loss < best)
        {
            self.best = Some((loss, metrics.step));
        }
    }

    pub(super) fn bad_news(&self) -> Vec<BadNews> {
        // The loss comes before its gradient.
        let mut news: Vec<_> = self.not_finite.values().rev().cloned().collect();
        if let (Some(loss), Some((best, step))) = (self.loss, self.best)
            && loss.is_finite()
            && loss >= GROWTH * best.max(FLOOR)
        {
            news.push(BadNews::LossGrew(loss, best, step));
        }
        news
    }
}

impl BadNews {
    /// Describes it: `grad_norm is nan since step 2`.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::NotFinite(figure, value, since) => {
                let since = since.as_ref().map(|since| format!(" since {since}"));
                let value = value.to_string().to_lowercase();
                format!("{figure} is {value}{}", since.unwrap_or_default())
            }
            Self::LossGrew(loss, best, step) => {
                let at = step.map(|step| format!(" at step {step}"));
                let digits = |value: f64| match short(value) {
                    text if text.contains('e') => text,
                    text => text.parse().unwrap_or(value).to_string(),
                };
                format!(
                    "loss {} is {:.0} times its best, {}{}",
                    digits(*loss),
                    loss / best,
                    digits(*best),
                    at.unwrap_or_default()
                )
            }
        }
    }
}
