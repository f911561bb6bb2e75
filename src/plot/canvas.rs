//! Lines, shapes and text on a picture, with soft edges.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use zeno::{Cap, Command, Join, Mask, PathBuilder, Stroke, Style};

const SIZE: RasterHeight = RasterHeight::Size20;
pub(super) const TEXT_HEIGHT: f32 = SIZE.val() as f32;

/// Red, green, blue and alpha.
pub(super) type Color = [u8; 4];
type Place = (f32, f32);

pub(super) struct Canvas {
    width: usize,
    /// Red, green and blue of each pixel, row by row.
    pixels: Vec<[u8; 3]>,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32, [red, green, blue, _]: Color) -> Self {
        let pixels = vec![[red, green, blue]; (width * height) as usize];
        let width = width as usize;
        Self { width, pixels }
    }

    pub(super) fn png(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let height = self.pixels.len() / self.width;
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().ok()?;
        writer.write_image_data(self.pixels.as_flattened()).ok()?;
        drop(writer);
        Some(bytes)
    }

    /// Draws lines with round ends from point to point.
    pub(super) fn line(
        &mut self,
        points: impl IntoIterator<Item = Place>,
        width: f32,
        color: Color,
    ) {
        let mut path = Vec::new();
        for place in points {
            match path.is_empty() {
                true => path.move_to(place),
                false => path.line_to(place),
            };
        }
        let mut stroke = Stroke::new(width);
        stroke.join(Join::Round).cap(Cap::Round);
        self.draw(&path, stroke.into(), color);
    }

    /// Fills the rectangle between two corners.
    pub(super) fn band(&mut self, from: Place, to: Place, color: Color) {
        let mut path = Vec::new();
        path.add_rect(from, to.0 - from.0, to.1 - from.1);
        self.draw(&path, Style::default(), color);
    }

    pub(super) fn dot(&mut self, at: Place, color: Color) {
        let mut path = Vec::new();
        path.add_circle(at, 4.0);
        self.draw(&path, Style::default(), color);
    }

    /// Draws a shape, at the cost of the pixels around it.
    fn draw(&mut self, path: &[Command], style: Style<'_>, color: Color) {
        let (mask, at) = Mask::new(path).style(style).render();
        for (row, line) in mask.chunks_exact(at.width.max(1) as usize).enumerate() {
            for (column, coverage) in line.iter().enumerate() {
                let (x, y) = (at.left as usize + column, at.top as usize + row);
                self.blend(y * self.width + x, color, *coverage);
            }
        }
    }

    /// Writes `text` with its vertical middle at the anchor, and `before` of its width left of it. It is moved if it would
    /// leave the picture. Returns where it ends.
    pub(super) fn text(&mut self, text: &str, (x, y): Place, before: f32, color: Color) -> f32 {
        let width = (text.len() * get_raster_width(FontWeight::Regular, SIZE)) as f32;
        let left = (x - before * width).min(self.width as f32 - width);
        let (left, top) = (left.max(0.0).round(), (y - TEXT_HEIGHT / 2.0).round());
        for (index, c) in text.chars().enumerate() {
            let glyph = get_raster(c, FontWeight::Regular, SIZE);
            for (row, line) in glyph.iter().flat_map(|glyph| glyph.rows()).enumerate() {
                for (column, coverage) in line.iter().enumerate() {
                    let x = left as usize + index * line.len() + column;
                    let at = (top as usize + row) * self.width + x;
                    self.blend(at, color, *coverage);
                }
            }
        }
        left + width
    }

    /// Lays a colour over a pixel, as far as it covers it.
    fn blend(&mut self, at: usize, [red, green, blue, alpha]: Color, coverage: u8) {
        let strength = f32::from(coverage) / 255.0 * f32::from(alpha) / 255.0;
        let Some(pixel) = self.pixels.get_mut(at).filter(|_| strength > 0.0) else {
            return;
        };
        for (under, over) in pixel.iter_mut().zip([red, green, blue]) {
            let (from, to) = (f32::from(*under), f32::from(over));
            *under = (from + (to - from) * strength).round() as u8;
        }
    }
}
