use nn::{Files, Model, Weights};

use super::config::{TEXT, WORDS, read};
use crate::{ModelError, qwen, text_only};

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let (_, tower) = read(files)?;
    qwen::load(&tower, &TEXT.decoder(files)?, w)
}

pub fn load_text(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&WORDS.decoder(files)?, w)
}
