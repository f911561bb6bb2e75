//! Lines, shapes and text on a pixel map.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

pub(super) const TEXT_HEIGHT: f32 = SIZE.val() as f32;

const SIZE: RasterHeight = RasterHeight::Size20;

/// Red, green, blue and alpha.
pub(super) type Color = [u8; 4];

/// A pixel map with an opaque background.
pub(super) struct Canvas(Pixmap);

impl Canvas {
    /// `None` for a map without pixels.
    pub(crate) fn new(width: u32, height: u32, [red, green, blue, alpha]: Color) -> Option<Self> {
        let mut pixmap = Pixmap::new(width, height)?;
        pixmap.fill(tiny_skia::Color::from_rgba8(red, green, blue, alpha));
        Some(Self(pixmap))
    }

    pub(crate) fn encode_png(&self) -> std::io::Result<Vec<u8>> {
        Ok(self.0.encode_png()?)
    }

    pub(crate) fn line(
        &mut self,
        points: impl IntoIterator<Item = (f32, f32)>,
        width: f32,
        color: Color,
    ) {
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        let (paint, transform) = (paint(color), Transform::identity());
        if let Some(path) = polyline(points) {
            self.0.stroke_path(&path, &paint, &stroke, transform, None);
        }
    }

    pub(crate) fn polygon(&mut self, corners: impl IntoIterator<Item = (f32, f32)>, color: Color) {
        self.fill(polyline(corners), color);
    }

    pub(crate) fn dot(&mut self, (x, y): (f32, f32), color: Color) {
        self.fill(PathBuilder::from_circle(x, y, 4.0), color);
    }

    fn fill(&mut self, path: Option<Path>, color: Color) {
        let (paint, rule, transform) = (paint(color), FillRule::Winding, Transform::identity());
        if let Some(path) = path {
            self.0.fill_path(&path, &paint, rule, transform, None);
        }
    }

    /// Writes `text` with its vertical middle at the anchor, and `before` of its width left of it. It is moved if it would
    /// leave the picture.
    pub(crate) fn text(&mut self, text: &str, (x, y): (f32, f32), before: f32, color: Color) {
        let width = text_width(text);
        let left = x - before * width;
        let left = left.min(self.0.width() as f32 - width).max(0.0) as usize;
        let top = (y - TEXT_HEIGHT / 2.0).max(0.0) as usize;
        let glyph_width = get_raster_width(FontWeight::Regular, SIZE);
        for (index, c) in text.chars().enumerate() {
            let glyph = get_raster(c, FontWeight::Regular, SIZE);
            for (down, row) in glyph.into_iter().flat_map(|glyph| glyph.rows()).enumerate() {
                for (right, coverage) in row.iter().enumerate() {
                    let x = left + index * glyph_width + right;
                    self.blend(x, top + down, *coverage, color);
                }
            }
        }
    }

    fn blend(&mut self, x: usize, y: usize, coverage: u8, color: Color) {
        let width = self.0.width() as usize;
        let index = y * width + x;
        let pixel = self.0.data_mut().get_mut(index * 4..index * 4 + 4);
        if let Some(pixel) = pixel.filter(|_| x < width) {
            let part = u16::from(coverage);
            for (under, over) in pixel.iter_mut().zip(color) {
                *under = ((u16::from(*under) * (255 - part) + u16::from(over) * part) / 255) as u8;
            }
        }
    }
}

/// The width of `text` in pixels.
pub(super) fn text_width(text: &str) -> f32 {
    (text.len() * get_raster_width(FontWeight::Regular, SIZE)) as f32
}

fn paint([red, green, blue, alpha]: Color) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, alpha);
    paint
}

fn polyline(points: impl IntoIterator<Item = (f32, f32)>) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (x, y) in points {
        if path.is_empty() {
            path.move_to(x, y);
        } else {
            path.line_to(x, y);
        }
    }
    path.finish()
}
