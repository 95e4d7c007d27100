use nn::{Bias, Decoder, Files, Linear, MediaInput, Model, NnError, Pause, Role, Tensor, Weights, pixel_shuffle};

use super::config::Config;
use crate::ModelError;
use crate::joined::{Encode, Joined};
use crate::siglip::Siglip;

/// Tiles → rows: tower, pixel shuffle, projection.
struct Tower {
    siglip: Siglip,
    projection: Linear, // [hidden, width * scale²]
    scale: usize,
    rows_per_tile: usize,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = config.decoder(files)?;
    let tower = Tower::load(&config, decoder.hidden, &w.at("model"))?;
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &w.at("model.text_model"), w)? }))
}

impl Tower {
    fn load(config: &Config, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let connector = w.role(Role::Encoder).at("connector.modality_projection");
        let inputs = config.vision_config.hidden_size * config.scale_factor.pow(2);
        Ok(Self {
            siglip: Siglip::load(&config.vision_config, &w.at("vision_model"))?,
            projection: connector.linear("proj", inputs, hidden, Bias::Absent)?,
            scale: config.scale_factor,
            rows_per_tile: config.rows_per_tile(),
        })
    }
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let x = self.siglip.forward(input, input.rows / self.rows_per_tile, pause)?;
        self.projection.forward(&pixel_shuffle(&x, self.scale)?.flatten_to(1)?)
    }
}
