//! The loss of a run as a picture, for clients that show pictures.
//!
//! It is one picture for light and dark clients: on paper of its own. What it shows of a loss with outliers, of one over
//! many powers of ten, and of one that is no number, is decided in `axis` and `curve`.

mod axis;
mod canvas;
mod curve;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, Circle, Color, FontDesc, FontStyle, IntoDrawingArea,
    IntoFont, PathElement, RGBColor, Rectangle, Text, TextStyle,
};
use plotters_backend::text_anchor::{HPos, Pos, VPos};

use crate::progress::history::{History, short};
use axis::Axis;
use canvas::{Canvas, TEXT_HEIGHT, TEXT_WIDTH, UNIT};
use curve::Curve;
use plotters::coord::ranged1d::Ranged;

/// The width of the picture, in pixels.
pub const WIDTH: u32 = 800;

/// Its height.
pub const HEIGHT: u32 = 450;

/// The colour of the training loss.
pub const TRAIN_COLOR: RGBColor = RGBColor(0x1f, 0x5f, 0xbf);

/// The colour of the evaluation loss.
pub const EVAL_COLOR: RGBColor = RGBColor(0xc4, 0x56, 0x0a);

/// Where a loss is no number.
const BAD_COLOR: RGBColor = RGBColor(0xc6, 0x1c, 0x2e);

const PAPER: RGBColor = RGBColor(0xfb, 0xfb, 0xf9);
const INK: RGBColor = RGBColor(0x36, 0x3a, 0x42);
const GRID: RGBColor = RGBColor(0xe2, 0xe3, 0xe4);

/// Up to so many points are marked by a dot each.
const DOTS: usize = 40;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// There is nothing to draw.
    #[error(
        "the log has told no loss yet, so there is nothing to draw: ask again when the trainer has printed one"
    )]
    NoLoss,
    /// The drawing failed.
    #[error("the loss could not be drawn: {0}; its numbers are in the log")]
    Drawing(String),
}

/// The loss of a run over its steps, and its evaluation loss if there is one, as a PNG of [`WIDTH`] by [`HEIGHT`] pixels.
///
/// # Errors
/// [`PictureError::NoLoss`] when no loss is known.
pub fn loss(history: &History) -> Result<Vec<u8>, PictureError> {
    let chart = Chart::of(history).ok_or(PictureError::NoLoss)?;
    let mut pixels = [PAPER.0, PAPER.1, PAPER.2].repeat((WIDTH * HEIGHT) as usize);
    chart
        .draw(Canvas::new(WIDTH, HEIGHT, &mut pixels))
        .map_err(|error| PictureError::Drawing(error.to_string()))?;
    encode(&pixels).map_err(|error| PictureError::Drawing(error.to_string()))
}

