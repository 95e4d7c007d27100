use nn::{
    Activation, Bias, Decoder, Files, Linear, MediaInput, Mlp, Model, NnError, Norm, NormConfig, Pairing, Pause, Role, Rope,
    Tensor, Vit, VitConfig, VitNames, Weights, patchify, pixel_shuffle,
};

use super::config::{Config, VisionConfig};
use super::text::decoder;
use crate::joined::{Encode, Joined};
use crate::{ModelError, text_only};

/// The norms of the tower, whatever `norm_eps` says.
const NORM: NormConfig = NormConfig::Layer { eps: 1e-5 };

const NAMES: VitNames = VitNames {
    layers: "model.layers",
    norm1: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    norm2: "post_attention_layernorm",
    up: &["mlp.fc1"],
    down: "mlp.fc2",
};

/// Tiles → rows: tower, pixel shuffle, three matrices.
struct Tower {
    patch_embed: Linear, // [width, 3 * patch * patch]
    position: Tensor,    // [1, patches, width]
    whole: Tensor,       // [1, 1, width], its place added
    norm_pre: Norm,
    rope: Rope,
    blocks: Vit,
    norm_post: Norm,
    fc1: Linear,      // [output, width * factor²]
    fc2: Linear,      // [output, output]
    linear_1: Linear, // [hidden, output]
    config: VisionConfig,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = decoder(files)?;
    let tower = Tower::load(&config.vision_config, decoder.hidden, w)?;
    let top = w.at("language_model");
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &top.at("model"), &top)? }))
}

pub fn load_text(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&decoder(files)?, w)
}

impl Tower {
    fn load(config: &VisionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let v = config;
        let (width, output, patches) = (v.hidden_size, v.vision_output_dim, v.side().pow(2));
        let w = w.role(Role::Encoder);
        let tower = w.at("vision_model");
        let places = tower.tensor("positional_embedding_vlm", &[patches + 1, width])?;
        let whole = (tower.tensor("class_embedding", &[width])? + places.get(patches)?)?;
        let adapter = tower.at("vision_adapter.mlp");
        let vit = VitConfig {
            width,
            heads: v.num_attention_heads,
            mlp: Mlp::Plain { inner: v.intermediate_size, activation: Activation::Gelu },
            layers: v.num_hidden_layers,
            windowed: Vec::new(),
            tapped: Vec::new(),
            norm: NORM,
            bias: Bias::Present,
            names: &NAMES,
        };
        Ok(Self {
            patch_embed: tower.at("patch_embedding").patch_linear("linear", &[3 * v.patch_size.pow(2)], width, Bias::Absent)?,
            position: places.narrow(0, 0, patches)?.unsqueeze(0)?,
            whole: whole.reshape((1, 1, width))?,
            norm_pre: tower.norm("layernorm_pre", width, NORM)?,
            rope: Rope::rows_and_columns(width / v.num_attention_heads, v.rope_theta).paired(Pairing::Neighbours),
            blocks: Vit::load(&vit, &tower)?,
            norm_post: tower.norm("layernorm_post", width, NORM)?,
            fc1: adapter.linear("fc1", width * v.factor().pow(2), output, Bias::Absent)?,
            fc2: adapter.linear("fc2", output, output, Bias::Absent)?,
            linear_1: w.at("multi_modal_projector").linear("linear_1", output, hidden, Bias::Absent)?,
            config: config.clone(),
        })
    }

    /// Where the patches of a tile stand, column and then row, counted from one; the row for the whole stands behind them, at none.
    fn places(&self) -> impl Iterator<Item = [u32; 3]> + Clone {
        let side = self.config.side() as u32;
        let patches = (1..=side).flat_map(move |row| (1..=side).map(move |column| [0, column, row]));
        patches.chain([[0; 3]])
    }
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let VisionConfig { image_size, patch_size, hidden_size: width, .. } = self.config;
        let (views, patches) = (input.rows / self.config.rows_per_tile(), self.config.side().pow(2));
        let pixels = input.tensor("pixel_values", &[views, 3, image_size, image_size], self.position.device())?;
        let x = self.patch_embed.forward(&patchify(&pixels, patch_size)?)?;
        let x = x.reshape((views, patches, width))?.broadcast_add(&self.position)?;
        let x = Tensor::cat(&[x, self.whole.expand((views, 1, width))?], 1)?.flatten_to(1)?;
        let places: Vec<[u32; 3]> = (0..views).flat_map(|_| self.places()).collect();
        let rope = self.rope.table(&places, x.device())?;
        let x = self.blocks.forward(self.norm_pre.forward(&x)?, &vec![patches + 1; views], Some(&rope), pause)?;
        let x = self.norm_post.forward(&x)?.reshape((views, patches + 1, width))?.narrow(1, 0, patches)?;
        let x = pixel_shuffle(&x.contiguous()?, self.config.factor())?.flatten_to(1)?;
        pause()?;
        let x = Activation::Gelu.forward(self.fc1.forward(&x)?)?;
        let x = Activation::Gelu.forward(self.fc2.forward(&x)?)?;
        self.linear_1.forward(&x)
    }
}
