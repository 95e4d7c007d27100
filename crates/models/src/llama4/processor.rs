use media::Image;
use nn::{Files, MediaInput, MediaKind};
use text::Piece;

use super::config::{Config, PIXELS, ProcessorConfig};
use crate::canvas::Canvas;
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

const IMAGE: &str = "<|image|>";

struct Llama4 {
    pixels: Pixels,
    /// Pixels along a side of a tile.
    tile: usize,
    tiles_max: usize,
    patch_token: u32,
    rows_per_tile: usize,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let Config { image_token_index: patch_token, vision_config } = Config::read(files)?;
    let tile = vision_config.image_size;
    let tiles_max = ProcessorConfig::read(files, tile)?.max_patches;
    let pixels = Pixels::read_in_bf16(files, PIXELS)?;
    Ok(Box::new(Llama4 { pixels, tile, tiles_max, patch_token, rows_per_tile: vision_config.rows_per_tile() }))
}

impl Processor for Llama4 {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: IMAGE }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        shown(&image, &wanted, |image| Ok(self.image(image)))
    }
}

impl Llama4 {
    fn image(&self, image: &Image) -> Processed {
        let canvas = Canvas::best(image, self.tile, self.tiles_max);
        let mut views = canvas.cut(image, self.tile, self.pixels.filter);
        if views.len() > 1 {
            views.push(image.resize(self.tile, self.tile, self.pixels.filter));
        }
        let rows = views.len() * self.rows_per_tile;
        let input = MediaInput::new(MediaKind::Image, rows, [("pixel_values", self.pixels.planes(&views))]);
        Processed::seen(input, self.pieces(canvas), views)
    }

    /// The tiles, if there are several, and the whole.
    fn pieces(&self, canvas: Canvas) -> Vec<Piece> {
        let view = || Piece::Slots { token: self.patch_token, count: self.rows_per_tile };
        let mut pieces = Vec::new();
        let mut before = String::from("<|image_start|>");
        for _ in 0..if canvas.tiles() > 1 { canvas.rows } else { 0 } {
            for column in 1..=canvas.columns {
                pieces.extend([Piece::Text(std::mem::take(&mut before)), view()]);
                before.push_str(if column < canvas.columns { "<|tile_x_separator|>" } else { "<|tile_y_separator|>" });
            }
        }
        before.push_str(IMAGE);
        pieces.extend([Piece::Text(before), view(), Piece::Text("<|image_end|>".into())]);
        pieces
    }
}