fn encode(pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut picture = Vec::new();
    let mut encoder = png::Encoder::new(&mut picture, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(picture)
}

/// What is drawn.
struct Chart {
    curves: Vec<Curve>,
    /// What the steps are: steps, epochs, or neither.
    over: &'static str,
    x: Axis,
    y: Axis,
}

type Area<'a> = DrawingArea<Canvas<'a>, Shift>;
type Plot<'a> = ChartContext<'a, Canvas<'a>, Cartesian2d<Axis, Axis>>;
type Drawn = Result<(), DrawingAreaErrorKind<Infallible>>;

impl Chart {
    fn of(history: &History) -> Option<Self> {
        let (curves, over) = curve::of(history);
        if curves.is_empty() {
            return None;
        }
        let steps = curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(|point| point.0));
        Some(Self {
            x: Axis::of_steps(steps, over != "epoch"),
            y: Axis::of_losses(&curves.iter().map(Curve::losses).collect::<Vec<_>>()),
            curves,
            over,
        })
    }

    fn draw(&self, canvas: Canvas<'_>) -> Drawn {
        let area = canvas.into_drawing_area();
        self.title(&area)?;
        let widest = |labels: &mut dyn Iterator<Item = usize>| labels.max().unwrap_or(0) as i32;
        let left = widest(&mut self.y.ticks.iter().map(|(_, label)| label.len()));
        let right = widest(&mut self.curves.iter().map(|curve| curve.last_label().len()));
        let mut chart = ChartBuilder::on(&area)
            .margin_top(44 * UNIT)
            .margin_left(6 * UNIT)
            .margin_bottom(6 * UNIT)
            .margin_right((right * TEXT_WIDTH + 20) * UNIT)
            .x_label_area_size((2 * TEXT_HEIGHT + 16) * UNIT)
            .y_label_area_size((left * TEXT_WIDTH + TEXT_HEIGHT + 18) * UNIT)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        let loss = if self.y.log {
            "loss (log scale)"
        } else {
            "loss"
        };
        chart
            .configure_mesh()
            .light_line_style(GRID)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(text(&INK))
            .axis_desc_style(text(&INK))
            .set_all_tick_mark_size(5 * UNIT)
            .x_labels(self.x.ticks.len().max(1))
            .y_labels(self.y.ticks.len().max(1))
            .x_desc(self.over)
            .y_desc(loss)
            .draw()?;
        for curve in &self.curves {
            self.bad(curve, &chart, &area)?;
        }
        for curve in &self.curves {
            self.curve(curve, &chart)?;
        }
        for curve in &self.curves {
            self.beyond(curve, &chart, &area)?;
        }
        self.last(&chart, &area)
    }

    /// What it is, and with two curves which is which.
    fn title(&self, area: &Area<'_>) -> Drawn {
        let what = match self.curves.as_slice() {
            [one] if one.name == "eval_loss" => "evaluation loss",
            _ => "loss",
        };
        area.draw(&Text::new(
            format!("{what} over {}s", self.over),
            (14 * UNIT, 12 * UNIT),
            bold(&INK),
        ))?;
        if self.curves.len() < 2 {
            return Ok(());
        }
        let mut right = WIDTH as i32 - 16;
        for curve in self.curves.iter().rev() {
            let left = right - curve.name.len() as i32 * TEXT_WIDTH;
            let middle = (12 + TEXT_HEIGHT / 2) * UNIT;
            area.draw(&Text::new(curve.name, (left * UNIT, 12 * UNIT), text(&INK)))?;
            area.draw(&PathElement::new(
                vec![((left - 34) * UNIT, middle), ((left - 8) * UNIT, middle)],
                curve.color.stroke_width(3 * UNIT as u32),
            ))?;
            right = left - 58;
        }
        Ok(())
    }

    /// Where the loss is no number.
    fn bad(&self, curve: &Curve, chart: &Plot<'_>, area: &Area<'_>) -> Drawn {
        let (x_pixels, y_pixels) = chart.plotting_area().get_pixel_range();
        let mut last_named = None;
        for (from, to) in curve.bad() {
            let (from, to) = (
                self.x.map(&from, (x_pixels.start, x_pixels.end)) - UNIT,
                self.x.map(&to, (x_pixels.start, x_pixels.end)) + UNIT,
            );
            area.draw(&Rectangle::new(
                [(from, y_pixels.start), (to, y_pixels.end)],
                BAD_COLOR.mix(0.2).filled(),
            ))?;
            if last_named.is_some_and(|last| from - last < 5 * TEXT_WIDTH * UNIT) {
                continue;
            }
            last_named = Some(to);
            let style = text(&BAD_COLOR).pos(Pos::new(HPos::Center, VPos::Top));
            let under_the_top = (from / 2 + to / 2, y_pixels.start + 2 * TEXT_HEIGHT * UNIT);
            area.draw(&Text::new("nan", under_the_top, style))?;
        }
        Ok(())
    }

    fn curve(&self, curve: &Curve, chart: &Plot<'_>) -> Drawn {
        let area = chart.plotting_area();
        let trend = curve.trend(&self.x);
        let (color, width) = match trend.is_empty() {
            true => (curve.color.mix(1.0), 2.25),
            false => (curve.color.mix(0.42), 1.25),
        };
        let units = |pixels: f64| (pixels * f64::from(UNIT)) as u32;
        let dot = |point, radius| Circle::new(point, units(radius), curve.color.filled());
        for stretch in curve.stretches() {
            if let [alone] = stretch.as_slice() {
                area.draw(&dot(*alone, 3.5))?;
            }
            area.draw(&PathElement::new(stretch, color.stroke_width(units(width))))?;
        }
        for stretch in trend {
            let style = curve.color.stroke_width(units(2.5));
            area.draw(&PathElement::new(stretch, style))?;
        }
        let told: Vec<_> = curve.stretches().flatten().collect();
        let dots = match told.len() {
            ..=DOTS => told.as_slice(),
            count => told.get(count - 1..).unwrap_or_default(),
        };
        dots.iter()
            .try_for_each(|point| area.draw(&dot(*point, 4.0)))
    }

    /// Marks the losses that lie beyond the picture, and says how far the farthest is.
    fn beyond(&self, curve: &Curve, chart: &Plot<'_>, area: &Area<'_>) -> Drawn {
        for above in [true, false] {
            let beyond = |loss: f64| match above {
                true => self.y.is_above(loss),
                false => self.y.is_below(loss),
            };
            let points = || curve.stretches().flatten().filter(|point| beyond(point.1));
            let down = if above { 1 } else { -1 };
            let mut last = None;
            for point in points() {
                let (x, y) = chart.backend_coord(&(point.0, point.1));
                if last.is_some_and(|last| x - last < 8 * UNIT) {
                    continue;
                }
                last = Some(x);
                // An arrow head, from a point outwards.
                for (width, at) in [(1, 1), (3, 2), (5, 3), (7, 4), (9, 5), (11, 6), (13, 7)] {
                    let y = y + down * (at - 9) * UNIT;
                    area.draw(&PathElement::new(
                        vec![(x - width * UNIT / 2, y), (x + width * UNIT / 2, y)],
                        curve.color.stroke_width(UNIT as u32),
                    ))?;
                }
            }
            let farthest = match above {
                true => points().max_by(|one, other| one.1.total_cmp(&other.1)),
                false => points().min_by(|one, other| one.1.total_cmp(&other.1)),
            };
            if let Some(point) = farthest {
                let (x, y) = chart.backend_coord(&(point.0, point.1));
                let words = format!("{} at {}", short(point.1), self.at_step(point.0));
                let room = WIDTH as i32 * UNIT - x > (words.len() as i32 * TEXT_WIDTH + 80) * UNIT;
                let (h_pos, x) = match room {
                    true => (HPos::Left, x + 12 * UNIT),
                    false => (HPos::Right, x - 12 * UNIT),
                };
                let v_pos = if above { VPos::Top } else { VPos::Bottom };
                let style = text(&curve.color).pos(Pos::new(h_pos, v_pos));
                area.draw(&Text::new(words, (x, y + down * 2 * UNIT), style))?;
            }
        }
        Ok(())
    }

    fn at_step(&self, step: f64) -> String {
        match self.over {
            "epoch" => format!("epoch {step:.2}"),
            over => format!("{over} {step}"),
        }
    }

    /// Writes the last value of each curve beside its end.
    fn last(&self, chart: &Plot<'_>, area: &Area<'_>) -> Drawn {
        let mut ends: Vec<(i32, i32, &Curve)> = self
            .curves
            .iter()
            .filter_map(|curve| {
                let (step, loss) = curve.stretches().flatten().last()?;
                let (x, y) = chart.backend_coord(&(step, loss));
                Some((x, y, curve))
            })
            .collect();
        ends.sort_by_key(|end| end.1);
        // Two that stand close are moved apart.
        if let [one, other] = ends.as_mut_slice() {
            let lacking = TEXT_HEIGHT * UNIT - (other.1 - one.1);
            if lacking > 0 {
                one.1 -= lacking / 2;
                other.1 += lacking / 2;
            }
        }
        let right = chart.plotting_area().get_pixel_range().0.end;
        for (_, y, curve) in ends {
            let style = bold(&curve.color).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(curve.last_label(), (right + 8 * UNIT, y), style))?;
        }
        Ok(())
    }
}

/// The style of text. There is one font, so its name does not matter.
fn text(color: &RGBColor) -> TextStyle<'static> {
    font().color(color)
}

fn bold(color: &RGBColor) -> TextStyle<'static> {
    font().style(FontStyle::Bold).color(color)
}

fn font() -> FontDesc<'static> {
    ("monospace", TEXT_HEIGHT * UNIT).into_font()
}
