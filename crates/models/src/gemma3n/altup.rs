//! The decoder: layers that compute one of several streams of hidden states and correct the others.

use std::f64::consts::FRAC_1_SQRT_2;

use nn::{
    Batch, Bias, Cache, CacheSpec, FeedForward, LayerConfig, Linear, MediaRows, NnError, Norm, PerLayerInput, PerLayerTable,
    Role, Rope, Step, Tensor, TokenMixer, Vocabulary, Weights, add_to_streams, mix_streams,
};

use super::text::{CorrectedScale, Text};

/// Least mean square of a stream that is brought to another's size.
const MEAN_SQUARE_MIN: f64 = 1e-5;

/// A loaded decoder. Streams lie side by side: [rows, streams * hidden].
pub struct Decoder {
    vocabulary: Vocabulary,
    per_layer: PerLayerTable,
    /// The first stream → the others; and each of the others → what it says.
    spread: Vec<Linear>,
    gather: Vec<Linear>,
    layers: Vec<Layer>,
    ropes: Vec<Rope>,
    hidden: usize,
    spec: CacheSpec,
}

struct Layer {
    altup: AltUp,
    laurel: Laurel,
    mixer: TokenMixer,
    ffn: FeedForward,
    before_mixer: Norm,
    after_mixer: Norm,
    before_ffn: Norm,
    after_ffn: Norm,
    per_layer: PerLayerInput,
}

/// Alternating updates.
struct AltUp {
    norm: Norm,
    router: Linear,        // [streams, hidden]
    prediction: Linear,    // [streams * streams, streams]
    correction: Linear,    // [streams, streams]
    scale: Option<Tensor>, // [hidden]
    streams: usize,
    active: usize,
    hidden: usize,
}

/// A residual of low rank.
struct Laurel {
    left: Linear,  // [rank, hidden]
    right: Linear, // [hidden, rank]
    norm: Norm,
}

impl Decoder {
    /// Loads `embed_tokens`, `layers`, `norm` and the like at `body`.
    pub fn load(text: &Text, body: &Weights, top: &Weights) -> Result<Self, NnError> {
        let config = &text.decoder;
        config.check(body)?;
        let (spec, places) = config.cache()?;
        let hidden = config.hidden;
        let layers = body.at("layers");
        text.skipped.iter().for_each(|number| layers.skip(&format!("{number}.")));
        let load = |(i, place)| Layer::load(text, &config.layers[i], place, &layers.at(text.per_layer.layers[i]));
        let projections = |name: &str| -> Result<Vec<Linear>, NnError> {
            let w = body.at(name);
            (0..text.streams - 1).map(|i| w.linear(&i.to_string(), hidden, hidden, Bias::Absent)).collect()
        };
        Ok(Self {
            vocabulary: Vocabulary::load(config, body, top)?,
            per_layer: PerLayerTable::load(&text.per_layer, hidden, config.norm, body)?,
            spread: projections("altup_projections")?,
            gather: projections("altup_unembed_projections")?,
            layers: places.into_iter().enumerate().map(load).collect::<Result<_, _>>()?,
            ropes: config.ropes.iter().map(Rope::new).collect(),
            hidden,
            spec,
        })
    }

    pub fn cache_spec(&self) -> &CacheSpec {
        &self.spec
    }

    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// The batch's logits; `media` are rows that take the places of token embeddings.
    pub fn forward(&self, batch: &Batch, media: &[MediaRows], cache: &mut Cache) -> Result<Tensor, NnError> {
        let rows = self.vocabulary.embed(&batch.tokens, media)?;
        let step = Step::new(batch, &self.ropes, rows.device())?;
        let vectors = self.per_layer.vectors(&rows, batch)?;
        let mut x = self.spread(rows)?;
        for (layer, vectors) in self.layers.iter().zip(&vectors) {
            x = layer.forward(x, vectors, &step, cache)?;
        }
        self.vocabulary.logits(&self.gather(&batch.wanted_of(&x)?)?)
    }

    /// [rows, hidden] → [rows, streams * hidden]
    fn spread(&self, x: Tensor) -> Result<Tensor, NnError> {
        let size = x.sqr()?.mean_keepdim(1)?.sqrt()?;
        let mut streams = Vec::with_capacity(1 + self.spread.len());
        for projection in &self.spread {
            streams.push(brought_to(&size, &projection.forward(&x)?)?);
        }
        streams.insert(0, x);
        Ok(Tensor::cat(&streams, 1)?)
    }

    /// [rows, streams * hidden] → [rows, hidden]
    fn gather(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let stream = |number: usize| x.narrow(1, number * self.hidden, self.hidden)?.contiguous();
        let mut sum = stream(0)?;
        let size = sum.sqr()?.mean_keepdim(1)?.sqrt()?;
        for (i, projection) in self.gather.iter().enumerate() {
            sum = (sum + brought_to(&size, &projection.forward(&stream(i + 1)?)?)?)?;
        }
        Ok((sum / (1 + self.gather.len()) as f64)?)
    }
}

