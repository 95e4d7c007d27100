//! The one decoder: a stack of layers over hidden states, whatever the family.

mod attention;
mod beside;
mod config;
mod ffn;
mod gated_delta;
mod mixer;
mod per_layer;
mod step;
mod vocabulary;

use beside::Beside;
pub use config::{
    AttentionConfig, DecoderConfig, Ffn, GatedConfig, GatedDeltaConfig, Gates, Head, KvSource, LayerConfig, LayerScale, Mixer,
    Norms, OutputGate, PerLayerConfig,
};
pub use ffn::FeedForward;
pub(crate) use ffn::Gated;
pub use mixer::TokenMixer;
pub use per_layer::{PerLayerInput, PerLayerTable};
pub use step::Step;
pub use vocabulary::Vocabulary;

use crate::norm::Norm;
use crate::weights::Weights;
use crate::{Adapted, Batch, Cache, CacheSpec, MediaRows, NnError, Rope, Tensor, host};

/// A loaded decoder.
#[derive(Debug)]
pub struct Decoder {
    vocabulary: Vocabulary,
    per_layer: Option<PerLayerTable>,
    layers: Vec<Layer>,
    ropes: Vec<Rope>,
    deepstack: usize,
    spec: CacheSpec,
}

#[derive(Debug)]
struct Layer {
    mixer: TokenMixer,
    ffn: FeedForward,
    beside: Option<Beside>,
    norms: LayerNorms,
    per_layer: Option<PerLayerInput>,
    scale: Option<f64>,
}

#[derive(Debug)]
enum LayerNorms {
    Pre { mixer: Norm, ffn: Norm },
    Sandwich { before_mixer: Norm, after_mixer: Norm, before_ffn: Norm, after_ffn: Norm },
}

impl Decoder {
    /// Loads `embed_tokens`, `layers.N` and `norm` at `body`, and `lm_head` at `top` when it is not tied.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise; only experts are to be quantised, and there are none.
    pub fn load(config: &DecoderConfig, body: &Weights, top: &Weights) -> Result<Self, NnError> {
        config.check(body)?;
        let (spec, places) = config.cache()?;
        let layers = body.at("layers");
        let load = |(i, place)| Layer::load(&config.layers[i], place, config, &layers.at(i));
        let per_layer = |per_layer| PerLayerTable::load(per_layer, config.hidden, config.norm, body);
        Ok(Self {
            vocabulary: Vocabulary::load(config, body, top)?,
            per_layer: config.per_layer.as_ref().map(per_layer).transpose()?,
            layers: places.into_iter().enumerate().map(load).collect::<Result<_, _>>()?,
            ropes: config.ropes.iter().map(Rope::new).collect(),
            deepstack: config.deepstack,
            spec,
        })
    }

    /// What a sequence leaves in the cache.
    pub fn cache_spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// Number of logits per row.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// As [`Vocabulary::embed`].
    ///
    /// # Errors
    /// As there.
    pub fn embed(&self, tokens: &[u32], media: &[MediaRows]) -> Result<Tensor, NnError> {
        self.vocabulary.embed(tokens, media)
    }

    /// Runs the layers over embedded rows and returns the wanted logits, [wanted, vocab].
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn forward(&self, rows: Tensor, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        let step = Step::new(batch, &self.ropes, rows.device())?;
        let vectors = self.per_layer.as_ref().map(|table| table.vectors(&rows, batch)).transpose()?;
        let mut x = rows;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.mix(x, &step, cache)?;
            x = layer.work(x, step.adapted())?;
            if let (Some(input), Some(vectors)) = (&layer.per_layer, &vectors) {
                let told = input.forward(&x, &vectors[i])?;
                x = host::add_to(x, &told)?;
            }
            if let Some(scale) = layer.scale {
                x = host::scale(x, scale)?;
            }
            if i < self.deepstack {
                add_media(&x, &batch.media, i + 1)?;
            }
        }
        self.vocabulary.logits(&batch.wanted_of(&x)?)
    }
}

/// Adds part `number` of media rows to the hidden states in their places.
fn add_media(x: &Tensor, media: &[MediaRows], number: usize) -> Result<(), NnError> {
    for item in media {
        let rows = item.part(number, x.dim(1)?)?;
        host::add_rows(x, item.at, &rows)?;
    }
    Ok(())
}

impl Layer {
    fn load(config: &LayerConfig, place: usize, decoder: &DecoderConfig, w: &Weights) -> Result<Self, NnError> {
        let hidden = decoder.hidden;
        let norm = |name| w.norm(name, hidden, decoder.norm);
        Ok(Self {
            mixer: TokenMixer::load(&config.mixer, place, hidden, w)?,
            ffn: FeedForward::load(&config.ffn, hidden, &w.at("mlp"))?,
            beside: config.beside.as_ref().map(|moe| Beside::load(moe, hidden, decoder.norm, w)).transpose()?,
            norms: match config.norms {
                Norms::Pre => LayerNorms::Pre { mixer: norm("input_layernorm")?, ffn: norm("post_attention_layernorm")? },
                Norms::Sandwich => LayerNorms::Sandwich {
                    before_mixer: norm("input_layernorm")?,
                    after_mixer: norm("post_attention_layernorm")?,
                    before_ffn: norm("pre_feedforward_layernorm")?,
                    after_ffn: norm("post_feedforward_layernorm")?,
                },
            },
            per_layer: decoder.per_layer.as_ref().map(|own| PerLayerInput::load(own, hidden, decoder.norm, w)).transpose()?,
            scale: match config.scale {
                LayerScale::Absent => None,
                LayerScale::Learned => Some(w.number("layer_scalar", &[1])?),
            },
        })
    }

    /// x + what mixing tokens makes of it.
    fn mix(&self, x: Tensor, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        let (LayerNorms::Pre { mixer: before, .. } | LayerNorms::Sandwich { before_mixer: before, .. }) = &self.norms;
        let mixed = self.mixer.mix(&before.forward(&x)?, step, cache)?;
        match &self.norms {
            LayerNorms::Pre { .. } => self.mixer.out().add_to_adapted(x, &mixed, step.adapted()),
            LayerNorms::Sandwich { after_mixer, .. } => {
                host::add_to(x, &after_mixer.forward(&self.mixer.out().forward_adapted(&mixed, step.adapted())?)?)
            }
        }
    }

    /// x + what working on each token makes of it.
    fn work(&self, x: Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        let (LayerNorms::Pre { ffn: before, .. } | LayerNorms::Sandwich { before_ffn: before, .. }) = &self.norms;
        host::in_parts(x, self.ffn.width(), |x, rows| {
            let adapted = &adapted.part(rows);
            let normed = before.forward(&x)?;
            let made = match (&self.norms, &self.beside) {
                (LayerNorms::Pre { .. }, None) => return self.ffn.add_to(x, &normed, adapted),
                (_, None) => self.ffn.forward(&normed, adapted)?,
                (_, Some(beside)) => beside.join(self.ffn.forward(&normed, adapted)?, &x)?,
            };
            match &self.norms {
                LayerNorms::Pre { .. } => host::add_to(x, &made),
                LayerNorms::Sandwich { after_ffn, .. } => host::add_to(x, &after_ffn.forward(&made)?),
            }
        })
    }
}
