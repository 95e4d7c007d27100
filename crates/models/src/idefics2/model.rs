use nn::{
    Activation, Bias, Decoder, DecoderConfig, Device, Ffn, Files, GatedConfig, Linear, MediaInput, Model, NnError, Pause, Role,
    Tensor, Weights,
};

use super::config::Config;
use super::perceiver::Perceiver;
use crate::ModelError;
use crate::config::CONFIG;
use crate::joined::{Encode, Joined};
use crate::siglip::Siglip;

/// Views → rows: tower, projection, resampler.
struct Tower {
    siglip: Siglip,
    up: Linear, // [2 * inner, width]
    activation: Activation,
    down: Linear, // [hidden, inner]
    perceiver: Perceiver,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = config.decoder(files)?;
    let tower = Tower::load(&config, &decoder, files, &w.at("model"))?;
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &w.at("model.text_model"), w)? }))
}

impl Tower {
    fn load(config: &Config, decoder: &DecoderConfig, files: &Files, w: &Weights) -> Result<Self, ModelError> {
        // The projection is as wide inside as the language model's feed-forward parts.
        let Some(&Ffn::Gated(GatedConfig { inner, activation, .. })) = decoder.layers.first().map(|layer| &layer.ffn) else {
            let reason = "text_config.num_hidden_layers must be positive".into();
            return Err(ModelError::Config { file: files.label(CONFIG), reason });
        };
        let connector = w.role(Role::Encoder).at("connector");
        let (projection, width) = (connector.at("modality_projection"), config.vision_config.hidden_size);
        Ok(Self {
            siglip: Siglip::load(&config.vision_config, &w.at("vision_model"))?,
            up: projection.stacked(&[("gate_proj", inner), ("up_proj", inner)], width, Bias::Absent)?,
            activation,
            down: projection.linear("down_proj", inner, decoder.hidden, Bias::Absent)?,
            perceiver: Perceiver::load(&config.perceiver_config, &connector.at("perceiver_resampler"))?,
        })
    }
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let seen = self.siglip.forward_shaped(&views(input, self.siglip.device())?, pause)?;
        let rows = seen.iter().map(|view| {
            pause()?;
            let context = self.down.forward(&self.activation.gate(self.up.forward(view)?)?)?;
            pause()?;
            self.perceiver.forward(&context, pause)
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}

/// The views [3, height, width], without what pads them.
fn views(input: &MediaInput, device: &Device) -> Result<Vec<Tensor>, NnError> {
    const SIZES: &str = "image_sizes";
    const PIXELS: &str = "pixel_values";
    let shape = input.arrays.get(PIXELS).map(|pixels| pixels.shape.as_slice());
    let Some(&[views, 3, height, width]) = shape else { return Err(NnError::Input(PIXELS)) };
    let pixels = input.tensor(PIXELS, &[views, 3, height, width], device)?;
    let sizes = input.arrays.get(SIZES).filter(|sizes| sizes.shape == [views, 2]).ok_or(NnError::Input(SIZES))?;
    let view = |(i, size): (usize, &[f32])| Ok(pixels.get(i)?.narrow(1, 0, size[0] as usize)?.narrow(2, 0, size[1] as usize)?);
    sizes.data.chunks_exact(2).enumerate().map(view).collect()
}
