use nn::{Batch, Cache, CacheSpec, Decoder, DecoderConfig, Encoded, MediaInput, Model, NnError, Pause, Tensor, Weights};

/// What a family makes rows of media with.
pub trait Encode: Send {
    /// The item's rows as the decoder takes them, [input.rows, width].
    ///
    /// # Errors
    /// The input's arrays are not those of the family's processor, the device failed, or the pause said to stop.
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError>;
}

/// Where the parts of a checkpoint with a tower stand; transformers has other names for them since release 4.52.
pub struct Layout {
    pub tower: Weights,
    pub projector: Weights,
    /// Of the decoder's layers.
    pub body: Weights,
    /// Of its head.
    pub top: Weights,
}

impl Layout {
    pub fn of(w: &Weights) -> Self {
        let towers = ["vision_tower.vision_model", "model.vision_tower.vision_model", "model.vision_tower", "vision_tower"];
        Self {
            tower: w.at_any(&towers),
            projector: w.at_any(&["multi_modal_projector", "model.multi_modal_projector"]),
            body: w.at_any(&["language_model.model", "model.language_model"]),
            top: w.at_any(&["language_model", ""]),
        }
    }

    pub fn decoder(&self, config: &DecoderConfig) -> Result<Decoder, NnError> {
        Decoder::load(config, &self.body, &self.top)
    }
}

/// A decoder that is shown the rows of a tower: the model of nearly every family.
pub struct Joined<T> {
    pub tower: T,
    pub decoder: Decoder,
}

impl<T: Encode> Model for Joined<T> {
    fn cache_spec(&self) -> &CacheSpec {
        self.decoder.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn table_size(&self) -> usize {
        self.decoder.table_size()
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Encoded, NnError> {
        self.decoder.keep(self.tower.encode(input, pause)?, pause)
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        self.decoder.forward(self.decoder.embed(&batch.tokens, &batch.media)?, batch, cache)
    }
}
