use media::Image;
use nn::{Array, Files, MediaInput, MediaKind};
use text::Piece;

use super::config::{Config, Edges, PIXELS, ProcessorConfig};
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

const AROUND: &str = "<fake_token_around_image>";

struct Idefics2 {
    edges: Edges,
    split: bool,
    pixels: Pixels,
    image_token: u32,
    rows_per_view: usize,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    let config = ProcessorConfig::read(files)?;
    Ok(Box::new(Idefics2 {
        edges: config.edges(files, model.vision_config.patch_size)?,
        split: config.do_image_splitting,
        pixels: Pixels::read(files, PIXELS)?,
        image_token: model.image_token_id,
        rows_per_view: model.perceiver_config.resampler_n_latents,
    }))
}

impl Processor for Idefics2 {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "<image>" }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        shown(&image, &wanted, |image| Ok(self.image(image)))
    }
}

impl Idefics2 {
    fn image(&self, image: &Image) -> Processed {
        let views = self.views(image);
        let sizes = views.iter().flat_map(|view| [view.height() as f32, view.width() as f32]).collect();
        let sizes = Array { shape: vec![views.len(), 2], data: sizes };
        let rows = views.len() * self.rows_per_view;
        let arrays = [("pixel_values", self.pixels.planes(&views)), ("image_sizes", sizes)];
        let slots = Piece::Slots { token: self.image_token, count: self.rows_per_view };
        // Neighbours, views and pictures alike, have one token between them.
        let around = || Piece::Once(AROUND.into());
        let pieces = views.iter().flat_map(|_| [around(), slots.clone(), around()]).collect();
        Processed::seen(MediaInput::new(MediaKind::Image, rows, arrays), pieces, views)
    }

    /// The quarters, if they are asked for, and the whole.
    fn views(&self, image: &Image) -> Vec<Image> {
        let quarters = if self.split { quarters(image).to_vec() } else { Vec::new() };
        quarters.iter().chain([image]).map(|view| self.resized(view)).collect()
    }

    /// The longer side becomes no longer than the longest edge, and the shorter keeps the proportion; then both become at least the
    /// shortest, each by itself.
    fn resized(&self, image: &Image) -> Image {
        let Edges { shortest, longest } = self.edges;
        let (mut width, mut height) = (image.width(), image.height());
        let aspect = width as f64 / height as f64;
        if width >= height && width > longest {
            (width, height) = (longest, (longest as f64 / aspect) as usize);
        } else if height > width && height > longest {
            (width, height) = ((longest as f64 * aspect) as usize, longest);
        }
        image.resize(width.max(shortest), height.max(shortest), self.pixels.filter)
    }
}

/// Row by row. Of a line of pixels, both halves are the line.
fn quarters(image: &Image) -> [Image; 4] {
    let (width, height) = (image.width(), image.height());
    let (left, top) = (width / 2, height / 2);
    [
        image.crop(0, 0, left, top),
        image.crop(left, 0, width - left, top),
        image.crop(0, top, left, height - top),
        image.crop(left, top, width - left, height - top),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_cover_the_picture() {
        let sizes = |(width, height): (usize, usize)| {
            let image = Image::new(width, height, vec![0; width * height * 3]).unwrap();
            quarters(&image).map(|quarter| (quarter.width(), quarter.height()))
        };
        assert_eq!(sizes((5, 4)), [(2, 2), (3, 2), (2, 2), (3, 2)]);
        assert_eq!(sizes((1, 3)), [(1, 1), (1, 1), (1, 2), (1, 2)]);
    }
}
