use nn::Files;

use super::config::read;
use crate::pixels::PixelDefaults;
use crate::qwen::{Clips, PatchDefaults, VisionProcessor};
use crate::qwen2_vl::IMAGES;
use crate::{ModelError, Processor};

/// What the class says of frames; that of pictures is Qwen2-VL's.
const VIDEOS: PatchDefaults = PatchDefaults {
    patch_size: 16,
    area: [128 * 32 * 32, 768 * 32 * 32],
    pixels: PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 3 },
};

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let (config, tower) = read(files)?;
    VisionProcessor::load(files, &config, &tower, [IMAGES, VIDEOS], Clips::Moments)
}
