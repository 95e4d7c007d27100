use nn::{Files, Model, Weights};

use super::config::{TAPPED, TEXT, TEXT_MOE, WORDS, WORDS_MOE, decoder, read};
use crate::qwen::{MediaTokens, TOKENS, Text};
use crate::{ModelError, qwen, text_only};

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    with_tower(TEXT, (TOKENS, TAPPED), files, w)
}

pub fn load_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    with_tower(TEXT_MOE, (TOKENS, TAPPED), files, w)
}

/// For a class that says which ids media stand at, and which blocks of the tower hand over.
pub fn with_tower(
    text: Text,
    (tokens, tapped): (MediaTokens, &[usize]),
    files: &Files,
    w: &Weights,
) -> Result<Box<dyn Model>, ModelError> {
    let (_, tower) = read(files, tokens, tapped)?;
    qwen::load(&tower, &decoder(files, text, &tower)?, w)
}

pub fn load_text(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&WORDS.decoder(files)?, w)
}

pub fn load_text_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&WORDS_MOE.decoder(files)?, w)
}
