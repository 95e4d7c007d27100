use nn::{Batch, Cache, CacheSpec, Decoder, DecoderConfig, MediaInput, Model, NnError, Pause, Tensor, Weights};

use super::tower::{Tower, TowerConfig};
use crate::ModelError;

struct QwenVl {
    tower: Tower,
    decoder: Decoder,
}

/// Joins a tower and a decoder, under the names of older and newer releases.
pub fn load(tower: &TowerConfig, decoder: &DecoderConfig, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(QwenVl {
        tower: Tower::load(tower, decoder.hidden, &w.at_any(&["visual", "model.visual"]))?,
        decoder: Decoder::load(decoder, &w.at_any(&["model.language_model", "model"]), w)?,
    }))
}

impl Model for QwenVl {
    fn cache_spec(&self) -> &CacheSpec {
        self.decoder.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        self.tower.forward(input, pause)
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        self.decoder.forward(self.decoder.embed(&batch.tokens, &batch.media)?, batch, cache)
    }
}
