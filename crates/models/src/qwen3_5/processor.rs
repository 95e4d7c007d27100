use nn::Files;

use super::config::{TAPPED, TOKENS};
use crate::qwen::{Clips, VisionProcessor};
use crate::qwen2_vl::IMAGES;
use crate::qwen3_vl::{VIDEOS, read};
use crate::{ModelError, Processor};

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let (config, tower) = read(files, TOKENS, TAPPED)?;
    VisionProcessor::load(files, &config, &tower, [IMAGES, VIDEOS], Clips::Moments)
}
