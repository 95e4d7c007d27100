use nn::{Array, Files, MediaInput, MediaKind};
use text::Piece;

use super::config::Config;
use crate::config::{CONFIG, PREPROCESSOR, require};
use crate::whisper::Features;
use crate::{Marker, Media, ModelError, Processed, Processor};

struct Voxtral {
    features: Features,
    audio_token: u32,
    rows_per_window: usize,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let config = Config::read(files)?;
    let features = Features::read(files)?;
    let audio = &config.audio_config;
    let fits = features.bands() == audio.num_mel_bins && features.window_frames() == audio.frames_max();
    let wanted = format!(
        "feature_size and chunk_length must make windows of {} bands and {} frames, as audio_config of {CONFIG} says",
        audio.num_mel_bins,
        audio.frames_max(),
    );
    require(fits, files, PREPROCESSOR, &wanted)?;
    let rows_per_window = config.rows_per_window();
    Ok(Box::new(Voxtral { features, audio_token: config.audio_token_id, rows_per_window }))
}

impl Processor for Voxtral {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Audio, text: "[AUDIO]" }]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let Media::Audio(audio) = media else { return Err(media.refused()) };
        let spectrogram = self.features.of_windows(audio);
        let (bands, frames) = (self.features.bands(), self.features.window_frames());
        let windows = spectrogram.frames() / frames;
        let mut data = Vec::with_capacity(spectrogram.values.len());
        for window in spectrogram.values.chunks_exact(frames * bands) {
            (0..bands).for_each(|band| data.extend(window[band..].iter().step_by(bands)));
        }
        let rows = windows * self.rows_per_window;
        let features = Array { shape: vec![windows, bands, frames], data };
        let input = MediaInput::new(MediaKind::Audio, rows, [("input_features", features)]);
        Ok(Processed::heard(input, vec![Piece::Slots { token: self.audio_token, count: rows }]))
    }

    fn chat_template(&self) -> Option<&'static str> {
        Some(include_str!("chat_template.jinja"))
    }
}
