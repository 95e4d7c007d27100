use nn::{Decoder, Files, MediaInput, Model, NnError, Pause, Tensor, Weights};

use super::config::{Config, decoder};
use super::tower::Tower;
use crate::ModelError;
use crate::joined::{Encode, Joined};

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = decoder(files)?;
    let w = w.at("model");
    ["audio_tower.", "embed_audio."].iter().for_each(|unused| w.skip(unused));
    let tower = Tower::load(&config.vision_config, decoder.hidden, &w)?;
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &w.at("language_model"), &w)? }))
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        Self::encode(self, input, pause)
    }
}
