use media::{Image, ImageOptions};
use nn::{Array, Files};
use serde::Deserialize;
use serde_json::json;

use super::grid::Grid;
use super::tower::TowerConfig;
use crate::ModelError;
use crate::config::{CONFIG, read, require};
use crate::pixels::{PixelDefaults, Pixels, Size, round_half_even};

const ASPECT_MAX: f64 = 200.0;

/// The part of a processor's configuration that says how pictures or frames are resized and cut.
#[derive(Debug, Clone, Deserialize)]
struct PatchConfig {
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    size: Option<Size>,
    patch_size: usize,
    merge_size: usize,
    temporal_patch_size: usize,
}

/// What a processor's class says where its file is silent.
#[derive(Debug, Clone, Copy)]
pub struct PatchDefaults {
    /// Pixels along a side of a patch.
    pub patch_size: usize,
    /// Least and largest area in pixels.
    pub area: [usize; 2],
    /// Channel statistics and filter.
    pub pixels: PixelDefaults,
}

/// Resizes and cuts pictures, or frames of clips.
#[derive(Debug, Clone)]
pub struct Patches {
    patch: usize,
    pub merge: usize,
    /// Frames of a step in time.
    pub step: usize,
    area: [usize; 2],
    pixels: Pixels,
}

/// What an area is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// A picture, or each frame by itself.
    Frame,
    /// That many frames together.
    Frames(usize),
}

impl Patches {
    /// Reads preprocessor_config.json or video_preprocessor_config.json, whose sizes must be those of the tower.
    pub fn read(files: &Files, file: &str, defaults: PatchDefaults, tower: &TowerConfig) -> Result<Self, ModelError> {
        let sizes = json!({"patch_size": defaults.patch_size, "merge_size": 2, "temporal_patch_size": 2});
        let config: PatchConfig = read(files, file, sizes)?;
        let same =
            [config.temporal_patch_size, config.patch_size, config.merge_size] == [tower.patch[1], tower.patch[2], tower.merge];
        let reason = format!("temporal_patch_size, patch_size and merge_size must be those of vision_config of {CONFIG}");
        require(same, files, file, &reason)?;
        let size = config.size.unwrap_or_default();
        let (min, max) = (config.min_pixels.or(size.shortest_edge), config.max_pixels.or(size.longest_edge));
        let range = max != Some(0) && min.unwrap_or(0) <= max.unwrap_or(usize::MAX);
        require(range, files, file, "min_pixels is larger than max_pixels (or size.shortest_edge than size.longest_edge)")?;
        let area = [min.unwrap_or(defaults.area[0]), max.unwrap_or(defaults.area[1])];
        Ok(Self {
            patch: config.patch_size,
            merge: config.merge_size,
            step: config.temporal_patch_size,
            area,
            pixels: Pixels::read_from(files, file, defaults.pixels)?,
        })
    }

    /// With the area that is wanted of a picture of this size, which is no larger than the family's own.
    #[must_use]
    pub fn within(&self, wanted: &ImageOptions, width: usize, height: usize) -> Self {
        let row = (self.patch * self.merge).pow(2);
        let by_tokens = wanted.max_tokens.map(|tokens| tokens.saturating_mul(row));
        let max = wanted.most_pixels(width, height).into_iter().chain(by_tokens).fold(self.area[1], usize::min);
        let min = wanted.min_pixels.unwrap_or(self.area[0]).min(max);
        Self { area: [min, max], ..self.clone() }
    }

    /// A picture or frame in the size in which it is cut.
    ///
    /// # Errors
    /// It is far longer than wide.
    pub fn resized(&self, image: &Image, counted: Counted) -> Result<Image, ModelError> {
        let (width, height) = self.size(image.width(), image.height(), counted)?;
        Ok(image.resize(width, height, self.pixels.filter))
    }

    /// Width and height: the nearest multiples of a merged patch whose area lies in the range.
    fn size(&self, width: usize, height: usize, counted: Counted) -> Result<(usize, usize), ModelError> {
        let unit = (self.patch * self.merge) as f64;
        let [min, max] = self.area;
        let (mut width, mut height) = (width as f64, height as f64);
        let (frames, whole_frames) = match counted {
            Counted::Frame => (1.0, 1),
            Counted::Frames(count) => {
                let enlarge = (unit / width.min(height)).max(1.0);
                (width, height) = ((width * enlarge).floor(), (height * enlarge).floor());
                (count as f64, round_half_even(count as f64 / self.step as f64) * self.step)
            }
        };
        let aspect = width.max(height) / width.min(height);
        if aspect > ASPECT_MAX {
            let reason = format!("the picture is {aspect:.0} times longer than wide; at most {ASPECT_MAX} is possible");
            return Err(ModelError::Unusable(reason));
        }
        let units = |units: f64| units as usize * unit as usize;
        let sides = [width, height].map(|side| units((side / unit).round_ties_even()));
        let area = whole_frames * sides[0] * sides[1];
        let [width, height] = if area > max {
            let shrink = (frames * width * height / max as f64).sqrt();
            [width, height].map(|side| units((side / shrink / unit).floor()))
        } else if area < min {
            let grow = (min as f64 / (frames * width * height)).sqrt();
            [width, height].map(|side| units((side * grow / unit).ceil()))
        } else {
            sides
        };
        Ok((width.max(unit as usize), height.max(unit as usize)))
    }

    /// Frames of one clip (or a single picture), of one size, as patches [patches, channels * time * height * width], merged
    /// squares together, and their grid. The last frame is repeated until steps in time are full.
    pub fn cut(&self, frames: &[Image]) -> (Array, Grid) {
        let &Self { patch, step, .. } = self;
        let grid =
            Grid { times: frames.len().div_ceil(step), rows: frames[0].height() / patch, columns: frames[0].width() / patch };
        let places = grid.places(self.merge);
        let elements = 3 * step * patch * patch;
        let mut data = Vec::with_capacity(grid.patches() * elements);
        for time in 0..grid.times {
            let frames: Vec<&Image> = (0..step).map(|i| &frames[(time * step + i).min(frames.len() - 1)]).collect();
            places.iter().for_each(|&(row, column)| self.patch(&frames, (column * patch, row * patch), &mut data));
        }
        (Array { shape: vec![grid.patches(), elements], data }, grid)
    }

    fn patch(&self, frames: &[&Image], (left, top): (usize, usize), data: &mut Vec<f32>) {
        let patch = self.patch;
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
