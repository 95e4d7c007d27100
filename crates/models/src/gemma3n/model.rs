use nn::{
    Batch, Bias, Cache, CacheSpec, Files, Linear, MediaInput, MediaRows, Model, NnError, Norm, NormConfig, Pause, Role, Tensor,
    Weights,
};

use super::altup::Decoder;
use super::config::{Config, SpecialTokens};
use super::mobilenet::MobileNet;
use super::text::Text;
use crate::ModelError;

struct Gemma3n {
    vision: MobileNet,
    embed_vision: Embedder,
    special: Special,
    decoder: Decoder,
}

/// What a tower says → rows of the language model.
struct Embedder {
    norm: Norm,
    projection: Linear, // [hidden, width]
    after: Norm,
    width: usize,
}

/// Tokens around media, whose embeddings are embedders' and not those of the token table.
struct Special {
    /// The first of them.
    first: usize,
    /// [tokens, hidden]
    rows: Tensor,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let text = Text::read(files, w.slice())?;
    let hidden = text.decoder.hidden;
    let model = w.at("model");
    let vision = &config.vision_config;
    let (embed_vision, images) = Embedder::load(&vision.tokens, hidden, &model.at("embed_vision"))?;
    let (_, sounds) = Embedder::load(&config.audio_config.tokens, hidden, &model.at("embed_audio"))?;
    let rows = Tensor::cat(&[images, sounds], 0).map_err(NnError::from)?;
    model.skip("audio_tower.");
    Ok(Box::new(Gemma3n {
        vision: MobileNet::load(&vision.model_args, vision.tokens.hidden_size, &model.at("vision_tower.timm_model"))?,
        embed_vision,
        special: Special { first: vision.tokens.vocab_offset, rows },
        decoder: Decoder::load(&text, &model.at("language_model"), w)?,
    }))
}

impl Embedder {
    /// The embedder, and the embeddings of its own tokens, [tokens, hidden].
    fn load(tokens: &SpecialTokens, hidden: usize, w: &Weights) -> Result<(Self, Tensor), NnError> {
        let (w, width) = (w.role(Role::Encoder), tokens.hidden_size);
        let embedder = Self {
            norm: w.norm("soft_embedding_norm", width, tokens.norm())?,
            projection: w.linear("embedding_projection", width, hidden, Bias::Absent)?,
            after: w.norm("embedding_post_projection_norm", hidden, NormConfig::RmsUnweighted { eps: tokens.rms_norm_eps })?,
            width,
        };
        let own = w.tensor("embedding.weight", &[tokens.vocab_size, width])?;
        let own = w.norm("hard_embedding_norm", width, tokens.norm())?.forward(&own)?;
        let own = embedder.project(&own)?;
        Ok((embedder, own))
    }

    fn project(&self, x: &Tensor) -> Result<Tensor, NnError> {
        self.after.forward(&self.projection.forward(x)?)
    }

    /// [rows, width] → [rows, hidden]
    fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        self.project(&self.norm.forward(x)?)
    }
}

impl Special {
    /// Embeddings of those of the tokens that are special.
    fn of(&self, tokens: &[u32]) -> Result<Vec<MediaRows>, NnError> {
        let count = self.rows.dim(0)?;
        let number = |id: u32| (id as usize).checked_sub(self.first).filter(|number| *number < count);
        let found = tokens.iter().enumerate().filter_map(|(at, id)| Some((at, number(*id)?)));
        found.map(|(at, number)| Ok(MediaRows { at, rows: self.rows.narrow(0, number, 1)? })).collect()
    }
}

impl Model for Gemma3n {
    fn cache_spec(&self) -> &CacheSpec {
        self.decoder.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let shape = input.arrays.get("pixel_values").map(|pixels| pixels.shape.clone());
        let Some([pictures, _, _, _]) = shape.as_deref() else { return Err(NnError::Input("pixel_values")) };
        let pixels = input.tensor("pixel_values", shape.as_deref().unwrap_or_default(), self.special.rows.device())?;
        let rows = (0..*pictures).map(|picture| {
            let x = self.vision.forward(&pixels.get(picture)?, pause)?;
            self.embed_vision.forward(&(x * (self.embed_vision.width as f64).sqrt())?)
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, NnError>>()?, 0)?)
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        let mut rows = self.special.of(&batch.tokens)?;
        rows.extend(batch.media.iter().cloned());
        self.decoder.forward(batch, &rows, cache)
    }
}
