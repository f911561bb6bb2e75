//! The loss of a run as a PNG, for clients that show pictures. The picture has a light background of its own, so that it
//! can be read on light and dark screens.

mod axis;
mod canvas;
#[cfg(test)]
mod tests;

use crate::progress::history::{History, Point, short};
use axis::{Axis, range, range_without_spikes};
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

/// The vertical middle of the title and the legend, in pixels.
const TITLE_Y: f32 = 22.0;

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
    let canvas = Canvas::new(WIDTH, HEIGHT, BACKGROUND);
    let chart = Chart::new(history).zip(canvas);
    let (chart, mut canvas) = chart.ok_or(PlotError::NoLoss)?;
    chart.draw(&mut canvas);
    Ok(canvas.encode_png()?)
}

/// Steps and figures.
type Points = Vec<(f64, f64)>;

struct Curve {
    name: &'static str,
    color: Color,
    /// By step. A figure that is not finite is NaN.
    points: Points,
}

impl Curve {
    fn new(name: &'static str, color: Color, mut points: Points) -> Self {
        points.retain(|(step, _)| step.is_finite());
        for (_, loss) in points.iter_mut().filter(|point| !point.1.is_finite()) {
            *loss = f64::NAN;
        }
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self {
            name,
            color,
            points,
        }
    }

    /// The points whose figure is a number.
    fn numbers(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self.points.iter().copied();
        points.filter(|(_, loss)| !loss.is_nan())
    }

    /// Parts of the curve that are numbers throughout, or NaN throughout.
    fn stretches(&self, nan: bool) -> impl Iterator<Item = &[(f64, f64)]> {
        let stretches = self
            .points
            .chunk_by(|one, other| one.1.is_nan() == other.1.is_nan());
        stretches.filter(move |stretch| stretch.iter().all(|point| point.1.is_nan() == nan))
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
    /// The area within the axes, in pixels.
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
}

impl Chart {
    /// `None` if there is no loss.
    fn new(history: &History) -> Option<Self> {
        let points = history.points();
        let steps = points.iter().filter(|point| point.step.is_some()).count();
        let epochs = points.iter().filter(|point| point.epoch.is_some()).count();
        let x_unit = match (steps, epochs) {
            (0, 0) => "report",
            _ if steps >= epochs => "step",
            _ => "epoch",
        };
        let curve = |name, color, figure: fn(&Point) -> Option<f64>| {
            let points = points.iter().enumerate().filter_map(|(index, point)| {
                let x = match x_unit {
                    "step" => point.step.map(|step| step as f64),
                    "epoch" => point.epoch,
                    _ => Some(index as f64 + 1.0),
                };
                Some((x?, figure(point)?))
            });
            Curve::new(name, color, points.collect())
        };
        let mut curves = vec![
            curve("reward", TRAIN_COLOR, |point| point.reward),
            curve("loss", TRAIN_COLOR, |point| point.loss),
            curve("eval_loss", EVAL_COLOR, |point| point.eval_loss),
        ];
        // Where there is a reward, the loss is none that counts: a trainer such as GRPO's prints zeros.
        if !curves[0].points.is_empty() {
            curves.truncate(1);
        }
        curves.retain(|curve| !curve.points.is_empty());
        let all = curves.iter().flat_map(|curve| &curve.points);
        let steps = range(all.map(|point| point.0));
        let min_step = if x_unit == "epoch" { 0.0 } else { 1.0 };
        let ranges = curves.iter().flat_map(|curve| {
            let numbers = curve.numbers().map(|point| point.1);
            <[f64; 2]>::from(range_without_spikes(numbers.collect()))
        });
        let y = Axis::new(range(ranges.filter(|loss| loss.is_finite())), 7, 0.0);
        let widest = |labels: &mut dyn Iterator<Item = f32>| labels.fold(0.0, f32::max);
        let left = widest(&mut y.ticks.iter().map(|(_, label)| text_width(label)));
        let right = widest(&mut curves.iter().map(|curve| text_width(&curve.last_label())));
        (!curves.is_empty()).then(|| Self {
            curves,
            x_unit,
            x: Axis::new(steps, 8, min_step),
            y,
            left: left + 20.0,
            right: WIDTH as f32 - right - 16.0,
            top: 44.0,
            bottom: HEIGHT as f32 - TEXT_HEIGHT - 16.0,
        })
    }

