//! Pixtral's tower: patches in the picture's own shape, turned by row and column; RMS norms, gates, and no biases.

use nn::{
    Activation, Bias, Files, Linear, MediaInput, Mlp, NnError, Norm, NormConfig, Pause, Role, Rope, Tensor, Vit, VitConfig,
    VitNames, Weights, patchify,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, RopeScalingConfig, require};
use crate::features::Features;

const NORM: NormConfig = NormConfig::Rms { eps: 1e-5 };

static NAMES: VitNames = VitNames {
    layers: "transformer.layers",
    norm1: "attention_norm",
    qkv: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    out: "attention.o_proj",
    norm2: "ffn_norm",
    up: &["feed_forward.gate_proj", "feed_forward.up_proj"],
    down: "feed_forward.down_proj",
};

/// `vision_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct PixtralConfig {
    pub hidden_size: usize,
    intermediate_size: usize,
    pub num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    pub patch_size: usize,
    hidden_act: Activation,
    rope_theta: f64,
    rope_parameters: Option<RopeScalingConfig>,
}

impl PixtralConfig {
    /// What the class says where config.json is silent.
    pub fn defaults() -> Value {
        json!({
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "num_channels": 3,
            "patch_size": 16, "hidden_act": "gelu", "rope_theta": 1e4,
        })
    }

    /// The sizes make sense together.
    pub fn check(&self, files: &Files) -> Result<(), ModelError> {
        let heads = self.num_attention_heads;
        let divides = heads > 0 && self.hidden_size > 0 && self.hidden_size.is_multiple_of(4 * heads);
        require(divides, files, CONFIG, "vision_config.hidden_size must give num_attention_heads a multiple of 4 each")?;
        require(self.patch_size > 0, files, CONFIG, "vision_config.patch_size must be positive")?;
        require(self.num_channels == 3, files, CONFIG, "vision_config.num_channels must be 3")
    }

    fn theta(&self) -> f64 {
        self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta).unwrap_or(self.rope_theta)
    }
}

/// A loaded tower.
pub struct Pixtral {
    patch_embed: Linear, // [width, channels * patch * patch]
    norm: Norm,
    blocks: Vit,
    rope: Rope,
    patch: usize,
}

impl Pixtral {
    /// Loads `patch_conv`, `ln_pre` and the blocks of `transformer` that are needed.
    pub fn load(config: &PixtralConfig, features: &Features, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let (width, patch) = (config.hidden_size, config.patch_size);
        let vit = VitConfig {
            width,
            heads: config.num_attention_heads,
            mlp: Mlp::Gated { inner: config.intermediate_size, activation: config.hidden_act },
            layers: features.blocks,
            windowed: Vec::new(),
            tapped: Vec::new(),
            norm: NORM,
            bias: Bias::Absent,
            names: &NAMES,
        };
        (features.blocks..config.num_hidden_layers).for_each(|block| w.skip(&format!("{}.{block}.", NAMES.layers)));
        w.skip("patch_positional_embedding.");
        Ok(Self {
            patch_embed: w.patch_linear("patch_conv", &[config.num_channels, patch, patch], width, Bias::Absent)?,
            norm: w.norm("ln_pre", width, NORM)?,
            blocks: Vit::load(&vit, &w)?,
            rope: Rope::rows_and_columns_by_turns(width / config.num_attention_heads, config.theta()),
            patch,
        })
    }

    /// `pixel_values` of one picture, [1, 3, height, width] → [patches, width], and how many columns of them there are.
    pub fn forward(&self, input: &MediaInput, pause: &mut Pause) -> Result<(Tensor, usize), NnError> {
        const PIXELS: &str = "pixel_values";
        let shape = input.arrays.get(PIXELS).map(|pixels| pixels.shape.as_slice());
        let Some(&[1, 3, height, width]) = shape else { return Err(NnError::Input(PIXELS)) };
        let device = self.norm.device();
        let pixels = input.tensor(PIXELS, &[1, 3, height, width], device)?;
        let (rows, columns) = ((height / self.patch) as u32, (width / self.patch) as u32);
        let positions: Vec<[u32; 3]> = (0..rows).flat_map(|row| (0..columns).map(move |column| [0, row, column])).collect();
        let rope = self.rope.table(&positions, device)?;
        let x = self.norm.forward(&self.patch_embed.forward(&patchify(&pixels, self.patch)?)?)?;
        let x = self.blocks.forward(x, &[positions.len()], Some(&rope), pause)?;
        Ok((x, columns as usize))
    }
}
