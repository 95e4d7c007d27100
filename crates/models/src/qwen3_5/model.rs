use nn::{Files, Model, Weights};

use super::config::{TAPPED, TEXT, TEXT_MOE, TOKENS};
use crate::qwen::Text;
use crate::qwen3_vl::with_tower;
use crate::{ModelError, text_only};

/// Layers that guess the tokens after the next one, which are not used.
const GUESSES: &str = "mtp.";

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    seeing(TEXT, files, w)
}

pub fn load_moe(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    seeing(TEXT_MOE, files, w)
}

fn seeing(text: Text, files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    w.skip(GUESSES);
    with_tower(text, (TOKENS, TAPPED), files, w)
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
