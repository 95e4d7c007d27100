use std::sync::Arc;

use media::{Filter, Image};
use nn::{Array, Files, MediaInput, MediaKind, Prompt};
use text::Piece;

use super::config::{Layout, PIXELS, ProcessorConfig};
use super::ears::BESIDE_PICTURES;
use super::eyes::{PIXELS as PIXEL_VALUES, SIZES, USEFUL};
use super::sounds::Sounds;
use super::{SPEECH, VISION};
use crate::phi3::Near;
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor, tiles};

struct Phi4 {
    /// Whose resizing it is that of.
    layout: Layout,
    pixels: Pixels,
    /// Pixels along a side of a tile, and of a patch.
    tile: usize,
    patch: usize,
    tiles_max: usize,
    image_token: u32,
    sounds: Sounds,
    near: Near,
}

/// Columns and rows of tiles, and the size of the picture on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Canvas {
    columns: usize,
    rows: usize,
    width: usize,
    height: usize,
}

/// Pixels along a side below which nothing is seen.
const SIDE_MIN: usize = 10;

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let layout = Layout::of(files)?;
    let tokens = layout.media_tokens(files)?;
    let config = ProcessorConfig::read(files)?;
    Ok(Box::new(Phi4 {
        layout,
        pixels: Pixels::read(files, PIXELS)?,
        tile: config.tile(),
        patch: config.patch_size,
        tiles_max: config.dynamic_hd,
        image_token: tokens.image,
        sounds: Sounds::read(files, tokens.audio)?,
        near: Near::read(files)?,
    }))
}

impl Processor for Phi4 {
    fn markers(&self) -> &'static [Marker] {
        &[
            Marker { kind: MediaKind::Image, text: "<|image_{n}|>" },
            Marker { kind: MediaKind::Audio, text: "<|audio_{n}|>" },
            Marker { kind: MediaKind::Image, text: "<|endoftext10|>" },
            Marker { kind: MediaKind::Audio, text: "<|endoftext11|>" },
        ]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        match media {
            Media::Image(image, wanted) => shown(&image, &wanted, |image| self.image(image)),
            Media::Audio(audio) => self.sounds.process(audio),
            Media::Video(_) => Err(media.refused()),
        }
    }

    fn arrange(&self, prompt: &mut Prompt) {
        let has = |kind| prompt.media.iter().any(|item| item.input.kind == kind);
        prompt.mode.adapter = match (has(MediaKind::Image), has(MediaKind::Audio)) {
            (true, _) => Some(VISION),
            (false, true) => Some(SPEECH),
            (false, false) => None,
        };
        prompt.mode.reach = self.near.reach(prompt);
        if prompt.mode.adapter == Some(VISION) {
            for item in prompt.media.iter_mut().filter(|item| item.input.kind == MediaKind::Audio) {
                item.input = Arc::new(item.input.with(BESIDE_PICTURES, Array { shape: vec![0], data: Vec::new() }));
            }
        }
    }
}

impl Phi4 {
    fn image(&self, image: &Image) -> Result<Processed, ModelError> {
        const WHITE: [u8; 3] = [255; 3];
        let canvas = Canvas::of(image.width(), image.height(), self.tile, self.tiles_max);
        if canvas.width.min(canvas.height) < SIDE_MIN {
            let (width, height) = (image.width(), image.height());
            return Err(ModelError::Unusable(format!("a picture of {width} x {height} pixels is too thin to be seen")));
        }
        let (width, height) = (canvas.columns * self.tile, canvas.rows * self.tile);
        let enlarged = match self.layout {
            Layout::Published => image.resize_finely(canvas.width, canvas.height, Filter::Bilinear),
            Layout::Transformers => image.resize(canvas.width, canvas.height, Filter::Bilinear),
        };
        let views = [enlarged.extend(width, height, WHITE)];
        let pixels = tiles::views(&self.pixels.planes(&views), self.tile);
        // A patch counts unless all of it is margin.
        let useful =
            [(height, canvas.height), (width, canvas.width)].map(|(all, seen)| all / self.patch - (all - seen) / self.patch);
        let side = self.tile / self.patch / 2;
        let lines = |rows: usize, columns: usize| rows * (columns + 1);
        let rows = lines(side, side) + 1 + lines(useful[0].div_ceil(2), useful[1].div_ceil(2));
        let pair = |shape, numbers: [usize; 2]| Array { shape, data: numbers.map(|n| n as f32).to_vec() };
        let arrays = [(PIXEL_VALUES, pixels), (SIZES, pair(vec![1, 2], [height, width])), (USEFUL, pair(vec![2], useful))];
        let input = MediaInput::new(MediaKind::Image, rows, arrays);
        Ok(Processed::seen(input, vec![Piece::Slots { token: self.image_token, count: rows }], views))
    }
}

impl Canvas {
    /// For a picture of this size: as many tiles as cover it, or, where these are too many, the shape that is most like its own.
    fn of(width: usize, height: usize, tile: usize, tiles_max: usize) -> Self {
        let (mut columns, mut rows) = (width.div_ceil(tile), height.div_ceil(tile));
        if columns.saturating_mul(rows) > tiles_max {
            (columns, rows) = Self::most_alike(width, height, tile, tiles_max);
        }
        let (across, down) = (columns * tile, rows * tile);
        let (wider, higher) = (across as f64 / width as f64, down as f64 / height as f64);
        match wider < higher {
            true => Self { columns, rows, width: across, height: (height as f64 * wider) as usize },
            false => Self { columns, rows, width: (width as f64 * higher) as usize, height: down },
        }
    }

    /// Of shapes that are equally alike, the largest whose pixels the picture has half of.
    fn most_alike(width: usize, height: usize, tile: usize, tiles_max: usize) -> (usize, usize) {
        let shape = width as f64 / height as f64;
        let mut all: Vec<(usize, usize)> = (1..=tiles_max).flat_map(|i| (1..=tiles_max / i).map(move |j| (i, j))).collect();
        all.sort_by_key(|(columns, rows)| columns * rows);
        let (mut best, mut least) = ((1, 1), f64::INFINITY);
        for (columns, rows) in all {
            let difference = (shape - columns as f64 / rows as f64).abs();
            let large = (width * height) as f64 > 0.5 * (tile * tile * columns * rows) as f64;
            if difference < least || difference == least && large {
                (best, least) = ((columns, rows), difference);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As image_processing_phi4_multimodal.py has them.
    #[test]
    fn pictures_lie_on_the_canvas_that_is_most_like_them() {
        let canvas = |columns, rows, width, height| Canvas { columns, rows, width, height };
        let cases = [
            ((448, 448, 36), canvas(1, 1, 448, 448)),
            ((450, 300, 36), canvas(2, 1, 672, 448)),
            ((30, 300, 36), canvas(1, 1, 44, 448)),
            ((4000, 3000, 12), canvas(4, 3, 1792, 1344)),
            ((5000, 100, 4), canvas(4, 1, 1792, 35)),
            ((1000, 1000, 4), canvas(2, 2, 896, 896)),
        ];
        for ((width, height, tiles_max), expected) in cases {
            assert_eq!(Canvas::of(width, height, 448, tiles_max), expected, "{width} x {height}");
        }
    }
}
