use nn::{
    Activation, Bias, Biased, Conv2d, DepthwiseConv2d, Device, FeatureMap, Linear, MediaInput, NnError, Norm, NormConfig,
    Padding, Pause, Qkv, Tensor, Weights, Window, add_to, scale,
};

use super::config::{AudioConfig, Names};

/// A spectrogram → rows: three convolutions that make it eight times as coarse, conformer blocks (Gulati et al. 2020,
/// arXiv:2005.08100) whose attention has a bias for each distance, two matrices.
pub struct Ears {
    mean: Tensor,      // [bands]
    deviation: Tensor, // its inverse, [bands]
    first: Conv2d,
    later: Vec<Separable>,
    rows: Linear, // [width, bands / 8 * channels]
    blocks: Vec<Block>,
    attention: Biased,
    alone: Projection,
    beside_pictures: Projection,
}

/// [1, frames, bands], as the reference's processor calls it.
pub const FEATURES: &str = "audio_input_features";
/// There where the prompt has pictures, too.
pub const BESIDE_PICTURES: &str = "beside_pictures";
/// Frames of a spectrogram that a row stands for.
pub const FRAMES_PER_ROW: usize = 8;
/// Rows that hear each other; longer sounds are heard in parts, of which the last is filled up with zeros.
const ROWS_AT_ONCE: usize = 500;
/// Rows whose convolutions are made together: their intermediate results take some 20 MB.
const ROWS_CONVOLVED: usize = 32;
/// Lines are frames, columns are bands.
const COARSER: Window = Window { kernel: [3; 2], stride: [2; 2], padding: Padding::Lines([[1; 2]; 2]) };
const NORM: NormConfig = NormConfig::Layer { eps: 1e-5 };

/// Rows that so many frames become.
pub fn rows(frames: usize) -> usize {
    frames.div_ceil(FRAMES_PER_ROW)
}

/// A filter for each channel, and a mixture of channels.
struct Separable {
    filter: DepthwiseConv2d,
    mix: Linear,
}

struct Block {
    feed_forward: [FeedForward; 2],
    before_attention: Norm,
    qkv: Linear,
    out: Linear,
    convolution: Convolution,
    norm: Norm,
}

struct FeedForward {
    norm: Norm,
    values_gates: Linear,
    down: Linear,
}

struct Convolution {
    norm: Norm,
    values_gates: Linear,
    separable: Separable,
    out: Linear,
}

struct Projection {
    up: Linear,
    down: Linear,
}

impl Ears {
    /// `w` is where `encoder` and the projections are.
    pub fn load(config: &AudioConfig, names: &Names, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (encoder, width, heads) = (w.at("encoder"), config.hidden_size, config.num_attention_heads);
        let (bands, channels) = (config.input_size, config.nemo_conv_channels);
        let statistics = encoder.at("encoder_embedding");
        let embed = encoder.at("embed");
        let conv = embed.at("conv");
        let bias = encoder.tensor("relative_attention_bias_layer.bias_values.weight", &[2 * config.bias_max_distance, heads])?;
        let later = [("2", "3"), ("5", "6")].map(|(filter, mix)| Separable::load([filter, mix], [channels; 2], COARSER, &conv));
        Ok(Self {
            mean: statistics.tensor("global_mean", &[bands])?,
            deviation: statistics.tensor("global_invstd", &[bands])?,
            first: Conv2d::load("0", [1, channels], COARSER, Bias::Present, &conv)?,
            later: later.into_iter().collect::<Result<_, _>>()?,
            rows: flattened(&embed, width, channels, rows(bands))?,
            blocks: (0..config.num_blocks)
                .map(|i| Block::load(config, names, &encoder.at("encoders").at(i)))
                .collect::<Result<_, _>>()?,
            attention: Biased { qkv: Qkv { heads, kv_heads: heads, head_dim: width / heads }, bias: bias.t()?.contiguous()? },
            alone: Projection::load(names.speech, width, hidden, w)?,
            beside_pictures: Projection::load(names.speech_beside_pictures, width, hidden, w)?,
        })
    }

    fn device(&self) -> &Device {
        self.mean.device()
    }

