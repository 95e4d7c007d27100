use nn::{Files, Model, Weights};

use super::config::{TAPPED, TEXT, TEXT_MOE, WORDS, WORDS_MOE, decoder, read};
use crate::qwen::{TOKENS, Text};
use crate::{ModelError, qwen, text_only};

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    with_tower(TEXT, files, w)
}

pub fn load_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    with_tower(TEXT_MOE, files, w)
}

fn with_tower(text: Text, files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let (_, tower) = read(files, TOKENS, TAPPED)?;
    qwen::load(&tower, &decoder(files, text, &tower)?, w)
}

pub fn load_text(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&WORDS.decoder(files)?, w)
}

pub fn load_text_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&WORDS_MOE.decoder(files)?, w)
}
