use nn::{Files, Model, Weights};

use super::config::{TAPPED, TEXT, TEXT_MOE, TOKENS};
use crate::qwen::Text;
use crate::qwen3_vl::{decoder, read};
use crate::{ModelError, qwen, text_only};

/// Layers that guess the tokens after the next one, which are not used.
const GUESSES: &str = "mtp.";

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    with_tower(TEXT, files, w)
}

pub fn load_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    with_tower(TEXT_MOE, files, w)
}

fn with_tower(text: Text, files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let (_, tower) = read(files, TOKENS, TAPPED)?;
    w.skip(GUESSES);
    qwen::load(&tower, &decoder(files, text, &tower)?, w)
}

pub fn load_text(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    alone(TEXT, files, w)
}

pub fn load_text_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    alone(TEXT_MOE, files, w)
}

fn alone(text: Text, files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    w.skip(GUESSES);
    text_only::model(&text.decoder(files)?, w)
}
