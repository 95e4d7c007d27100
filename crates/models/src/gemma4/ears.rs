use nn::{
    Activation, Bias, Conv2d, FeatureMap, Linear, MediaInput, NnError, Norm, NormConfig, Padding, Pause, Role, Tensor, Weights,
    Window,
};

use super::config::AudioConfig;
use crate::conformer::Conformer;

/// A spectrogram → rows as wide as the decoder: two convolutions that make it four times as coarse, blocks, and a projection.
pub struct Ears {
    subsampling: [Subsampling; 2],
    rows: Linear, // [width, bands / 4 * channels]
    blocks: Conformer,
    out: Linear, // [out, width]
    norm: Norm,
    projection: Linear, // [hidden, out]
    bands: usize,
}

struct Subsampling {
    convolution: Conv2d,
    norm: Norm,
}

/// [1, frames, bands], as the reference's processor calls it.
pub const FEATURES: &str = "input_features";
/// Frames of a spectrogram that a row stands for.
pub const FRAMES_PER_ROW: usize = 4;
/// Lines are frames, columns are bands.
const WINDOW: Window = Window { kernel: [3; 2], stride: [2; 2], padding: Padding::Lines([[1; 2]; 2]) };

/// Rows that so many frames become.
pub fn rows(frames: usize) -> usize {
    frames.div_ceil(FRAMES_PER_ROW)
}

impl Ears {
    /// `w` is where `audio_tower` and `embed_audio` are.
    pub fn load(config: &AudioConfig, bands: usize, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let (tower, embed, out) = (w.at("audio_tower"), w.at("embed_audio"), config.output_proj_dims);
        let (first, width, [a, b]) =
            (tower.at("subsample_conv_projection"), config.hidden_size, config.subsampling_conv_channels);
        let subsampling = |name: &str, channels: [usize; 2]| Subsampling::load(config, channels, &first.at(name));
        Ok(Self {
            subsampling: [subsampling("layer0", [1, a])?, subsampling("layer1", [a, b])?],
            rows: first.linear("input_proj_linear", bands.div_ceil(FRAMES_PER_ROW) * b, width, Bias::Absent)?,
            blocks: Conformer::load(&config.conformer(), &tower.at("layers"))?,
            out: tower.linear("output_proj", width, out, Bias::Present)?,
            norm: embed.norm("embedding_pre_projection_norm", out, NormConfig::RmsUnweighted { eps: config.rms_norm_eps })?,
            projection: embed.linear("embedding_projection", out, hidden, Bias::Absent)?,
            bands,
        })
    }

    /// [input.rows, hidden]
    pub fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let frames = input.arrays.get(FEATURES).and_then(|array| array.shape.get(1)).copied().unwrap_or_default();
        let spectrogram = input.tensor(FEATURES, &[1, frames, self.bands], self.norm.device())?;
        let mut map = FeatureMap { rows: spectrogram.reshape((frames * self.bands, 1))?, size: [frames, self.bands] };
        for part in &self.subsampling {
            pause()?;
            map = part.forward(&map)?;
        }
        let x = self.rows.forward(&map.rows.reshape((map.size[0], ()))?)?;
        let states = self.out.forward(&self.blocks.forward(x, pause)?)?;
        self.projection.forward(&self.norm.forward(&states)?)
    }
}

impl Subsampling {
    fn load(config: &AudioConfig, channels: [usize; 2], w: &Weights) -> Result<Self, NnError> {
        Ok(Self {
            convolution: Conv2d::load("conv", channels, WINDOW, Bias::Absent, w)?,
            norm: w.norm("norm", channels[1], NormConfig::LayerUnbiased { eps: config.rms_norm_eps })?,
        })
    }

    fn forward(&self, x: &FeatureMap) -> Result<FeatureMap, NnError> {
        self.convolution.forward(x, |places| Activation::Relu.forward(self.norm.forward(&places)?))
    }
}
