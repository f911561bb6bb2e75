//! Lines, shapes and text on a pixel map.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tiny_skia::{FillRule, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};

const SIZE: RasterHeight = RasterHeight::Size20;
pub(super) const TEXT_HEIGHT: f32 = SIZE.val() as f32;

/// Red, green, blue and alpha.
pub(super) type Color = [u8; 4];

pub(super) struct Canvas(pub(super) Pixmap);

impl Canvas {
    pub(super) fn line(
        &mut self,
        points: impl IntoIterator<Item = (f32, f32)>,
        width: f32,
        color: Color,
    ) {
        let mut path = PathBuilder::new();
        for (index, (x, y)) in points.into_iter().enumerate() {
            match index {
                0 => path.move_to(x, y),
                _ => path.line_to(x, y),
            }
        }
        let stroke = Stroke {
            width,
            ..Stroke::default()
        };
        let (paint, transform) = (paint(color), Transform::identity());
        if let Some(path) = path.finish() {
            self.0.stroke_path(&path, &paint, &stroke, transform, None);
        }
    }

    /// Fills the rectangle between two corners.
    pub(super) fn band(
        &mut self,
        (left, top): (f32, f32),
        (right, bottom): (f32, f32),
        color: Color,
    ) {
        let band = Rect::from_ltrb(left, top, right, bottom);
        self.fill(band.map(PathBuilder::from_rect), color);
    }

    pub(super) fn dot(&mut self, (x, y): (f32, f32), color: Color) {
        self.fill(PathBuilder::from_circle(x, y, 4.0), color);
    }

    fn fill(&mut self, path: Option<Path>, color: Color) {
        let (paint, rule, transform) = (paint(color), FillRule::Winding, Transform::identity());
        if let Some(path) = path {
            self.0.fill_path(&path, &paint, rule, transform, None);
        }
    }

    /// Writes `text` with its vertical middle at the anchor, and `before` of its width left of it. It is moved if it would
    /// leave the picture. Returns where it ends.
    pub(super) fn text(
        &mut self,
        text: &str,
        (x, y): (f32, f32),
        before: f32,
        [red, green, blue, _]: Color,
    ) -> f32 {
        let width = (text.len() * get_raster_width(FontWeight::Regular, SIZE)) as f32;
        let left = (x - before * width).min(self.0.width() as f32 - width);
        let (left, top) = (left.max(0.0).round(), (y - TEXT_HEIGHT / 2.0).round());
        for (index, c) in text.chars().enumerate() {
            let glyph = get_raster(c, FontWeight::Regular, SIZE);
            for (row, line) in glyph.iter().flat_map(|glyph| glyph.rows()).enumerate() {
                for (column, coverage) in line.iter().enumerate() {
                    let x = left + (index * line.len() + column) as f32;
                    if let Some(pixel) = Rect::from_xywh(x, top + row as f32, 1.0, 1.0) {
                        let paint = paint([red, green, blue, *coverage]);
                        self.0.fill_rect(pixel, &paint, Transform::identity(), None);
                    }
                }
            }
        }
        left + width
    }
}

fn paint([red, green, blue, alpha]: Color) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, alpha);
    paint
}
