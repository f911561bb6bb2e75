//! The loss of a run as a PNG, for clients that show pictures. It has a light background of its own, to be read on any screen.

mod axis;
mod canvas;
#[cfg(test)]
mod tests;

use tiny_skia::Pixmap;

use crate::progress::history::{History, Point, short};
use axis::{Axis, range_without_spikes};
use canvas::{Canvas, Color, TEXT_HEIGHT};

const WIDTH: u32 = 800;
const HEIGHT: u32 = 450;

const TRAIN_COLOR: Color = [0x1f, 0x5f, 0xbf, 0xff];
const EVAL_COLOR: Color = [0xc4, 0x56, 0x0a, 0xff];
const NAN_COLOR: Color = [0xc6, 0x1c, 0x2e, 0x33];
const BACKGROUND: Color = [0xfb, 0xfb, 0xf9, 0xff];
const TEXT_COLOR: Color = [0x36, 0x3a, 0x42, 0xff];
const GRID_COLOR: Color = [0xe2, 0xe3, 0xe4, 0xff];

/// The vertical middle of the title, and the sides of the area within the axes, in pixels.
const TITLE_Y: f32 = 22.0;
const LEFT: f32 = 88.0;
const TOP: f32 = 44.0;
const BOTTOM: f32 = HEIGHT as f32 - TEXT_HEIGHT - 16.0;
const RIGHT: f32 = WIDTH as f32 - 24.0;

/// A curve with more points is drawn pale, and its running median of so many points over it.
const NOISY_POINTS: usize = 300;
const MEDIANS: usize = 90;

/// Draws the reward of a run, or else its training and evaluation loss, as a PNG of [`WIDTH`] by [`HEIGHT`] pixels. `None` if
/// there is no loss.
pub(crate) fn loss(history: &History) -> Option<Vec<u8>> {
    let chart = Chart::new(history)?;
    let mut canvas = Canvas(Pixmap::new(WIDTH, HEIGHT)?);
    canvas.band((0.0, 0.0), (WIDTH as f32, HEIGHT as f32), BACKGROUND);
    chart.draw_axes(&mut canvas);
    let mut title_x = 14.0;
    for curve in &chart.curves {
        chart.draw_nans(curve, &mut canvas);
        chart.draw_curve(curve, &mut canvas);
        let newest = curve.points.last().map_or(f64::NAN, |point| point.1);
        let title = format!("{} {}", curve.name, short(newest));
        title_x = canvas.text(&title, (title_x, TITLE_Y), 0.0, curve.color) + TEXT_HEIGHT;
    }
    let unit = format!("by {}", chart.x_unit);
    canvas.text(&unit, (title_x, TITLE_Y), 0.0, TEXT_COLOR);
    canvas.0.encode_png().ok()
}

struct Curve {
    name: &'static str,
    color: Color,
    /// Steps, in order, and figures; NaN for one that is not finite.
    points: Vec<(f64, f64)>,
}

struct Chart {
    curves: Vec<Curve>,
    /// The unit of the x axis: `step`, or `report` if the trainer prints none.
    x_unit: &'static str,
    x: Axis,
    y: Axis,
}