    fn pixel(&self, (step, loss): (f64, f64)) -> (f32, f32) {
        (
            self.left + (self.right - self.left) * self.x.position(step),
            self.bottom - (self.bottom - self.top) * self.y.position(loss),
        )
    }

    fn draw(&self, canvas: &mut Canvas) {
        self.draw_axes(canvas);
        self.draw_title(canvas);
        for curve in &self.curves {
            self.draw_nans(curve, canvas);
        }
        for (line, curve) in self.curves.iter().enumerate() {
            self.draw_curve(curve, canvas);
            for is_low in [false, true] {
                self.draw_clipped(curve, is_low, line as f32 * TEXT_HEIGHT, canvas);
            }
        }
        self.draw_last_values(canvas);
    }

    fn draw_axes(&self, canvas: &mut Canvas) {
        let (left, right, top, bottom) = (self.left, self.right, self.top, self.bottom);
        for (value, label) in &self.x.ticks {
            let x = self.pixel((*value, 0.0)).0.round() + 0.5;
            canvas.line([(x, top), (x, bottom)], 1.0, GRID_COLOR);
            let anchor = (x, bottom + 8.0 + TEXT_HEIGHT / 2.0);
            canvas.text(label, anchor, 0.5, TEXT_COLOR);
        }
        for (value, label) in &self.y.ticks {
            let y = self.pixel((0.0, *value)).1.round() + 0.5;
            canvas.line([(left, y), (right, y)], 1.0, GRID_COLOR);
            canvas.text(label, (left - 8.0, y), 1.0, TEXT_COLOR);
        }
        let frame = [(left, top), (left, bottom), (right, bottom)];
        canvas.line(frame, 1.0, TEXT_COLOR);
    }

    /// Writes the title, and with two curves a legend.
    fn draw_title(&self, canvas: &mut Canvas) {
        let loss = match self.curves.as_slice() {
            [curve] if curve.name == "eval_loss" => "evaluation loss",
            [curve] => curve.name,
            _ => "loss",
        };
        let title = format!("{loss} by {}", self.x_unit);
        canvas.text(&title, (14.0, TITLE_Y), 0.0, TEXT_COLOR);
        let mut right = WIDTH as f32 - 16.0;
        for curve in self.curves.iter().rev().filter(|_| self.curves.len() > 1) {
            canvas.text(curve.name, (right, TITLE_Y), 1.0, TEXT_COLOR);
            let left = right - text_width(curve.name);
            let sample = [(left - 34.0, TITLE_Y), (left - 8.0, TITLE_Y)];
            canvas.line(sample, 3.0, curve.color);
            right = left - 58.0;
        }
    }

    /// Marks the steps whose loss is not a number.
    fn draw_nans(&self, curve: &Curve, canvas: &mut Canvas) {
        let mut label_end = 0.0;
        for stretch in curve.stretches(true) {
            let ([first, ..], [.., last]) = (stretch, stretch) else {
                continue;
            };
            let (from, to) = (self.pixel(*first).0 - 1.0, self.pixel(*last).0 + 1.0);
            let (top, bottom) = (self.top, self.bottom);
            let band = [(from, top), (to, top), (to, bottom), (from, bottom)];
            canvas.polygon(band, BAND_COLOR);
            let middle = from.midpoint(to);
            if middle > label_end {
                canvas.text("nan", (middle, top + 2.5 * TEXT_HEIGHT), 0.5, NAN_COLOR);
                label_end = middle + 2.0 * text_width("nan");
            }
        }
    }

