//! Sound → spectrograms, in windows as long as the rows that stand for one.

use media::Audio;
use media::mel::{Edges, Log, Mel, MelConfig, MelScale, Spectrum, Window};
use nn::{Array, Files, MediaInput, MediaKind};
use serde::Deserialize;
use serde_json::json;
use text::Piece;

use super::config::Config;
use super::model::SOUND;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::gemma::emphasis;
use crate::{ModelError, Processed};

const BEGIN: &str = "<start_of_audio>";
const END: &str = "<end_of_audio>";
/// Samples of a window are a multiple of this.
const SAMPLES_STEP: usize = 128;
/// Seconds of a window at most.
const SECONDS_MAX: usize = 30;

/// preprocessor_config.json, as far as it is about sound. `dither` is noise for training, and not made here.
#[derive(Debug, Deserialize)]
struct SoundConfig {
    feature_size: usize,
    sampling_rate: u32,
    frame_length: usize,
    hop_length: usize,
    min_frequency: f64,
    max_frequency: f64,
    preemphasis: f64,
    preemphasis_htk_flavor: bool,
    fft_overdrive: bool,
    input_scale_factor: f32,
    mel_floor: f64,
    per_bin_mean: Option<Vec<f64>>,
    per_bin_stddev: Option<Vec<f64>>,
}

/// The front end.
pub struct Sound {
    mel: Mel,
    scale: f32,
    window_samples_max: usize,
    token: u32,
    /// Rows that stand for a window.
    rows: usize,
}

impl Sound {
    pub fn read(files: &Files, model: &Config) -> Result<Self, ModelError> {
        let defaults = json!({
            "feature_size": 128, "sampling_rate": 16_000, "frame_length": 512, "hop_length": 160, "min_frequency": 125.0,
            "max_frequency": 7600.0, "preemphasis": 0.97, "preemphasis_htk_flavor": true, "fft_overdrive": true,
            "input_scale_factor": 1.0, "mel_floor": 1e-5,
        });
        let config: SoundConfig = read(files, PREPROCESSOR, defaults)?;
        config.check(files, model)?;
        let (rows, token) = (model.audio_soft_tokens_per_image, model.audio_token_id);
        let samples_per_row = model.audio_config.frames_per_row() * config.hop_length;
        let longest = (rows * samples_per_row).min(SECONDS_MAX * config.sampling_rate as usize);
        let window_samples_max = longest / SAMPLES_STEP * SAMPLES_STEP;
        let long_enough = window_samples_max > config.frame_length;
        require(long_enough, files, CONFIG, "audio_soft_tokens_per_image is too small for a frame of sound")?;
        Ok(Self { mel: Mel::new(config.mel()), scale: config.input_scale_factor, window_samples_max, token, rows })
    }

    /// A sound that is longer than a window becomes several windows of the same length, each with its own rows.
    pub fn process(&self, audio: Audio) -> Result<Processed, ModelError> {
        let mut samples = audio.resampled(self.mel.config().rate).samples;
        if self.scale != 1.0 {
            samples.iter_mut().for_each(|sample| *sample *= self.scale);
        }
        let windows = samples.len().div_ceil(self.window_samples_max).max(1);
        let length = samples.len().div_ceil(windows).next_multiple_of(SAMPLES_STEP);
        samples.resize(windows * length, 0.0);
        let (mut data, mut frames, bands) = (Vec::new(), 0, self.mel.config().bands);
        for window in samples.chunks(length.max(1)) {
            let spectrogram = self.mel.spectrogram(window);
            frames = spectrogram.frames();
            data.extend(spectrogram.values);
        }
        if frames == 0 {
            return Err(ModelError::Unusable("the sound is too short: there is not a whole frame of it".into()));
        }
        let features = Array { shape: vec![windows, frames, bands], data };
        let input = MediaInput::new(MediaKind::Audio, windows * self.rows, [(SOUND, features)]);
        let pieces = (0..windows).flat_map(|_| self.block()).collect();
        Ok(Processed::heard(input, pieces))
    }

    fn block(&self) -> [Piece; 3] {
        super::processor::block([BEGIN, END], self.token, self.rows)
    }
}

impl SoundConfig {
    fn check(&self, files: &Files, model: &Config) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, PREPROCESSOR, reason);
        let bands = model.audio_config.input_feat_size;
        check(self.feature_size == bands, &format!("feature_size must be {bands}, the input_feat_size of {CONFIG}"))?;
        let positive = self.sampling_rate > 0 && self.frame_length > 0 && self.hop_length > 0;
        check(positive, "sampling_rate, frame_length and hop_length must be positive")?;
        let sizes = self.frame_length <= 1 << 16 && self.hop_length <= 1 << 16;
        check(sizes, "frame_length and hop_length must be at most 65536")?;
        let nyquist = f64::from(self.sampling_rate) / 2.0;
        let ordered = 0.0 <= self.min_frequency && self.min_frequency < self.max_frequency && self.max_frequency <= nyquist;
        check(ordered, "min_frequency and max_frequency must be ascending, up to half of sampling_rate")?;
        check(self.mel_floor > 0.0, "mel_floor must be positive")?;
        let plain = self.per_bin_mean.is_none() && self.per_bin_stddev.is_none();
        check(plain, "per_bin_mean and per_bin_stddev are not supported")
    }

    fn mel(&self) -> MelConfig {
        MelConfig {
            rate: self.sampling_rate,
            frame: self.frame_length,
            hop: self.hop_length,
            fft: self.frame_length.next_power_of_two() * if self.fft_overdrive { 2 } else { 1 },
            window: Window::Hann,
            edges: Edges::Silent { before: 0 },
            emphasis: emphasis(self.preemphasis, self.preemphasis_htk_flavor),
            spectrum: Spectrum::Magnitude,
            bands: self.feature_size,
            hertz: [self.min_frequency, self.max_frequency],
            scale: MelScale::Htk,
            log: Log::Natural { floor: self.mel_floor },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use media::mel::Emphasis;

    #[test]
    fn a_long_sound_is_cut_into_windows_of_one_length() {
        let config = MelConfig {
            rate: 16_000,
            frame: 512,
            hop: 160,
            fft: 1024,
            window: Window::Hann,
            edges: Edges::Silent { before: 0 },
            emphasis: Emphasis::Within(0.97),
            spectrum: Spectrum::Magnitude,
            bands: 8,
            hertz: [125.0, 7600.0],
            scale: MelScale::Htk,
            log: Log::Natural { floor: 1e-5 },
        };
        let sound = Sound { mel: Mel::new(config), scale: 1.0, window_samples_max: 16_000, token: 7, rows: 10 };
        // Samples, windows, frames of each.
        for (samples, windows, frames) in [(513, 1, 1), (8000, 1, 48), (16_000, 1, 97), (16_001, 2, 48), (40_000, 3, 81)] {
            let processed = sound.process(Audio { samples: vec![0.1; samples], rate: 16_000 }).unwrap();
            let shape = &processed.input.arrays[SOUND].shape;
            assert_eq!((shape.as_slice(), processed.input.rows), ([windows, frames, 8].as_slice(), windows * 10), "{samples}");
            assert_eq!(processed.pieces.len(), windows * 3, "{samples}");
        }
        for samples in [0, 1, 384] {
            assert!(sound.process(Audio { samples: vec![0.1; samples], rate: 16_000 }).is_err(), "{samples}");
        }
    }
}
