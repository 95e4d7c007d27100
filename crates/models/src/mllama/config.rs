use nn::{Activation, CrossAttentionConfig, DecoderConfig, Files, LayerGates, Mixer, NormConfig, Scores};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, TextConfig, head, read, read_part, require};
use crate::pixels::{PixelDefaults, Size};

/// Tokens at the end of the table that are never written: the mark of a picture, and room for more.
const UNSPOKEN: usize = 8;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_index: u32,
    pub vision_config: VisionConfig,
}

/// `vision_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_global_layers: usize,
    pub attention_heads: usize,
    num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub max_num_tiles: usize,
    pub hidden_act: Activation,
    pub norm_eps: f64,
    pub intermediate_layers_indices: Vec<usize>,
    vision_output_dim: Option<usize>,
    supported_aspect_ratios: Option<Vec<[usize; 2]>>,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
struct ProcessorConfig {
    size: Size,
    max_image_tiles: usize,
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 2 };

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8, "attention_heads": 16,
            "num_channels": 3, "image_size": 448, "patch_size": 14, "max_num_tiles": 4, "hidden_act": "gelu", "norm_eps": 1e-5,
            "intermediate_layers_indices": [3, 7, 15, 23, 30],
        });
        let config: Self = read(files, CONFIG, json!({"image_token_index": 128_256, "vision_config": vision}))?;
        config.vision_config.check(files)?;
        Ok(config)
    }

    /// The processor's configuration must be for the same tiles.
    pub fn check_processor(&self, files: &Files) -> Result<(), ModelError> {
        let defaults = json!({"size": {"height": 224, "width": 224}, "max_image_tiles": 4});
        let (given, v): (ProcessorConfig, _) = (read(files, PREPROCESSOR, defaults)?, &self.vision_config);
        let fits = given.size.height == Some(v.image_size) && given.size.width == Some(v.image_size);
        let side = v.image_size;
        require(fits, files, PREPROCESSOR, &format!("size must be {side}x{side}, the vision_config.image_size of {CONFIG}"))?;
        let tiles = given.max_image_tiles == v.max_num_tiles;
        require(tiles, files, PREPROCESSOR, &format!("max_image_tiles must be the vision_config.max_num_tiles of {CONFIG}"))
    }
}

impl VisionConfig {
    /// Patches of a tile.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Rows of a tile: one for the whole, and the patches.
    pub fn rows_per_tile(&self) -> usize {
        1 + self.patches()
    }

    /// Elements of an encoded row before the projector: the last state, and those that are shown beside it.
    pub fn output(&self) -> usize {
        self.hidden_size * (1 + self.intermediate_layers_indices.len())
    }

    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason| require(met, files, CONFIG, reason);
        let heads = self.attention_heads;
        let divides = heads > 0 && self.hidden_size > 0 && self.hidden_size.is_multiple_of(heads);
        check(divides, "vision_config.hidden_size is not a multiple of attention_heads")?;
        check(self.num_channels == 3, "vision_config.num_channels must be 3")?;
        check(self.patch_size > 0 && self.image_size >= self.patch_size, "vision_config.image_size is smaller than patch_size")?;
        check((1..=64).contains(&self.max_num_tiles), "vision_config.max_num_tiles must be between 1 and 64")?;
        let taps = &self.intermediate_layers_indices;
        let known = taps.is_sorted_by(|a, b| a < b) && taps.iter().all(|tap| *tap < self.num_hidden_layers);
        check(known, "vision_config.intermediate_layers_indices must be ascending numbers below num_hidden_layers")?;
        let output = self.vision_output_dim.is_none_or(|output| output == self.output());
        check(
            output,
            "vision_config.vision_output_dim must be hidden_size for each of intermediate_layers_indices and once more",
        )?;
        let all = || crate::canvas::Canvas::all(self.max_num_tiles).map(|canvas| [canvas.rows, canvas.columns]);
        let ratios = self.supported_aspect_ratios.as_ref().is_none_or(|ratios| ratios.iter().copied().eq(all()));
        check(ratios, "vision_config.supported_aspect_ratios must be all of max_num_tiles, in order")
    }
}

/// Reads `text_config`.
pub fn decoder(files: &Files) -> Result<DecoderConfig, ModelError> {
    #[derive(Deserialize)]
    struct Keys {
        tie_word_embeddings: bool,
        cross_attention_layers: Vec<usize>,
    }
    let defaults = json!({
        "vocab_size": 128_256, "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 5e5, "tie_word_embeddings": false,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    });
    let text: TextConfig = read_part(files, CONFIG, "text_config", defaults.clone())?;
    let keys: Keys = read_part(files, CONFIG, "text_config", defaults)?;
    let check = |met, reason| require(met, files, CONFIG, reason);
    check(!keys.tie_word_embeddings, "text_config.tie_word_embeddings is not supported")?;
    check(text.intermediate_size > 0, "text_config.intermediate_size must be positive")?;
    let known = keys.cross_attention_layers.iter().all(|layer| *layer < text.num_hidden_layers);
    check(known, "text_config.cross_attention_layers must be numbers below num_hidden_layers")?;
    let mut decoder = text.decoder(files, head(false))?;
    decoder.unspoken = UNSPOKEN;
    for layer in keys.cross_attention_layers {
        decoder.layers[layer].mixer = Mixer::CrossAttention(CrossAttentionConfig {
            heads: text.num_attention_heads,
            kv_heads: text.kv_heads(),
            head_dim: text.head_dim(),
            qk_norm: NormConfig::Rms { eps: text.rms_norm_eps },
            scores: Scores::plain(text.head_dim()),
        });
        decoder.layers[layer].gates = LayerGates::Tanh(["cross_attn_attn_gate", "cross_attn_mlp_gate"]);
    }
    Ok(decoder)
}
