//! Whisper's ears (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"), which several families listen
//! with: a spectrogram of windows of half a minute, and an encoder of two convolutions and pre-norm blocks. Reference: transformers,
//! models/whisper.

use media::Audio;
use media::mel::{Edges, Emphasis, Log, Mel, MelConfig, MelScale, Spectrogram, Spectrum, Window};
use nn::{
    Activation, Bias, Conv1d, Conv1dConfig, Device, Files, Mlp, NnError, Norm, NormConfig, Pause, Role, Runs, Seen, Tensor, Vit,
    VitConfig, WHISPER_NAMES, Weights,
};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, require};

/// Highest frequency that is listened to, in Hz.
const HERTZ_MAX: f64 = 8000.0;
/// What is quieter than the loudest band by this much (a factor of 10^8 in power) counts as that quiet.
const RANGE: f32 = 8.0;
/// Of all norms.
const NORM: NormConfig = NormConfig::Layer { eps: 1e-5 };
const KERNEL: usize = 3;
/// Frames of the spectrogram that one state of the encoder stands for.
const FRAMES_PER_STATE: usize = 2;

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
struct FeatureConfig {
    feature_size: usize,
    sampling_rate: u32,
    hop_length: usize,
    n_fft: usize,
    chunk_length: usize,
}

/// Sounds → spectrograms.
pub struct Features {
    mel: Mel,
    /// Samples of a window.
    window: usize,
}

impl Features {
    /// Reads preprocessor_config.json.
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({"feature_size": 80, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400, "chunk_length": 30});
        let config: FeatureConfig = read(files, PREPROCESSOR, defaults)?;
        let FeatureConfig { feature_size: bands, sampling_rate: rate, hop_length: hop, n_fft: fft, chunk_length: seconds } =
            config;
        let check = |met, reason| require(met, files, PREPROCESSOR, reason);
        check((1..=1024).contains(&bands), "feature_size must be between 1 and 1024")?;
        check((1_000..=384_000).contains(&rate), "sampling_rate must be between 1000 and 384000")?;
        check((2..=1 << 16).contains(&fft), "n_fft must be between 2 and 65536")?;
        check((1..=3600).contains(&seconds), "chunk_length must be between 1 and 3600")?;
        let window = seconds * rate as usize;
        check(hop > 0 && window.is_multiple_of(hop), "hop_length must divide a window of chunk_length seconds")?;
        let mel = Mel::new(MelConfig {
            rate,
            frame: fft,
            hop,
            fft,
            window: Window::Hann,
            edges: Edges::Mirrored,
            emphasis: Emphasis::Absent,
            spectrum: Spectrum::Power,
            bands,
            hertz: [0.0, HERTZ_MAX],
            scale: MelScale::Slaney,
            log: Log::Ten { floor: 1e-10 },
        });
        Ok(Self { mel, window })
    }

    /// Numbers of a frame.
    pub fn bands(&self) -> usize {
        self.mel.config().bands
    }

    /// Frames of a window.
    pub fn window_frames(&self) -> usize {
        self.window / self.mel.config().hop
    }

    /// The spectrograms of a sound's windows, each as if there were nothing else. The last one ends where the sound does.
    pub fn of_each_window(&self, audio: Audio) -> Vec<Spectrogram> {
        let MelConfig { rate, hop, .. } = *self.mel.config();
        let windows = audio.resampled(rate).samples;
        let window = |samples: &[f32]| {
            let mut spectrogram = self.of_windows(Audio { samples: samples.to_vec(), rate });
            spectrogram.truncate(samples.len().div_ceil(hop));
            spectrogram
        };
        windows.chunks(self.window).map(window).collect()
    }

    /// The spectrogram of a sound that silence makes as long as whole windows, from about -1 (quiet) to 1.
    pub fn of_windows(&self, audio: Audio) -> Spectrogram {
        let mut samples = audio.resampled(self.mel.config().rate).samples;
        samples.resize(samples.len().next_multiple_of(self.window), 0.0);
        let mut spectrogram = self.mel.spectrogram(&samples);
        // The last frame is centred behind the end.
        spectrogram.truncate(samples.len() / self.mel.config().hop);
        let loudest = spectrogram.values.iter().copied().fold(f32::MIN, f32::max);
        spectrogram.values.iter_mut().for_each(|level| *level = (level.max(loudest - RANGE) + 4.0) / 4.0);
        spectrogram
    }
}

