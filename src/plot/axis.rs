//! An axis with ticks at round numbers.

/// The part of the height below which the usual values do not sink: others are clipped.
const LEAST_PART: f64 = 1.0 / 8.0;
/// The fewest values of which some may be clipped.
const MIN_CLIPPED: usize = 20;

pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Values and their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis for a range, if there is one, with at most `max_ticks` ticks that are at least `min_step` apart.
    pub(super) fn new(range: Option<(f64, f64)>, max_ticks: u32, min_step: f64) -> Self {
        let (low, high) = range.unwrap_or((0.0, 1.0));
        let margin = match high - low {
            0.0 => low.abs().max(1.0) * 0.1,
            span => span * 0.04,
        };
        let (low, high) = (low - margin, high + margin);
        let step = round_up((high - low) / f64::from(max_ticks)).max(min_step);
        let first = (low / step).ceil();
        let values = (0..=max_ticks).map(|index| (first + f64::from(index)) * step);
        let ticks = values.filter(|value| (low..=high).contains(value));
        let ticks = ticks.map(|value| (value, label(value, step))).collect();
        Self { low, high, ticks }
    }

    /// The place of a value: 0 at the low end of the axis, 1 at the high end, and clipped values at the nearer end.
    pub(super) fn position(&self, value: f64) -> f32 {
        let position = (value - self.low) / (self.high - self.low);
        position.clamp(0.0, 1.0) as f32
    }
}

/// The range of `values`; of many, without the few that would flatten all others to a line.
pub(super) fn range_without_spikes(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    let spikes = values.len() / 50;
    let (low, high) = (values[spikes], values[values.len() - 1 - spikes]);
    let usual = (high - low).max(high.abs() * 0.01);
    let bound = |far: f64| {
        let is_flat = values.len() >= MIN_CLIPPED && usual < far * LEAST_PART;
        if is_flat { usual * 0.35 } else { far }
    };
    Some((low - bound(low - least), high + bound(greatest - high)))
}

/// The next number of 1, 2, 5, 10, 20….
fn round_up(step: f64) -> f64 {
    let magnitude = 10.0_f64.powf(step.log10().floor());
    let mut digits = [1.0, 2.0, 5.0].into_iter();
    let digit = digits.find(|digit| digit * magnitude >= step * 0.999_999);
    digit.unwrap_or(10.0) * magnitude
}

/// Writes a tick with the decimals that its step needs: `0.25`, `500`, `1.00e-6`.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10() - 1e-9).ceil().max(0.0);
    match value != 0.0 && (decimals > 5.0 || value.abs() >= 1e7) {
        true => format!("{value:.2e}"),
        false => format!("{value:.*}", decimals.min(5.0) as usize),
    }
}
