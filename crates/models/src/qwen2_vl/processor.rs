use media::{Image, VideoInfo, VideoOptions};
use nn::MediaKind;
use nn::{Array, Files, MediaInput, Positions, Prompt};
use text::Piece;

use super::config::{Config, PIXELS, ProcessorConfig};
use crate::pixels::{Pixels, round_half_even};
use crate::{Marker, Media, ModelError, Processed, Processor};

const FRAMES_PER_SECOND: f64 = 2.0;
const FRAMES_MIN: usize = 4;
const FRAMES_MAX: usize = 768;
const ASPECT_MAX: f64 = 200.0;

struct Qwen2Vl {
    config: ProcessorConfig,
    pixels: Pixels,
    image_token: u32,
    video_token: u32,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    let config = ProcessorConfig::read(files)?;
    let pixels = Pixels::read(files, PIXELS)?;
    Ok(Box::new(Qwen2Vl { config, pixels, image_token: model.image_token_id, video_token: model.video_token_id }))
}

impl Processor for Qwen2Vl {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "<|image_pad|>" }, Marker { kind: MediaKind::Video, text: "<|video_pad|>" }]
    }

    fn sample(&self, clip: &VideoInfo, options: &VideoOptions) -> Vec<usize> {
        let step = self.config.temporal_patch_size;
        let whole = |n: usize| n / step * step;
        let most = options.max_frames.unwrap_or(FRAMES_MAX);
        let wanted = (clip.duration() * options.fps.unwrap_or(FRAMES_PER_SECOND)).max(FRAMES_MIN as f64);
        let count = wanted.min(whole(clip.frames.min(most)) as f64) as usize;
        let count = whole(count).max(1);
        let stride = clip.frames as f64 / count as f64;
        (0..count).map(|i| (i as f64 * stride) as usize).collect()
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let kind = media.kind();
        let (frames, names, token) = match media {
            Media::Image(image) => {
                let range = self.config.pixel_range([56 * 56, 28 * 28 * 1280]);
                (vec![self.resized(&image, range)?], ["pixel_values", "image_grid_thw"], self.image_token)
            }
            Media::Video(clip) => {
                let range = self.config.pixel_range([128 * 28 * 28, 768 * 28 * 28]);
                let frames = clip.each(|frame| self.resized(&frame, range))?;
                (frames, ["pixel_values_videos", "video_grid_thw"], self.video_token)
            }
        };
        let (pixel_values, grid) = self.patches(&frames);
        let rows = grid.iter().product::<usize>() / self.config.merge_size.pow(2);
        let grid_thw = Array { shape: vec![1, 3], data: grid.map(|n| n as f32).to_vec() };
        let input = MediaInput::new(kind, rows, [(names[0], pixel_values), (names[1], grid_thw)]);
        Ok(Processed { input: input.into(), pieces: vec![Piece::Slots { token, count: rows }] })
    }

    /// Text counts on; a picture's tokens share one time and spread over height and width; what follows continues behind the
    /// largest position so far.
    fn arrange(&self, prompt: &mut Prompt) {
        if prompt.media.is_empty() {
            return;
        }
        let merge = self.config.merge_size;
        let mut rows: Vec<[u32; 3]> = Vec::with_capacity(prompt.tokens.len());
        let mut next = 0;
        for item in &prompt.media {
            for at in &item.at {
                while rows.len() < at.start {
                    rows.push([next; 3]);
                    next += 1;
                }
                let [times, heights, widths] = grid(&item.input).map(|n| n as u32);
                let (heights, widths) = (heights / merge as u32, widths / merge as u32);
                for time in 0..times {
                    let cells = (0..heights).flat_map(|y| (0..widths).map(move |x| (y, x)));
                    rows.extend(cells.map(|(y, x)| [next + time, next + y, next + x]));
                }
                next += times.max(heights).max(widths);
            }
        }
        while rows.len() < prompt.tokens.len() {
            rows.push([next; 3]);
            next += 1;
        }
        prompt.positions = Positions::Explicit { rows, next };
    }
}

/// Steps in time, rows and columns of patches.
pub fn grid(input: &MediaInput) -> [usize; 3] {
    let name = if input.kind == MediaKind::Video { "video_grid_thw" } else { "image_grid_thw" };
    let data = input.arrays.get(name).map_or(&[][..], |array| &array.data);
    std::array::from_fn(|i| data.get(i).copied().unwrap_or_default() as usize)
}

impl Qwen2Vl {
    fn resized(&self, image: &Image, range: (usize, usize)) -> Result<Image, ModelError> {
        let (width, height) = self.size(image, range)?;
        Ok(image.resize(width, height, self.pixels.filter))
    }

    /// The nearest multiples of a merged patch whose area lies in the range.
    fn size(&self, image: &Image, (min, max): (usize, usize)) -> Result<(usize, usize), ModelError> {
        let (width, height) = (image.width() as f64, image.height() as f64);
        let aspect = width.max(height) / width.min(height);
        if aspect > ASPECT_MAX {
            let reason = format!("the picture is {aspect:.0} times longer than wide; at most {ASPECT_MAX} is possible");
            return Err(ModelError::Unusable(reason));
        }
        let unit = self.config.patch_size * self.config.merge_size;
        let near = |side: f64| round_half_even(side / unit as f64) * unit;
        let (w, h) = (near(width), near(height));
        if w * h > max {
            let shrink = (width * height / max as f64).sqrt();
            let below = |side: f64| ((side / shrink / unit as f64).floor() as usize * unit).max(unit);
            Ok((below(width), below(height)))
        } else if w * h < min {
            let grow = (min as f64 / (width * height)).sqrt();
            let above = |side: f64| (side * grow / unit as f64).ceil() as usize * unit;
            Ok((above(width), above(height)))
        } else {
            Ok((w, h))
        }
    }

    /// Patches [patches, channels * time * height * width], merged squares together, and the grid. The last frame is repeated
    /// until steps in time are full.
    fn patches(&self, frames: &[Image]) -> (Array, [usize; 3]) {
        let ProcessorConfig { patch_size: patch, merge_size: merge, temporal_patch_size: step, .. } = self.config;
        let (width, height) = (frames[0].width(), frames[0].height());
        let [times, rows, columns] = [frames.len().div_ceil(step), height / patch, width / patch];
        let mut data = Vec::with_capacity(times * rows * columns * 3 * step * patch * patch);
        for time in 0..times {
            let frames: Vec<&Image> = (0..step).map(|i| &frames[(time * step + i).min(frames.len() - 1)]).collect();
            for square in 0..rows * columns / (merge * merge) {
                let (top, left) = (square / (columns / merge) * merge, square % (columns / merge) * merge);
                for cell in 0..merge * merge {
                    let corner = ((left + cell % merge) * patch, (top + cell / merge) * patch);
                    self.patch(&frames, corner, &mut data);
                }
            }
        }
        let elements = 3 * step * patch * patch;
        (Array { shape: vec![times * rows * columns, elements], data }, [times, rows, columns])
    }

    fn patch(&self, frames: &[&Image], (left, top): (usize, usize), data: &mut Vec<f32>) {
        let patch = self.config.patch_size;
        for channel in 0..3 {
            for frame in frames {
                for y in top..top + patch {
                    let line = &frame.rgb()[(y * frame.width() + left) * 3..][..patch * 3];
                    data.extend(line[channel..].iter().step_by(3).map(|&level| self.pixels.value(channel, level)));
                }
            }
        }
    }
}