    fn draw_curve(&self, curve: &Curve, canvas: &mut Canvas) {
        let count = curve.numbers().count();
        let [red, green, blue, opaque] = curve.color;
        let (width, alpha) = if count > NOISY_POINTS {
            (1.25, 0x6b)
        } else {
            (2.5, opaque)
        };
        for stretch in curve.stretches(false) {
            let points = stretch.iter().map(|point| self.pixel(*point));
            canvas.line(points, width, [red, green, blue, alpha]);
            if let [point] = stretch {
                canvas.dot(self.pixel(*point), curve.color);
            } else if count > NOISY_POINTS {
                let medians = stretch.chunks(count.div_ceil(MEDIANS)).filter_map(median);
                canvas.line(medians.map(|point| self.pixel(point)), 2.5, curve.color);
            }
        }
        let skipped = if count > MAX_DOTS { count - 1 } else { 0 };
        for point in curve.numbers().skip(skipped) {
            canvas.dot(self.pixel(point), curve.color);
        }
    }

    /// Marks the losses above, or below, the picture with arrow heads, and names the farthest. `line` moves the label of a
    /// second curve.
    fn draw_clipped(&self, curve: &Curve, is_low: bool, line: f32, canvas: &mut Canvas) {
        let (edge, inwards) = if is_low {
            (self.bottom, -1.0)
        } else {
            (self.top, 1.0)
        };
        let is_beyond = |loss| match is_low {
            true => self.y.is_below(loss),
            false => self.y.is_above(loss),
        };
        let clipped = || curve.numbers().filter(|point| is_beyond(point.1));
        let mut last_mark = f32::NEG_INFINITY;
        for point in clipped() {
            let x = self.pixel(point).0;
            if x - last_mark >= 8.0 {
                last_mark = x;
                let (base, tip) = (edge - inwards, edge - 9.0 * inwards);
                canvas.polygon([(x - 6.5, base), (x + 6.5, base), (x, tip)], curve.color);
            }
        }
        let distance = |loss: f64| loss * f64::from(inwards);
        let farthest = clipped().max_by(|one, other| distance(one.1).total_cmp(&distance(other.1)));
        if let Some((step, loss)) = farthest {
            let x = self.pixel((step, loss)).0;
            let step = match self.x_unit {
                "epoch" => format!("{step:.2}"),
                _ => step.to_string(),
            };
            let label = format!("{} at {} {step}", short(loss), self.x_unit);
            let fits = x + text_width(&label) + 12.0 < self.right;
            let (x, before) = if fits {
                (x + 10.0, 0.0)
            } else {
                (x - 10.0, 1.0)
            };
            let y = edge + inwards * (TEXT_HEIGHT / 2.0 + 2.0 + line);
            canvas.text(&label, (x, y), before, curve.color);
        }
    }

    /// Writes the last loss of each curve beside its end.
    fn draw_last_values(&self, canvas: &mut Canvas) {
        let end = |curve: &Curve| Some(self.pixel(curve.numbers().last()?).1);
        let ends = self
            .curves
            .iter()
            .filter_map(|curve| Some((end(curve)?, curve)));
        let mut ends: Vec<(f32, &Curve)> = ends.collect();
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        if let [upper, lower] = ends.as_mut_slice() {
            let overlap = (TEXT_HEIGHT - (lower.0 - upper.0)).max(0.0);
            upper.0 -= overlap / 2.0;
            lower.0 += overlap / 2.0;
        }
        for (y, curve) in ends {
            let anchor = (self.right + 10.0, y);
            canvas.text(&curve.last_label(), anchor, 0.0, curve.color);
        }
    }
}

/// The middle step and the median loss of points that follow on each other.
fn median(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let mut losses: Vec<f64> = points.iter().map(|point| point.1).collect();
    losses.sort_by(f64::total_cmp);
    let middle = points.len() / 2;
    Some((points.get(middle)?.0, *losses.get(middle)?))
}
