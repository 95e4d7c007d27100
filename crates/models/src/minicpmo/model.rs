use nn::{Activation, Bias, Decoder, Files, Linear, MediaInput, MediaKind, Model, NnError, Pause, Role, Tensor, Weights};

use super::config::Config;
use super::resampler::{Resampler, ResamplerConfig};
use crate::ModelError;
use crate::config::{CONFIG, require};
use crate::joined::{Encode, Joined};
use crate::qwen2_vl;
use crate::siglip::Siglip;
use crate::whisper::Whisper;

/// Views or sounds → rows.
struct Towers {
    siglip: Siglip,
    resampler: Resampler,
    whisper: Whisper,
    up: Linear,   // [hidden, width]
    down: Linear, // [hidden, hidden]
    config: Config,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = qwen2_vl::WORDS.decoder(files)?;
    let vision = config.vision();
    let resampler = ResamplerConfig { inputs: vision.hidden_size, hidden: decoder.hidden, queries: config.query_num };
    require(resampler.fits(), files, CONFIG, "hidden_size must be a multiple of 128")?;
    w.skip("tts.");
    w.skip(&format!("vpm.encoder.layers.{}.", vision.num_hidden_layers));
    let projection = w.role(Role::Encoder).at("audio_projection_layer");
    let towers = Towers {
        siglip: Siglip::load(&vision, &w.at("vpm"))?,
        resampler: Resampler::load(resampler, &w.at("resampler"))?,
        whisper: Whisper::load(&config.audio_config, config.hearing(), &w.at("apm"))?,
        up: projection.linear("linear1", config.audio_config.hidden_size, decoder.hidden, Bias::Present)?,
        down: projection.linear("linear2", decoder.hidden, decoder.hidden, Bias::Present)?,
        config,
    };
    Ok(Box::new(Joined { tower: towers, decoder: Decoder::load(&decoder, &w.at("llm.model"), &w.at("llm"))? }))
}

impl Encode for Towers {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        match input.kind {
            MediaKind::Audio => self.sound(input, pause),
            MediaKind::Image | MediaKind::Video => self.picture(input, pause),
        }
    }
}

impl Towers {
    fn picture(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        const PIXELS: &str = "pixel_values";
        let sizes = sizes(input, "tgt_sizes", 2)?;
        let count = input.arrays.get(PIXELS).map_or(0, |pixels| pixels.data.len());
        let pixels = input.tensor(PIXELS, &[count], self.siglip.device())?;
        let patch = self.config.vision_config.patch_size;
        let mut first = 0;
        let view = |size: &[usize]| {
            let (height, width) = (size[0] * patch, size[1] * patch);
            first += 3 * height * width;
            Ok(pixels.narrow(0, first - 3 * height * width, 3 * height * width)?.reshape((3, height, width))?)
        };
        let views = sizes.chunks_exact(2).map(view).collect::<Result<Vec<_>, NnError>>()?;
        let seen = self.siglip.forward_shaped(&views, pause)?;
        let rows = seen.iter().zip(sizes.chunks_exact(2)).map(|(view, size)| {
            pause()?;
            self.resampler.forward(view, [size[0], size[1]])
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    /// Window by window.
    fn sound(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        const FEATURES: &str = "audio_features";
        let lengths = sizes(input, "audio_feature_lens", 1)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let shape = [lengths.len(), self.config.audio_config.num_mel_bins, longest];
        let windows = input.tensor(FEATURES, &shape, self.whisper.device())?;
        let rows = lengths.iter().enumerate().map(|(i, &frames)| {
            let states = self.whisper.forward(&windows.get(i)?.narrow(1, 0, frames)?, pause)?;
            pause()?;
            // The second layer is linear: it comes to the same behind the mean, and has less to do.
            let inner = Activation::Relu.forward(self.up.forward(&states)?)?;
            self.down.forward(&self.pooled(&inner)?)
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, NnError>>()?, 0)?)
    }

    /// The means of neighbouring states; those that are too few for one are left out.
    fn pooled(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let (states, width) = x.dims2()?;
        let (rows, step) = (self.config.rows(states), self.config.audio_pool_step);
        Ok(x.narrow(0, 0, rows * step)?.reshape((rows, step, width))?.mean(1)?)
    }
}

/// An array of `columns` positive whole numbers a row.
fn sizes(input: &MediaInput, name: &'static str, columns: usize) -> Result<Vec<usize>, NnError> {
    let array = input.arrays.get(name).filter(|array| array.data.len().is_multiple_of(columns) && !array.data.is_empty());
    let sizes: Vec<usize> = array.ok_or(NnError::Input(name))?.data.iter().map(|size| *size as usize).collect();
    if sizes.contains(&0) { Err(NnError::Input(name)) } else { Ok(sizes) }
}
