//! The loss of a run as a PNG, for clients that show pictures. The picture has a light background of its own, so that it
//! can be read on light and dark screens.

mod axis;
mod canvas;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use tiny_skia::Pixmap;

use crate::progress::history::{History, Point, short};
use axis::{Axis, range_without_spikes};
use canvas::{Canvas, Color, TEXT_HEIGHT, text_width};

const WIDTH: u32 = 800;
const HEIGHT: u32 = 450;

const TRAIN_COLOR: Color = [0x1f, 0x5f, 0xbf, 0xff];
const EVAL_COLOR: Color = [0xc4, 0x56, 0x0a, 0xff];
const NAN_COLOR: Color = [0xc6, 0x1c, 0x2e, 0xff];
const BAND_COLOR: Color = [0xc6, 0x1c, 0x2e, 0x33];
const BACKGROUND: Color = [0xfb, 0xfb, 0xf9, 0xff];
const TEXT_COLOR: Color = [0x36, 0x3a, 0x42, 0xff];
const GRID_COLOR: Color = [0xe2, 0xe3, 0xe4, 0xff];

/// The vertical middle of the title, and the upper and lower end of the area within the axes, in pixels.
const TITLE_Y: f32 = 22.0;
const TOP: f32 = 44.0;
const BOTTOM: f32 = HEIGHT as f32 - TEXT_HEIGHT - 16.0;

/// The most points that get a dot each.
const MAX_DOTS: usize = 40;

/// A curve with more points is drawn pale, and its running median over it.
const NOISY_POINTS: usize = 300;

/// The points of a running median.
const MEDIANS: usize = 90;

/// The reason why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlotError {
    #[error("the log has no loss yet")]
    NoLoss,
    #[error("the loss could not be drawn: {0}; its values are in the log")]
    Drawing(#[from] std::io::Error),
}

/// Draws the reward of a run, or else its training and evaluation loss, as a PNG of [`WIDTH`] by [`HEIGHT`] pixels.
pub(crate) fn loss(history: &History) -> Result<Vec<u8>, PlotError> {
    let pixmap = Pixmap::new(WIDTH, HEIGHT);
    let (chart, mut pixmap) = Chart::new(history).zip(pixmap).ok_or(PlotError::NoLoss)?;
    let [red, green, blue, alpha] = BACKGROUND;
    pixmap.fill(tiny_skia::Color::from_rgba8(red, green, blue, alpha));
    let mut canvas = Canvas(pixmap);
    chart.draw_axes(&mut canvas);
    for curve in &chart.curves {
        chart.draw_nans(curve, &mut canvas);
    }
    for (index, curve) in chart.curves.iter().enumerate() {
        chart.draw_curve(curve, &mut canvas);
        chart.draw_clipped(curve, index as f32 * TEXT_HEIGHT, &mut canvas);
    }
    chart.draw_names(&mut canvas);
    let png = canvas.0.encode_png().map_err(std::io::Error::from)?;
    Ok(png)
}

struct Curve {
    name: &'static str,
    color: Color,
    /// Steps, in order, and figures; NaN for one that is not finite.
    points: Vec<(f64, f64)>,
}

impl Curve {
    fn new(
        name: &'static str,
        color: Color,
        points: impl Iterator<Item = (f64, f64)>,
    ) -> Option<Self> {
        // Spans of such numbers do not overflow.
        let bounded = |value: f64| value.clamp(-1e300, 1e300);
        let figure = |value: f64| value.is_finite().then(|| bounded(value));
        let mut points: Vec<(f64, f64)> = points
            .filter(|(step, _)| step.is_finite())
            .map(|(step, value)| (bounded(step), figure(value).unwrap_or(f64::NAN)))
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        (!points.is_empty()).then_some(Self {
            name,
            color,
            points,
        })
    }

    /// The points whose figure is a number.
    fn numbers(&self) -> impl DoubleEndedIterator<Item = &(f64, f64)> {
        self.points.iter().filter(|(_, figure)| !figure.is_nan())
    }

    fn last_label(&self) -> String {
        short(self.points.last().map_or(f64::NAN, |point| point.1))
    }
}

