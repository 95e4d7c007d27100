use nn::{Files, Model, Weights};

use super::config::read;
use crate::qwen2_vl::TEXT;
use crate::{ModelError, qwen};

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let (_, tower) = read(files)?;
    qwen::load(&tower, &TEXT.decoder(files)?, w)
}
