//! Bad news of a training: figures that are no finite numbers, and a loss that has grown.

use super::history::{FIGURES, History, Point};
use crate::text::short_number;

/// A loss this many times its best is bad news; below the floor the best counts as that, since small losses leap.
const GROWTH: f64 = 10.0;
const FLOOR: f64 = 0.01;

/// Gradients that overflow are usual with fp16, whose trainer passes over such a step; in so many reports in a row they are
/// not.
const OVERFLOWS: usize = 10;

/// A fact that a person should know at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BadNews {
    pub(crate) sentence: String,
    /// A figure is NaN or infinite: the run is lost.
    pub(crate) is_lost: bool,
}

/// Finds the bad news in the course of the newest training.
pub(super) fn bad_news(history: &History) -> Vec<BadNews> {
    let points = history.points();
    let points = &points[points.partition_point(|point| point.run < history.run)..];
    // The loss of reinforcement learning tells nothing.
    let loss = |point: &Point| point.loss.filter(|_| point.reward.is_none());
    let newest = points.iter().rev().find_map(loss);
    let is_learning = newest.is_none_or(|loss| loss.is_finite() && loss != 0.0);
    let mut news = Vec::new();
    for (name, value) in FIGURES {
        let values = points.iter().rev();
        let values = values.filter_map(|point| Some((value(point)?, point)));
        let lost: Vec<_> = values.take_while(|(value, _)| !value.is_finite()).collect();
        let Some((value, first)) = lost.last() else {
            continue;
        };
        let since = match (first.step, first.epoch) {
            (Some(step), _) => format!(" since step {step}"),
            (None, Some(epoch)) => format!(" since epoch {}", short_number(epoch)),
            (None, None) => String::new(),
        };
        news.push(BadNews {
            sentence: format!("{name} is {}{since}", value.to_string().to_lowercase()),
            is_lost: match name {
                "grad_norm" => !is_learning || lost.len() >= OVERFLOWS,
                "eval_loss" => !is_learning,
                _ => true,
            },
        });
    }
    let losses = points.iter();
    let losses = losses.filter_map(|point| Some((loss(point)?, point.step)));
    let losses = losses.filter(|(loss, _)| loss.is_finite() && *loss > 0.0);
    if let Some((best, step)) = losses.min_by(|(one, _), (other, _)| one.total_cmp(other))
        && let Some(loss) = newest.filter(|loss| loss.is_finite())
        && loss >= GROWTH * best.max(FLOOR)
    {
        let times = short_number((loss / best).round());
        let at = step.map_or_else(String::new, |step| format!(" at step {step}"));
        let (loss, best) = (short_number(loss), short_number(best));
        news.push(BadNews {
            sentence: format!("loss {loss} is {times} times its best, {best}{at}"),
            is_lost: false,
        });
    }
    news
}
