//! Lines, shapes and text on a picture, with soft edges.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

const SIZE: RasterHeight = RasterHeight::Size20;
pub(super) const TEXT_HEIGHT: f32 = SIZE.val() as f32;

/// Red, green and blue.
pub(super) type Color = [u8; 3];
type Place = (f32, f32);

pub(super) struct Canvas {
    width: usize,
    /// The pixels, row by row.
    pixels: Vec<Color>,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32, background: Color) -> Self {
        Self {
            width: width as usize,
            pixels: vec![background; (width * height) as usize],
        }
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

    /// Draws lines with round ends from point to point; one whose place is not a number leaves a gap.
    pub(super) fn line(&mut self, points: impl Iterator<Item = Place>, width: f32, color: Color) {
        let span = |from: f32, to: f32, size: usize| {
            let pixel = |at: f32| (at.max(0.0) as usize).min(size - 1);
            pixel(from.min(to) - width)..=pixel(from.max(to) + width)
        };
        let height = self.pixels.len() / self.width;
        // A pixel that several lines cover is coloured once.
        let mut mask = vec![0_u8; self.pixels.len()];
        let mut before = None;
        for to in points {
            let from = before.replace(to).filter(|from: &Place| !from.1.is_nan());
            let from = from.unwrap_or(to);
            for y in span(from.1, to.1, height) {
                for x in span(from.0, to.0, self.width) {
                    let center = (x as f32 + 0.5, y as f32 + 0.5);
                    let inside = width / 2.0 - distance(center, from, to) + 0.5;
                    let coverage = (inside.clamp(0.0, width.min(1.0)) * 255.0) as u8;
                    let pixel = &mut mask[y * self.width + x];
                    *pixel = coverage.max(*pixel);
                }
            }
        }
        let covered = mask.into_iter().enumerate().filter(|(_, all)| *all > 0);
        covered.for_each(|(at, coverage)| self.blend(at, color, coverage));
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
    fn blend(&mut self, at: usize, color: Color, coverage: u8) {
        for (under, over) in self.pixels.get_mut(at).into_iter().flatten().zip(color) {
            let (from, to) = (f32::from(*under), f32::from(over));
            *under = (from + (to - from) * f32::from(coverage) / 255.0).round() as u8;
        }
    }
}

/// The distance of a place from the nearest of a line.
fn distance(place: Place, from: Place, to: Place) -> f32 {
    let (x, y) = (to.0 - from.0, to.1 - from.1);
    let (dx, dy) = (place.0 - from.0, place.1 - from.1);
    let along = (dx * x + dy * y) / (x * x + y * y).max(f32::MIN_POSITIVE);
    let along = along.clamp(0.0, 1.0);
    let (dx, dy) = (dx - along * x, dy - along * y);
    dx.hypot(dy)
}
