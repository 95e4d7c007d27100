//! The encoder of sound of the Universal Speech Model (Zhang et al. 2023, arXiv:2303.01037): two convolutions that halve time and
//! pitch, and conformer blocks (Gulati et al. 2020, arXiv:2005.08100) that see nothing ahead of them.

use nn::{Activation, Bias, Conv2d, FeatureMap, Linear, NnError, Padding, Pause, Role, Tensor, Weights, Window};

use super::config::AudioConfig;
use crate::conformer::{Conformer, ConformerConfig, ConformerNames};
use crate::projection::Stored;

const NAMES: ConformerNames = ConformerNames {
    feed_forward: ["ffw_layer_start", "ffw_layer_end"],
    before_attention: "attention.pre_attn_norm",
    attention: "attention.attn",
    distances: "attention.attn.relative_position_embedding.pos_proj",
    out: "attention.post",
    after_attention: "attention.post_norm",
    norm: "norm",
};

/// A loaded encoder.
pub struct Ears {
    convolutions: Vec<(Conv2d, CumulativeNorm)>,
    input: Linear, // [hidden, pitches * channels]
    blocks: Conformer,
    /// Rows of which one is kept.
    reduction: usize,
}

/// A norm by the mean and variance of all that was before, over pitches and channels.
struct CumulativeNorm {
    weight: Tensor, // [channels]
    eps: f64,
}

impl Ears {
    pub fn load(config: &AudioConfig, w: &Weights) -> Result<Self, NnError> {
        let (w, hidden) = (w.role(Role::Encoder), config.tokens.hidden_size);
        let subsample = w.at("subsample_conv_projection");
        let (mut channels, mut pitches, mut convolutions) = (1, config.input_feat_size, Vec::new());
        let sizes = config.sscp_conv_channel_size.iter().zip(&config.sscp_conv_kernel_size).zip(&config.sscp_conv_stride_size);
        for (i, ((&outputs, &kernel), &stride)) in sizes.enumerate() {
            let w = subsample.at(format!("conv_{i}"));
            let padding = Padding::Lines([[0, kernel[0] - 1], [1, 1]]);
            let conv = Conv2d::load("conv", [channels, outputs], Window { kernel, stride, padding }, Bias::Absent, &w)?;
            let norm = CumulativeNorm { weight: w.tensor("norm.weight", &[outputs])?, eps: config.sscp_conv_group_norm_eps };
            convolutions.push((conv, norm));
            (channels, pitches) = (outputs, (pitches + 2 - kernel[1]) / stride[1] + 1);
        }
        Ok(Self {
            convolutions,
            input: subsample.linear("input_proj_linear", pitches * channels, hidden, Bias::Absent)?,
            blocks: Conformer::load(&config.conformer(), &w.at("conformer"))?,
            reduction: config.conf_reduction_factor,
        })
    }

    /// x [frames, pitches] → [rows, hidden]
    pub fn forward(&self, x: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let (frames, pitches) = x.dims2()?;
        let mut map = FeatureMap { rows: x.reshape((frames * pitches, 1))?, size: [frames, pitches] };
        for (conv, norm) in &self.convolutions {
            pause()?;
            map = norm.forward(conv.forward(&map, Ok)?)?;
        }
        let [times, pitches] = map.size;
        let channels = map.rows.dim(1)?;
        let x = self.input.forward(&map.rows.reshape((times, pitches * channels))?)?;
        let x = self.blocks.forward(x, pause)?;
        let kept: Vec<u32> = (0..times).step_by(self.reduction).map(|row| row as u32).collect();
        Ok(x.index_select(&Tensor::new(kept, x.device())?, 0)?)
    }
}

impl CumulativeNorm {
    /// The norm, and what is above zero.
    fn forward(&self, x: FeatureMap) -> Result<FeatureMap, NnError> {
        let [times, pitches] = x.size;
        let channels = x.rows.dim(1)?;
        let rows = x.rows.reshape((times, pitches * channels))?;
        // Sums over all that was before, as means.
        let so_far = |sums: Tensor| -> Result<Tensor, NnError> {
            let (mut total, width) = (0.0, (pitches * channels) as f64);
            let mean = |(i, sum): (usize, f32)| {
                total += f64::from(sum);
                (total / ((i + 1) as f64 * width)) as f32
            };
            let means: Vec<f32> = sums.to_vec1::<f32>()?.into_iter().enumerate().map(mean).collect();
            Ok(Tensor::new(means, rows.device())?.unsqueeze(1)?)
        };
        let centred = rows.broadcast_sub(&so_far(rows.sum(1)?)?)?;
        let size = (so_far(centred.sqr()?.sum(1)?)? + self.eps)?.sqrt()?;
        let weight = self.weight.unsqueeze(0)?.repeat((pitches, 1))?.reshape((1, pitches * channels))?;
        let normed = centred.broadcast_div(&size)?.broadcast_mul(&weight)?.relu()?;
        Ok(FeatureMap { rows: normed.reshape((times * pitches, channels))?, size: x.size })
    }
}

impl AudioConfig {
    fn conformer(&self) -> ConformerConfig {
        ConformerConfig {
            width: self.tokens.hidden_size,
            heads: self.conf_num_attention_heads,
            layers: self.conf_num_hidden_layers,
            seen: self.conf_attention_context_left,
            key_scale: 1.0,
            softcap: self.conf_attention_logit_cap,
            residual_weight: self.conf_residual_weight,
            taps: self.conf_conv_kernel_size,
            activation: Activation::Silu,
            norm_eps: self.tokens.rms_norm_eps,
            stored: Stored::Plain,
            names: &NAMES,
        }
    }
}
