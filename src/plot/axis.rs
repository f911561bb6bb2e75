//! The two axes: what they span, and the numbers at them.

use std::cmp::Ordering;
use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis from its least to its greatest value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Equal ways are equal factors.
    pub log: bool,
    /// The values that are written at it, and how.
    pub ticks: Vec<(f64, String)>,
}

/// From this factor between the least and the greatest loss on the axis is logarithmic.
const LOG_FROM: f64 = 30.0;

/// With fewer losses none is an outlier.
const ENOUGH: usize = 20;

/// Outliers are cut when the rest would have less than this part of the height.
const LEAST_PART: f64 = 1.0 / 8.0;

/// How many numbers there are at most at the axis of the losses and that of the steps.
const TICKS: (f64, f64) = (7.0, 8.0);

impl Axis {
    /// Of steps, or, if not `whole`, of epochs.
    pub fn of_steps(values: impl Iterator<Item = f64> + Clone, whole: bool) -> Self {
        let (low, high) = bounds(values);
        let mut axis = Self::linear(low, high, TICKS.1);
        if whole {
            axis.ticks_at(step_ticks(axis.low, axis.high));
        }
        axis
    }

    /// Of losses, a slice for each curve.
    pub fn of_losses(curves: &[Vec<f64>]) -> Self {
        let (low, high) = curves
            .iter()
            .filter(|curve| !curve.is_empty())
            .map(|curve| without_outliers(curve))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |all, one| {
                (all.0.min(one.0), all.1.max(one.1))
            });
        if low > 0.0 && high / low > LOG_FROM {
            return Self::logarithmic(low, high);
        }
        Self::linear(low, high, TICKS.0)
    }

    fn linear(low: f64, high: f64, most: f64) -> Self {
        let (low, high) = match low.partial_cmp(&high) {
            Some(Ordering::Less) => (low, high),
            // No value.
            _ if !low.is_finite() => (0.0, 1.0),
            // One value, in the middle.
            _ => (
                low - low.abs().max(1.0) * 0.1,
                high + high.abs().max(1.0) * 0.1,
            ),
        };
        // In parts, since the span of great numbers may be none.
        let margin = high * 0.04 - low * 0.04;
        let mut axis = Self {
            low: (low - margin).max(f64::MIN),
            high: (high + margin).min(f64::MAX),
            log: false,
            ticks: Vec::new(),
        };
        let step = nice(axis.high / most - axis.low / most);
        let first = (axis.low / step).ceil();
        let ticks = (0..=most as u32)
            .map(|nth| (first + f64::from(nth)) * step)
            .map(|at| (at, label(at, step, low.abs().max(high.abs()))))
            .collect();
        axis.ticks_at(ticks);
        axis
    }

    fn logarithmic(low: f64, high: f64) -> Self {
        let (low, high) = (low.log10(), high.log10());
        let margin = (high - low) * 0.04;
        let mut axis = Self {
            low: low - margin,
            high: high + margin,
            log: true,
            ticks: Vec::new(),
        };
        let (from, to) = (axis.low.floor() as i32, axis.high.ceil() as i32);
        let decades = axis.high - axis.low;
        let within: &[f64] = match decades {
            ..2.5 => &[1.0, 2.0, 5.0],
            ..4.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = (decades / TICKS.0).ceil().max(1.0) as usize;
        let ticks = (from..=to)
            .step_by(every)
            .flat_map(|decade| {
                within.iter().map(move |digit| {
                    let value = digit * 10.0_f64.powi(decade);
                    (value, label(value, 10.0_f64.powi(decade), value))
                })
            })
            .collect();
        axis.ticks_at(ticks);
        axis
    }

    /// Writes those of `ticks` that lie on the axis.
    fn ticks_at(&mut self, ticks: Vec<(f64, String)>) {
        self.ticks = ticks;
        let axis = self.clone();
        self.ticks
            .retain(|(value, _)| (0.0..=1.0).contains(&axis.exact(*value)));
        self.ticks.dedup_by(|one, other| one.0 == other.0);
    }

    /// Where a value lies: from 0 to 1 on the axis, else beyond.
    fn exact(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
    }

    /// Where a value lies, at the end of the axis if it is beyond.
    pub fn at(&self, value: f64) -> f64 {
        let at = self.exact(value);
        if at.is_nan() { 0.0 } else { at.clamp(0.0, 1.0) }
    }

    /// Whether a value lies beyond the upper end.
    pub fn is_above(&self, value: f64) -> bool {
        self.exact(value) > 1.0
    }

    /// Whether a value lies beyond the lower end.
    pub fn is_below(&self, value: f64) -> bool {
        self.exact(value) < 0.0
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.at(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        match self.log {
            true => 10.0_f64.powf(self.low)..10.0_f64.powf(self.high),
            false => self.low..self.high,
        }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks
            .iter()
            .find(|tick| tick.0 == *value)
            .map(|(_, label)| label.clone())
            .unwrap_or_default()
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// The least and the greatest of `values`, without those few that would flatten the rest to a line.
fn without_outliers(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        sorted
            .get((last * part).round() as usize)
            .copied()
            .unwrap_or(0.0)
    };
    let (least, greatest) = (at(0.0), at(1.0));
    if sorted.len() < ENOUGH {
        return (least, greatest);
    }
    let (low, high) = (at(0.02), at(0.98));
    let usual = (high - low).max(high.abs() * 0.01);
    let flat = |whole: f64| usual < whole * LEAST_PART;
    let (mut least_shown, mut greatest_shown) = (least, greatest);
    if flat(greatest - low) {
        greatest_shown = greatest.min(high + usual * 0.35);
    }
    if flat(high - least) {
        least_shown = least.max(low - usual * 0.35);
    }
    (least_shown, greatest_shown)
}

/// The next greater of 1, 2, 5, 10, 20…
fn nice(step: f64) -> f64 {
    let magnitude = 10.0_f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|digit| digit * magnitude >= step * 0.999_999)
        .unwrap_or(10.0);
    digit * magnitude
}

/// `value` to the decimals that `step` has.
fn label(value: f64, step: f64, greatest: f64) -> String {
    let decimals = -(step.log10() + 1e-9).floor();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e5).contains(&greatest) || decimals > 5.0 {
        let digits = (value.abs().log10().floor() + decimals).clamp(0.0, 6.0) as usize;
        return format!("{value:.digits$e}");
    }
    format!("{value:.*}", decimals.max(0.0) as usize)
}

/// Ticks of whole steps: `500`, `10k`, `2.5M`.
fn step_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let step = nice(high / TICKS.1 - low / TICKS.1).max(1.0);
    let (unit, suffix) = [(1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e4, "k")]
        .into_iter()
        // As long as one decimal is enough.
        .find(|(unit, from, _)| high >= *from && step * 10.0 >= *unit)
        .map_or((1.0, ""), |(unit, _, suffix)| (unit, suffix));
    let decimals = usize::from(step < unit);
    let first = (low / step).ceil();
    (0..=TICKS.1 as u32)
        .map(|nth| (first + f64::from(nth)) * step)
        .filter(|at| *at >= 0.0)
        .map(|at| match at == 0.0 {
            true => (at, "0".to_owned()),
            false => (at, format!("{:.decimals$}{suffix}", at / unit)),
        })
        .collect()
}
