use nn::{Decoder, DecoderConfig, Model, Weights};

use super::tower::{Tower, TowerConfig};
use crate::ModelError;
use crate::joined::Joined;

/// Joins a tower and a decoder, under the names of older and newer releases.
pub fn load(tower: &TowerConfig, decoder: &DecoderConfig, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Joined {
        tower: Tower::load(tower, decoder.hidden, &w.at_any(&["visual", "model.visual"]))?,
        decoder: Decoder::load(decoder, &w.at_any(&["model.language_model", "model"]), w)?,
    }))
}