/// States that so many frames become.
pub fn states(frames: usize) -> usize {
    frames.div_ceil(FRAMES_PER_STATE)
}

/// What a frame hears of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// All of it.
    Whole,
    /// Its own chunk of so many states, and what is before it.
    Chunks(usize),
}

/// Sizes of an encoder, by Whisper's names or by later ones.
#[derive(Debug, Clone, Deserialize)]
pub struct WhisperConfig {
    #[serde(alias = "d_model")]
    pub hidden_size: usize,
    #[serde(alias = "encoder_ffn_dim")]
    pub intermediate_size: usize,
    num_hidden_layers: usize,
    /// Whisper's own name, beside which the other stands, too.
    encoder_layers: Option<usize>,
    #[serde(alias = "encoder_attention_heads")]
    num_attention_heads: usize,
    pub num_mel_bins: usize,
    pub max_source_positions: usize,
    activation_function: Activation,
    scale_embedding: bool,
}

impl WhisperConfig {
    /// The sizes make sense together.
    pub fn check(&self, files: &Files, key: &str) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, &format!("{key}.{reason}"));
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        check(heads > 0 && width > 0 && width.is_multiple_of(heads), "hidden_size must be a multiple of num_attention_heads")?;
        check(self.intermediate_size > 0, "intermediate_size must be positive")?;
        check(self.num_mel_bins > 0 && self.max_source_positions > 0, "num_mel_bins and max_source_positions must be positive")?;
        // The encoder of the reference knows the key, and does not use it.
        check(!self.scale_embedding, "scale_embedding is not supported")
    }

    /// Frames of the spectrogram that are listened to at a time, at most.
    pub fn frames_max(&self) -> usize {
        self.max_source_positions * FRAMES_PER_STATE
    }

    fn vit(&self) -> VitConfig {
        VitConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            mlp: Mlp::Plain { inner: self.intermediate_size, activation: self.activation_function },
            layers: self.encoder_layers.unwrap_or(self.num_hidden_layers),
            windowed: Vec::new(),
            tapped: Vec::new(),
            norm: NORM,
            bias: Bias::Except(&["self_attn.k_proj"]),
            names: &WHISPER_NAMES,
        }
    }

    fn convolution(&self, inputs: usize, stride: usize) -> Conv1dConfig {
        Conv1dConfig { inputs, outputs: self.hidden_size, kernel: KERNEL, stride, padding: 1 }
    }
}

/// A loaded encoder.
pub struct Whisper {
    convolutions: [Conv1d; 2],
    positions: Tensor, // [max_source_positions, width]
    blocks: Vit,
    norm: Norm,
    hearing: Hearing,
}

impl Whisper {
    /// Loads `conv1`, `conv2`, `embed_positions`, `layers` and `layer_norm`.
    pub fn load(config: &WhisperConfig, hearing: Hearing, w: &Weights) -> Result<Self, NnError> {
        let (w, width) = (w.role(Role::Encoder), config.hidden_size);
        Ok(Self {
            convolutions: [
                Conv1d::load("conv1", config.convolution(config.num_mel_bins, 1), &w)?,
                Conv1d::load("conv2", config.convolution(width, FRAMES_PER_STATE), &w)?,
            ],
            positions: w.tensor("embed_positions.weight", &[config.max_source_positions, width])?,
            blocks: Vit::load(&config.vit(), &w)?,
            norm: w.norm("layer_norm", width, NORM)?,
            hearing,
        })
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.positions.device()
    }

    /// A window of a spectrogram [bands, frames] → states [frames / 2, width].
    pub fn forward(&self, window: &Tensor, pause: &mut Pause) -> Result<Tensor, NnError> {
        let mut x = window.t()?.contiguous()?;
        for convolution in &self.convolutions {
            pause()?;
            x = Activation::Gelu.forward(convolution.forward(&x)?)?;
        }
        let states = x.dim(0)?;
        let x = (x + self.positions.narrow(0, 0, states)?)?;
        let chunk = match self.hearing {
            Hearing::Whole => states,
            Hearing::Chunks(states) => states,
        };
        let chunks: Vec<usize> = (0..states).step_by(chunk.max(1)).map(|first| chunk.min(states - first)).collect();
        let segments = [states];
        let runs = Runs { seen: Seen::Chunks(&chunks), ..Runs::whole(&segments) };
        let states = self.blocks.states(x, runs, None, pause)?.pop();
        self.norm.forward(&states.ok_or(NnError::Input("a window of a spectrogram"))?)
    }
}
