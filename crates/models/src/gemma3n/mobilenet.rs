//! MobileNet-V5, as timm's `mobilenetv5_300m_enc` has it: a stem, four stages of blocks, and the states behind the last two stages
//! put together. Every convolution is followed by an RMS norm over channels.

use nn::{
    Activation, Bias, Conv2d, DepthwiseConv2d, FeatureMap, KvFormat, Linear, NnError, Norm, NormConfig, Pause, Qkv, Role, Scores,
    Segments, Tensor, Weights, Window, attention_within, average_pool,
};

use super::config::ModelArguments;

const NORM: NormConfig = NormConfig::Rms { eps: 1e-6 };
const ACTIVATION: Activation = Activation::GeluTanh;
const PLANES: usize = 3;
const STEM: usize = 64;
/// Numbers of channels are multiples of this.
const CHANNELS: usize = 8;
/// Pixels of a picture's side for a row and a column behind the last stage.
pub const REDUCTION: usize = 32;

/// What a stage is made of.
#[derive(Debug, Clone, Copy)]
enum Block {
    /// A convolution that widens, and a projection.
    Edge { stride: usize },
    /// Up to two filters (0: none), around a projection that widens, and one back.
    Inverted { before: usize, between: usize, stride: usize, widen: usize },
    /// Queries of all places with one key and value, of fewer places where `stride` says so.
    Attention { heads: usize, head_dim: usize, stride: usize },
}

/// A stage: its channels, and its blocks.
struct Stage {
    channels: usize,
    blocks: Vec<Block>,
}

/// How the whole tower is built.
fn stages() -> [Stage; 4] {
    let filtered = |before| Block::Inverted { before, between: 0, stride: 1, widen: 4 };
    let smaller = |before| Block::Inverted { before, between: 5, stride: 2, widen: 6 };
    let plain = |widen| Block::Inverted { before: 0, between: 0, stride: 1, widen };
    let attending = |attention, times| [attention, plain(2)].repeat(times);
    let wide = Block::Attention { heads: 12, head_dim: 64, stride: 2 };
    let deep = Block::Attention { heads: 16, head_dim: 96, stride: 1 };
    [
        Stage { channels: 128, blocks: [2, 1, 1].map(|stride| Block::Edge { stride }).to_vec() },
        Stage { channels: 256, blocks: vec![smaller(3), filtered(5), filtered(3), filtered(5), filtered(3)] },
        Stage { channels: 640, blocks: [vec![smaller(5)], vec![filtered(5); 7], vec![plain(1)], attending(wide, 14)].concat() },
        Stage { channels: 1280, blocks: [vec![smaller(5)], attending(deep, 19)].concat() },
    ]
}

/// A number of channels as a multiple of [`CHANNELS`], no more than a tenth smaller.
fn rounded(channels: f64) -> usize {
    let near = ((channels + CHANNELS as f64 / 2.0) as usize / CHANNELS * CHANNELS).max(CHANNELS);
    if (near as f64) < 0.9 * channels { near + CHANNELS } else { near }
}

/// A loaded tower.
pub struct MobileNet {
    stem: Conv2d,
    stem_norm: Norm,
    stages: Vec<Vec<LoadedBlock>>,
    fused: Inverted,
    norm: Norm,
    side: usize,
}

enum LoadedBlock {
    Edge(Box<Edge>),
    Inverted(Box<Inverted>),
    Attention(Box<Attention>),
}

/// Whether a block's result is added to what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Added,
    Replaced,
}

struct Edge {
    widen: Conv2d,
    norm: Norm,
    project: Linear,
    project_norm: Norm,
    skip: Skip,
}

struct Filter {
    conv: DepthwiseConv2d,
    norm: Norm,
}

struct Inverted {
    before: Option<Filter>,
    widen: Linear,
    widen_norm: Norm,
    between: Option<Filter>,
    project: Linear,
    project_norm: Norm,
    skip: Skip,
}

struct Attention {
    norm: Norm,
    inputs: Inputs,
    out: Linear, // [channels, heads * head_dim]
    heads: usize,
    head_dim: usize,
    format: KvFormat,
}

enum Inputs {
    /// One projection: queries, key and value.
    Together(Linear),
    /// Keys and values of fewer places.
    Apart(Box<Apart>),
}

struct Apart {
    query: Linear,
    key: (Filter, Linear),
    value: (Filter, Linear),
}

