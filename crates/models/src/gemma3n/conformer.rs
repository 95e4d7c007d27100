//! The encoder of sound of the Universal Speech Model (Zhang et al. 2023, arXiv:2303.01037): two convolutions that halve time and
//! pitch, and conformer blocks (Gulati et al. 2020, arXiv:2005.08100) that see nothing ahead of them.

use nn::{
    Activation, Bias, Conv2d, DepthwiseConv2d, FeatureMap, Linear, Nearby, NnError, Norm, NormConfig, Outputs, Padding, Pause,
    Qkv, Role, Tensor, Weights, Window,
};

use super::config::AudioConfig;

/// Of norms whose class has a number of its own.
const NORM: NormConfig = NormConfig::Rms { eps: 1e-6 };
const WAVELENGTH_MAX: f64 = 10_000.0;

/// A loaded encoder.
pub struct Conformer {
    convolutions: Vec<(Conv2d, CumulativeNorm)>,
    input: Linear, // [hidden, pitches * channels]
    blocks: Vec<Block>,
    /// Rows of which one is kept.
    reduction: usize,
}

/// A norm by the mean and variance of all that was before, over pitches and channels.
struct CumulativeNorm {
    weight: Tensor, // [channels]
    eps: f64,
}

struct Block {
    start: FeedForward,
    before: Norm,
    qkv: Linear, // [3 * hidden, hidden]
    attention: Nearby,
    post: Linear, // [hidden, hidden]
    after: Norm,
    convolution: LightConvolution,
    end: FeedForward,
    norm: Norm,
}

struct FeedForward {
    norm: Norm,
    up: Linear,
    down: Linear,
    after: Norm,
}

struct LightConvolution {
    norm: Norm,
    gated: Linear, // [2 * hidden, hidden]: gates first
    filter: DepthwiseConv2d,
    after: Norm,
    out: Linear, // [hidden, hidden]
}

