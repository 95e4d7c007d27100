//! What processors have in common: sizes, and pixels → normalised numbers.

use half::bf16;
use media::{Filter, Image};
use nn::{Array, Files};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{PREPROCESSOR, read, read_part, require};

/// `size` of a preprocessor_config.json, in one of its spellings.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Size {
    pub height: Option<usize>,
    pub width: Option<usize>,
    pub shortest_edge: Option<usize>,
    pub longest_edge: Option<usize>,
}

/// The part of a preprocessor_config.json that says what numbers pixels become.
#[derive(Debug, Clone, Deserialize)]
pub struct PixelConfig {
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    pub rescale_factor: f64,
    pub resample: usize,
    pub do_normalize: bool,
    pub do_rescale: bool,
}

/// The channel statistics of a family's first release, and its filter by Pillow's number.
#[derive(Debug, Clone, Copy)]
pub struct PixelDefaults {
    pub mean: [f64; 3],
    pub std: [f64; 3],
    pub resample: usize,
}

impl PixelDefaults {
    fn keys(&self) -> Value {
        json!({
            "image_mean": self.mean, "image_std": self.std, "resample": self.resample,
            "rescale_factor": 1.0 / 255.0, "do_normalize": true, "do_rescale": true,
        })
    }
}

/// Levels → numbers, per channel; and the filter for resizing.
#[derive(Debug, Clone)]
pub struct Pixels {
    table: [[f32; 256]; 3],
    mean: [f32; 3],
    pub filter: Filter,
}

impl Pixels {
    /// Reads preprocessor_config.json.
    pub fn read(files: &Files, defaults: PixelDefaults) -> Result<Self, ModelError> {
        Self::read_from(files, PREPROCESSOR, defaults)
    }

    /// Reads preprocessor_config.json, for a family that computes the numbers in bf16.
    pub fn read_in_bf16(files: &Files, defaults: PixelDefaults) -> Result<Self, ModelError> {
        Self::new(read(files, PREPROCESSOR, defaults.keys())?, files, PREPROCESSOR, |number| bf16::from_f32(number).to_f32())
    }

    /// Reads another file of its kind.
    pub fn read_from(files: &Files, file: &str, defaults: PixelDefaults) -> Result<Self, ModelError> {
        Self::new(read(files, file, defaults.keys())?, files, file, |number| number)
    }

    /// Reads the object under a key of a file that holds several of its kind.
    pub fn read_part(files: &Files, file: &str, key: &str, defaults: PixelDefaults) -> Result<Self, ModelError> {
        Self::new(read_part(files, file, key, defaults.keys())?, files, file, |number| number)
    }

    /// Of what a configuration says. Each result is rounded.
    pub fn new(config: PixelConfig, files: &Files, file: &str, round: fn(f32) -> f32) -> Result<Self, ModelError> {
        let check = |met, reason| require(met, files, file, reason);
        check(config.image_std.iter().all(|s| s.is_finite() && *s > 0.0), "image_std must be positive")?;
        check(config.image_mean.iter().all(|m| m.is_finite()), "image_mean must be finite")?;
        check(config.rescale_factor.is_finite(), "rescale_factor must be finite")?;
        let filter = Filter::from_pil(config.resample);
        check(filter.is_some(), "resample must be 1 (lanczos), 2 (bilinear) or 3 (bicubic)")?;
        let rescale = if config.do_rescale { config.rescale_factor } else { 1.0 };
        let value = |channel: usize, level: usize| {
            let plain = round((level as f64 * rescale) as f32);
            if !config.do_normalize {
                return plain;
            }
            let [mean, std] = [config.image_mean, config.image_std].map(|of| round(of[channel]));
            round(round(plain - mean) / std)
        };
        let table = std::array::from_fn(|channel| std::array::from_fn(|level| value(channel, level)));
        Ok(Self { table, mean: config.image_mean, filter: filter.unwrap_or(Filter::Bicubic) })
    }

    /// Pictures as [n, 3, height, width], where the largest sides count: what is smaller has zeros to the right of it and below.
    pub fn planes(&self, images: &[Image]) -> Array {
        let width = images.iter().map(Image::width).max().unwrap_or(0);
        let height = images.iter().map(Image::height).max().unwrap_or(0);
        let mut data = vec![0.0; images.len() * 3 * height * width];
        for (image, planes) in images.iter().zip(data.chunks_exact_mut((3 * height * width).max(1))) {
            for (channel, plane) in planes.chunks_exact_mut(height * width).enumerate() {
                let table = &self.table[channel];
                for (row, line) in plane.chunks_exact_mut(width).zip(image.rgb().chunks_exact(3 * image.width())) {
                    row.iter_mut().zip(line[channel..].iter().step_by(3)).for_each(|(x, level)| *x = table[*level as usize]);
                }
            }
        }
        Array { shape: vec![images.len(), 3, height, width], data }
    }

    /// The levels that are the channels' means.
    pub fn mean_colour(&self) -> [u8; 3] {
        self.mean.map(|mean| (mean * 255.0) as u8)
    }

    /// The number that a level becomes.
    pub fn value(&self, channel: usize, level: u8) -> f32 {
        self.table[channel][level as usize]
    }
}

/// Python's `round`: halves go to the even neighbour.
pub fn round_half_even(x: f64) -> usize {
    x.round_ties_even() as usize
}
