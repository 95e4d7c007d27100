use nn::{Decoder, Files, Model, Weights};

use super::config::{Config, decoder};
use super::tower::Tower;
use crate::ModelError;
use crate::joined::Joined;

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = decoder(files)?;
    // Since release 4.52 transformers has other names.
    let tower = Tower::load(&config.vision_config, decoder.hidden, &w.at_any(&["", "model"]))?;
    let body = w.at_any(&["language_model.model", "model.language_model"]);
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &body, &w.at_any(&["language_model", ""]))? }))
}
