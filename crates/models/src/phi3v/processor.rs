use media::{Image, ImageOptions};
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
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        let views = [self.enlarged(&image, &wanted)?];
        let (height, width) = (views[0].height(), views[0].width());
        let pixels = tiles::views(&self.pixels.planes(&views), TILE);
        let size = Array { shape: vec![1, 2], data: vec![height as f32, width as f32] };
        let count = tokens(width / TILE, height / TILE);
        let input = MediaInput::new(MediaKind::Image, count, [("pixel_values", pixels), (SIZES, size)]);
        let pieces = vec![Piece::Slots { token: self.image_token, count }, Piece::Text(format!("{}\n", self.beginning))];
        Ok(Processed::seen(input, pieces, views))
    }

    fn arrange(&self, prompt: &mut Prompt) {
        prompt.mode.reach = self.near.reach(prompt);
    }
}

impl Phi3V {
    /// Tiles along the longer side, for a picture that is so wide and no less high: the last number before there would be too many in
    /// all, or more than is wanted.
    fn longer(&self, width: usize, height: usize, wanted: &ImageOptions) -> usize {
        let ratio = width as f64 / height as f64;
        let shorter = |longer: usize| (longer as f64 / ratio).ceil() as usize;
        let pixels_max = wanted.most_pixels(width, height).unwrap_or(usize::MAX);
        let tokens_max = wanted.max_tokens.unwrap_or(usize::MAX);
        let fits = |longer: &usize| {
            let all = longer * shorter(*longer);
            let turned = tokens(*longer, shorter(*longer)).max(tokens(shorter(*longer), *longer));
            all <= self.tiles_max && all * TILE * TILE <= pixels_max && turned <= tokens_max
        };
        (1..).take_while(fits).last().unwrap_or(1)
    }

    /// The picture as wide (or high) as its tiles, with white margins along the longer sides.
    fn enlarged(&self, image: &Image, wanted: &ImageOptions) -> Result<Image, ModelError> {
        const WHITE: [u8; 3] = [255; 3];
        let (width, height) = (image.width(), image.height());
        if width < height {
            return Ok(self.enlarged(&image.transposed(), wanted)?.transposed());
        }
        let ratio = width as f64 / height as f64;
        let longer = self.longer(width, height, wanted) * TILE;
        let shorter = (longer as f64 / ratio) as usize;
        if shorter == 0 {
            return Err(ModelError::Unusable(format!("a picture of {width} x {height} pixels is too thin to be seen")));
        }
        Ok(image.resize_finely(longer, shorter, self.pixels.filter).pad(longer, shorter.next_multiple_of(TILE), WHITE))
    }
}

/// What stands for so many columns and rows of tiles: they, the whole, a separator between them and one for each line.
fn tokens(columns: usize, rows: usize) -> usize {
    (rows * columns + 1) * SIDE * SIDE + 1 + (rows + 1) * SIDE
}
