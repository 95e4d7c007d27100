use nn::{Decoder, Files, MediaInput, MediaKind, Model, NnError, Pause, Tensor, Weights};

use super::config::{Config, decoder};
use super::ears::Ears;
use super::processor::bands;
use super::tower::Tower;
use crate::ModelError;
use crate::joined::{Encode, Joined};

/// What looks and, in some members, listens.
struct Senses {
    tower: Tower,
    ears: Option<Ears>,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = decoder(files)?;
    let (w, hidden) = (w.at("model"), decoder.hidden);
    let ears = match &config.audio_config {
        Some(audio) => Some(Ears::load(audio, bands(files)?, hidden, &w)?),
        None => None,
    };
    let senses = Senses { tower: Tower::load(&config.vision_config, hidden, &w)?, ears };
    Ok(Box::new(Joined { tower: senses, decoder: Decoder::load(&decoder, &w.at("language_model"), &w)? }))
}

impl Encode for Senses {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        match (input.kind, &self.ears) {
            (MediaKind::Image | MediaKind::Video, _) => self.tower.encode(input, pause),
            (MediaKind::Audio, Some(ears)) => ears.encode(input, pause),
            (MediaKind::Audio, None) => Err(NnError::Input("of a model that does not listen")),
        }
    }
}
