//! Lines, shapes and text on a picture, with soft edges.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

const SIZE: RasterHeight = RasterHeight::Size20;
pub(super) const TEXT_HEIGHT: f32 = SIZE.val() as f32;

/// Red, green, blue and alpha.
pub(super) type Color = [u8; 4];
type Place = (f32, f32);

pub(super) struct Canvas {
    width: usize,
    height: usize,
    /// Red, green and blue of each pixel, row by row.
    pixels: Vec<[u8; 3]>,
    /// How far the lines that are being drawn cover each pixel; 0 between them.
    coverage: Vec<f32>,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32, [red, green, blue, _]: Color) -> Self {
        let (width, height) = (width as usize, height as usize);
        let pixels = vec![[red, green, blue]; width * height];
        Self {
            width,
            height,
            pixels,
            coverage: vec![0.0; width * height],
        }
    }

    pub(super) fn png(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let (width, height) = (self.width as u32, self.height as u32);
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().ok()?;
        let pixels = self.pixels.as_flattened();
        writer.write_image_data(pixels).ok()?;
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
        let points: Vec<Place> = points.into_iter().collect();
        // First of all lines, so that the colour is no stronger where two of them meet.
        for ends in points.windows(2) {
            let (from, to) = (ends[0], ends[1]);
            let (along_x, along_y) = (to.0 - from.0, to.1 - from.1);
            let square = (along_x * along_x + along_y * along_y).max(f32::MIN_POSITIVE);
            for (at, (x, y)) in self.near(from, to, width) {
                let (x, y) = (x - from.0, y - from.1);
                let part = ((x * along_x + y * along_y) / square).clamp(0.0, 1.0);
                let distance = (x - part * along_x).hypot(y - part * along_y);
                self.coverage[at] = self.coverage[at].max(width / 2.0 + 0.5 - distance);
            }
        }
        for ends in points.windows(2) {
            for (at, _) in self.near(ends[0], ends[1], width) {
                let coverage = std::mem::take(&mut self.coverage[at]);
                self.blend(at, color, coverage);
            }
        }
    }

    /// Fills the rectangle between two corners.
    pub(super) fn band(&mut self, from: Place, to: Place, color: Color) {
        let part = |from: f32, to: f32, at: f32| to.min(at + 0.5) - from.max(at - 0.5);
        for (at, (x, y)) in self.near(from, to, 1.0) {
            let coverage = part(from.0, to.0, x).max(0.0) * part(from.1, to.1, y).max(0.0);
            self.blend(at, color, coverage);
        }
    }

    pub(super) fn dot(&mut self, at: Place, color: Color) {
        self.line([at, at], 8.0, color);
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
                    self.blend(at, color, f32::from(*coverage) / 255.0);
                }
            }
        }
        left + width
    }

    /// Lists the pixels at most `reach` away from the rectangle between two places, each with its middle.
    fn near(
        &self,
        from: Place,
        to: Place,
        reach: f32,
    ) -> impl Iterator<Item = (usize, Place)> + use<> {
        let range = |from: f32, to: f32, size: usize| {
            let (low, high) = (from.min(to) - reach, from.max(to) + reach);
            (low as usize).min(size)..(high.ceil() as usize).min(size)
        };
        let columns = range(from.0, to.0, self.width);
        let (rows, width) = (range(from.1, to.1, self.height), self.width);
        rows.flat_map(move |row| columns.clone().map(move |column| (row, column)))
            .map(move |(row, column)| {
                (
                    row * width + column,
                    (column as f32 + 0.5, row as f32 + 0.5),
                )
            })
    }

    /// Lays a colour over a pixel, as far as it covers it.
    fn blend(&mut self, at: usize, [red, green, blue, alpha]: Color, coverage: f32) {
        let strength = coverage.clamp(0.0, 1.0) * f32::from(alpha) / 255.0;
        let Some(pixel) = self.pixels.get_mut(at).filter(|_| strength > 0.0) else {
            return;
        };
        for (under, over) in pixel.iter_mut().zip([red, green, blue]) {
            let (from, to) = (f32::from(*under), f32::from(over));
            *under = (from + (to - from) * strength).round() as u8;
        }
    }
}