    /// [input.rows, hidden]
    pub fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let bands = self.mean.dim(0)?;
        let frames = input.arrays.get(FEATURES).and_then(|array| array.shape.get(1)).copied().unwrap_or_default();
        let x = input.tensor(FEATURES, &[1, frames, bands], self.device())?.get(0)?;
        let x = x.broadcast_sub(&self.mean)?.broadcast_mul(&self.deviation)?;
        let x = self.convolved(&x, pause)?;
        let count = x.dim(0)?;
        let parts = (0..count).step_by(ROWS_AT_ONCE).map(|first| {
            let rows = ROWS_AT_ONCE.min(count - first);
            let part = x.narrow(0, first, rows)?;
            // A sound that is heard at once is as long as it is.
            let filled = if count > ROWS_AT_ONCE { part.pad_with_zeros(0, 0, ROWS_AT_ONCE - rows)? } else { part };
            Ok(self.heard(filled, pause)?.narrow(0, 0, rows)?)
        });
        let x = Tensor::cat(&parts.collect::<Result<Vec<_>, NnError>>()?, 0)?;
        pause()?;
        let projection = if input.arrays.contains_key(BESIDE_PICTURES) { &self.beside_pictures } else { &self.alone };
        projection.forward(&x)
    }

    /// [frames, bands] → [rows, width], some rows at a time.
    fn convolved(&self, x: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let (frames, bands) = x.dims2()?;
        let mut parts = Vec::new();
        for first in (0..rows(frames)).step_by(ROWS_CONVOLVED) {
            // The frames of a row reach into those of the one before, which is made again and dropped.
            let before = usize::from(first > 0);
            let begin = (first - before) * FRAMES_PER_ROW;
            let end = frames.min((first + ROWS_CONVOLVED) * FRAMES_PER_ROW);
            let size = [end - begin, bands];
            let map = FeatureMap { rows: x.narrow(0, begin, size[0])?.reshape((size[0] * bands, 1))?, size };
            pause()?;
            let mut map = self.first.forward(&map, |x| Activation::Relu.forward(x))?;
            for part in &self.later {
                pause()?;
                map = part.forward(&map)?;
                map.rows = Activation::Relu.forward(map.rows)?;
            }
            let y = self.rows.forward(&map.rows.reshape((map.size[0], ()))?)?;
            parts.push(y.narrow(0, before, y.dim(0)? - before)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn heard(&self, mut x: Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        for block in &self.blocks {
            x = block.forward(x.contiguous()?, &self.attention, pause)?;
        }
        Ok(x)
    }
}

/// What takes the columns of a coarse spectrogram, [columns, channels]; the checkpoint has channels before columns.
fn flattened(w: &Weights, width: usize, channels: usize, columns: usize) -> Result<Linear, NnError> {
    let weight = w.tensor("out.weight", &[width, channels * columns])?.reshape((width, channels, columns))?;
    let weight = weight.transpose(1, 2)?.contiguous()?.reshape((width, columns * channels))?;
    w.linear_of(weight, Some(w.tensor("out.bias", &[width])?))
}

impl Separable {
    fn load([filter, mix]: [&str; 2], [inputs, outputs]: [usize; 2], window: Window, w: &Weights) -> Result<Self, NnError> {
        let ones = if window.kernel[0] == 1 { vec![inputs, 1] } else { vec![inputs, 1, 1] };
        Ok(Self {
            filter: DepthwiseConv2d::load(filter, inputs, window, Bias::Present, w)?,
            mix: w.patch_linear(mix, &ones, outputs, Bias::Present)?,
        })
    }

    fn forward(&self, x: &FeatureMap) -> Result<FeatureMap, NnError> {
        let FeatureMap { rows, size } = self.filter.forward(x)?;
        Ok(FeatureMap { rows: self.mix.forward(&rows)?, size })
    }
}

impl Block {
    fn load(config: &AudioConfig, names: &Names, w: &Weights) -> Result<Self, NnError> {
        let (width, attention) = (config.hidden_size, w.at("self_attn"));
        let [q, k, v, out] = names.attention;
        let feed_forward = |name| FeedForward::load(config, names, &w.at(name));
        Ok(Self {
            feed_forward: [feed_forward("feed_forward_in")?, feed_forward("feed_forward_out")?],
            before_attention: w.norm("layer_norm_att", width, NORM)?,
            qkv: attention.stacked(&[(q, width), (k, width), (v, width)], width, Bias::Present)?,
            out: attention.linear(out, width, width, Bias::Present)?,
            convolution: Convolution::load(config, &w.at("conv"))?,
            norm: w.norm("layer_norm", width, NORM)?,
        })
    }

    fn forward(&self, x: Tensor, attention: &Biased, pause: &mut Pause) -> Result<Tensor, NnError> {
        let [first, last] = &self.feed_forward;
        pause()?;
        let x = first.add_half_to(x)?;
        pause()?;
        let seen = attention.forward(&self.qkv.forward(&self.before_attention.forward(&x)?)?)?;
        let x = self.out.add_to(x, &seen)?;
        pause()?;
        let x = self.convolution.add_to(x)?;
        pause()?;
        self.norm.forward(&last.add_half_to(x)?)
    }
}

impl FeedForward {
    fn load(config: &AudioConfig, names: &Names, w: &Weights) -> Result<Self, NnError> {
        let (width, inner, [up, down]) = (config.hidden_size, config.intermediate_size, names.feed_forward);
        Ok(Self {
            norm: w.norm("layer_norm", width, NORM)?,
            values_gates: w.linear(up, width, 2 * inner, Bias::Present)?,
            down: w.linear(down, inner, width, Bias::Present)?,
        })
    }

    fn add_half_to(&self, x: Tensor) -> Result<Tensor, NnError> {
        let inner = Activation::Silu.gate_last(self.values_gates.forward(&self.norm.forward(&x)?)?)?;
        add_to(x, &scale(self.down.forward(&inner)?, 0.5)?)
    }
}

impl Convolution {
    fn load(config: &AudioConfig, w: &Weights) -> Result<Self, NnError> {
        let (width, taps, inner) = (config.hidden_size, config.kernel_size, config.depthwise_separable_out_channel);
        let latest = Padding::Lines([[0; 2], [taps - 1, 0]]);
        let window = Window { kernel: [1, taps], stride: [1; 2], padding: latest };
        Ok(Self {
            norm: w.norm("layer_norm", width, NORM)?,
            values_gates: gated(config, &w.at("glu"))?,
            separable: Separable::load(["dw_conv", "pw_conv"], [width, inner], window, &w.at("dw_sep_conv_1d"))?,
            out: w.patch_linear("ext_pw_conv_1d", &[inner, 1], config.ext_pw_out_channel, Bias::Present)?,
        })
    }

    fn add_to(&self, x: Tensor) -> Result<Tensor, NnError> {
        let rows = Activation::Silu.gate_last(self.values_gates.forward(&self.norm.forward(&x)?)?)?;
        let size = [1, rows.dim(0)?];
        let inner = Activation::Silu.forward(self.separable.forward(&FeatureMap { rows, size })?.rows)?;
        self.out.add_to(x, &inner)
    }
}

/// Values, then gates; both have a further bias.
fn gated(config: &AudioConfig, w: &Weights) -> Result<Linear, NnError> {
    let (width, outputs) = (config.hidden_size, config.ext_pw_out_channel);
    let weight = w.tensor("ext_pw_conv_1d.weight", &[2 * outputs, width, 1])?.squeeze(2)?;
    let further = ["b1", "b2"].map(|name| Ok::<_, NnError>(w.tensor(name, &[1, outputs, 1])?.flatten_all()?));
    let further = Tensor::cat(&further.into_iter().collect::<Result<Vec<_>, _>>()?, 0)?;
    w.linear_of(weight, Some((w.tensor("ext_pw_conv_1d.bias", &[2 * outputs])? + further)?))
}

impl Projection {
    fn load([up, down]: [&str; 2], width: usize, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        Ok(Self { up: w.linear(up, width, hidden, Bias::Present)?, down: w.linear(down, hidden, hidden, Bias::Present)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        self.down.forward(&Activation::Gelu.forward(self.up.forward(x)?)?)
    }
}
