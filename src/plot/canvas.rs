//! What the plotting library draws on: smooth lines and text in memory, with no library of the system behind it.
//!
//! The library thinks in whole pixels. It is told of a canvas that is [`UNIT`] times as large, so that lines are placed to
//! a part of a pixel.

use std::convert::Infallible;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};

/// How many units of the library a pixel is.
pub(super) const UNIT: i32 = 8;

/// The height of a line of text, in pixels.
pub(super) const TEXT_HEIGHT: i32 = SIZE.val() as i32;

/// The width of a character, in pixels: all have the same.
pub(super) const TEXT_WIDTH: i32 = get_raster_width(FontWeight::Regular, SIZE) as i32;

const SIZE: RasterHeight = RasterHeight::Size20;

/// An opaque picture of red, green and blue, a byte each.
pub(super) struct Canvas<'a> {
    width: i32,
    height: i32,
    pixels: &'a mut [u8],
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl<'a> Canvas<'a> {
    /// A canvas over `pixels`, row by row.
    pub fn new(width: u32, height: u32, pixels: &'a mut [u8]) -> Self {
        Self {
            width: width.cast_signed(),
            height: height.cast_signed(),
            pixels,
        }
    }

    /// Lays `color` over a pixel, with `part` of its strength.
    fn blend(&mut self, x: i32, y: i32, color: BackendColor, part: f32) {
        if !(0..self.width).contains(&x) || !(0..self.height).contains(&y) {
            return;
        }
        let at = (y * self.width + x).unsigned_abs() as usize * 3;
        let Some(pixel) = self.pixels.get_mut(at..at + 3) else {
            return;
        };
        let part = part * color.alpha as f32;
        let (red, green, blue) = color.rgb;
        for (under, over) in pixel.iter_mut().zip([red, green, blue]) {
            *under = (f32::from(*under) * (1.0 - part) + f32::from(over) * part).round() as u8;
        }
    }

    /// Lays `color` over all pixels around `within`, each with as much of its strength as `cover` says of its middle. What
    /// several of `shapes` cover is covered once.
    fn cover<S>(
        &mut self,
        shapes: &[S],
        color: BackendColor,
        within: impl Fn(&S) -> [f32; 4],
        cover: impl Fn(&S, f32, f32) -> f32,
    ) {
        let [mut left, mut top, mut right, mut bottom] = [self.width, self.height, 0, 0];
        let boxes: Vec<[i32; 4]> = shapes
            .iter()
            .map(|shape| {
                let [x0, y0, x1, y1] = within(shape);
                [
                    (x0.floor() as i32).max(0),
                    (y0.floor() as i32).max(0),
                    (x1.ceil() as i32).min(self.width),
                    (y1.ceil() as i32).min(self.height),
                ]
            })
            .collect();
        for [x0, y0, x1, y1] in &boxes {
            left = left.min(*x0);
            top = top.min(*y0);
            right = right.max(*x1);
            bottom = bottom.max(*y1);
        }
        if left >= right || top >= bottom {
            return;
        }
        let stride = (right - left).unsigned_abs() as usize;
        let mut covered = vec![0.0_f32; stride * (bottom - top).unsigned_abs() as usize];
        for (shape, [x0, y0, x1, y1]) in shapes.iter().zip(boxes) {
            for y in y0..y1 {
                for x in x0..x1 {
                    let at = (y - top).unsigned_abs() as usize * stride
                        + (x - left).unsigned_abs() as usize;
                    if let Some(covered) = covered.get_mut(at) {
                        let part = cover(shape, x as f32 + 0.5, y as f32 + 0.5);
                        *covered = covered.max(part);
                    }
                }
            }
        }
        for (row, y) in covered.chunks(stride).zip(top..) {
            for (part, x) in row.iter().zip(left..) {
                if *part > 0.0 {
                    self.blend(x, y, color, *part);
                }
            }
        }
    }
}

