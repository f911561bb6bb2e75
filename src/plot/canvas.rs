//! Lines, shapes and text on a pixel map.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tiny_skia::{
    ColorU8, FillRule, Paint, Path, PathBuilder, Pixmap, PixmapPaint, Stroke, Transform,
};

pub(super) const TEXT_HEIGHT: f32 = SIZE.val() as f32;

const SIZE: RasterHeight = RasterHeight::Size20;

/// Red, green, blue and alpha.
pub(super) type Color = [u8; 4];

/// A pixel map with an opaque background.
pub(super) struct Canvas(pub Pixmap);

impl Canvas {
    pub(crate) fn line(
        &mut self,
        points: impl IntoIterator<Item = (f32, f32)>,
        width: f32,
        color: Color,
    ) {
        let stroke = Stroke {
            width,
            ..Stroke::default()
        };
        if let Some(path) = path(points) {
            let transform = Transform::identity();
            self.0
                .stroke_path(&path, &paint(color), &stroke, transform, None);
        }
    }

    pub(crate) fn polygon(&mut self, corners: impl IntoIterator<Item = (f32, f32)>, color: Color) {
        self.fill(path(corners), color);
    }

    pub(crate) fn dot(&mut self, (x, y): (f32, f32), color: Color) {
        self.fill(PathBuilder::from_circle(x, y, 4.0), color);
    }

    fn fill(&mut self, path: Option<Path>, color: Color) {
        let (rule, transform) = (FillRule::Winding, Transform::identity());
        if let Some(path) = path {
            self.0
                .fill_path(&path, &paint(color), rule, transform, None);
        }
    }

    /// Writes `text` with its vertical middle at the anchor, and `before` of its width left of it. It is moved if it would
    /// leave the picture.
    pub(crate) fn text(&mut self, text: &str, (x, y): (f32, f32), before: f32, color: Color) {
        let (width, [red, green, blue, _]) = (text_width(text), color);
        let Some(mut label) = Pixmap::new(width as u32, TEXT_HEIGHT as u32) else {
            return;
        };
        for (index, c) in text.chars().enumerate() {
            let glyph = get_raster(c, FontWeight::Regular, SIZE);
            for (row, line) in glyph.iter().flat_map(|glyph| glyph.rows()).enumerate() {
                let at = row * width as usize + index * line.len();
                let pixels = label.pixels_mut().iter_mut().skip(at);
                for (pixel, coverage) in pixels.zip(line) {
                    *pixel = ColorU8::from_rgba(red, green, blue, *coverage).premultiply();
                }
            }
        }
        let left = x - before * width;
        let left = left.min(self.0.width() as f32 - width).max(0.0) as i32;
        let top = (y - TEXT_HEIGHT / 2.0).max(0.0) as i32;
        let (paint, transform) = (PixmapPaint::default(), Transform::identity());
        self.0
            .draw_pixmap(left, top, label.as_ref(), &paint, transform, None);
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

fn path(points: impl IntoIterator<Item = (f32, f32)>) -> Option<Path> {
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
