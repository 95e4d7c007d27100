//! SigLIP (Zhai et al. 2023): the tower that several families look through. Squares of pixels, learned places, pre-norm blocks.

use nn::{
    Bias, Device, Files, Linear, MediaInput, Mlp, NnError, Norm, NormConfig, Pause, Role, SIGLIP_NAMES, Tensor, Vit, VitConfig,
    Weights, patchify,
};
use serde::Deserialize;
use serde_json::Value;

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

    /// `given` with widths and depth as the tensors below `w` have them, for checkpoints whose configuration leaves them out.
    pub fn measured(given: Value, files: &Files, w: &Weights) -> Result<Self, ModelError> {
        let mut config: Self =
            serde_json::from_value(given).map_err(|e| ModelError::Config { file: files.label(CONFIG), reason: e.to_string() })?;
        if let Some(&[width, channels, patch, _]) = w.shape("embeddings.patch_embedding.weight") {
            (config.hidden_size, config.num_channels, config.patch_size) = (width, channels, patch);
        }
        if let Some(&[inner, _]) = w.shape("encoder.layers.0.mlp.fc1.weight") {
            config.intermediate_size = inner;
        }
        config.num_hidden_layers = (0..).take_while(|i| w.has(&format!("encoder.layers.{i}.mlp.fc1.weight"))).count();
        config.check(files)?;
        Ok(config)
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

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.position.device()
    }

    /// Pictures [3, height, width] of any shapes → [patches, width] of each. Places are stretched over a picture (NaViT; Dehghani et
    /// al. 2023, arXiv:2307.06304); pixels that fill no patch are dropped.
    pub fn forward_shaped(&self, pictures: &[Tensor], pause: &mut Pause) -> Result<Vec<Tensor>, NnError> {
        let SiglipConfig { patch_size: patch, hidden_size: width, .. } = self.config;
        let side = self.config.side();
        let table = self.position.reshape((side * side, width))?;
        let mut embedded = Vec::with_capacity(pictures.len());
        for picture in pictures {
            pause()?;
            let (_, rows, columns) = picture.dims3()?;
            let places = places(rows / patch, columns / patch, side);
            let places = Tensor::from_vec(places, rows / patch * (columns / patch), self.device())?;
            let x = self.patch_embed.forward(&patchify(&picture.unsqueeze(0)?, patch)?)?;
            embedded.push((x + table.index_select(&places, 0)?)?);
        }
        let counts = embedded.iter().map(|x| x.dim(0)).collect::<Result<Vec<_>, _>>()?;
        let x = self.blocks.forward(Tensor::cat(&embedded, 0)?, &counts, None, pause)?;
        let x = self.norm.forward(&x)?;
        let mut first = 0;
        let of_picture = |&count: &usize| {
            first += count;
            Ok(x.narrow(0, first - count, count)?)
        };
        counts.iter().map(of_picture).collect()
    }

    /// `pixel_values` of `views` pictures → [views, patches, width].
    pub fn forward(&self, input: &MediaInput, views: usize, pause: &mut Pause) -> Result<Tensor, NnError> {
        let SiglipConfig { image_size, patch_size, hidden_size: width, .. } = self.config;
        let pixels = input.tensor("pixel_values", &[views, 3, image_size, image_size], self.position.device())?;
        let patches = self.config.side().pow(2);
        let x = self.patch_embed.forward(&patchify(&pixels, patch_size)?)?;
        let x = x.reshape((views, patches, width))?.broadcast_add(&self.position)?.reshape((views * patches, width))?;
        let x = self.norm.forward(&self.blocks.forward(x, &vec![patches; views], None, pause)?)?;
        Ok(x.reshape((views, patches, width))?)
    }
}

/// Numbers of the places of patches in a table of `side` by `side`: places are stretched over a picture (NaViT; Dehghani et al. 2023,
/// arXiv:2307.06304).
pub fn places(rows: usize, columns: usize, side: usize) -> Vec<u32> {
    let (down, across) = (stretched(rows, side), stretched(columns, side));
    down.iter().flat_map(|row| across.iter().map(move |column| row * side as u32 + column)).collect()
}

/// For each of `count` patches side by side the one of `side` places that lies as far along. Many lie on the border between two
/// places: f32 decides, as in the reference.
fn stretched(count: usize, side: usize) -> Vec<u32> {
    const END: f32 = 1.0 - 1e-6;
    let step = 1.0 / count as f32;
    let borders: Vec<f32> = (1..side).map(|place| (place as f64 / side as f64) as f32).collect();
    let place = |patch: usize| borders.partition_point(|border| *border <= (patch as f32 * step).min(END)) as u32;
    (0..count).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_stretched_over_a_picture() {
        let cases: [(usize, usize, &[u32]); 5] = [
            (4, 4, &[0, 1, 2, 3]),
            (2, 7, &[0, 3]),
            (5, 3, &[0, 0, 1, 1, 2]),
            (1, 70, &[0]),
            // Patches 5, 10, 15 and 20 begin at the borders.
            (25, 5, &[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4]),
        ];
        for (count, side, expected) in cases {
            assert_eq!(stretched(count, side), expected, "{count} patches, {side} places");
        }
        assert_eq!(places(2, 3, 4), [0, 1, 2, 8, 9, 10]);
    }
}
