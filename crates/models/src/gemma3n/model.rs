use nn::{
    Batch, Bias, Cache, CacheSpec, Encoded, Files, Linear, MediaInput, MediaKind, MediaRows, Model, NnError, Norm, NormConfig,
    Pause, Role, Tensor, Weights,
};

use super::altup::Decoder;
use super::config::{Config, SpecialTokens};
use super::ears::Ears;
use super::mobilenet::MobileNet;
use super::text::Text;
use crate::ModelError;

/// Arrays of the processor.
pub const PICTURES: &str = "pixel_values";
pub const SOUND: &str = "input_features";

struct Gemma3n {
    vision: MobileNet,
    embed_vision: Embedder,
    audio: Ears,
    embed_audio: Embedder,
    /// Rows that stand for a sound, however short.
    sound_rows: usize,
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
    let (embed_audio, sounds) = Embedder::load(&config.audio_config.tokens, hidden, &model.at("embed_audio"))?;
    let rows = Tensor::cat(&[images, sounds], 0).map_err(NnError::from)?;
    Ok(Box::new(Gemma3n {
        vision: MobileNet::load(&vision.model_args, vision.tokens.hidden_size, &model.at("vision_tower.timm_model"))?,
        embed_vision,
        audio: Ears::load(&config.audio_config, &model.at("audio_tower"))?,
        embed_audio,
        sound_rows: config.audio_soft_tokens_per_image,
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

impl Gemma3n {
    /// Pixels [planes, side, side] → [rows, hidden].
    fn picture(&self, pixels: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let x = self.vision.forward(pixels, pause)?;
        self.embed_vision.forward(&(x * (self.embed_vision.width as f64).sqrt())?)
    }

    /// Frames of a sound [frames, bands] → [rows, hidden]. Behind a short one stand embeddings of the last token of all.
    fn sound(&self, frames: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let rows = self.embed_audio.forward(&self.audio.forward(frames, pause)?)?;
        let missing = self.sound_rows.checked_sub(rows.dim(0)?).ok_or(NnError::Input(SOUND))?;
        let last = self.special.rows.narrow(0, self.special.rows.dim(0)? - 1, 1)?;
        Ok(Tensor::cat(&[rows, last.repeat((missing, 1))?], 0)?)
    }
}

impl Model for Gemma3n {
    fn cache_spec(&self) -> &CacheSpec {
        self.decoder.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Encoded, NnError> {
        let (name, rank) = match input.kind {
            MediaKind::Audio => (SOUND, 3),
            MediaKind::Image | MediaKind::Video => (PICTURES, 4),
        };
        let array = input.arrays.get(name).filter(|array| array.shape.len() == rank).ok_or(NnError::Input(name))?;
        let all = input.tensor(name, &array.shape, self.special.rows.device())?;
        let rows = (0..all.dim(0)?).map(|i| match input.kind {
            MediaKind::Audio => self.sound(&all.get(i)?, pause),
            MediaKind::Image | MediaKind::Video => self.picture(&all.get(i)?, pause),
        });
        Ok(Encoded::Rows(Tensor::cat(&rows.collect::<Result<Vec<_>, NnError>>()?, 0)?))
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        let mut rows = self.special.of(&batch.tokens)?;
        rows.extend(batch.media.iter().cloned());
        self.decoder.forward(batch, &rows, cache)
    }
}
