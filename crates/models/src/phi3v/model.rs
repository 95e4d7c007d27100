use nn::{Activation, Bias, Decoder, Files, Linear, MediaInput, Model, NnError, Pause, Role, Tensor, Weights, pixel_shuffle};
use serde_json::json;

use super::config::{Config, Order, SIDE, TILE};
use super::processor::SIZES;
use crate::clip::Clip;
use crate::features::FeatureLayers;
use crate::joined::{Encode, Joined};
use crate::{ModelError, phi3, tiles};

/// Tiles → rows: tower, separators, two matrices.
struct Tower {
    clip: Clip,
    line_end: Tensor, // [1, 1, 4 * width]
    between: Tensor,  // [1, 4 * width]
    order: Order,
    up: Linear,   // [hidden, 4 * width]
    down: Linear, // [hidden, hidden]
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = phi3::decoder_config(files, json!({}))?;
    let (body, hidden) = (w.at("model"), decoder.hidden);
    let embed = body.at("vision_embed_tokens").role(Role::Encoder);
    let below = embed.at("img_processor.vision_model");
    let clip = config.clip(files, &below)?;
    let features = FeatureLayers::One(-2).of(clip.num_hidden_layers, files)?;
    let width = 4 * clip.hidden_size;
    let tower = Tower {
        clip: Clip::load(&clip, &features, &below)?,
        line_end: embed.tensor("sub_GN", &[1, 1, 1, width])?.reshape((1, 1, width)).map_err(NnError::from)?,
        between: embed.tensor("glb_GN", &[1, 1, width])?.reshape((1, width)).map_err(NnError::from)?,
        order: config.embd_layer.hd_transform_order,
        up: embed.linear("img_projection.0", width, hidden, Bias::Present)?,
        down: embed.linear("img_projection.2", hidden, hidden, Bias::Present)?,
    };
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &body, w)? }))
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let sizes = input.arrays.get(SIZES).map(|sizes| sizes.data.as_slice());
        let Some(&[height, width]) = sizes else { return Err(NnError::Input(SIZES)) };
        let (rows, columns) = (height as usize / TILE, width as usize / TILE);
        let views = 1 + rows * columns;
        let x = self.clip.forward(input, views, pause)?;
        pause()?;
        let x = pixel_shuffle(&x.narrow(1, 1, x.dim(1)? - 1)?.contiguous()?, 2)?;
        let whole = tiles::with_ends(&x.get(0)?.reshape((SIDE, SIDE, ()))?, &self.line_end)?;
        let parts = tiles::with_ends(&tiles::joined(&x.narrow(0, 1, views - 1)?, rows, columns)?, &self.line_end)?;
        let x = match self.order {
            Order::SubGlb => Tensor::cat(&[&parts, &self.between, &whole], 0)?,
            Order::GlbSub => Tensor::cat(&[&whole, &self.between, &parts], 0)?,
        };
        pause()?;
        self.down.forward(&Activation::Gelu.forward(self.up.forward(&x)?)?)
    }
}
