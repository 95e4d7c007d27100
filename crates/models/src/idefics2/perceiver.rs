//! The resampler: latents that attend to a view's patches, and to themselves.

use nn::{
    Adapted, Bias, FeedForward, Ffn, GatedConfig, HeadRange, KeyValues, KvFormat, Linear, NnError, Norm, NormConfig, Pause, Qkv,
    Scores, Sight, Tensor, Weights, attention_across,
};

use super::config::PerceiverConfig;

/// A loaded resampler.
pub struct Perceiver {
    latents: Tensor, // [latents, hidden]
    layers: Vec<Layer>,
    norm: Norm,
}

struct Layer {
    latents_norm: Norm,
    context_norm: Norm,
    q: Linear,           // [heads * head_dim, hidden]
    keys_values: Linear, // [2 * kv_heads * head_dim, hidden]
    out: Linear,         // [hidden, heads * head_dim]
    norm: Norm,
    mlp: FeedForward,
    heads: Qkv,
    format: KvFormat,
}

impl Perceiver {
    /// Loads `latents`, `layers` and `norm`.
    pub fn load(config: &PerceiverConfig, w: &Weights) -> Result<Self, NnError> {
        let norm = NormConfig::Rms { eps: config.rms_norm_eps };
        let layers = (0..config.resampler_depth).map(|i| Layer::load(config, norm, &w.at("layers").at(i)));
        Ok(Self {
            latents: w.tensor("latents", &[config.resampler_n_latents, config.hidden_size])?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: w.norm("norm", config.hidden_size, norm)?,
        })
    }

    /// A view's patches [patches, hidden] → [latents, hidden].
    pub fn forward(&self, context: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let mut latents = self.latents.copy()?; // The first layer takes its place.
        for layer in &self.layers {
            pause()?;
            latents = layer.forward(latents, context)?;
        }
        self.norm.forward(&latents)
    }
}

impl Layer {
    fn load(config: &PerceiverConfig, norm: NormConfig, w: &Weights) -> Result<Self, NnError> {
        let (hidden, attention) = (config.hidden_size, w.at("self_attn"));
        let heads =
            Qkv { heads: config.resampler_n_heads, kv_heads: config.num_key_value_heads, head_dim: config.resampler_head_dim };
        let kv_width = heads.kv_heads * heads.head_dim;
        let mlp = Ffn::Gated(GatedConfig::new(4 * hidden, config.hidden_act));
        Ok(Self {
            latents_norm: w.norm("input_latents_norm", hidden, norm)?,
            context_norm: w.norm("input_context_norm", hidden, norm)?,
            q: attention.linear("q_proj", hidden, heads.width(), Bias::Absent)?,
            keys_values: attention.stacked(&[("k_proj", kv_width), ("v_proj", kv_width)], hidden, Bias::Absent)?,
            out: attention.linear("o_proj", heads.width(), hidden, Bias::Absent)?,
            norm: w.norm("post_attention_layernorm", hidden, norm)?,
            mlp: FeedForward::load(&mlp, hidden, &w.at("mlp"))?,
            heads,
            format: w.attention_format(),
        })
    }

    fn forward(&self, latents: Tensor, context: &Tensor) -> Result<Tensor, NnError> {
        let normed = self.latents_norm.forward(&latents)?;
        let seen = Tensor::cat(&[&self.context_norm.forward(context)?, &normed], 0)?;
        let Qkv { heads, kv_heads, head_dim: width } = self.heads;
        let range = |first, count| HeadRange { first, count, width };
        let (keys, values) = (range(0, kv_heads), range(kv_heads, kv_heads));
        let kept = KeyValues::new(&self.keys_values.forward(&seen)?, keys, values, self.format)?;
        let sight = Sight { rows: 0..latents.dim(0)?, at: vec![(&kept, kept.rows())] };
        let mixed = attention_across(&self.q.forward(&normed)?, range(0, heads), &[sight], Scores::plain(width))?;
        let latents = self.out.add_to(latents, &mixed)?;
        let normed = self.norm.forward(&latents)?;
        self.mlp.add_to(latents, &normed, &Adapted::default())
    }
}