impl Conformer {
    pub fn load(config: &AudioConfig, w: &Weights) -> Result<Self, NnError> {
        let (w, hidden) = (w.role(Role::Encoder), config.tokens.hidden_size);
        let subsample = w.at("subsample_conv_projection");
        let (mut channels, mut pitches, mut convolutions) = (1, config.input_feat_size, Vec::new());
        let sizes = config.sscp_conv_channel_size.iter().zip(&config.sscp_conv_kernel_size).zip(&config.sscp_conv_stride_size);
        for (i, ((&outputs, &kernel), &stride)) in sizes.enumerate() {
            let w = subsample.at(format!("conv_{i}"));
            let padding = Padding::Lines([[0, kernel[0] - 1], [1, 1]]);
            let conv = Conv2d::load("conv", [channels, outputs], Window { kernel, stride, padding }, &w)?;
            let norm = CumulativeNorm { weight: w.tensor("norm.weight", &[outputs])?, eps: config.sscp_conv_group_norm_eps };
            convolutions.push((conv, norm));
            (channels, pitches) = (outputs, (pitches + 2 - kernel[1]) / stride[1] + 1);
        }
        let block = |i| Block::load(config, &w.at("conformer").at(i));
        Ok(Self {
            convolutions,
            input: subsample.linear("input_proj_linear", pitches * channels, hidden, Bias::Absent)?,
            blocks: (0..config.conf_num_hidden_layers).map(block).collect::<Result<_, _>>()?,
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
        let mut x = self.input.forward(&map.rows.reshape((times, pitches * channels))?)?;
        for block in &self.blocks {
            x = block.forward(x, pause)?;
        }
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

impl Block {
    fn load(config: &AudioConfig, w: &Weights) -> Result<Self, NnError> {
        let hidden = config.tokens.hidden_size;
        let attention = w.at("attention");
        let (qkv, nearby) = load_attention(config, &attention.at("attn"))?;
        Ok(Self {
            start: FeedForward::load(config, &w.at("ffw_layer_start"))?,
            before: attention.norm("pre_attn_norm", hidden, NORM)?,
            qkv,
            attention: nearby,
            post: attention.linear("post", hidden, hidden, Bias::Absent)?,
            after: attention.norm("post_norm", hidden, NORM)?,
            convolution: LightConvolution::load(config, &w.at("lconv1d"))?,
            end: FeedForward::load(config, &w.at("ffw_layer_end"))?,
            norm: w.norm("norm", hidden, NORM)?,
        })
    }

    fn forward(&self, x: Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        pause()?;
        let x = self.start.forward(x)?;
        pause()?;
        let mixed = self.attention.forward(&self.qkv.forward(&self.before.forward(&x)?)?)?;
        let x = (x + self.after.forward(&self.post.forward(&mixed)?)?)?;
        let x = self.convolution.forward(x)?;
        pause()?;
        self.norm.forward(&self.end.forward(x)?)
    }
}

/// The projection, whose queries are scaled, and embeddings of how far back a row is.
fn load_attention(config: &AudioConfig, w: &Weights) -> Result<(Linear, Nearby), NnError> {
    let (hidden, heads) = (config.tokens.hidden_size, config.conf_num_attention_heads);
    let head_dim = hidden / heads;
    let weight = |name: &str| w.tensor(&format!("{name}.weight"), &[hidden, hidden]);
    let softplus = |x: f64| x.exp().ln_1p();
    let scales = w.tensor("per_dim_scale", &[head_dim])?.to_vec1::<f32>().map_err(NnError::from)?;
    let scale = |x: &f32| (softplus(f64::from(*x)) / softplus(0.0) / (head_dim as f64).sqrt()) as f32;
    let scales: Vec<f32> = scales.iter().map(scale).collect::<Vec<_>>().repeat(heads);
    let queries = weight("q_proj")?.broadcast_mul(&Tensor::new(scales, w.device())?.unsqueeze(1)?)?;
    let qkv = w.linear_of(Tensor::cat(&[queries, weight("k_proj")?, weight("v_proj")?], 0)?, None)?;
    let project = weight("relative_position_embedding.pos_proj")?.t()?;
    let nearby = Nearby {
        qkv: Qkv { heads, kv_heads: heads, head_dim },
        distances: waves(config.conf_attention_context_left, hidden, w)?.matmul(&project)?,
        softcap: config.conf_attention_logit_cap,
    };
    Ok((qkv, nearby))
}

/// Sines and cosines of distances from 0 on, [distances, width]; wavelengths are a geometric series.
fn waves(distances: usize, width: usize, w: &Weights) -> Result<Tensor, NnError> {
    let half = width / 2;
    let frequency = |i: usize| WAVELENGTH_MAX.powf(-(i as f64) / (half.max(2) - 1) as f64);
    let angles = |distance: usize| (0..half).map(move |i| distance as f64 * frequency(i));
    let row = |distance: usize| angles(distance).map(f64::sin).chain(angles(distance).map(f64::cos));
    let numbers: Vec<f32> = (0..distances).flat_map(row).map(|x| x as f32).collect();
    Ok(Tensor::from_vec(numbers, (distances, 2 * half), w.device())?)
}

impl FeedForward {
    fn load(config: &AudioConfig, w: &Weights) -> Result<Self, NnError> {
        let hidden = config.tokens.hidden_size;
        let mut after = w.norm("post_layer_norm", hidden, NORM)?;
        if let Norm::Rms { weight, .. } = &mut after {
            *weight = (&*weight * config.conf_residual_weight)?;
        }
        Ok(Self {
            norm: w.norm("pre_layer_norm", hidden, NORM)?,
            up: w.linear("ffw_layer_1", hidden, 4 * hidden, Bias::Absent)?,
            down: w.linear("ffw_layer_2", 4 * hidden, hidden, Bias::Absent)?,
            after,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor, NnError> {
        let inner = Activation::Silu.forward(self.up.forward(&self.norm.forward(&x)?)?)?;
        Ok((x + self.after.forward(&self.down.forward(&inner)?)?)?)
    }
}

impl LightConvolution {
    fn load(config: &AudioConfig, w: &Weights) -> Result<Self, NnError> {
        let hidden = config.tokens.hidden_size;
        let norm = config.tokens.norm();
        let taps = config.conf_conv_kernel_size;
        let part = |range| Outputs::some("linear_start", 2 * hidden, range);
        let window = Window { kernel: [1, taps], stride: [1, 1], padding: Padding::Lines([[0, 0], [taps - 1, 0]]) };
        Ok(Self {
            norm: w.norm("pre_layer_norm", hidden, norm)?,
            gated: w.stacked_outputs(&[part(hidden..2 * hidden), part(0..hidden)], hidden, Bias::Absent)?,
            filter: DepthwiseConv2d::load("depthwise_conv1d", hidden, window, w)?,
            after: w.norm("conv_norm", hidden, norm)?,
            out: w.linear("linear_end", hidden, hidden, Bias::Absent)?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor, NnError> {
        let rows = Activation::Sigmoid.gate(self.gated.forward(&self.norm.forward(&x)?)?)?;
        let size = [1, rows.dim(0)?];
        let filtered = self.filter.forward(&FeatureMap { rows, size })?;
        let inner = Activation::Silu.forward(self.after.forward(&filtered.rows)?)?;
        self.out.add_to(x, &inner)
    }
}