impl MobileNet {
    /// Loads the tower; its rows are `width` wide.
    pub fn load(config: &ModelArguments, width: usize, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let multiplier = config.channel_multiplier;
        let mut channels = if multiplier < 1.0 { STEM } else { rounded(STEM as f64 * multiplier) };
        let stem = w.at("conv_stem");
        let (conv, stem_norm) =
            (Conv2d::of_planes("conv", [PLANES, channels], Window::square(3, 2), &stem)?, stem.norm("bn", channels, NORM)?);
        let (mut loaded, mut ends) = (Vec::new(), Vec::new());
        for (i, stage) in stages().iter().enumerate() {
            let (w, outputs) = (w.at("blocks").at(i), rounded(stage.channels as f64 * multiplier));
            let mut blocks = Vec::with_capacity(stage.blocks.len());
            for (j, block) in stage.blocks.iter().enumerate() {
                blocks.push(block.load([channels, outputs], &w.at(j))?);
                channels = outputs;
            }
            loaded.push(blocks);
            ends.push(outputs);
        }
        let msfa = w.at("msfa");
        let both = ends.iter().rev().take(2).sum();
        Ok(Self {
            stem: conv,
            stem_norm,
            stages: loaded,
            fused: Inverted::load(Block::FUSED, [both, width], Skip::Replaced, &msfa.at("ffn"))?,
            norm: msfa.norm("norm", width, NORM)?,
            side: config.msfa_output_resolution,
        })
    }

    /// Pixels of a picture [planes, side, side] → [rows, width].
    pub fn forward(&self, pixels: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let mut x = self.stem.forward_planes(pixels, |x| ACTIVATION.forward(self.stem_norm.forward(&x)?))?;
        let mut ends = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            for block in stage {
                pause()?;
                x = block.forward(x)?;
            }
            // Stages begin with a block that leaves what it is given as it is.
            ends.push(x.clone());
        }
        let [.., high, low] = &ends[..] else { return Err(NnError::Input("a tower of two stages")) };
        let both = FeatureMap { rows: Tensor::cat(&[&high.rows, &enlarged(low, high.size)?], 1)?, size: high.size };
        pause()?;
        let fused = self.fused.forward(both)?.rows.unsqueeze(0)?;
        self.norm.forward(&average_pool(&fused, self.side)?.squeeze(0)?)
    }
}

/// The nearest place for each of more places.
fn enlarged(x: &FeatureMap, size: [usize; 2]) -> Result<Tensor, NnError> {
    let from = |axis: usize, at: usize| at * x.size[axis] / size[axis];
    let places: Vec<u32> =
        (0..size[0] * size[1]).map(|i| (from(0, i / size[1]) * x.size[1] + from(1, i % size[1])) as u32).collect();
    Ok(x.rows.index_select(&Tensor::new(places, x.rows.device())?, 0)?)
}

impl Block {
    /// What puts the last stages together.
    const FUSED: Self = Self::Inverted { before: 0, between: 0, stride: 1, widen: 2 };

    fn load(self, [inputs, outputs]: [usize; 2], w: &Weights) -> Result<LoadedBlock, NnError> {
        let skip = |stride| if inputs == outputs && stride == 1 { Skip::Added } else { Skip::Replaced };
        Ok(match self {
            Self::Edge { stride } => {
                let inner = rounded(4.0 * inputs as f64);
                LoadedBlock::Edge(Box::new(Edge {
                    widen: Conv2d::load("conv_exp", [inputs, inner], Window::square(3, stride), Bias::Absent, w)?,
                    norm: w.norm("bn1", inner, NORM)?,
                    project: w.pointwise(&[("conv_pwl", outputs)], inner)?,
                    project_norm: w.norm("bn2", outputs, NORM)?,
                    skip: skip(stride),
                }))
            }
            Self::Inverted { stride, .. } => {
                LoadedBlock::Inverted(Box::new(Inverted::load(self, [inputs, outputs], skip(stride), w)?))
            }
            Self::Attention { heads, head_dim, stride } => {
                LoadedBlock::Attention(Box::new(Attention::load([heads, head_dim, stride], outputs, w)?))
            }
        })
    }
}

impl LoadedBlock {
    fn forward(&self, x: FeatureMap) -> Result<FeatureMap, NnError> {
        match self {
            Self::Edge(edge) => edge.forward(x),
            Self::Inverted(inverted) => inverted.forward(x),
            Self::Attention(attention) => attention.forward(x),
        }
    }
}

impl Edge {
    fn forward(&self, x: FeatureMap) -> Result<FeatureMap, NnError> {
        let y = self.widen.forward(&x, |inner| {
            let inner = ACTIVATION.forward(self.norm.forward(&inner)?)?;
            self.project_norm.forward(&self.project.forward(&inner)?)
        })?;
        self.skip.join(&x, y)
    }
}

impl Skip {
    fn join(self, x: &FeatureMap, y: FeatureMap) -> Result<FeatureMap, NnError> {
        match self {
            Self::Added => Ok(FeatureMap { rows: (&x.rows + y.rows)?, size: y.size }),
            Self::Replaced => Ok(y),
        }
    }
}

impl Filter {
    /// A convolution and the norm behind it.
    fn load([conv, norm]: [&str; 2], channels: usize, window: Window, w: &Weights) -> Result<Self, NnError> {
        Ok(Self { conv: DepthwiseConv2d::load(conv, channels, window, Bias::Absent, w)?, norm: w.norm(norm, channels, NORM)? })
    }

    fn forward(&self, x: &FeatureMap) -> Result<FeatureMap, NnError> {
        let FeatureMap { rows, size } = self.conv.forward(x)?;
        Ok(FeatureMap { rows: self.norm.forward(&rows)?, size })
    }
}

