//! Conformer blocks (Gulati et al. 2020, arXiv:2005.08100) of the Universal Speech Model (Zhang et al. 2023, arXiv:2303.01037): each
//! row sees the latest ones alone. What makes rows of a spectrogram, and what becomes of them, is the families' affair.

use nn::{
    Activation, Bias, DepthwiseConv2d, FeatureMap, Nearby, NnError, Norm, NormConfig, Padding, Pause, Qkv, Tensor, Weights,
    Window, add_to, scale_columns,
};

use crate::projection::{Projection, Stored};

/// Sizes of a stack of blocks, and what their parts are called in the checkpoint.
#[derive(Debug, Clone)]
pub struct ConformerConfig {
    /// Width of a row.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Blocks.
    pub layers: usize,
    /// Rows that a row sees, itself included.
    pub seen: usize,
    /// Factor on keys, but not on what tells distances.
    pub key_scale: f64,
    /// Attention scores s become cap * tanh(s / cap).
    pub softcap: f64,
    /// Factor on what the feed-forward parts add.
    pub residual_weight: f64,
    /// Rows that the convolution looks at, the own one included.
    pub taps: usize,
    /// Behind the convolution, and in the feed-forward parts.
    pub activation: Activation,
    /// Of the norms around the convolution: added to the mean square.
    pub norm_eps: f64,
    /// How linear layers are stored.
    pub stored: Stored,
    /// Names in the checkpoint.
    pub names: &'static ConformerNames,
}

/// What the parts of a block are called.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)] // one name each
pub struct ConformerNames {
    pub feed_forward: [&'static str; 2],
    pub before_attention: &'static str,
    /// Where `q_proj`, `k_proj`, `v_proj` and `per_dim_scale` are.
    pub attention: &'static str,
    /// What projects the waves that tell distances.
    pub distances: &'static str,
    pub out: &'static str,
    pub after_attention: &'static str,
    pub norm: &'static str,
}

/// Of the norms around attention and feed-forward parts, whatever config.json says.
const NORM: NormConfig = NormConfig::Rms { eps: 1e-6 };
/// Distances are told by waves whose lengths grow from 2π to this many times as much.
const WAVES: f64 = 10_000.0;

/// A loaded stack of blocks.
pub struct Conformer(Vec<Block>);

struct Block {
    feed_forward: [FeedForward; 2],
    attention: Attention,
    convolution: Convolution,
    norm: Norm,
}

struct FeedForward {
    before: Norm,
    up: Projection,
    activation: Activation,
    down: Projection,
    after: Norm,
}

struct Attention {
    before: Norm,
    qkv: Projection,
    scales: Tensor, // of queries, and one for keys and values: [3 * width]
    nearby: Nearby,
    out: Projection,
    after: Norm,
}

struct Convolution {
    before: Norm,
    start: Projection,
    filter: DepthwiseConv2d,
    norm: Norm,
    activation: Activation,
    end: Projection,
}

impl Conformer {
    /// Loads blocks 0, 1, … of those where `w` stands.
    pub fn load(config: &ConformerConfig, w: &Weights) -> Result<Self, NnError> {
        Ok(Self((0..config.layers).map(|i| Block::load(config, &w.at(i))).collect::<Result<_, _>>()?))
    }

    /// x [rows, width] → the same shape.
    pub fn forward(&self, mut x: Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        for block in &self.0 {
            x = block.forward(x, pause)?;
        }
        Ok(x)
    }
}

impl ConformerConfig {
    fn head_dim(&self) -> usize {
        self.width / self.heads
    }
}

impl Block {
    fn load(config: &ConformerConfig, w: &Weights) -> Result<Self, NnError> {
        let [first, last] = config.names.feed_forward;
        Ok(Self {
            feed_forward: [FeedForward::load(config, &w.at(first))?, FeedForward::load(config, &w.at(last))?],
            attention: Attention::load(config, w)?,
            convolution: Convolution::load(config, &w.at("lconv1d"))?,
            norm: w.norm(config.names.norm, config.width, NORM)?,
        })
    }

    /// What the reference clips in passing, at 10^10, is not clipped: that is for formats which hold no larger numbers.
    fn forward(&self, x: Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let [first, last] = &self.feed_forward;
        pause()?;
        let x = first.add_to(x)?;
        pause()?;
        let x = self.attention.add_to(x)?;
        pause()?;
        let x = self.convolution.add_to(x)?;
        pause()?;
        self.norm.forward(&last.add_to(x)?)
    }
}

impl FeedForward {
    fn load(config: &ConformerConfig, w: &Weights) -> Result<Self, NnError> {
        let (width, stored) = (config.width, config.stored);
        let mut after = w.norm("post_layer_norm", width, NORM)?;
        if let Norm::Rms { weight, .. } = &mut after {
            *weight = (&*weight * config.residual_weight)?;
        }
        Ok(Self {
            before: w.norm("pre_layer_norm", width, NORM)?,
            up: Projection::load(&[("ffw_layer_1", 4 * width)], width, stored, w)?,
            activation: config.activation,
            down: Projection::load(&[("ffw_layer_2", width)], 4 * width, stored, w)?,
            after,
        })
    }

