//! The one decoder: a stack of layers over hidden states, whatever the family.

mod attention;
mod beside;
mod config;
mod cross_attention;
mod ffn;
mod gated_delta;
mod looking;
mod mixer;
mod per_layer;
mod step;
mod vocabulary;

use beside::Beside;
pub use config::{
    AttentionConfig, CrossAttentionConfig, DecoderConfig, Ffn, GatedConfig, GatedDeltaConfig, Gates, Head, KvSource, LayerConfig,
    LayerGates, LayerScale, Mixer, Norms, OutputGate, PerLayerConfig, Temperature,
};
pub use ffn::FeedForward;
pub(crate) use ffn::Gated;
pub use mixer::TokenMixer;
pub use per_layer::{PerLayerInput, PerLayerTable};
pub use step::Step;
pub use vocabulary::Vocabulary;

use crate::norm::Norm;
use crate::weights::Weights;
use crate::{Adapted, Batch, Cache, CacheSpec, Encoded, MediaRows, NnError, Pause, Rope, Tensor, host};

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
    /// Factors on what the mixer and the feed-forward part make.
    gates: Option<[f64; 2]>,
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

    /// Number of tokens that can be read.
    pub fn table_size(&self) -> usize {
        self.vocabulary.table_size()
    }

    /// What encoded media are kept as: the rows themselves, [rows, width], or what layers that look at them need.
    ///
    /// # Errors
    /// The rows have another width, the device failed, or the pause said to stop.
    pub fn keep(&self, rows: Tensor, pause: &mut Pause) -> Result<Encoded, NnError> {
        let looking: Vec<_> = self.layers.iter().filter_map(|layer| layer.mixer.cross_attention()).collect();
        if looking.is_empty() {
            return Ok(Encoded::Rows(rows));
        }
        let mut key_values = |layer: &cross_attention::CrossAttention| {
            pause()?;
            layer.key_values(&rows)
        };
        Ok(Encoded::KeyValues(looking.into_iter().map(&mut key_values).collect::<Result<_, _>>()?))
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
            x = layer.pass(x, &step, cache)?;
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
            ffn: FeedForward::load(&config.ffn, hidden, &w.at_any(&["mlp", "feed_forward"]))?,
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
            gates: match config.gates {
                LayerGates::Absent => None,
                LayerGates::Tanh([mixer, ffn]) => Some([w.number(mixer, &[1])?.tanh(), w.number(ffn, &[1])?.tanh()]),
            },
            scale: match config.scale {
                LayerScale::Absent => None,
                LayerScale::Learned => Some(w.number("layer_scalar", &[1])?),
            },
        })
    }

    /// Mixes tokens and works on each. Where the mixer looks at media, only with those that see some.
    fn pass(&self, x: Tensor, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        if self.mixer.cross_attention().is_none() {
            return self.work(self.mix(x, step, step.adapted(), cache)?, step.adapted());
        }
        let Some(looking) = step.looking() else { return Ok(x) };
        let [adapted, fed] = &looking.adapted;
        looking.rows.change(x, |x| looking.fed.change(self.mix(x, step, adapted, cache)?, |x| self.work(x, fed)))
    }

    /// x + what mixing tokens makes of it.
    fn mix(&self, x: Tensor, step: &Step, adapted: &Adapted, cache: &mut Cache) -> Result<Tensor, NnError> {
        let (LayerNorms::Pre { mixer: before, .. } | LayerNorms::Sandwich { before_mixer: before, .. }) = &self.norms;
        let mixed = self.mixer.mix(&before.forward(&x)?, step, cache)?;
        if let (LayerNorms::Pre { .. }, None) = (&self.norms, self.gates) {
            return self.mixer.out().add_to_adapted(x, &mixed, adapted);
        }
        let mut made = self.mixer.out().forward_adapted(&mixed, adapted)?;
        if let LayerNorms::Sandwich { after_mixer, .. } = &self.norms {
            made = after_mixer.forward(&made)?;
        }
        if let Some([gate, _]) = self.gates {
            made = host::scale(made, gate)?;
        }
        host::add_to(x, &made)
    }

    /// x + what working on each token makes of it.
    fn work(&self, x: Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        let (LayerNorms::Pre { ffn: before, .. } | LayerNorms::Sandwich { before_ffn: before, .. }) = &self.norms;
        host::in_parts(x, self.ffn.width(), |x, rows| {
            let adapted = &adapted.part(rows);
            let normed = before.forward(&x)?;
            if let (LayerNorms::Pre { .. }, None, None) = (&self.norms, &self.beside, self.gates) {
                return self.ffn.add_to(x, &normed, adapted);
            }
            let mut made = self.ffn.forward(&normed, adapted)?;
            if let Some(beside) = &self.beside {
                made = beside.join(made, &x)?;
            }
            if let LayerNorms::Sandwich { after_ffn, .. } = &self.norms {
                made = after_ffn.forward(&made)?;
            }
            if let Some([_, gate]) = self.gates {
                made = host::scale(made, gate)?;
            }
            host::add_to(x, &made)
        })
    }
}
