//! The loss of a run as a PNG, for clients that show pictures. It has a light background of its own, to be read on any screen.

mod canvas;
#[cfg(test)]
mod tests;

use crate::progress::history::{FIGURES, Figure, History, Point};
use crate::text::short_number;
use canvas::{Canvas, Color, TEXT_HEIGHT};

const WIDTH: u32 = 800;
const HEIGHT: u32 = 450;

const TRAIN_COLOR: Color = [0x1f, 0x5f, 0xbf];
const EVAL_COLOR: Color = [0xc4, 0x56, 0x0a];
const BACKGROUND: Color = [0xfb, 0xfb, 0xf9];
const TEXT_COLOR: Color = [0x36, 0x3a, 0x42];
const GRID_COLOR: Color = [0xe2, 0xe3, 0xe4];

/// The vertical middle of the title, and the sides of the area within the axes, in pixels.
const TITLE_Y: f32 = 22.0;
const LEFT: f32 = 88.0;
const TOP: f32 = 44.0;
const BOTTOM: f32 = HEIGHT as f32 - TEXT_HEIGHT - 16.0;
const RIGHT: f32 = WIDTH as f32 - 24.0;

/// Draws the reward of a run, or else its training and evaluation loss, as a PNG. `None` if there is none.
pub(crate) fn loss(history: &History) -> Option<Vec<u8>> {
    let points = history.points();
    // Else the reports are counted.
    let has_steps = points.iter().any(|point| point.step.is_some());
    let figures = FIGURES[..3].iter();
    let curves = figures.filter_map(|(name, figure)| Curve::new(name, *figure, points, has_steps));
    let mut curves: Vec<Curve> = curves.collect();
    // Where there is a reward, the loss is none that counts: a trainer such as GRPO's prints zeros.
    if curves.first().is_some_and(|first| first.name == "reward") {
        curves.truncate(1);
    }
    let places = || curves.iter().flat_map(|curve| &curve.points);
    let chart = Chart {
        x: Axis::new(places().map(|place| place.0), 8.0, 1.0)?,
        y: Axis::new(curves.iter().flat_map(Curve::without_spikes), 7.0, 0.0)
            .or_else(|| Axis::new([0.0, 1.0].into_iter(), 7.0, 0.0))?,
    };
    let mut canvas = Canvas::new(WIDTH, HEIGHT, BACKGROUND);
    chart.draw_axes(&mut canvas);
    let mut title_x = 14.0;
    for curve in &curves {
        chart.draw_curve(curve, &mut canvas);
        let newest = curve.points.last().map_or(f64::NAN, |point| point.1);
        let title = format!("{} {}", curve.name, short_number(newest));
        title_x = canvas.text(&title, (title_x, TITLE_Y), 0.0, curve.color) + TEXT_HEIGHT;
    }
    let unit = if has_steps { "by step" } else { "by report" };
    canvas.text(unit, (title_x, TITLE_Y), 0.0, TEXT_COLOR);
    canvas.png()
}

struct Curve {
    name: &'static str,
    color: Color,
    /// Steps, in order, and figures; NaN for one that is not finite.
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// `None` where no point has the figure.
    fn new(name: &'static str, figure: Figure, points: &[Point], has_steps: bool) -> Option<Self> {
        let places = points.iter().enumerate().filter_map(|(index, point)| {
            let figure = figure(point)?;
            // Spans of such numbers do not overflow.
            let finite = figure.is_finite().then(|| figure.clamp(-1e300, 1e300));
            let x = point.step.or((!has_steps).then_some(index as u64 + 1))?;
            Some((x as f64, finite.unwrap_or(f64::NAN)))
        });
        let points: Vec<(f64, f64)> = places.collect();
        (!points.is_empty()).then_some(Self {
            name,
            color: match name {
                "eval_loss" => EVAL_COLOR,
                _ => TRAIN_COLOR,
            },
            points,
        })
    }