struct Chart {
    curves: Vec<Curve>,
    /// The unit of the x axis: `step`, `epoch`, or `report` if the trainer prints neither.
    x_unit: &'static str,
    x: Axis,
    y: Axis,
    /// The sides of the area within the axes, in pixels.
    left: f32,
    right: f32,
}

impl Chart {
    /// `None` if there is no loss.
    fn new(history: &History) -> Option<Self> {
        let points = history.points();
        let x_unit = if points.iter().any(|point| point.step.is_some()) {
            "step"
        } else if points.iter().any(|point| point.epoch.is_some()) {
            "epoch"
        } else {
            "report"
        };
        let curve = |name, color, figure: fn(&Point) -> Option<f64>| {
            let points = points.iter().enumerate().filter_map(move |(index, point)| {
                let x = match x_unit {
                    "step" => point.step.map(|step| step as f64),
                    "epoch" => point.epoch,
                    _ => Some(index as f64 + 1.0),
                };
                Some((x?, figure(point)?))
            });
            Curve::new(name, color, points)
        };
        // Where there is a reward, the loss is none that counts: a trainer such as GRPO's prints zeros.
        let reward = curve("reward", TRAIN_COLOR, |point| point.reward);
        let losses = || {
            let train = curve("loss", TRAIN_COLOR, |point| point.loss);
            let eval = curve("eval_loss", EVAL_COLOR, |point| point.eval_loss);
            train.into_iter().chain(eval).collect()
        };
        let curves: Vec<Curve> = reward.map_or_else(losses, |reward| vec![reward]);
        let ends = curves
            .iter()
            .flat_map(|curve| Some((curve.points.first()?.0, curve.points.last()?.0)));
        let steps = ends.reduce(wider)?;
        let ranges = curves.iter().filter_map(|curve| {
            range_without_spikes(curve.numbers().map(|point| point.1).collect())
        });
        let y = Axis::new(ranges.reduce(wider), 7, 0.0);
        let min_step = if x_unit == "epoch" { 0.0 } else { 1.0 };
        let left = y.ticks.iter().map(|(_, label)| text_width(label));
        let right = curves.iter().map(|curve| text_width(&curve.last_label()));
        Some(Self {
            x_unit,
            x: Axis::new(Some(steps), 8, min_step),
            left: left.fold(0.0, f32::max) + 20.0,
            right: WIDTH as f32 - right.fold(0.0, f32::max) - 16.0,
            y,
            curves,
        })
    }

    fn pixel(&self, (step, loss): (f64, f64)) -> (f32, f32) {
        (
            self.left + (self.right - self.left) * self.x.position(step),
            BOTTOM - (BOTTOM - TOP) * self.y.position(loss),
        )
    }

    fn draw_axes(&self, canvas: &mut Canvas) {
        let (left, right) = (self.left, self.right);
        for (value, label) in &self.x.ticks {
            let x = self.pixel((*value, 0.0)).0.round() + 0.5;
            canvas.line([(x, TOP), (x, BOTTOM)], 1.0, GRID_COLOR);
            let anchor = (x, BOTTOM + 8.0 + TEXT_HEIGHT / 2.0);
            canvas.text(label, anchor, 0.5, TEXT_COLOR);
        }
        for (value, label) in &self.y.ticks {
            let y = self.pixel((0.0, *value)).1.round() + 0.5;
            canvas.line([(left, y), (right, y)], 1.0, GRID_COLOR);
            canvas.text(label, (left - 8.0, y), 1.0, TEXT_COLOR);
        }
        let frame = [(left, TOP), (left, BOTTOM), (right, BOTTOM)];
        canvas.line(frame, 1.0, TEXT_COLOR);
    }

    /// Writes the names of the curves in their colours, as title and legend, and the last figure of each beside its end.
    fn draw_names(&self, canvas: &mut Canvas) {
        let (mut x, mut ends) = (14.0, f32::NEG_INFINITY);
        let mut curves: Vec<&Curve> = self.curves.iter().collect();
        for curve in &curves {
            canvas.text(curve.name, (x, TITLE_Y), 0.0, curve.color);
            x += text_width(curve.name) + TEXT_HEIGHT;
        }
        let unit = format!("by {}", self.x_unit);
        canvas.text(&unit, (x, TITLE_Y), 0.0, TEXT_COLOR);
        let end = |curve: &Curve| {
            curve
                .numbers()
                .next_back()
                .map(|point| self.pixel(*point).1)
        };
        curves.sort_by(|one, other| end(one).partial_cmp(&end(other)).unwrap_or(Ordering::Equal));
        for (y, curve) in curves
            .into_iter()
            .filter_map(|curve| Some((end(curve)?, curve)))
        {
            // Below the one before.
            ends = y.max(ends + TEXT_HEIGHT);
            canvas.text(
                &curve.last_label(),
                (self.right + 10.0, ends),
                0.0,
                curve.color,
            );
        }
    }

