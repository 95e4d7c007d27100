use media::Image;
use nn::{Array, Files, MediaInput, MediaKind, Prompt};
use text::Piece;

use super::config::{PIXELS, ProcessorConfig, SIDE, TILE};
use crate::phi3::Near;
use crate::pixels::Pixels;
use crate::special_tokens::SpecialTokens;
use crate::{Marker, Media, ModelError, Processed, Processor, tiles};

struct Phi3V {
    pixels: Pixels,
    tiles_max: usize,
    image_token: u32,
    /// What the tokenizer puts in front of a stretch of text.
    beginning: String,
    near: Near,
}

/// Height and width of the enlarged picture in pixels, [1, 2].
pub const SIZES: &str = "image_sizes";

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let tokens = SpecialTokens::read(files)?;
    Ok(Box::new(Phi3V {
        pixels: Pixels::read(files, PIXELS)?,
        tiles_max: ProcessorConfig::read(files)?.num_crops,
        image_token: tokens.id("<|image|>")?,
        beginning: tokens.beginning(),
        near: Near::read(files)?,
    }))
}

impl Processor for Phi3V {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "<|image_{n}|>\n" }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image) = media else { return Err(media.refused()) };
        let image = self.enlarged(&image)?;
        let (rows, columns) = (image.height() / TILE, image.width() / TILE);
        let pixels = tiles::views(&self.pixels.planes(std::slice::from_ref(&image)), TILE);
        let size = Array { shape: vec![1, 2], data: vec![image.height() as f32, image.width() as f32] };
        // Tiles, the whole, a separator between them and one for each line.
        let count = (rows * columns + 1) * SIDE * SIDE + 1 + (rows + 1) * SIDE;
        let input = MediaInput::new(MediaKind::Image, count, [("pixel_values", pixels), (SIZES, size)]);
        let pieces = vec![Piece::Slots { token: self.image_token, count }, Piece::Text(format!("{}\n", self.beginning))];
        Ok(Processed { input: input.into(), pieces })
    }

    fn arrange(&self, prompt: &mut Prompt) {
        prompt.mode.reach = self.near.reach(prompt);
    }
}

impl Phi3V {
    /// Tiles along the longer side, for a picture whose longer side is `ratio` times the shorter: the last number before there would
    /// be too many in all.
    fn longer(&self, ratio: f64) -> usize {
        let all = |longer: usize| longer * (longer as f64 / ratio).ceil() as usize;
        (1..).take_while(|longer| all(*longer) <= self.tiles_max).last().unwrap_or(1)
    }

    /// The picture as wide (or high) as its tiles, with white margins along the longer sides.
    fn enlarged(&self, image: &Image) -> Result<Image, ModelError> {
        const WHITE: [u8; 3] = [255; 3];
        let (width, height) = (image.width(), image.height());
        if width < height {
            return Ok(self.enlarged(&image.transposed())?.transposed());
        }
        let ratio = width as f64 / height as f64;
        let longer = self.longer(ratio) * TILE;
        let shorter = (longer as f64 / ratio) as usize;
        if shorter == 0 {
            return Err(ModelError::Unusable(format!("a picture of {width} x {height} pixels is too thin to be seen")));
        }
        Ok(image.resize_finely(longer, shorter, self.pixels.filter).pad(longer, shorter.next_multiple_of(TILE), WHITE))
    }
}
