//! An axis with ticks at round numbers.

/// Values are clipped when the others would take less than this part of the height.
const LEAST_PART: f64 = 1.0 / 8.0;

/// The fewest values of which some may be clipped.
const MIN_CLIPPED: usize = 20;

pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Values and their labels.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis for `range` with at most `max_ticks` ticks that are at least `min_step` apart.
    pub(crate) fn new((low, high): (f64, f64), max_ticks: u32, min_step: f64) -> Self {
        let (low, high) = if low < high {
            (low, high)
        } else if low.is_finite() {
            let margin = low.abs().max(1.0) * 0.1;
            (low - margin, high + margin)
        } else {
            (0.0, 1.0)
        };
        // Scaled before they are subtracted: the difference of very large numbers overflows.
        let margin = high * 0.04 - low * 0.04;
        let (low, high) = ((low - margin).max(f64::MIN), (high + margin).min(f64::MAX));
        let parts = f64::from(max_ticks);
        let step = round_up(high / parts - low / parts).max(min_step);
        let first = (low / step).ceil();
        let ticks = (0..=max_ticks)
            .map(|index| (first + f64::from(index)) * step)
            .filter(|value| (low..=high).contains(value))
            .map(|value| (value, label(value, step, low.abs().max(high.abs()))))
            .collect();
        Self { low, high, ticks }
    }

    /// The place of a value: 0 at the low end of the axis, 1 at the high end, and clipped values at the nearer end.
    pub(crate) fn position(&self, value: f64) -> f32 {
        let span = self.high / 2.0 - self.low / 2.0;
        let position = (value / 2.0 - self.low / 2.0) / span;
        if position.is_nan() {
            return 0.0;
        }
        position.clamp(0.0, 1.0) as f32
    }

    pub(crate) fn is_above(&self, value: f64) -> bool {
        value > self.high
    }

    pub(crate) fn is_below(&self, value: f64) -> bool {
        value < self.low
    }
}

/// The least and the greatest value.
pub(super) fn range(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let empty = (f64::INFINITY, f64::NEG_INFINITY);
    values.into_iter().fold(empty, |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// The range of `values` without the few that would flatten all others to a line.
pub(super) fn range_without_spikes(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let quantile = |part: f64| values.get((last as f64 * part).round() as usize).copied();
    let all = quantile(0.0).zip(quantile(1.0));
    let most = quantile(0.02).zip(quantile(0.98));
    let (Some((least, greatest)), Some((low, high))) = (all, most) else {
        return range([]);
    };
    let usual = (high - low).max(high.abs() * 0.01);
    let is_flat = |span: f64| values.len() >= MIN_CLIPPED && usual < span * LEAST_PART;
    let clip_low = is_flat(high - least);
    let clip_high = is_flat(greatest - low);
    (
        if clip_low { low - usual * 0.35 } else { least },
        if clip_high {
            high + usual * 0.35
        } else {
            greatest
        },
    )
}

/// The next number of 1, 2, 5, 10, 20….
fn round_up(step: f64) -> f64 {
    let magnitude = 10.0_f64.powf(step.log10().floor());
    let digits = [1.0, 2.0, 5.0];
    let digit = digits
        .into_iter()
        .find(|digit| digit * magnitude >= step * 0.999_999);
    digit.unwrap_or(10.0) * magnitude
}

/// Writes a tick with the decimals that its step needs: `0.25`, `500`, `10k`, `2.5M`, `1.00e-6`.
fn label(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let (unit, suffix) = [(1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e4, "k")]
        .into_iter()
        .find(|(unit, from, _)| largest >= *from && step * 10.0 >= *unit)
        .map_or((1.0, ""), |(unit, _, suffix)| (unit, suffix));
    let decimals = (-(step / unit).log10() - 1e-9).ceil().max(0.0);
    if decimals > 5.0 || largest >= 1e12 {
        return format!("{value:.2e}");
    }
    format!("{:.*}{suffix}", decimals as usize, value / unit)
}
