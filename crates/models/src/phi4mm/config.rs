use nn::{Activation, Files, Weights};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, read_part, require};
use crate::pixels::{PixelDefaults, Size};
use crate::siglip::SiglipConfig;
use crate::special_tokens::SpecialTokens;

/// Who wrote the checkpoint: names of keys and tensors differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The code that is published with it. Of the tower, config.json says nothing but the size of a tile.
    Published,
    /// transformers.
    Transformers,
}

/// What tensors are called.
pub struct Names {
    pub line_end: &'static str,
    pub between: &'static str,
    pub image_projection: [&'static str; 2],
    /// Values with gates, and the matrix behind.
    pub feed_forward: [&'static str; 2],
    /// q, k, v and out.
    pub attention: [&'static str; 4],
    pub speech: [&'static str; 2],
    pub speech_beside_pictures: [&'static str; 2],
}

const PUBLISHED: Names = Names {
    line_end: "sub_GN",
    between: "glb_GN",
    image_projection: ["img_projection.0", "img_projection.2"],
    feed_forward: ["net.0.linear", "net.2"],
    attention: ["linear_q", "linear_k", "linear_v", "linear_out"],
    speech: ["audio_projection.speech.0", "audio_projection.speech.2"],
    speech_beside_pictures: ["audio_projection.vision.0", "audio_projection.vision.2"],
};

const TRANSFORMERS: Names = Names {
    line_end: "sub_img_feature_extensor",
    between: "global_img_feature_extensor",
    image_projection: ["img_projection_up", "img_projection_down"],
    feed_forward: ["gate_up_proj", "down_proj"],
    attention: ["q_proj", "k_proj", "v_proj", "o_proj"],
    speech: ["up_proj_for_speech", "down_proj_for_speech"],
    speech_beside_pictures: ["up_proj_for_vision_speech", "down_proj_for_vision_speech"],
};

/// Ids of the tokens that stand for rows.
#[derive(Debug, Clone, Copy)]
pub struct MediaTokens {
    pub image: u32,
    pub audio: u32,
}

/// Where the tower's sizes are those of SigLIP with 448 pixels.
const TILE: usize = 448;
const PATCH: usize = 14;

impl Layout {
    pub fn of(files: &Files) -> Result<Self, ModelError> {
        let config: Value = files.required_json(CONFIG)?;
        Ok(if config["vision_config"].is_object() { Self::Transformers } else { Self::Published })
    }

    pub fn names(self) -> &'static Names {
        match self {
            Self::Published => &PUBLISHED,
            Self::Transformers => &TRANSFORMERS,
        }
    }

    pub fn media_tokens(self, files: &Files) -> Result<MediaTokens, ModelError> {
        match self {
            Self::Published => {
                let tokens = SpecialTokens::read(files)?;
                Ok(MediaTokens { image: tokens.id("<|endoftext10|>")?, audio: tokens.id("<|endoftext11|>")? })
            }
            Self::Transformers => {
                #[derive(Deserialize)]
                struct Vision {
                    image_token_id: u32,
                }
                #[derive(Deserialize)]
                struct Audio {
                    audio_token_id: u32,
                }
                let vision: Vision = read_part(files, CONFIG, "vision_config", json!({"image_token_id": 200_010}))?;
                let audio: Audio = read_part(files, CONFIG, "audio_config", json!({"audio_token_id": 200_011}))?;
                Ok(MediaTokens { image: vision.image_token_id, audio: audio.audio_token_id })
            }
        }
    }

    /// The tower, which lies below `w`.
    pub fn vision(self, files: &Files, w: &Weights) -> Result<SiglipConfig, ModelError> {
        match self {
            Self::Published => SiglipConfig::measured(vision_defaults(), files, w),
            Self::Transformers => {
                #[derive(Deserialize)]
                struct Feature {
                    feature_layer: i64,
                }
                let feature: Feature = read_part(files, CONFIG, "vision_config", json!({"feature_layer": -2}))?;
                require(feature.feature_layer == -2, files, CONFIG, "vision_config.feature_layer must be -2")?;
                let config: SiglipConfig = read_part(files, CONFIG, "vision_config", vision_defaults())?;
                config.check(files)?;
                Ok(config)
            }
        }
    }

    pub fn audio(self, files: &Files) -> Result<AudioConfig, ModelError> {
        let config: AudioConfig = match self {
            Self::Transformers => read_part(files, CONFIG, "audio_config", audio_defaults())?,
            Self::Published => {
                let given: PublishedAudio =
                    read_part(files, CONFIG, "audio_processor", json!({"config": published_audio_defaults()}))?;
                given.config.into()
            }
        };
        config.check(files)?;
        Ok(config)
    }

    /// `lora_alpha / r` of the adapters for pictures and for speech.
    pub fn scales(self, files: &Files) -> Result<[f64; 2], ModelError> {
        #[derive(Deserialize)]
        struct Lora {
            r: f64,
            lora_alpha: f64,
        }
        let scale = |mode: &str| {
            let (file, lora): (_, Lora) = match self {
                Self::Published => (CONFIG.to_string(), read_part(files, CONFIG, &format!("{mode}_lora"), json!({}))?),
                Self::Transformers => {
                    let file = format!("{mode}-lora/adapter_config.json");
                    let lora = read(files, &file, json!({}))?;
                    (file, lora)
                }
            };
            let scale = lora.lora_alpha / lora.r;
            require(scale.is_finite() && lora.r > 0.0, files, &file, "lora_alpha and r must be numbers, and r positive")?;
            Ok::<_, ModelError>(scale)
        };
        Ok([scale("vision")?, scale("speech")?])
    }
}

fn vision_defaults() -> Value {
    json!({
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "num_channels": 3,
        "image_size": TILE, "patch_size": PATCH, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
    })
}

/// The encoder of sounds, by transformers' names.
#[derive(Debug, Clone, Deserialize)]
pub struct AudioConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_blocks: usize,
    pub num_attention_heads: usize,
    pub kernel_size: usize,
    pub ext_pw_out_channel: usize,
    pub depthwise_separable_out_channel: usize,
    pub nemo_conv_channels: usize,
    pub bias_max_distance: usize,
    pub input_size: usize,
    time_reduction: usize,
    depthwise_multiplier: usize,
    chunk_size: i64,
    downsample_rate: usize,
    bias_symmetric: bool,
    activation: Activation,
    conv_activation: Activation,
    conv_glu_type: Activation,
}

fn audio_defaults() -> Value {
    json!({
        "hidden_size": 1024, "intermediate_size": 1536, "num_blocks": 24, "num_attention_heads": 16, "kernel_size": 3,
        "ext_pw_out_channel": 1024, "depthwise_separable_out_channel": 1024, "nemo_conv_channels": 1024, "bias_max_distance": 1000,
        "input_size": 80, "time_reduction": 8, "depthwise_multiplier": 1, "chunk_size": -1, "downsample_rate": 1,
        "bias_symmetric": false, "activation": "swish", "conv_activation": "swish", "conv_glu_type": "swish",
    })
}

impl AudioConfig {
    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, &format!("the encoder of sounds {reason}"));
        let heads = self.num_attention_heads;
        check(heads > 0 && self.hidden_size.is_multiple_of(heads), "must be as wide as a multiple of its attention heads")?;
        check(self.input_size > 0 && self.kernel_size > 0, "must have an input_size and a kernel_size")?;
        check(self.bias_max_distance > 0 && !self.bias_symmetric, "must have a bias for each distance and direction")?;
        let known =
            self.time_reduction == super::ears::FRAMES_PER_ROW && self.depthwise_multiplier == 1 && self.downsample_rate == 1;
        check(known, "must have a time_reduction of 8, a depthwise_multiplier of 1 and a downsample_rate of 1")?;
        check(self.chunk_size == -1, "must hear all of a sound: a chunk_size of -1")?;
        let swish = [self.activation, self.conv_activation, self.conv_glu_type] == [Activation::Silu; 3];
        check(swish, "must have swish for its activations")
    }
}

/// The same by the published names.
#[derive(Debug, Deserialize)]
struct PublishedAudio {
    config: PublishedAudioConfig,
}

#[derive(Debug, Deserialize)]
struct PublishedAudioConfig {
    attention_dim: usize,
    linear_units: usize,
    num_blocks: usize,
    attention_heads: usize,
    kernel_size: usize,
    ext_pw_out_channel: usize,
    depthwise_seperable_out_channel: usize,
    depthwise_multiplier: usize,
    nemo_conv_settings: NemoConfig,
    relative_attention_bias_args: BiasConfig,
    input_size: usize,
    time_reduction: usize,
    chunk_size: i64,
    activation: Activation,
    conv_activation: Activation,
    conv_glu_type: Activation,
}

#[derive(Debug, Deserialize)]
struct NemoConfig {
    conv_channels: usize,
}

#[derive(Debug, Deserialize)]
struct BiasConfig {
    t5_bias_max_distance: usize,
    t5_bias_symmetric: bool,
}

fn published_audio_defaults() -> Value {
    json!({
        "attention_dim": 1024, "linear_units": 1536, "num_blocks": 24, "attention_heads": 16, "kernel_size": 3,
        "ext_pw_out_channel": 1024, "depthwise_seperable_out_channel": 1024, "depthwise_multiplier": 1,
        "nemo_conv_settings": {"conv_channels": 1024},
        "relative_attention_bias_args": {"t5_bias_max_distance": 500, "t5_bias_symmetric": false}, "input_size": 80,
        "time_reduction": 8, "chunk_size": -1, "activation": "swish", "conv_activation": "swish", "conv_glu_type": "swish",
    })
}

impl From<PublishedAudioConfig> for AudioConfig {
    fn from(given: PublishedAudioConfig) -> Self {
        Self {
            hidden_size: given.attention_dim,
            intermediate_size: given.linear_units,
            num_blocks: given.num_blocks,
            num_attention_heads: given.attention_heads,
            kernel_size: given.kernel_size,
            ext_pw_out_channel: given.ext_pw_out_channel,
            depthwise_separable_out_channel: given.depthwise_seperable_out_channel,
            nemo_conv_channels: given.nemo_conv_settings.conv_channels,
            bias_max_distance: given.relative_attention_bias_args.t5_bias_max_distance,
            input_size: given.input_size,
            time_reduction: given.time_reduction,
            depthwise_multiplier: given.depthwise_multiplier,
            chunk_size: given.chunk_size,
            downsample_rate: 1,
            bias_symmetric: given.relative_attention_bias_args.t5_bias_symmetric,
            activation: given.activation,
            conv_activation: given.conv_activation,
            conv_glu_type: given.conv_glu_type,
        }
    }
}

/// Of the language model, where config.json is silent.
pub fn text_defaults() -> Value {
    json!({
        "vocab_size": 200_064, "num_key_value_heads": 8, "num_attention_heads": 24, "partial_rotary_factor": 0.75,
        "max_position_embeddings": 131_072, "tie_word_embeddings": true,
    })
}

/// preprocessor_config.json, as far as it is about pictures.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub dynamic_hd: usize,
    pub patch_size: usize,
    size: Size,
}

/// Statistics and filter of the class. The filter is that of the whole; pictures are resized by another.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 3 };

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({"dynamic_hd": 36, "patch_size": PATCH, "size": {"height": TILE, "width": TILE}});
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let check = |met, reason: &str| require(met, files, PREPROCESSOR, reason);
        check((1..=256).contains(&config.dynamic_hd), "dynamic_hd must be between 1 and 256")?;
        check(config.size.height == config.size.width && config.tile() > 0, "size must be a square")?;
        let patches = config.patch_size > 0 && config.tile().is_multiple_of(2 * config.patch_size);
        check(patches, "size must be an even number of patches of patch_size")?;
        Ok(config)
    }

    /// Pixels along a side of a tile.
    pub fn tile(&self) -> usize {
        self.size.height.unwrap_or_default()
    }
}

/// Sizes and statistics that the tower and the processor have to agree on.
pub fn check_tiles(files: &Files, vision: &SiglipConfig) -> Result<(), ModelError> {
    let processor = ProcessorConfig::read(files)?;
    let same = processor.tile() == vision.image_size && processor.patch_size == vision.patch_size;
    require(same, files, PREPROCESSOR, "size and patch_size must be image_size and patch_size of the tower")
}
