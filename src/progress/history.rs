//! The loss over a run, for a plot and as a line of text.

use super::figures::Figures;

/// The most points that are kept; of a longer run the extremes are.
pub const MAX_POINTS: usize = 20_000;

/// The widest line of text, in columns.
pub const MAX_COLUMNS: usize = 60;

/// The losses at one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// The step, where the trainer tells it.
    pub step: Option<u64>,
    /// The epoch, where it does.
    pub epoch: Option<f64>,
    /// The training loss.
    pub loss: Option<f64>,
    /// The evaluation loss.
    pub eval_loss: Option<f64>,
}

/// The losses of a run, in the order of its steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    points: Vec<Point>,
}

impl History {
    /// The losses, oldest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Adds what a trainer has just said. A step that comes again, as after a resume from a checkpoint, replaces itself and
    /// what was after it.
    pub fn push(&mut self, figures: &Figures) {
        if figures.loss.is_none() && figures.eval_loss.is_none() {
            return;
        }
        let mut point = Point {
            step: figures.step,
            epoch: figures.epoch,
            loss: figures.loss,
            eval_loss: figures.eval_loss,
        };
        if let Some(step) = point.step {
            while self
                .points
                .last()
                .is_some_and(|last| last.step.is_some_and(|last| last > step))
            {
                self.points.pop();
            }
            if let Some(same) = self.points.pop_if(|last| last.step == Some(step)) {
                point.loss = point.loss.or(same.loss);
                point.eval_loss = point.eval_loss.or(same.eval_loss);
                point.epoch = point.epoch.or(same.epoch);
            }
        }
        self.points.push(point);
        if self.points.len() > MAX_POINTS {
            self.thin();
        }
    }

    /// Says that the last point is of `step`, if not of a later one.
    pub(super) fn settle(&mut self, step: u64) {
        if let Some(last) = self.points.last_mut() {
            last.step = last.step.max(Some(step));
        }
    }

    /// Halves the points: of each four those with the least and the greatest loss stay, so that no spike is lost, and so do
    /// all with an evaluation loss.
    fn thin(&mut self) {
        let mut kept = Vec::with_capacity(self.points.len() / 2 + 4);
        for four in self.points.chunks(4) {
            let by_loss = |one: &&Point, other: &&Point| {
                one.loss
                    .unwrap_or(f64::NAN)
                    .total_cmp(&other.loss.unwrap_or(f64::NAN))
            };
            let with_loss = || four.iter().filter(|point| point.loss.is_some());
            let (least, greatest) = (with_loss().min_by(by_loss), with_loss().max_by(by_loss));
            kept.extend(four.iter().filter(|point| {
                point.eval_loss.is_some() || Some(*point) == least || Some(*point) == greatest
            }));
        }
        if kept.len() > MAX_POINTS * 9 / 10 {
            // Nearly all have an evaluation loss: then every other one.
            kept = kept.into_iter().step_by(2).collect();
        }
        self.points = kept;
    }

    /// The losses as text, a line for each kind there is: `loss 6.02 ▇▅▃▂▁▁ 5.54, steps 1 to 12`.
    pub fn sparkline(&self, columns: usize) -> Option<String> {
        let lines: Vec<String> = [
            ("loss", (|point| point.loss) as fn(&Point) -> Option<f64>),
            ("eval_loss", |point| point.eval_loss),
        ]
        .into_iter()
        .filter_map(|(name, value)| self.line(name, value, columns))
        .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn line(&self, name: &str, value: fn(&Point) -> Option<f64>, columns: usize) -> Option<String> {
        let points: Vec<(&Point, f64)> = self
            .points
            .iter()
            .filter_map(|point| Some((point, value(point)?)))
            .collect();
        let ((first_point, first), (last_point, last)) = (points.first()?, points.last()?);
        let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        let steps = match (first_point.step, last_point.step) {
            (Some(from), Some(to)) if from == to => format!(", step {from}"),
            (Some(from), Some(to)) => format!(", steps {from} to {to}"),
            _ => String::new(),
        };
        if values.len() == 1 {
            return Some(format!("{name} {}{steps}", short(*first)));
        }
        Some(format!(
            "{name} {} {} {}{steps}",
            short(*first),
            sparkline(&values, columns),
            short(*last)
        ))
    }
}

/// A number with four significant digits.
fn short(value: f64) -> String {
    let magnitude = value.abs();
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
/// mean of what falls into it. The heights span what nearly all values do, so that one spike does not flatten the rest.
pub fn sparkline(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    let columns = columns.clamp(1, MAX_COLUMNS).min(values.len());
    let means: Vec<f64> = (0..columns)
        .filter_map(|column| {
            let part = values
                .get(column * values.len() / columns..(column + 1) * values.len() / columns)?;
            // Each divided first: the sum of great numbers may be none.
            Some(part.iter().map(|value| value / part.len() as f64).sum())
        })
        .collect();
    let mut sorted = means.clone();
    sorted.sort_by(f64::total_cmp);
    let outliers = if sorted.len() >= 20 {
        sorted.len() / 20
    } else {
        0
    };
    let (Some(low), Some(high)) = (sorted.get(outliers), sorted.iter().rev().nth(outliers)) else {
        return String::new();
    };
    let span = high / 2.0 - low / 2.0;
    means
        .iter()
        .map(|mean| {
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
