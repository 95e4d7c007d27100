use nn::Files;

use super::config::read;
use crate::pixels::PixelDefaults;
use crate::qwen::{Clips, PatchDefaults, VisionProcessor};
use crate::{ModelError, Processor};

/// What the class says of pictures.
pub const IMAGES: PatchDefaults = PatchDefaults {
    patch_size: 14,
    area: [56 * 56, 28 * 28 * 1280],
    pixels: PixelDefaults { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711], resample: 3 },
};
/// What the class says of frames.
pub const VIDEOS: PatchDefaults = PatchDefaults { area: [128 * 28 * 28, 768 * 28 * 28], ..IMAGES };

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let (config, tower) = read(files)?;
    VisionProcessor::load(files, &config, &tower, [IMAGES, VIDEOS], Clips::Steps)
}