/// Rows x [rows, hidden], so that the roots of their mean squares are `size` [rows, 1].
fn brought_to(size: &Tensor, x: &Tensor) -> Result<Tensor, NnError> {
    let own = x.sqr()?.mean_keepdim(1)?.maximum(MEAN_SQUARE_MIN)?.sqrt()?;
    Ok(x.broadcast_mul(&(size / own)?)?)
}

impl Layer {
    fn load(text: &Text, config: &LayerConfig, place: usize, w: &Weights) -> Result<Self, NnError> {
        let (hidden, norm) = (text.decoder.hidden, text.decoder.norm);
        let named = |name| w.norm(name, hidden, norm);
        let laurel = w.at("laurel");
        Ok(Self {
            altup: AltUp::load(text, &w.at("altup"))?,
            laurel: Laurel {
                left: laurel.linear("linear_left", hidden, text.laurel_rank, Bias::Absent)?,
                right: laurel.linear("linear_right", text.laurel_rank, hidden, Bias::Absent)?,
                norm: laurel.norm("post_laurel_norm", hidden, norm)?,
            },
            mixer: TokenMixer::load(&config.mixer, place, hidden, w)?,
            ffn: FeedForward::load(&config.ffn, hidden, &w.at("mlp"))?,
            before_mixer: named("input_layernorm")?,
            after_mixer: named("post_attention_layernorm")?,
            before_ffn: named("pre_feedforward_layernorm")?,
            after_ffn: named("post_feedforward_layernorm")?,
            per_layer: PerLayerInput::load(&text.per_layer, hidden, norm, w)?,
        })
    }

    /// x [rows, streams * hidden] → the same shape; vectors [rows, width].
    fn forward(&self, x: Tensor, vectors: &Tensor, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        let predicted = self.altup.predict(&x)?;
        let active = self.altup.active(&predicted)?;
        let normed = self.before_mixer.forward(&active)?;
        let laurel = self.laurel.forward(&normed)?;
        let mixed = self.mixer.out().forward_adapted(&self.mixer.mix(&normed, step, cache)?, step.adapted())?;
        let y = (((&active + self.after_mixer.forward(&mixed)?)? + laurel)? * FRAC_1_SQRT_2)?;
        let made = self.ffn.forward(&self.before_ffn.forward(&y)?, step.adapted())?;
        let y = (y + self.after_ffn.forward(&made)?)?;
        let corrected = self.altup.correct(predicted, &active, &y)?;
        let added = self.per_layer.forward(&self.altup.scaled(&corrected)?, vectors)?;
        self.altup.add_to_others(corrected, &added)
    }
}

impl Laurel {
    /// x [rows, hidden] → the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        Ok((x + self.norm.forward(&self.right.forward(&self.left.forward(x)?)?)?)?)
    }
}

impl AltUp {
    fn load(text: &Text, w: &Weights) -> Result<Self, NnError> {
        let (hidden, n) = (text.decoder.hidden, text.streams);
        let router = w.role(Role::Router);
        let scale = w.tensor("correct_output_scale", &[hidden])?;
        Ok(Self {
            norm: w.norm("router_norm", hidden, text.decoder.norm)?,
            router: router.linear("modality_router", hidden, n, Bias::Absent)?,
            prediction: router.linear("prediction_coefs", n, n * n, Bias::Absent)?,
            correction: router.linear("correction_coefs", n, n, Bias::Absent)?,
            scale: (text.scale == CorrectedScale::Learned).then_some(scale),
            streams: n,
            active: text.active,
            hidden,
        })
    }

    /// The stream that is computed, [rows, hidden].
    fn active(&self, x: &Tensor) -> Result<Tensor, NnError> {
        Ok(x.narrow(1, self.active * self.hidden, self.hidden)?.contiguous()?)
    }

    /// What a row says about the streams, in ±1: [rows, streams].
    fn modalities(&self, x: &Tensor) -> Result<Tensor, NnError> {
        Ok((self.router.forward(&self.norm.forward(x)?)? / self.hidden as f64)?.tanh()?)
    }

    fn predict(&self, x: &Tensor) -> Result<Tensor, NnError> {
        mix_streams(x, &self.prediction.forward(&self.modalities(&self.active(x)?)?)?)
    }

    /// Adds to each predicted stream its share of what was wrong with the active one: `active` was predicted, `computed` found.
    fn correct(&self, predicted: Tensor, active: &Tensor, computed: &Tensor) -> Result<Tensor, NnError> {
        let shares = (self.correction.forward(&self.modalities(computed)?)? + 1.0)?;
        add_to_streams(predicted, &shares, &(computed - active)?)
    }

    /// What per-layer embeddings are gated by.
    fn scaled(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let active = self.active(x)?;
        match &self.scale {
            Some(scale) => Ok(active.broadcast_mul(scale)?),
            None => Ok(active),
        }
    }

    /// Adds v to all streams but the first.
    fn add_to_others(&self, x: Tensor, v: &Tensor) -> Result<Tensor, NnError> {
        let shares: Vec<f32> = (0..self.streams).map(|stream| if stream == 0 { 0.0 } else { 1.0 }).collect();
        let shares = Tensor::new(shares, x.device())?.unsqueeze(0)?.repeat((v.dim(0)?, 1))?;
        add_to_streams(x, &shares, v)
    }
}
