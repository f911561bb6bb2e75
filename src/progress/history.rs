//! The course of the loss, for a plot and as a line of text.

use super::metrics::Metrics;

/// The most points that are kept.
pub(crate) const MAX_POINTS: usize = 8192;

/// The widest line of text, in columns.
const MAX_COLUMNS: usize = 60;

/// The losses at one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    pub step: Option<u64>,
    pub epoch: Option<f64>,
    /// NaN or infinite where the trainer printed that.
    pub loss: Option<f64>,
    pub eval_loss: Option<f64>,
    pub reward: Option<f64>,
}

/// The losses of a run, in the order of its steps. Of a long run the least and the greatest of every four, eight, … are
/// kept, and the newest ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    points: Vec<Point>,
    /// The set of the evaluation losses, where several are told apart: the first that came.
    eval_set: Option<Option<String>>,
    /// One point in `2^halvings` is kept.
    halvings: u32,
    /// The newest points, of which all are there.
    dense: usize,
}

impl History {
    /// The losses, oldest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Adds the losses among new metrics. A step that comes again, as after a resume from a checkpoint, replaces itself and
    /// what was after it.
    pub(crate) fn push(&mut self, metrics: &Metrics) {
        let is_of_set = metrics.eval_loss.is_some()
            && *self
                .eval_set
                .get_or_insert_with(|| metrics.eval_set.clone())
                == metrics.eval_set;
        let mut point = Point {
            step: metrics.step,
            epoch: metrics.epoch,
            loss: metrics.loss,
            eval_loss: metrics.eval_loss.filter(|_| is_of_set),
            reward: metrics.reward,
        };
        if point.loss.or(point.eval_loss).or(point.reward).is_none() {
            return;
        }
        let is_later = |last: &mut Point| last.step > point.step && point.step.is_some();
        while self.points.pop_if(is_later).is_some() {}
        if point.step.is_some()
            && let Some(last) = self.points.pop_if(|last| last.step == point.step)
        {
            point.loss = point.loss.or(last.loss);
            point.eval_loss = point.eval_loss.or(last.eval_loss);
            point.reward = point.reward.or(last.reward);
            point.epoch = point.epoch.or(last.epoch);
            self.points.push(point);
            return;
        }
        self.points.push(point);
        self.dense += 1;
        let group = 2_usize << self.halvings;
        if self.points.len() >= MAX_POINTS {
            self.halvings = (self.halvings + 1).min(40);
            self.thin(self.points.len(), 4);
        } else if self.halvings > 0 && self.dense >= group {
            self.thin(group, group);
        }
    }

    /// Keeps two of each `size` among the newest `count` points, and those with an evaluation where they are few.
    fn thin(&mut self, count: usize, size: usize) {
        let newest = self
            .points
            .split_off(self.points.len().saturating_sub(count));
        let is_evaluated = |point: &&Point| point.eval_loss.is_some();
        let keeps_evaluated = newest.iter().filter(is_evaluated).count() < MAX_POINTS / 4;
        // A value that is no number is the greatest.
        let height = |point: &Point| {
            let value = point.loss.or(point.reward).unwrap_or(f64::NEG_INFINITY);
            if value.is_nan() { f64::INFINITY } else { value }
        };
        for group in newest.chunks(size) {
            let heights = || group.iter().map(height).enumerate().rev();
            let greatest = heights().max_by(|one, other| one.1.total_cmp(&other.1));
            let least = heights().min_by(|one, other| one.1.total_cmp(&other.1));
            let kept = [greatest, least].map(|found| found.map(|(at, _)| at));
            let points = group.iter().enumerate();
            self.points.extend(points.filter_map(|(at, point)| {
                let is_kept = kept.contains(&Some(at)) || (keeps_evaluated && is_evaluated(&point));
                is_kept.then_some(*point)
            }));
        }
        self.dense = 0;
    }

    /// Assigns `step` to the newest point, unless its step is later.
    pub(super) fn assign_step(&mut self, step: u64) {
        if let Some(last) = self.points.last_mut() {
            last.step = last.step.max(Some(step));
        }
    }

    /// The losses as text, a line for each kind there is: `loss 6.02 ▇▅▃▂▁▁ 5.54, steps 1 to 12`. A reward comes first.
    pub(crate) fn sparkline(&self, columns: usize) -> Option<String> {
        let set = self.eval_set.clone().flatten();
        let eval_name = set.map_or("eval_loss".to_owned(), |set| format!("eval_{set}_loss"));
        let lines = [
            self.line("reward", columns, |point| point.reward),
            self.line("loss", columns, |point| point.loss),
            self.line(&eval_name, columns, |point| point.eval_loss),
        ];
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn line(
        &self,
        name: &str,
        columns: usize,
        loss: impl Fn(&Point) -> Option<f64>,
    ) -> Option<String> {
        let (points, values): (Vec<&Point>, Vec<f64>) = self
            .points
            .iter()
            .filter_map(|point| Some((point, loss(point)?)))
            .unzip();
        let steps = match (points.first()?.step, points.last()?.step) {
            (Some(from), Some(to)) if from == to => format!(", step {from}"),
            (Some(from), Some(to)) => format!(", steps {from} to {to}"),
            _ => String::new(),
        };
        let (first, last) = (short(*values.first()?), short(*values.last()?));
        if values.len() == 1 {
            return Some(format!("{name} {first}{steps}"));
        }
        let line = sparkline(&values, columns);
        Some(format!("{name} {first} {line} {last}{steps}"))
    }
}

/// A number with four significant digits.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if !magnitude.is_finite() {
        return "nan".to_owned();
    }
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let decimals = match magnitude {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// `values` as blocks of eight heights, in at most `columns` columns and never more than [`MAX_COLUMNS`]: each column is the
/// mean of what falls into it, and a cross where nothing in it is a number. The heights span what nearly all values do, so
/// that one spike does not flatten the rest.
pub fn sparkline(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = columns.clamp(1, MAX_COLUMNS).min(values.len());
    let means: Vec<Option<f64>> = (0..columns)
        .map(|column| {
            let part = column * values.len() / columns..(column + 1) * values.len() / columns;
            mean(values.get(part)?)
        })
        .collect();
    let mut sorted: Vec<f64> = means.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let outliers = sorted.len() / 20;
    let low = sorted.get(outliers).copied().unwrap_or(0.0);
    let high = sorted.iter().rev().nth(outliers).copied().unwrap_or(0.0);
    let span = high / 2.0 - low / 2.0;
    means
        .iter()
        .map(|mean| {
            let Some(mean) = mean else { return '×' };
            let height = (mean / 2.0 - low / 2.0) / span;
            let height = if height.is_nan() {
                0.0
            } else {
                height.clamp(0.0, 1.0)
            };
            BLOCKS[((height * 7.0).round() as usize).min(7)]
        })
        .collect()
}

/// The mean of those that are numbers.
fn mean(values: &[f64]) -> Option<f64> {
    let numbers = || values.iter().filter(|value| value.is_finite());
    let count = numbers().count();
    // Each divided first: the sum of great numbers may be none.
    (count > 0).then(|| numbers().map(|value| value / count as f64).sum())
}