fn pixels(units: i32) -> f32 {
    units as f32 / UNIT as f32
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (
            (self.width * UNIT).unsigned_abs(),
            (self.height * UNIT).unsigned_abs(),
        )
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.blend(x.div_euclid(UNIT), y.div_euclid(UNIT), color, 1.0);
        Ok(())
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        let mut points: Vec<(f32, f32)> = path
            .into_iter()
            .map(|(x, y)| (pixels(x), pixels(y)))
            .collect();
        // Grids and axes are sharp: a line along the pixels runs through their middles.
        if let Some((x, y)) = points.first().copied() {
            let (upright, level) = (
                points.iter().all(|point| point.0 == x),
                points.iter().all(|point| point.1 == y),
            );
            for point in &mut points {
                if upright {
                    point.0 = x.floor() + 0.5;
                }
                if level {
                    point.1 = y.floor() + 0.5;
                }
            }
        }
        let radius = style.stroke_width() as f32 / UNIT as f32 / 2.0;
        let segments: Vec<[(f32, f32); 2]> = points
            .iter()
            .zip(points.iter().skip(1))
            .map(|(from, to)| [*from, *to])
            .collect();
        let reach = radius + 1.0;
        self.cover(
            &segments,
            style.color(),
            |[from, to]| {
                [
                    from.0.min(to.0) - reach,
                    from.1.min(to.1) - reach,
                    from.0.max(to.0) + reach,
                    from.1.max(to.1) + reach,
                ]
            },
            |[from, to], x, y| {
                let along = (to.0 - from.0, to.1 - from.1);
                let length = along.0 * along.0 + along.1 * along.1;
                let part = ((x - from.0) * along.0 + (y - from.1) * along.1) / length.max(1e-6);
                let part = part.clamp(0.0, 1.0);
                let away = (x - from.0 - part * along.0, y - from.1 - part * along.1);
                (radius + 0.5 - away.0.hypot(away.1)).clamp(0.0, 1.0)
            },
        );
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn {
        if !fill {
            let corners = [
                (left, top),
                (right, top),
                (right, bottom),
                (left, bottom),
                (left, top),
            ];
            return self.draw_path(corners, style);
        }
        for y in top.div_euclid(UNIT)..=bottom.div_euclid(UNIT) {
            for x in left.div_euclid(UNIT)..=right.div_euclid(UNIT) {
                self.blend(x, y, style.color(), 1.0);
            }
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        _fill: bool,
    ) -> Drawn {
        let radius = radius as f32 / UNIT as f32;
        let reach = radius + 1.0;
        self.cover(
            &[(pixels(x), pixels(y))],
            style.color(),
            |(x, y)| [x - reach, y - reach, x + reach, y + reach],
            |middle, x, y| (radius + 0.5 - (x - middle.0).hypot(y - middle.1)).clamp(0.0, 1.0),
        );
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Drawn {
        let weight = match style.style() {
            FontStyle::Bold => FontWeight::Bold,
            _ => FontWeight::Regular,
        };
        let width = i32::try_from(text.chars().count()).unwrap_or(0) * TEXT_WIDTH;
        let from = (
            match style.anchor().h_pos {
                HPos::Left => 0,
                HPos::Center => -width / 2,
                HPos::Right => -width,
            },
            match style.anchor().v_pos {
                VPos::Top => 0,
                VPos::Center => -TEXT_HEIGHT / 2,
                VPos::Bottom => -TEXT_HEIGHT,
            },
        );
        let turn = style.transform();
        for (left, char) in (from.0..)
            .step_by(TEXT_WIDTH.unsigned_abs() as usize)
            .zip(text.chars())
        {
            let Some(glyph) = get_raster(char, weight, SIZE) else {
                continue;
            };
            for (row, down) in glyph.rows().zip(from.1..) {
                for (strength, right) in row.iter().zip(left..) {
                    let (right, down) = turn.transform(right, down);
                    self.blend(
                        x.div_euclid(UNIT) + right,
                        y.div_euclid(UNIT) + down,
                        style.color(),
                        f32::from(*strength) / 255.0,
                    );
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let width = i32::try_from(text.chars().count()).unwrap_or(0) * TEXT_WIDTH;
        Ok((
            (width * UNIT).unsigned_abs(),
            (TEXT_HEIGHT * UNIT).unsigned_abs(),
        ))
    }
}