    /// Returns its figures but the highest and lowest where these are far from nearly all: one spike would flatten the rest.
    fn without_spikes(&self) -> Vec<f64> {
        let figures = self.points.iter().map(|point| point.1);
        let mut figures: Vec<f64> = figures.filter(|figure| !figure.is_nan()).collect();
        figures.sort_by(f64::total_cmp);
        let few = figures.len() / 50;
        let most = &figures[few..figures.len() - few];
        let span = |part: &[f64]| Some(part.last()? - part.first()?);
        match span(most).filter(|span| *span > 0.0) {
            Some(most_span) if span(&figures) > Some(10.0 * most_span) => most.to_vec(),
            _ => figures,
        }
    }
}

/// An axis with ticks at round numbers.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis for `values`, if there are any, with at most `max_ticks` ticks that are at least `min_step` apart.
    fn new(values: impl Iterator<Item = f64>, max_ticks: f64, min_step: f64) -> Option<Self> {
        let ranges = values.map(|value| (value, value));
        let (low, high) = ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))?;
        let margin = match high - low {
            0.0 => low.abs().max(1.0) * 0.1,
            span => span * 0.04,
        };
        let (low, high) = (low - margin, high + margin);
        // The next of 1, 2, 5, 10, 20….
        let least = (high - low) / max_ticks;
        let magnitude = 10.0_f64.powf(least.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * magnitude);
        let step = steps.iter().find(|step| **step >= least * 0.999_999);
        let step = step.unwrap_or(&least).max(min_step);
        let first = (low / step).ceil();
        let ticks = (0..=max_ticks as u32).map(|index| (first + f64::from(index)) * step);
        let ticks = ticks.filter(|value| (low..=high).contains(value)).collect();
        Some(Self { low, high, ticks })
    }

    /// The place of a value: 0 at the low end of the axis, 1 at the high end; one beyond an end is at that end.
    fn position(&self, value: f64) -> f32 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0) as f32
    }
}

/// Writes a tick in as few digits as it has: `0.25`, `500`, `1.00e-6`.
fn label(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e-4..1e7 => (value as f32).to_string(),
        _ => format!("{value:.2e}"),
    }
}

struct Chart {
    x: Axis,
    y: Axis,
}

impl Chart {
    fn pixel(&self, (step, loss): (f64, f64)) -> (f32, f32) {
        let (x, y) = (self.x.position(step), self.y.position(loss));
        (LEFT + (RIGHT - LEFT) * x, BOTTOM - (BOTTOM - TOP) * y)
    }

    fn draw_axes(&self, canvas: &mut Canvas) {
        for value in &self.x.ticks {
            let x = self.pixel((*value, 0.0)).0.round() + 0.5;
            canvas.line([(x, TOP), (x, BOTTOM)].into_iter(), 1.0, GRID_COLOR);
            let anchor = (x, BOTTOM + 8.0 + TEXT_HEIGHT / 2.0);
            canvas.text(&label(*value), anchor, 0.5, TEXT_COLOR);
        }
        for value in &self.y.ticks {
            let y = self.pixel((0.0, *value)).1.round() + 0.5;
            canvas.line([(LEFT, y), (RIGHT, y)].into_iter(), 1.0, GRID_COLOR);
            canvas.text(&label(*value), (LEFT - 8.0, y), 1.0, TEXT_COLOR);
        }
        let frame = [(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)];
        canvas.line(frame.into_iter(), 1.0, TEXT_COLOR);
    }

    /// Draws a curve with a gap where it is not a number, and its end as a dot.
    fn draw_curve(&self, curve: &Curve, canvas: &mut Canvas) {
        let places = curve.points.iter().map(|point| self.pixel(*point));
        canvas.line(places, 2.5, curve.color);
        if let Some(last) = curve.points.iter().rfind(|point| !point.1.is_nan()) {
            canvas.line([self.pixel(*last)].into_iter(), 8.0, curve.color);
        }
    }
}
