use media::Image;
use nn::{Array, Files, MediaInput, MediaKind};
use text::Piece;

use super::anyres::Pinpoints;
use super::config::{Config, ProcessorConfig};
use crate::clip;
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

struct Llava {
    pixels: Pixels,
    look: Look,
    /// Pixels along a side of a view.
    side: usize,
    image_token: u32,
    rows_per_view: usize,
}

/// What of a picture the tower is shown.
enum Look {
    /// A square from its middle, once its shorter side has `shortest` pixels.
    Middle { shortest: usize, before: Before },
    /// The whole, and then tiles.
    Tiles(Pinpoints),
}

/// What is done to a picture before it is resized.
enum Before {
    Nothing,
    /// Margins of this colour make it a square.
    Square([u8; 3]),
}

pub fn llava(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    load(files, |config, _, pixels| {
        // CLIP's own processor has no such key.
        let squares = config.do_pad && config.image_processor_type.starts_with("LlavaImageProcessor");
        let before = if squares { Before::Square(pixels.mean_colour()) } else { Before::Nothing };
        Ok(Look::Middle { shortest: config.size.shortest_edge.unwrap_or_default(), before })
    })
}

pub fn llava_next(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    load(files, |config, model, _| {
        config.check_tiles(files, model)?;
        Ok(Look::Tiles(model.pinpoints(files)?))
    })
}

fn load(
    files: &Files,
    look: impl Fn(&ProcessorConfig, &Config, &Pixels) -> Result<Look, ModelError>,
) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    let config = ProcessorConfig::read(files, &model)?;
    let pixels = Pixels::read(files, clip::PIXELS)?;
    let look = look(&config, &model, &pixels)?;
    let (side, image_token, rows_per_view) = (model.vision_config.image_size, model.image_token(), model.rows_per_view());
    Ok(Box::new(Llava { pixels, look, side, image_token, rows_per_view }))
}

impl Processor for Llava {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "<image>" }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        shown(&image, &wanted, |image| self.image(image))
    }
}

impl Llava {
    fn image(&self, image: &Image) -> Result<Processed, ModelError> {
        let (rows, views, size) = match &self.look {
            Look::Middle { shortest, before } => (self.rows_per_view, vec![self.middle(image, *shortest, before)], None),
            Look::Tiles(pinpoints) => {
                let (rows, views) = self.tiles(image, pinpoints)?;
                (rows, views, Some(Array { shape: vec![1, 2], data: vec![image.height() as f32, image.width() as f32] }))
            }
        };
        let pixels = ("pixel_values", self.pixels.planes(&views));
        let arrays = [pixels].into_iter().chain(size.map(|size| ("image_sizes", size)));
        let pieces = vec![Piece::Slots { token: self.image_token, count: rows }];
        Ok(Processed::seen(MediaInput::new(MediaKind::Image, rows, arrays), pieces, views))
    }

    fn middle(&self, image: &Image, shortest: usize, before: &Before) -> Image {
        let square;
        let image = match before {
            Before::Nothing => image,
            Before::Square(colour) => {
                let side = image.width().max(image.height());
                square = image.pad(side, side, *colour);
                &square
            }
        };
        let (width, height) = (image.width(), image.height());
        let longer = |side: usize| (shortest * side) / width.min(height);
        let image = image.resize(longer(width), longer(height), self.pixels.filter);
        let (left, top) = ((image.width() - self.side) / 2, (image.height() - self.side) / 2);
        image.crop(left, top, self.side, self.side)
    }

    /// The whole picture, then tiles row by row; and the rows that they become.
    fn tiles(&self, image: &Image, pinpoints: &Pinpoints) -> Result<(usize, Vec<Image>), ModelError> {
        let (width, height) = (image.width(), image.height());
        let grid = pinpoints.grid(height, width);
        if grid.down.count == 0 || grid.across.count == 0 {
            return Err(ModelError::Unusable(format!("a picture of {width} x {height} pixels is too thin to be seen")));
        }
        let (tall, wide) = grid.fitted(height, width);
        let enlarged = image.resize(wide, tall, self.pixels.filter).pad(grid.width, grid.height, [0; 3]);
        let mut views = vec![image.resize(self.side, self.side, self.pixels.filter)];
        views.extend(enlarged.tiles(self.side, self.side));
        Ok((self.rows_per_view + grid.rows_made(), views))
    }
}
