use nn::Files;

use super::config::read;
use crate::qwen::{Clips, VisionProcessor};
use crate::qwen2_vl::{IMAGES, VIDEOS};
use crate::{ModelError, Processor};

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let (config, tower) = read(files)?;
    let clips = Clips::Seconds { tokens_per_second: config.vision_config.tokens_per_second };
    VisionProcessor::load(files, &config, &tower, [IMAGES, VIDEOS], clips)
}