    /// Marks the steps whose figure is not a number.
    fn draw_nans(&self, curve: &Curve, canvas: &mut Canvas) {
        let x = |point| self.pixel(point).0;
        let mut before = curve.points.first().copied();
        let mut is_first = true;
        for point in &curve.points {
            if point.1.is_nan() {
                let (from, to) = (x(before.unwrap_or(*point)) + 1.0, x(*point) + 1.0);
                let band = [(from, TOP), (to, TOP), (to, BOTTOM), (from, BOTTOM)];
                canvas.polygon(band, BAND_COLOR);
                if is_first {
                    canvas.text("nan", (from + 4.0, TOP + 2.5 * TEXT_HEIGHT), 0.0, NAN_COLOR);
                }
                is_first = false;
            }
            before = Some(*point);
        }
    }

    fn draw_curve(&self, curve: &Curve, canvas: &mut Canvas) {
        let count = curve.numbers().count();
        let [red, green, blue, opaque] = curve.color;
        let is_noisy = count > NOISY_POINTS;
        let (width, alpha) = if is_noisy {
            (1.25, 0x6b)
        } else {
            (2.5, opaque)
        };
        for stretch in curve.points.split(|point| point.1.is_nan()) {
            let points = stretch.iter().map(|point| self.pixel(*point));
            canvas.line(points, width, [red, green, blue, alpha]);
            if is_noisy {
                let medians = stretch.chunks(count.div_ceil(MEDIANS)).filter_map(median);
                canvas.line(medians.map(|point| self.pixel(point)), 2.5, curve.color);
            }
        }
        let dots = if count > MAX_DOTS { 1 } else { count };
        for point in curve.numbers().rev().take(dots) {
            canvas.dot(self.pixel(*point), curve.color);
        }
    }

    /// Marks the figures above and below the picture with arrow heads, and names the greatest above. `line` moves the label
    /// of a second curve.
    fn draw_clipped(&self, curve: &Curve, line: f32, canvas: &mut Canvas) {
        let (mut last_mark, mut greatest) = (f32::NEG_INFINITY, (0.0, self.y.high));
        for &point in curve.numbers() {
            let (edge, inwards) = match point.1 {
                above if above > self.y.high => (TOP, 1.0),
                below if below < self.y.low => (BOTTOM, -1.0),
                _ => continue,
            };
            if point.1 > greatest.1 {
                greatest = point;
            }
            let x = self.pixel(point).0;
            if x - last_mark >= 8.0 {
                last_mark = x;
                let (base, tip) = (edge - inwards, edge - 9.0 * inwards);
                canvas.polygon([(x - 6.5, base), (x + 6.5, base), (x, tip)], curve.color);
            }
        }
        if greatest.1 > self.y.high {
            let label = format!("{} at {} {}", short(greatest.1), self.x_unit, greatest.0);
            let x = self.pixel(greatest).0;
            let fits = x + text_width(&label) + 12.0 < self.right;
            let (x, before) = if fits {
                (x + 10.0, 0.0)
            } else {
                (x - 10.0, 1.0)
            };
            let y = TOP + TEXT_HEIGHT / 2.0 + 2.0 + line;
            canvas.text(&label, (x, y), before, curve.color);
        }
    }
}

fn wider(one: (f64, f64), other: (f64, f64)) -> (f64, f64) {
    (one.0.min(other.0), one.1.max(other.1))
}

/// The middle step and the median loss of points that follow on each other.
fn median(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let mut losses: Vec<f64> = points.iter().map(|point| point.1).collect();
    losses.sort_by(f64::total_cmp);
    let middle = points.len() / 2;
    Some((points.get(middle)?.0, *losses.get(middle)?))
}
