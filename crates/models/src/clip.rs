//! CLIP's tower (Radford et al. 2021), as several families look through it: SigLIP's with a row for the whole picture in front of
//! the patches, and a norm before the blocks. What follows the last state that is shown is not loaded.

use nn::{Bias, Linear, MediaInput, NnError, Norm, NormConfig, Pause, Role, Runs, Tensor, Vit, VitConfig, Weights, patchify};
use serde_json::{Value, json};

use crate::features::Features;
use crate::pixels::PixelDefaults;
use crate::siglip::SiglipConfig;

/// What the class says where `vision_config` is silent. The keys are SigLIP's.
pub fn defaults() -> Value {
    json!({
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
        "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    })
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults {
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
    resample: 3,
};

/// A loaded tower.
pub struct Clip {
    patch_embed: Linear, // [width, channels * patch * patch]
    whole: Tensor,       // [1, 1, width], its place added
    position: Tensor,    // [1, patches, width]
    norm: Norm,
    blocks: Vit,
    features: Features,
    config: SiglipConfig,
}

impl Clip {
    /// Loads `embeddings`, `pre_layrnorm` (so it is spelled) and the blocks of `encoder` that are needed.
    pub fn load(config: &SiglipConfig, features: &Features, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let (embeddings, width, patches) = (w.at("embeddings"), config.hidden_size, config.side().pow(2));
        let patch = [config.num_channels, config.patch_size, config.patch_size];
        let places = embeddings.tensor("position_embedding.weight", &[1 + patches, width])?;
        let whole = (embeddings.tensor("class_embedding", &[width])? + places.get(0)?)?;
        let vit = VitConfig { layers: features.blocks, tapped: features.tapped.clone(), ..config.vit() };
        embeddings.skip("position_ids");
        w.skip("post_layernorm.");
        (features.blocks..config.num_hidden_layers).for_each(|block| w.skip(&format!("encoder.layers.{block}.")));
        Ok(Self {
            patch_embed: embeddings.patch_linear("patch_embedding", &patch, width, Bias::Absent)?,
            whole: whole.reshape((1, 1, width))?,
            position: places.narrow(0, 1, patches)?.unsqueeze(0)?,
            norm: w.norm("pre_layrnorm", width, NormConfig::Layer { eps: config.layer_norm_eps })?,
            blocks: Vit::load(&vit, &w)?,
            features: features.clone(),
            config: config.clone(),
        })
    }

    /// `pixel_values` of `views` pictures → [views, 1 + patches, width * parts]. The first row is about the whole picture.
    pub fn forward(&self, input: &MediaInput, views: usize, pause: &mut Pause) -> Result<Tensor, NnError> {
        let SiglipConfig { image_size, patch_size, hidden_size: width, .. } = self.config;
        let pixels = input.tensor("pixel_values", &[views, 3, image_size, image_size], self.position.device())?;
        let patches = self.config.side().pow(2);
        let x = self.patch_embed.forward(&patchify(&pixels, patch_size)?)?;
        let x = x.reshape((views, patches, width))?.broadcast_add(&self.position)?;
        let x = Tensor::cat(&[self.whole.expand((views, 1, width))?, x], 1)?.flatten_to(1)?;
        let segments = vec![1 + patches; views];
        let states = self.blocks.states(self.norm.forward(&x)?, Runs::whole(&segments), None, pause)?;
        Ok(self.features.join(&states)?.reshape((views, 1 + patches, width * self.features.parts()))?)
    }
}
