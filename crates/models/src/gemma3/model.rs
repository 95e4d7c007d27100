use nn::{Files, Linear, MediaInput, Model, NnError, Norm, NormConfig, Pause, Role, Tensor, Weights, average_pool};

use super::config::Config;
use crate::gemma::{Line, decoder};
use crate::joined::{Encode, Joined, Layout};
use crate::siglip::Siglip;
use crate::{ModelError, text_only};

/// Views → rows: tower, average pooling, norm, projection.
struct Tower {
    siglip: Siglip,
    pooled_norm: Norm,
    projection: Linear, // [hidden, width]
    tokens_per_side: usize,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = decoder(Line::Gemma3, files)?;
    let layout = Layout::of(w);
    Ok(Box::new(Joined { tower: Tower::load(&config, decoder.hidden, &layout)?, decoder: layout.decoder(&decoder)? }))
}

pub fn load_text(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&decoder(Line::Gemma3, files)?, w)
}

impl Tower {
    fn load(config: &Config, hidden: usize, layout: &Layout) -> Result<Self, NnError> {
        let v = &config.vision_config;
        let (tower, projector) = (&layout.tower, layout.projector.role(Role::Encoder));
        tower.skip("head.");
        let projection = projector.tensor("mm_input_projection_weight", &[v.hidden_size, hidden])?;
        Ok(Self {
            siglip: Siglip::load(v, tower)?,
            pooled_norm: projector.norm("mm_soft_emb_norm", v.hidden_size, NormConfig::RmsPlusOne { eps: v.layer_norm_eps })?,
            projection: projector.linear_of(projection.t()?.contiguous()?, None)?,
            tokens_per_side: config.tokens_per_side(),
        })
    }
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let x = self.siglip.forward(input, input.rows / self.tokens_per_side.pow(2), pause)?;
        let x = average_pool(&x, self.tokens_per_side)?;
        self.projection.forward(&self.pooled_norm.forward(&x.flatten_to(1)?)?)
    }
}
