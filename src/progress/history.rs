//! The loss over a run, for a plot and as a line of text.

use super::figures::Figures;

/// The most points that are kept, half of them for each of the two losses.
pub const MAX_POINTS: usize = 8192;

/// Of so many values at a time two are kept.
const GROUP: usize = 4;

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
    /// The training loss was told, and it is no number.
    pub bad_loss: bool,
    /// The evaluation loss.
    pub eval_loss: Option<f64>,
}

/// The losses of a run, in the order of its steps. Of a long run the extremes are kept, as densely at its beginning as at
/// its end, so that no spike is lost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    losses: Curve,
    eval_losses: Curve,
    said: u64,
}

impl History {
    /// The losses, oldest first.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.losses.values.len());
        let mut losses = self.losses.values.iter().peekable();
        let mut eval_losses = self.eval_losses.values.iter().peekable();
        loop {
            let (loss, eval_loss) = match (losses.peek(), eval_losses.peek()) {
                (Some(one), Some(other)) if one.is_of_the_step_of(other) => {
                    (losses.next(), eval_losses.next())
                }
                (Some(one), Some(other)) if other.nth < one.nth => (None, eval_losses.next()),
                (Some(_), _) => (losses.next(), None),
                (None, Some(_)) => (None, eval_losses.next()),
                (None, None) => return points,
            };
            points.push(Point {
                step: loss.or(eval_loss).and_then(|value| value.step),
                epoch: [loss, eval_loss]
                    .into_iter()
                    .flatten()
                    .find_map(|value| value.epoch),
                loss: loss.and_then(|value| value.loss),
                bad_loss: loss.is_some_and(|value| value.loss.is_none()),
                eval_loss: eval_loss.and_then(|value| value.loss),
            });
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.losses.values.is_empty() && self.eval_losses.values.is_empty()
    }

    /// Adds what a trainer has just said. A step that comes again, as after a resume from a checkpoint, replaces itself and
    /// what was after it.
    pub fn push(&mut self, figures: &Figures) {
        let loss = (figures.loss.is_some() || figures.bad_loss).then_some(figures.loss);
        let eval_loss = figures.eval_loss.map(Some);
        if loss.is_none() && eval_loss.is_none() {
            return;
        }
        self.said += 1;
        for (curve, said) in [(&mut self.losses, loss), (&mut self.eval_losses, eval_loss)] {
            if let Some(step) = figures.step {
                curve.cut_after(step);
            }
            if let Some(loss) = said {
                curve.push(Value {
                    nth: self.said,
                    step: figures.step,
                    epoch: figures.epoch,
                    loss,
                });
            }
        }
    }

    /// Says that the last point is of `step`, if not of a later one.
    pub(super) fn settle(&mut self, step: u64) {
        for curve in [&mut self.losses, &mut self.eval_losses] {
            if let Some(last) = curve.values.last_mut().filter(|last| last.nth == self.said) {
                last.step = last.step.max(Some(step));
            }
        }
    }

    /// The losses as text, a line for each kind there is: `loss 6.02 ▇▅▃▂▁▁ 5.54, steps 1 to 12`.
    pub fn sparkline(&self, columns: usize) -> Option<String> {
        let lines: Vec<String> = [
            self.losses.line("loss", columns),
            self.eval_losses.line("eval_loss", columns),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// One of the losses as it went.
#[derive(Debug, Clone, PartialEq, Default)]
struct Curve {
    values: Vec<Value>,
    /// Of so many values that were told the extremes are kept; 0 while all are.
    every: usize,
    /// How many were told since the last of these groups was full…
    told: usize,
    /// … and how many of them are kept, at the end of the values.
    open: usize,
}

/// A loss that was told.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Value {
    /// How many were told before, of both losses.
    nth: u64,
    step: Option<u64>,
    epoch: Option<f64>,
    /// None where it was no number.
    loss: Option<f64>,
}

impl Value {
    fn is_of_the_step_of(&self, other: &Self) -> bool {
        self.nth == other.nth || (self.step.is_some() && self.step == other.step)
    }

    /// The loss, one that is no number being the greatest.
    fn height(&self) -> f64 {
        self.loss.unwrap_or(f64::NAN)
    }
}

impl Curve {
    /// Drops what is of later steps than `step`.
    fn cut_after(&mut self, step: u64) {
        while self
            .values
            .pop_if(|last| last.step.is_some_and(|last| last > step))
            .is_some()
        {
            self.reopen();
        }
    }

    /// The last value was taken out.
    fn reopen(&mut self) {
        self.told = self.told.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
    }

    fn push(&mut self, mut value: Value) {
        if value.step.is_some()
            && let Some(same) = self.values.pop_if(|last| last.step == value.step)
        {
            self.reopen();
            value.epoch = value.epoch.or(same.epoch);
        }
        // Before it is added, so that the newest is always there.
        if self.every > 0 && (self.open >= GROUP || self.told >= self.every) {
            self.thin(self.values.len().saturating_sub(self.open));
            if self.told >= self.every {
                (self.told, self.open) = (0, 0);
            }
        }
        if self.values.len() >= MAX_POINTS / 2 {
            // All but the first.
            self.thin(1);
            self.every = self.every.saturating_mul(2).max(GROUP);
            (self.told, self.open) = (0, 0);
        }
        self.values.push(value);
        self.told += 1;
        self.open += 1;
    }

    /// Of each [`GROUP`] values from `from` on keeps those with the least and the greatest loss.
    fn thin(&mut self, from: usize) {
        let before = self.values.len();
        let mut kept = from;
        for start in (from..before).step_by(GROUP) {
            let (mut least, mut greatest) = (start, start);
            for at in start..before.min(start + GROUP) {
                let height = self.values[at].height();
                if height.total_cmp(&self.values[least].height()).is_lt() {
                    least = at;
                }
                if height.total_cmp(&self.values[greatest].height()).is_ge() {
                    greatest = at;
                }
            }
            self.values[kept] = self.values[least.min(greatest)];
            kept += 1;
            if least != greatest {
                self.values[kept] = self.values[least.max(greatest)];
                kept += 1;
            }
        }
        self.values.truncate(kept);
        self.open = self.open.saturating_sub(before - self.values.len());
    }

    fn line(&self, name: &str, columns: usize) -> Option<String> {
        let (first, last) = (self.values.first()?, self.values.last()?);
        let steps = match (first.step, last.step) {
            (Some(from), Some(to)) if from == to => format!(", step {from}"),
            (Some(from), Some(to)) => format!(", steps {from} to {to}"),
            _ => String::new(),
        };
        let first = short(first.height());
        if self.values.len() == 1 {
            return Some(format!("{name} {first}{steps}"));
        }
        let heights: Vec<f64> = self.values.iter().map(Value::height).collect();
        let line = sparkline(&heights, columns);
        Some(format!(
            "{name} {first} {line} {}{steps}",
            short(last.height())
        ))
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