    fn add_to(&self, x: Tensor) -> Result<Tensor, NnError> {
        let inner = self.activation.forward(self.up.forward(&self.before.forward(&x)?)?)?;
        add_to(x, &self.after.forward(&self.down.forward(&inner)?)?)
    }
}

impl Attention {
    /// Scores are s q · (c k + e), where s is learned, c the factor on keys, and e what tells the distance: s c goes to the queries, and
    /// 1 / c to e.
    fn load(config: &ConformerConfig, w: &Weights) -> Result<Self, NnError> {
        let (width, names, key_scale) = (config.width, config.names, config.key_scale);
        let attention = w.at(names.attention);
        let learned = attention.tensor("per_dim_scale", &[config.head_dim()])?.to_vec1::<f32>().map_err(NnError::from)?;
        let softplus = |x: f64| x.exp().ln_1p();
        let plain = (config.head_dim() as f64).powf(-0.5) / softplus(0.0) * key_scale;
        let queries = learned.iter().map(|x| (softplus(f64::from(*x)) * plain) as f32).cycle().take(width);
        let scales: Vec<f32> = queries.chain(std::iter::repeat_n(1.0, 2 * width)).collect();
        let waves = Tensor::from_vec(waves(config.seen, width), (config.seen, width), w.device())?;
        let distances = w.linear(names.distances, width, width, Bias::Absent)?.forward(&waves)?;
        let parts = [("q_proj", width), ("k_proj", width), ("v_proj", width)];
        Ok(Self {
            before: w.norm(names.before_attention, width, NORM)?,
            qkv: Projection::load(&parts, width, config.stored, &attention)?,
            scales: Tensor::from_vec(scales, 3 * width, w.device())?,
            nearby: Nearby {
                qkv: Qkv { heads: config.heads, kv_heads: config.heads, head_dim: config.head_dim() },
                distances: (distances / key_scale)?,
                softcap: config.softcap,
            },
            out: Projection::load(&[(names.out, width)], width, config.stored, w)?,
            after: w.norm(names.after_attention, width, NORM)?,
        })
    }

    fn add_to(&self, x: Tensor) -> Result<Tensor, NnError> {
        let qkv = scale_columns(self.qkv.forward(&self.before.forward(&x)?)?, &self.scales)?;
        let made = self.out.forward(&self.nearby.forward(&qkv)?)?;
        add_to(x, &self.after.forward(&made)?)
    }
}

/// What tells distances from zero on: sines, then cosines, [seen, width].
fn waves(seen: usize, width: usize) -> Vec<f32> {
    let count = width / 2;
    let frequency = |i: usize| WAVES.powf(-(i as f64) / (count.max(2) - 1) as f64);
    let of = |distance: usize, wave: fn(f64) -> f64| (0..count).map(move |i| wave(distance as f64 * frequency(i)) as f32);
    (0..seen).flat_map(|distance| of(distance, f64::sin).chain(of(distance, f64::cos)).collect::<Vec<_>>()).collect()
}

impl Convolution {
    fn load(config: &ConformerConfig, w: &Weights) -> Result<Self, NnError> {
        let (width, stored, norm) = (config.width, config.stored, NormConfig::Rms { eps: config.norm_eps });
        let latest = Padding::Lines([[0; 2], [config.taps - 1, 0]]);
        let window = Window { kernel: [1, config.taps], stride: [1; 2], padding: latest };
        Ok(Self {
            before: w.norm("pre_layer_norm", width, norm)?,
            start: Projection::load(&[("linear_start", 2 * width)], width, stored, w)?,
            filter: DepthwiseConv2d::load("depthwise_conv1d", width, window, Bias::Absent, w)?,
            norm: w.norm("conv_norm", width, norm)?,
            activation: config.activation,
            end: Projection::load(&[("linear_end", width)], width, stored, w)?,
        })
    }

    fn add_to(&self, x: Tensor) -> Result<Tensor, NnError> {
        let rows = Activation::Sigmoid.gate_last(self.start.forward(&self.before.forward(&x)?)?)?;
        let size = [1, rows.dim(0)?];
        let filtered = self.filter.forward(&FeatureMap { rows, size })?;
        let inner = self.activation.forward(self.norm.forward(&filtered.rows)?)?;
        add_to(x, &self.end.forward(&inner)?)
    }
}
