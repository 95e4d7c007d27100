use nn::{Activation, Bias, Decoder, Files, Linear, MediaInput, Model, NnError, Pause, Role, Tensor, Weights};

use super::config::Config;
use crate::ModelError;
use crate::joined::{Encode, Joined};
use crate::whisper::{Hearing, Whisper};

/// Windows of a spectrogram → rows: Whisper, neighbouring states side by side, two layers.
struct Tower {
    whisper: Whisper,
    up: Linear, // [hidden, states per row * width]
    activation: Activation,
    down: Linear, // [hidden, hidden]
    config: Config,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let (config, decoder) = (Config::read(files)?, Config::decoder(files)?);
    let tower = Tower::load(config, decoder.hidden, w)?;
    let body = w.at_any(&["language_model.model", "model.language_model"]);
    Ok(Box::new(Joined { tower, decoder: Decoder::load(&decoder, &body, &w.at_any(&["language_model", ""]))? }))
}

impl Tower {
    fn load(config: Config, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let projector = w.role(Role::Encoder).at_any(&["multi_modal_projector", "model.multi_modal_projector"]);
        Ok(Self {
            whisper: Whisper::load(&config.audio_config, Hearing::Whole, &w.at_any(&["audio_tower", "model.audio_tower"]))?,
            up: projector.linear("linear_1", config.audio_config.intermediate_size, hidden, Bias::Absent)?,
            activation: config.projector_hidden_act,
            down: projector.linear("linear_2", hidden, hidden, Bias::Absent)?,
            config,
        })
    }
}

impl Encode for Tower {
    /// Window by window, so that a long sound takes no more memory than a short one.
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let (audio, rows) = (&self.config.audio_config, self.config.rows_per_window());
        let windows = input.rows / rows;
        let shape = [windows, audio.num_mel_bins, audio.frames_max()];
        let features = input.tensor("input_features", &shape, self.whisper.device())?;
        let window = |i| {
            let states = self.whisper.forward(&features.get(i)?, pause)?.reshape((rows, audio.intermediate_size))?;
            self.down.forward(&self.activation.forward(self.up.forward(&states)?)?)
        };
        Ok(Tensor::cat(&(0..windows).map(window).collect::<Result<Vec<_>, NnError>>()?, 0)?)
    }
}
