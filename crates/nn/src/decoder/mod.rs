//! The one decoder: a stack of layers over hidden states, whatever the family.

mod attention;
mod config;
mod ffn;
mod gated_delta;
mod mixer;
mod step;

pub use config::{AttentionConfig, DecoderConfig, Ffn, GatedDeltaConfig, Head, LayerConfig, Mixer, Norms, OutputGate};

use ffn::FeedForward;
pub(crate) use ffn::Gated;
use mixer::TokenMixer;
pub(crate) use step::Step;

use crate::linear::{Embedding, Linear};
use crate::norm::Norm;
use crate::weights::{Bias, Role, Weights};
use crate::{Batch, Cache, CacheSpec, LayerCache, MediaRows, NnError, Rope, Tensor, host};

/// A loaded decoder.
#[derive(Debug)]
pub struct Decoder {
    embedding: Embedding,
    embedding_scale: f64,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    ropes: Vec<Rope>,
    deepstack: usize,
    spec: CacheSpec,
}

#[derive(Debug)]
struct Layer {
    mixer: TokenMixer,
    ffn: FeedForward,
    norms: LayerNorms,
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
        body.check_organization(config.layers.iter().any(|layer| matches!(layer.ffn, Ffn::Moe(_))))?;
        let vocabulary = body.role(Role::Vocabulary);
        let (embedding, head) = match config.head {
            Head::Tied => {
                top.skip("lm_head.");
                vocabulary.tied_embedding("embed_tokens", config.vocab, config.hidden)?
            }
            Head::Own => {
                let embedding = vocabulary.embedding("embed_tokens", config.vocab, config.hidden)?;
                (embedding, top.role(Role::Vocabulary).linear("lm_head", config.hidden, config.vocab, Bias::Absent)?)
            }
        };
        let layers = body.at("layers");
        let load = |(i, layer)| Layer::load(layer, config, &layers.at(i));
        Ok(Self {
            embedding,
            embedding_scale: config.embedding_scale,
            layers: config.layers.iter().enumerate().map(load).collect::<Result<_, _>>()?,
            norm: body.norm("norm", config.hidden, config.norm)?,
            head,
            ropes: config.ropes.iter().map(Rope::new).collect(),
            deepstack: config.deepstack,
            spec: CacheSpec::new(config.layers.iter().map(LayerConfig::cache)),
        })
    }

    /// What a sequence leaves in the cache.
    pub fn cache_spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// Number of logits per row.
    pub fn vocab_size(&self) -> usize {
        self.head.outputs()
    }

    /// Token embeddings with media rows in their places, [rows, hidden].
    ///
    /// # Errors
    /// A token is unknown, media rows have another width, or the device failed.
    pub fn embed(&self, tokens: &[u32], media: &[MediaRows]) -> Result<Tensor, NnError> {
        let rows = self.embedding.forward(tokens)?;
        let rows = if self.embedding_scale == 1.0 { rows } else { (rows * self.embedding_scale)? };
        for item in media {
            if item.rows.dim(1)? != rows.dim(1)? * (1 + self.deepstack) {
                return Err(NnError::Input("media rows as wide as the decoder takes them"));
            }
            rows.slice_set(&part(item, 0, rows.dim(1)?)?, 0, item.at)?;
        }
        Ok(rows)
    }

    /// Runs the layers over embedded rows and returns the wanted logits, [wanted, vocab].
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn forward(&self, rows: Tensor, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        let step = Step::new(batch, &self.ropes, rows.device())?;
        let mut x = rows;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, i, &step, cache)?;
            if i < self.deepstack {
                add_media(&x, &batch.media, i + 1)?;
            }
        }
        let wanted: Vec<u32> = batch.wanted.iter().map(|&row| row as u32).collect();
        let x = x.index_select(&Tensor::new(wanted, x.device())?, 0)?;
        self.head.forward(&self.norm.forward(&x)?)
    }
}

/// Adds part `number` of media rows to the hidden states in their places.
fn add_media(x: &Tensor, media: &[MediaRows], number: usize) -> Result<(), NnError> {
    for item in media {
        let rows = part(item, number, x.dim(1)?)?;
        let sum = (x.narrow(0, item.at, rows.dim(0)?)? + rows)?;
        x.slice_set(&sum, 0, item.at)?;
    }
    Ok(())
}

/// Columns of media rows, of which each part has `hidden`.
fn part(item: &MediaRows, number: usize, hidden: usize) -> Result<Tensor, NnError> {
    Ok(item.rows.narrow(1, number * hidden, hidden)?.contiguous()?)
}

impl LayerConfig {
    fn cache(&self) -> LayerCache {
        match &self.mixer {
            Mixer::Attention(a) => LayerCache::Kv { kv_heads: a.kv_heads, head_dim: a.head_dim, window: a.scores.window },
            Mixer::GatedDelta(delta) => delta.cache(),
        }
    }
}

impl Layer {
    fn load(config: &LayerConfig, decoder: &DecoderConfig, w: &Weights) -> Result<Self, NnError> {
        let hidden = decoder.hidden;
        let norm = |name| w.norm(name, hidden, decoder.norm);
        Ok(Self {
            mixer: TokenMixer::load(&config.mixer, hidden, w)?,
            ffn: FeedForward::load(&config.ffn, hidden, &w.at("mlp"))?,
            norms: match config.norms {
                Norms::Pre => LayerNorms::Pre { mixer: norm("input_layernorm")?, ffn: norm("post_attention_layernorm")? },
                Norms::Sandwich => LayerNorms::Sandwich {
                    before_mixer: norm("input_layernorm")?,
                    after_mixer: norm("post_attention_layernorm")?,
                    before_ffn: norm("pre_feedforward_layernorm")?,
                    after_ffn: norm("post_feedforward_layernorm")?,
                },
            },
        })
    }

    fn forward(&self, x: Tensor, index: usize, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        match &self.norms {
            LayerNorms::Pre { mixer, ffn } => {
                let mixed = self.mixer.mix(&mixer.forward(&x)?, index, step, cache)?;
                let x = self.mixer.out().add_to(x, &mixed)?;
                host::in_parts(x, self.ffn.width(), |x| {
                    let normed = ffn.forward(&x)?;
                    self.ffn.add_to(x, &normed)
                })
            }
            LayerNorms::Sandwich { before_mixer, after_mixer, before_ffn, after_ffn } => {
                let mixed = self.mixer.mix(&before_mixer.forward(&x)?, index, step, cache)?;
                let x = (x + after_mixer.forward(&self.mixer.out().forward(&mixed)?)?)?;
                let made = self.ffn.forward(&before_ffn.forward(&x)?)?;
                Ok((x + after_ffn.forward(&made)?)?)
            }
        }
    }
}
