//! Bad news of a training: figures that are no finite numbers, and a loss that has grown.

use std::collections::BTreeMap;

use super::metrics::Metrics;

/// A loss this many times its best is bad news; below the floor the best counts as that, since small losses leap.
const GROWTH: f64 = 10.0;
const FLOOR: f64 = 0.01;

/// Gradients that overflow are usual with fp16, whose trainer passes over such a step; in so many reports in a row they are
/// not.
const OVERFLOWS: u32 = 10;

/// A fact that a person should know at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BadNews {
    pub(crate) sentence: String,
    /// A figure is NaN or infinite: the run is lost.
    pub(crate) is_lost: bool,
}

/// The state of the figures over a training.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    /// The figures whose newest values are NaN or infinite, the sentence that says so, and the number of reports.
    not_finite: BTreeMap<&'static str, (String, u32)>,
    /// The lowest loss, and its step.
    best: Option<(f64, Option<u64>)>,
    loss: Option<f64>,
}

impl Health {
    pub(super) fn update(&mut self, metrics: &Metrics) {
        let figures = [
            ("loss", metrics.loss),
            ("grad_norm", metrics.grad_norm),
            ("eval_loss", metrics.eval_loss),
            ("reward", metrics.reward),
        ];
        for (figure, value) in &figures {
            let Some(value) = value else { continue };
            if value.is_finite() {
                self.not_finite.remove(figure);
                continue;
            }
            let entry = self.not_finite.entry(figure).or_insert_with(|| {
                let since = match (metrics.step, metrics.epoch) {
                    (Some(step), _) => format!(" since step {step}"),
                    (None, Some(epoch)) => format!(" since epoch {epoch}"),
                    (None, None) => String::new(),
                };
                let sentence = format!("{figure} is {}{since}", value.to_string().to_lowercase());
                (sentence, 0)
            });
            entry.1 += 1;
        }
        // The loss of reinforcement learning tells nothing.
        let loss = metrics.loss.filter(|_| metrics.reward.is_none());
        self.loss = loss.or(self.loss);
        if let Some(loss) = loss.filter(|loss| loss.is_finite() && *loss > 0.0)
            && self.best.is_none_or(|(best, _)| loss < best)
        {
            self.best = Some((loss, metrics.step));
        }
    }

    pub(super) fn bad_news(&self) -> Vec<BadNews> {
        let news = |sentence: String, is_lost| BadNews { sentence, is_lost };
        let is_learning = self.loss.is_none_or(|loss| loss.is_finite() && loss != 0.0);
        let is_lost = |figure, times| match figure {
            "grad_norm" => !is_learning || times >= OVERFLOWS,
            "eval_loss" => !is_learning,
            _ => true,
        };
        // The loss comes before its gradient.
        let figures = self.not_finite.iter().rev();
        let all = figures
            .map(|(figure, (sentence, times))| news(sentence.clone(), is_lost(*figure, *times)));
        let mut all: Vec<BadNews> = all.collect();
        if let (Some(loss), Some((best, step))) = (self.loss, self.best)
            && loss.is_finite()
            && loss >= GROWTH * best.max(FLOOR)
        {
            let times = (loss / best).round();
            let at = step.map_or_else(String::new, |step| format!(" at step {step}"));
            let (loss, best) = (figure(loss), figure(best));
            let sentence = format!("loss {loss} is {times} times its best, {best}{at}");
            all.push(news(sentence, false));
        }
        all
    }
}

/// A number with at most four decimals, none of them padding.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        f64::MIN_POSITIVE..1e-3 | 1e7..f64::INFINITY => {
            let rounded = format!("{value:.3e}").parse().unwrap_or(value);
            format!("{rounded:e}")
        }
        _ => ((value * 1e4).round() / 1e4 + 0.0)
            .to_string()
            .to_lowercase(),
    }
}
