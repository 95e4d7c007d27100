use std::ops::Range;

use media::Image;
use nn::{Array, Files, Look, MediaInput, MediaKind, Placement, Prompt, Then};
use text::Piece;

use super::config::{Config, PIXELS, VisionConfig};
use crate::canvas::Canvas;
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

const MASK: &str = "aspect_ratio_mask";

struct Mllama {
    pixels: Pixels,
    config: VisionConfig,
    image_token: u32,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    model.check_processor(files)?;
    let pixels = Pixels::read(files, PIXELS)?;
    Ok(Box::new(Mllama { pixels, config: model.vision_config, image_token: model.image_token_index }))
}

impl Processor for Mllama {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "<|image|>" }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Image(image, wanted) = media else { return Err(media.refused()) };
        shown(&image, &wanted, |image| Ok(self.image(image)))
    }

    /// The mark of a picture is a token like any other; that and those behind it look at the picture's tiles, until the next one.
    fn arrange(&self, prompt: &mut Prompt) {
        let marks: Vec<usize> = prompt.media.iter().flat_map(|item| &item.at).map(|at| at.start).collect();
        let Some(&first) = marks.first() else { return };
        for (item, tokens) in prompt.media.iter_mut().zip(looking(&marks)) {
            // Where a mask has nothing to show, the reference's shows everything, and what follows attention is left out.
            let before = Look { tokens: 0..first, rows: item.input.rows, then: Then::Nothing };
            let behind = Look { tokens, rows: self.shown(item), then: Then::FeedForward };
            item.looks = [before, behind].into_iter().filter(|look| !look.tokens.is_empty()).collect();
            item.at = Vec::new();
        }
    }
}

impl Mllama {
    fn image(&self, image: &Image) -> Processed {
        let (side, all) = (self.config.image_size, self.config.max_num_tiles);
        let canvas = Canvas::best(image, side, all);
        let tiles = canvas.cut(image, side, self.pixels.filter);
        let mask: Vec<f32> = (0..all).map(|tile| if tile < tiles.len() { 1.0 } else { 0.0 }).collect();
        let mut pixels = self.pixels.planes(&tiles);
        pixels.data.resize(all * 3 * side * side, 0.0);
        pixels.shape[0] = all;
        // The number 0 is for no picture.
        let id = 1 + Canvas::all(all).take_while(|other| *other != canvas).count();
        let arrays = [
            ("pixel_values", pixels),
            ("aspect_ratio_ids", Array { shape: vec![1], data: vec![id as f32] }),
            (MASK, Array { shape: vec![all], data: mask }),
        ];
        let input = MediaInput::new(MediaKind::Image, all * self.config.rows_per_tile(), arrays);
        Processed::seen(input, vec![Piece::Slots { token: self.image_token, count: 1 }], tiles)
    }

    /// Rows of the tiles that are not empty.
    fn shown(&self, item: &Placement) -> usize {
        let mask = item.input.arrays.get(MASK).map_or(&[][..], |mask| &mask.data);
        self.config.rows_per_tile() * mask.iter().filter(|tile| **tile != 0.0).count()
    }
}

/// Which tokens look at the pictures that are marked here: neighbours are looked at together.
fn looking(marks: &[usize]) -> Vec<Range<usize>> {
    let mut end = usize::MAX;
    let mut looking: Vec<Range<usize>> = Vec::with_capacity(marks.len());
    for (i, &mark) in marks.iter().enumerate().rev() {
        match marks.get(i + 1) {
            Some(&next) if next > mark + 1 => end = next,
            _ => {}
        }
        looking.push(mark..end);
    }
    looking.reverse();
    looking
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "who looks is a range")]
    fn neighbours_are_looked_at_together() {
        const END: usize = usize::MAX;
        let cases: [(&[usize], &[Range<usize>]); 4] = [
            (&[8], &[8..END]),
            (&[8, 13], &[8..13, 13..END]),
            (&[8, 9, 10], &[8..END, 9..END, 10..END]),
            (&[3, 4, 9, 12, 13], &[3..9, 4..9, 9..12, 12..END, 13..END]),
        ];
        for (marks, expected) in cases {
            assert_eq!(looking(marks), expected);
        }
    }
}