impl Chart {
    /// `None` if there is no loss.
    fn new(history: &History) -> Option<Self> {
        let points = history.points();
        let has_steps = points.iter().any(|point| point.step.is_some());
        let x = |index: usize, point: &Point| match has_steps {
            true => point.step.map(|step| step as f64),
            false => Some(index as f64 + 1.0),
        };
        let curve = |name, color, figure: fn(&Point) -> Option<f64>| {
            let places = points.iter().enumerate().filter_map(|(index, point)| {
                let y = figure(point)?;
                // Spans of such numbers do not overflow.
                let y = match y.is_finite() {
                    true => y.clamp(-1e300, 1e300),
                    false => f64::NAN,
                };
                Some((x(index, point)?, y))
            });
            let points: Vec<(f64, f64)> = places.collect();
            let curve = Curve {
                name,
                color,
                points,
            };
            Some(curve).filter(|curve| !curve.points.is_empty())
        };
        // Where there is a reward, the loss is none that counts: a trainer such as GRPO's prints zeros.
        let curves: Vec<Curve> = match curve("reward", TRAIN_COLOR, |point| point.reward) {
            Some(reward) => vec![reward],
            None => {
                let train = curve("loss", TRAIN_COLOR, |point| point.loss);
                let eval = curve("eval_loss", EVAL_COLOR, |point| point.eval_loss);
                train.into_iter().chain(eval).collect()
            }
        };
        let ends = curves
            .iter()
            .filter_map(|curve| Some((curve.points.first()?.0, curve.points.last()?.0)));
        let steps = ends.reduce(wider)?;
        let ranges = curves.iter().filter_map(|curve| {
            let numbers = curve.points.iter().map(|point| point.1);
            range_without_spikes(numbers.filter(|number| !number.is_nan()).collect())
        });
        Some(Self {
            x_unit: if has_steps { "step" } else { "report" },
            x: Axis::new(Some(steps), 8, 1.0),
            y: Axis::new(ranges.reduce(wider), 7, 0.0),
            curves,
        })
    }

    fn pixel(&self, (step, loss): (f64, f64)) -> (f32, f32) {
        (
            LEFT + (RIGHT - LEFT) * self.x.position(step),
            BOTTOM - (BOTTOM - TOP) * self.y.position(loss),
        )
    }

    fn draw_axes(&self, canvas: &mut Canvas) {
        for (value, label) in &self.x.ticks {
            let x = self.pixel((*value, 0.0)).0.round() + 0.5;
            canvas.line([(x, TOP), (x, BOTTOM)], 1.0, GRID_COLOR);
            let anchor = (x, BOTTOM + 8.0 + TEXT_HEIGHT / 2.0);
            canvas.text(label, anchor, 0.5, TEXT_COLOR);
        }
        for (value, label) in &self.y.ticks {
            let y = self.pixel((0.0, *value)).1.round() + 0.5;
            canvas.line([(LEFT, y), (RIGHT, y)], 1.0, GRID_COLOR);
            canvas.text(label, (LEFT - 8.0, y), 1.0, TEXT_COLOR);
        }
        let frame = [(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)];
        canvas.line(frame, 1.0, TEXT_COLOR);
    }

    /// Marks the steps whose figure is not a number, each from the step before.
    fn draw_nans(&self, curve: &Curve, canvas: &mut Canvas) {
        for pair in curve.points.windows(2).filter(|pair| pair[1].1.is_nan()) {
            let [from, to] = [pair[0], pair[1]].map(|point| self.pixel(point).0 + 1.0);
            canvas.band((from, TOP), (to, BOTTOM), NAN_COLOR);
        }
    }

    /// Draws a curve, over a noisy one its running median, and its end as a dot.
    fn draw_curve(&self, curve: &Curve, canvas: &mut Canvas) {
        let count = curve.points.len();
        let [red, green, blue, alpha] = curve.color;
        let (width, alpha) = match count > NOISY_POINTS {
            true => (1.25, 0x6b),
            false => (2.5, alpha),
        };
        for stretch in curve.points.split(|point| point.1.is_nan()) {
            let points = stretch.iter().map(|point| self.pixel(*point));
            canvas.line(points, width, [red, green, blue, alpha]);
            if count > NOISY_POINTS {
                let medians = stretch.chunks(count / MEDIANS).map(median);
                canvas.line(medians.map(|point| self.pixel(point)), 2.5, curve.color);
            }
        }
        if let Some(last) = curve.points.iter().rfind(|point| !point.1.is_nan()) {
            canvas.dot(self.pixel(*last), curve.color);
        }
    }
}

fn wider(one: (f64, f64), other: (f64, f64)) -> (f64, f64) {
    (one.0.min(other.0), one.1.max(other.1))
}

/// The middle step and the median loss of points that follow on each other.
fn median(points: &[(f64, f64)]) -> (f64, f64) {
    let mut losses: Vec<f64> = points.iter().map(|point| point.1).collect();
    let middle = points.len() / 2;
    let (_, median, _) = losses.select_nth_unstable_by(middle, f64::total_cmp);
    (points[middle].0, *median)
}
