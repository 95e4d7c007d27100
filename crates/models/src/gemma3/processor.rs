use media::Image;
use nn::MediaKind;
use nn::{Files, MediaInput, Prompt};
use text::Piece;

use super::config::{Config, PIXELS, ProcessorConfig};
use crate::config::{CONFIG, PREPROCESSOR, require};
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

const BEGIN: &str = "<start_of_image>";
const END: &str = "<end_of_image>";

struct Gemma3 {
    config: ProcessorConfig,
    pixels: Pixels,
    side: usize,
    image_token: u32,
    rows: usize,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    let config = ProcessorConfig::read(files)?;
    let pixels = Pixels::read(files, PIXELS)?;
    let side = model.vision_config.image_size;
    let fits = config.size.height == Some(side) && config.size.width == Some(side);
    require(fits, files, PREPROCESSOR, &format!("size must be {side}x{side}, the image_size of {CONFIG}"))?;
    let (image_token, rows) = (model.image_token(), model.mm_tokens_per_image);
    Ok(Box::new(Gemma3 { config, pixels, side, image_token, rows }))
}

impl Processor for Gemma3 {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: BEGIN }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        shown(&image, &wanted, |image| Ok(self.image(image)))
    }

    /// The rows of one view see each other in both directions.
    fn arrange(&self, prompt: &mut Prompt) {
        prompt.islands = prompt.media.iter().flat_map(|item| item.at.iter().cloned()).collect();
    }
}

impl Gemma3 {
    fn image(&self, image: &Image) -> Processed {
        let crops = self.crops(image);
        let views: Vec<Image> =
            std::iter::once(image).chain(&crops).map(|view| view.resize(self.side, self.side, self.pixels.filter)).collect();
        let input = MediaInput::new(MediaKind::Image, views.len() * self.rows, [("pixel_values", self.pixels.planes(&views))]);
        let mut pieces = Vec::new();
        let words = |words: &str| Piece::Text(words.to_string());
        if crops.is_empty() {
            self.block(&mut pieces);
        } else {
            pieces.push(words("Here is the original image "));
            self.block(&mut pieces);
            pieces.push(words(" and here are some crops to help you see better"));
            for _ in &crops {
                pieces.push(words(" "));
                self.block(&mut pieces);
            }
        }
        Processed::seen(input, pieces, views)
    }

    fn block(&self, pieces: &mut Vec<Piece>) {
        pieces.push(Piece::Text(format!("\n\n{BEGIN}")));
        pieces.push(Piece::Slots { token: self.image_token, count: self.rows });
        pieces.push(Piece::Text(format!("{END}\n\n")));
    }

    /// Pan and scan: about square crops along the longer side of a picture that is long enough.
    fn crops(&self, image: &Image) -> Vec<Image> {
        let (width, height) = (image.width(), image.height());
        let (long, short) = (width.max(height), width.min(height));
        let ratio = long as f64 / short as f64;
        if !self.config.do_pan_and_scan || ratio < self.config.pan_and_scan_min_ratio_to_activate {
            return Vec::new();
        }
        let smallest = self.config.pan_and_scan_min_crop_size;
        let count = ((ratio + 0.5).floor() as usize).min(long / smallest).max(2).min(self.config.pan_and_scan_max_num_crops);
        let size = long.div_ceil(count);
        if size.min(short) < smallest {
            return Vec::new();
        }
        let crop = |i: usize| match width >= height {
            true => image.crop(i * size, 0, size, height),
            false => image.crop(0, i * size, width, size),
        };
        (0..count).map(crop).collect()
    }
}