impl Inverted {
    fn load(block: Block, [inputs, outputs]: [usize; 2], skip: Skip, w: &Weights) -> Result<Self, NnError> {
        let Block::Inverted { before, between, stride, widen } = block else {
            return Err(NnError::Input("an inverted residual"));
        };
        let inner = rounded((widen * inputs) as f64);
        let filter = |name: &str, kernel: usize, channels: usize, stride: usize| {
            let w = w.at(name);
            (kernel > 0).then(|| Filter::load(["conv", "bn"], channels, Window::square(kernel, stride), &w)).transpose()
        };
        let mut project_norm = w.norm("pw_proj.bn", outputs, NORM)?;
        if let (Norm::Rms { weight, .. }, true) = (&mut project_norm, w.has("layer_scale.gamma")) {
            // What scales the result scales what it is multiplied by before.
            *weight = (&*weight * w.tensor("layer_scale.gamma", &[outputs])?)?;
        }
        Ok(Self {
            before: filter("dw_start", before, inputs, if between > 0 { 1 } else { stride })?,
            widen: w.pointwise(&[("pw_exp.conv", inner)], inputs)?,
            widen_norm: w.norm("pw_exp.bn", inner, NORM)?,
            between: filter("dw_mid", between, inner, stride)?,
            project: w.pointwise(&[("pw_proj.conv", outputs)], inner)?,
            project_norm,
            skip,
        })
    }

    fn forward(&self, x: FeatureMap) -> Result<FeatureMap, NnError> {
        let mut y = match &self.before {
            Some(filter) => filter.forward(&x)?,
            None => x.clone(),
        };
        y.rows = ACTIVATION.forward(self.widen_norm.forward(&self.widen.forward(&y.rows)?)?)?;
        if let Some(filter) = &self.between {
            y = filter.forward(&y)?;
            y.rows = ACTIVATION.forward(y.rows)?;
        }
        y.rows = self.project_norm.forward(&self.project.forward(&y.rows)?)?;
        self.skip.join(&x, y)
    }
}

impl Attention {
    fn load([heads, head_dim, stride]: [usize; 3], channels: usize, w: &Weights) -> Result<Self, NnError> {
        let (attn, width) = (w.at("attn"), heads * head_dim);
        let inputs = if stride == 1 {
            let parts = [("query.proj", width), ("key.proj", head_dim), ("value.proj", head_dim)];
            Inputs::Together(attn.pointwise(&parts, channels)?)
        } else {
            let fewer = |name: &str| {
                let w = attn.at(name);
                let filter = Filter::load(["down_conv", "norm"], channels, Window::square(3, stride), &w)?;
                Ok::<_, NnError>((filter, w.pointwise(&[("proj", head_dim)], channels)?))
            };
            let query = attn.pointwise(&[("query.proj", width)], channels)?;
            Inputs::Apart(Box::new(Apart { query, key: fewer("key")?, value: fewer("value")? }))
        };
        let out = attn.tensor("output.proj.weight", &[channels, width, 1, 1])?.reshape((channels, width))?;
        let scale = w.tensor("layer_scale.gamma", &[channels])?.unsqueeze(1)?;
        Ok(Self {
            norm: w.norm("norm", channels, NORM)?,
            inputs,
            out: attn.linear_of(out.broadcast_mul(&scale)?, None)?,
            heads,
            head_dim,
            format: w.attention_format(),
        })
    }

    fn forward(&self, x: FeatureMap) -> Result<FeatureMap, NnError> {
        let places = x.rows.dim(0)?;
        let normed = FeatureMap { rows: self.norm.forward(&x.rows)?, size: x.size };
        let (qkv, seen) = match &self.inputs {
            Inputs::Together(inputs) => (inputs.forward(&normed.rows)?, places),
            Inputs::Apart(apart) => {
                let Apart { query, key, value } = &**apart;
                let part = |(filter, linear): &(Filter, Linear)| linear.forward(&filter.forward(&normed)?.rows);
                let (k, v) = (part(key)?, part(value)?);
                let seen = k.dim(0)?;
                // All queries see all places, so that several places' queries are as good as more heads of one.
                let q = query.forward(&normed.rows)?.reshape((seen, places / seen * self.heads * self.head_dim))?;
                (Tensor::cat(&[q, k, v], 1)?, seen)
            }
        };
        let heads = Qkv { heads: places / seen * self.heads, kv_heads: 1, head_dim: self.head_dim };
        let scores = Scores::plain(self.head_dim);
        let mixed = attention_within(&qkv, heads, Segments::whole(&[seen]), scores, self.format)?;
        let mixed = mixed.reshape((places, self.heads * self.head_dim))?;
        Ok(FeatureMap { rows: self.out.add_to(x.rows, &mixed)?, size: x.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_to_multiples() {
        for (channels, expected) in [(2.56, 8), (12.8, 16), (25.6, 24), (1280.0, 1280), (19.0, 24), (20.0, 24), (92.0, 96)] {
            assert_eq!(rounded(channels), expected, "{channels}");
        }
    }
}
