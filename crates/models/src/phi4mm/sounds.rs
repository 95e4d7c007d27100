use media::Audio;
use media::mel::{Edges, Emphasis, Log, Mel, MelConfig, MelScale, Spectrum, Window};
use nn::{Array, Files, MediaInput, MediaKind};
use text::Piece;

use super::ears::{FEATURES, rows};
use crate::config::{PREPROCESSOR, read, require};
use crate::{ModelError, Processed};

use serde::Deserialize;
use serde_json::json;

/// Sounds → spectrograms.
pub struct Sounds {
    mel: Mel,
    audio_token: u32,
}

/// preprocessor_config.json, as far as it is about sounds. The published code has all of it built in.
#[derive(Debug, Deserialize)]
struct FeatureConfig {
    feature_size: usize,
    sampling_rate: u32,
    hop_length: usize,
    n_fft: usize,
    win_length: usize,
    preemphasis: f64,
    mel_min_frequency: f64,
    mel_max_frequency: f64,
    audio_compression_rate: usize,
    audio_downsample_rate: usize,
    audio_feat_stride: usize,
}

/// Samples are 16 bits wide in the reference: powers are larger by this.
const POWER: f64 = 32768.0 * 32768.0;

impl Sounds {
    pub fn read(files: &Files, audio_token: u32) -> Result<Self, ModelError> {
        let defaults = json!({
            "feature_size": 80, "sampling_rate": 16000, "hop_length": 160, "n_fft": 512, "win_length": 400, "preemphasis": 0.97,
            "mel_min_frequency": 0.0, "mel_max_frequency": 7690.0, "audio_compression_rate": 8, "audio_downsample_rate": 1,
            "audio_feat_stride": 1,
        });
        let config: FeatureConfig = read(files, PREPROCESSOR, defaults)?;
        let check = |met, reason: &str| require(met, files, PREPROCESSOR, reason);
        check((1..=1024).contains(&config.feature_size), "feature_size must be between 1 and 1024")?;
        check((1_000..=384_000).contains(&config.sampling_rate), "sampling_rate must be between 1000 and 384000")?;
        let frame = config.win_length;
        check(frame > 1 && config.hop_length > 0, "win_length must be at least 2, and hop_length positive")?;
        check((frame..=1 << 16).contains(&config.n_fft), "n_fft must be between win_length and 65536")?;
        let hertz = [config.mel_min_frequency, config.mel_max_frequency];
        let band = 0.0 <= hertz[0] && hertz[0] < hertz[1] && hertz[1].is_finite();
        check(band, "mel_min_frequency must be less than mel_max_frequency")?;
        let rates = [config.audio_compression_rate, config.audio_downsample_rate, config.audio_feat_stride];
        let known = "audio_compression_rate must be 8, audio_downsample_rate and audio_feat_stride must be 1";
        check(rates == [8, 1, 1], known)?;
        let mel = Mel::new(MelConfig {
            rate: config.sampling_rate,
            frame,
            hop: config.hop_length,
            fft: config.n_fft,
            window: Window::Hamming,
            edges: Edges::Within,
            emphasis: Emphasis::Within(config.preemphasis),
            spectrum: Spectrum::Power,
            bands: config.feature_size,
            hertz,
            scale: MelScale::Kaldi,
            log: Log::Natural { floor: 1.0 / POWER },
        });
        Ok(Self { mel, audio_token })
    }

    pub fn process(&self, audio: Audio) -> Result<Processed, ModelError> {
        let (config, seconds) = (self.mel.config(), audio.seconds());
        let mut spectrogram = self.mel.spectrogram(&audio.resampled(config.rate).samples);
        spectrogram.values.iter_mut().for_each(|level| *level += POWER.ln() as f32);
        let frames = spectrogram.frames();
        if frames == 0 {
            return Err(ModelError::Unusable(format!("the sound is {seconds:.3} s long, too short to be heard")));
        }
        let features = Array { shape: vec![1, frames, config.bands], data: spectrogram.values };
        let input = MediaInput::new(MediaKind::Audio, rows(frames), [(FEATURES, features)]);
        let pieces = vec![Piece::Slots { token: self.audio_token, count: input.rows }];
        Ok(Processed::heard(input, pieces))
    }
}
