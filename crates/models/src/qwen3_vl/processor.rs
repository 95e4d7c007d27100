use nn::Files;

use super::config::{TAPPED, read};
use crate::pixels::PixelDefaults;
use crate::qwen::{Clips, PatchDefaults, TOKENS, VisionProcessor};
use crate::qwen2_vl::IMAGES;
use crate::{ModelError, Processor};

/// What the class says of frames; that of pictures is Qwen2-VL's.
pub const VIDEOS: PatchDefaults = PatchDefaults {
    patch_size: 16,
    area: [128 * 32 * 32, 768 * 32 * 32],
    pixels: PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 3 },
};

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let (config, tower) = read(files, TOKENS, TAPPED)?;
    VisionProcessor::load(files, &config, &tower, [IMAGES, VIDEOS], Clips::Moments)
}
