use media::Image;
use nn::{Array, Files, MediaInput, MediaKind};
use text::Piece;

use super::config::{Config, Ends, PIXELS, ProcessorConfig};
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

struct Mistral3 {
    pixels: Pixels,
    /// Height and width that a picture may have.
    largest: (usize, usize),
    /// Pixels along a side of what becomes one row.
    square: usize,
    image_token: u32,
    ends: Ends,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    let largest = ProcessorConfig::read(files)?.largest();
    let (square, image_token) = (model.square(), model.image_token());
    Ok(Box::new(Mistral3 { pixels: Pixels::read(files, PIXELS)?, largest, square, image_token, ends: Ends::read(files)? }))
}

impl Processor for Mistral3 {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "[IMG]" }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        shown(&image, &wanted, |image| Ok(self.image(image)))
    }
}

impl Mistral3 {
    fn image(&self, image: &Image) -> Processed {
        let (rows, columns) = self.squares(image);
        let (height, width) = (rows * self.square, columns * self.square);
        let views = [image.resize(width, height, self.pixels.filter)];
        let size = Array { shape: vec![1, 2], data: vec![height as f32, width as f32] };
        let arrays = [("pixel_values", self.pixels.planes(&views)), ("image_sizes", size)];
        let mut pieces = Vec::with_capacity(2 * rows);
        for row in 1..=rows {
            let end = if row < rows { &self.ends.image_break_token } else { &self.ends.image_end_token };
            pieces.extend([Piece::Slots { token: self.image_token, count: columns }, Piece::Text(end.clone())]);
        }
        Processed::seen(MediaInput::new(MediaKind::Image, rows * columns, arrays), pieces, views)
    }

    /// Rows and columns of squares that cover the picture, once it is small enough.
    fn squares(&self, image: &Image) -> (usize, usize) {
        let (height, width) = (image.height() as f64, image.width() as f64);
        let ratio = (height / self.largest.0 as f64).max(width / self.largest.1 as f64).max(1.0);
        let squares = |side: f64| ((side / ratio).floor() as usize).div_ceil(self.square).max(1);
        (squares(height), squares(width))
    }
}
