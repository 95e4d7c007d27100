//! SigLIP (Zhai et al. 2023): the tower that several families look through. Squares of pixels, learned places, pre-norm blocks.

use nn::{Bias, Files, Linear, Mlp, NnError, Norm, NormConfig, Role, SIGLIP_NAMES, Tensor, Vit, VitConfig, Weights, patchify};
use serde::Deserialize;

use crate::ModelError;
use crate::config::{CONFIG, require};

/// `vision_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct SiglipConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: nn::Activation,
    pub layer_norm_eps: f64,
}

impl SiglipConfig {
    /// Patches along a side of the picture.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }

    /// The sizes make sense together.
    pub fn check(&self, files: &Files) -> Result<(), ModelError> {
        let heads = self.num_attention_heads;
        let divides = heads > 0 && self.hidden_size.is_multiple_of(heads);
        require(divides, files, CONFIG, "vision_config.hidden_size is not a multiple of num_attention_heads")?;
        require(self.patch_size > 0 && self.side() > 0, files, CONFIG, "vision_config.image_size is smaller than patch_size")?;
        require(self.num_channels == 3, files, CONFIG, "vision_config.num_channels must be 3")
    }

    /// The blocks.
    pub fn vit(&self) -> VitConfig {
        VitConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            mlp: Mlp::Plain { inner: self.intermediate_size, activation: self.hidden_act },
            layers: self.num_hidden_layers,
            windowed: Vec::new(),
            tapped: Vec::new(),
            norm: NormConfig::Layer { eps: self.layer_norm_eps },
            bias: Bias::Present,
            names: &SIGLIP_NAMES,
        }
    }
}

/// A loaded tower.
pub struct Siglip {
    patch_embed: Linear, // [width, channels * patch * patch]
    position: Tensor,    // [1, patches, width]
    blocks: Vit,
    norm: Norm,
    config: SiglipConfig,
}

impl Siglip {
    /// Loads `embeddings`, `encoder` and `post_layernorm`.
    pub fn load(config: &SiglipConfig, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let (embeddings, width, patches) = (w.at("embeddings"), config.hidden_size, config.side() * config.side());
        let patch = [config.num_channels, config.patch_size, config.patch_size];
        Ok(Self {
            patch_embed: embeddings.patch_linear("patch_embedding", &patch, width, Bias::Present)?,
            position: embeddings.tensor("position_embedding.weight", &[patches, width])?.unsqueeze(0)?,
            blocks: Vit::load(&config.vit(), &w)?,
            norm: w.norm("post_layernorm", width, NormConfig::Layer { eps: config.layer_norm_eps })?,
            config: config.clone(),
        })
    }

    /// `pixel_values` of `views` pictures → [views, patches, width].
    pub fn forward(&self, input: &nn::MediaInput, views: usize, pause: &mut nn::Pause) -> Result<Tensor, NnError> {
        let SiglipConfig { image_size, patch_size, hidden_size: width, .. } = self.config;
        let pixels = input.tensor("pixel_values", &[views, 3, image_size, image_size], self.position.device())?;
        let patches = self.config.side().pow(2);
        let x = self.patch_embed.forward(&patchify(&pixels, patch_size)?)?;
        let x = x.reshape((views, patches, width))?.broadcast_add(&self.position)?.reshape((views * patches, width))?;
        let x = self.norm.forward(&self.blocks.forward(x, &vec![patches; views], None, pause)?)?;
        Ok(x.reshape((views, patches, width))?)
    }
}
