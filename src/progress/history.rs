//! The course of the loss, for a plot and as a line of text.

use super::metrics::Metrics;
use crate::text::short_number;

/// The most points that are kept. One more has still room in a vector of 8,192, which is not doubled.
pub(crate) const MAX_POINTS: usize = 8190;

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    pub step: Option<u64>,
    pub epoch: Option<f64>,
    /// NaN or infinite where the trainer printed that.
    pub loss: Option<f64>,
    pub eval_loss: Option<f64>,
    pub reward: Option<f64>,
    pub grad_norm: Option<f64>,
    /// The number of the training in its log.
    pub(super) run: u32,
}

/// Takes a figure of a point.
pub(crate) type Figure = fn(&Point) -> Option<f64>;

/// The figures of a course, in the order in which they count; the last is not drawn.
pub(crate) const FIGURES: [(&str, Figure); 4] = [
    ("reward", |point| point.reward),
    ("loss", |point| point.loss),
    ("eval_loss", |point| point.eval_loss),
    ("grad_norm", |point| point.grad_norm),
];

/// The losses of a run, in the order of its steps. Of a long run every second, fourth, … is kept, and the newest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    points: Vec<Point>,
    /// The set of the evaluation losses, where several are told apart: the first that came.
    eval_set: Option<Option<String>>,
    /// One point in `2^halvings` is kept.
    halvings: u32,
    /// The points that came since the last halving.
    count: usize,
    /// The number of the newest training.
    pub(super) run: u32,
}

impl History {
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Adds the losses among new metrics. A step that comes again, as after a resume from a checkpoint, replaces itself and
    /// what was after it.
    pub(crate) fn push(&mut self, metrics: &Metrics) {
        let mut is_of_set = |_: &f64| {
            let first = || metrics.eval_set.clone();
            *self.eval_set.get_or_insert_with(first) == metrics.eval_set
        };
        let mut point = Point {
            step: metrics.step,
            epoch: metrics.epoch,
            loss: metrics.loss,
            eval_loss: metrics.eval_loss.filter(&mut is_of_set),
            reward: metrics.reward,
            grad_norm: metrics.grad_norm,
            run: self.run,
        };
        if FIGURES.iter().all(|(_, figure)| figure(&point).is_none()) {
            return;
        }
        let is_later = |last: &mut Point| last.step > point.step && point.step.is_some();
        while self.points.pop_if(is_later).is_some() {}
        let is_same = |last: &mut Point| last.step == point.step && point.step.is_some();
        if let Some(last) = self.points.pop_if(is_same) {
            point.loss = point.loss.or(last.loss);
            point.eval_loss = point.eval_loss.or(last.eval_loss);
            point.reward = point.reward.or(last.reward);
            point.grad_norm = point.grad_norm.or(last.grad_norm);
            return self.points.push(point);
        }
        // The newest is always there: the one before it goes where it is none of those that are kept.
        let is_kept = self.count.is_multiple_of(1 << self.halvings);
        self.points
            .pop_if(|last| !is_kept && last.eval_loss.is_none());
        self.points.push(point);
        self.count += 1;
        if self.points.len() > MAX_POINTS {
            let evaluated = self.points.iter().filter(|one| one.eval_loss.is_some());
            let keeps_evaluated = evaluated.count() < MAX_POINTS / 4;
            let mut at = 0;
            self.points.retain(|point| {
                at += 1;
                at % 2 == 1 || (keeps_evaluated && point.eval_loss.is_some())
            });
            (self.halvings, self.count) = (self.halvings + 1, 0);
        }
    }

    /// Adds the gradient to the newest point, where a line of its own tells it.
    pub(super) fn add_grad_norm(&mut self, grad_norm: Option<f64>) {
        if let Some(last) = self.points.last_mut() {
            last.grad_norm = grad_norm.or(last.grad_norm);
        }
    }

    /// Assigns `step` to the newest point, unless its step is later.
    pub(super) fn assign_step(&mut self, step: u64) {
        if let Some(last) = self.points.last_mut() {
            last.step = last.step.max(Some(step));
        }
    }

    /// The losses as text, a line for each kind there is: `loss 6.02 ▇▅▃▂▁▁ 5.54, steps 1 to 12`. A reward comes first.
    pub(crate) fn sparkline(&self, columns: usize) -> Option<String> {
        let set = self.eval_set.as_ref().and_then(Option::as_deref);
        let lines = FIGURES[..3].iter().filter_map(|(name, figure)| {
            let name = match set {
                Some(set) if *name == "eval_loss" => format!("eval_{set}_loss"),
                _ => (*name).to_owned(),
            };
            let known = self.points.iter().filter(|point| figure(point).is_some());
            let (steps, values): (Vec<_>, Vec<_>) = known
                .map(|point| (point.step, figure(point).unwrap_or_default()))
                .unzip();
            let steps = match (*steps.first()?, *steps.last()?) {
                (Some(from), Some(to)) if from == to => format!(", step {from}"),
                (Some(from), Some(to)) => format!(", steps {from} to {to}"),
                _ => String::new(),
            };
            let (first, last) = (
                short_number(*values.first()?),
                short_number(*values.last()?),
            );
            Some(match values.len() {
                1 => format!("{name} {first}{steps}"),
                _ => format!(
                    "{name} {first} {} {last}{steps}",
                    sparkline(&values, columns)
                ),
            })
        });
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// `values` as blocks of eight heights, in at most `columns` columns: each is the mean of the numbers that fall into it, and
/// a cross where there is none. The heights span what nearly all do, so that one spike does not flatten the rest.
pub(super) fn sparkline(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = columns.min(values.len());
    let mean = |column: usize| {
        let part = column * values.len() / columns..(column + 1) * values.len() / columns;
        let numbers = values[part].iter().filter(|value| value.is_finite());
        let count = numbers.clone().count() as f64;
        // Each divided first: the sum of great numbers may be none.
        numbers
            .map(|value| value / count)
            .reduce(|sum, one| sum + one)
    };
    let means: Vec<Option<f64>> = (0..columns).map(mean).collect();
    let mut sorted: Vec<f64> = means.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let outliers = sorted.len() / 20;
    let low = sorted.get(outliers).copied().unwrap_or(0.0);
    let high = sorted.iter().rev().nth(outliers).copied().unwrap_or(0.0);
    let block = |mean: Option<f64>| {
        // Halved, since the distance of great numbers may be none. A distance of 0 is the lowest block.
        let height = mean.map(|mean| (mean / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0));
        height.map_or('×', |height| {
            BLOCKS[(height.clamp(0.0, 1.0) * 7.0).round() as usize]
        })
    };
    means.into_iter().map(block).collect()
}
