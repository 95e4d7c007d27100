use media::{Audio, Image};
use nn::{Array, Files, MediaInput, MediaKind};
use text::Piece;

use super::config::{Config, ProcessorConfig};
use super::slices::{Grid, Slicing};
use crate::config::{CONFIG, PREPROCESSOR, require};
use crate::pixels::Pixels;
use crate::shown::shown;
use crate::special_tokens::SpecialTokens;
use crate::whisper::{Features, states};
use crate::{Marker, Media, ModelError, Processed, Processor};

struct MiniCpmO {
    slicing: Slicing,
    pixels: Pixels,
    /// Whether pictures are numbered.
    numbered: bool,
    features: Features,
    unknown_token: u32,
    config: Config,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let config = Config::read(files)?;
    let processor = ProcessorConfig::read(files, &config)?;
    let features = Features::read(files)?;
    let audio = &config.audio_config;
    let fits = features.bands() == audio.num_mel_bins && features.window_frames() <= audio.frames_max();
    let wanted = format!(
        "feature_size must be {}, and chunk_length make windows of at most {} frames, as audio_config of {CONFIG} says",
        audio.num_mel_bins,
        audio.frames_max(),
    );
    require(fits, files, PREPROCESSOR, &wanted)?;
    Ok(Box::new(MiniCpmO {
        slicing: processor.slicing(),
        pixels: processor.pixels(files)?,
        numbered: processor.use_image_id,
        features,
        unknown_token: SpecialTokens::read(files)?.id("<unk>")?,
        config,
    }))
}

impl Processor for MiniCpmO {
    fn markers(&self) -> &'static [Marker] {
        &[
            Marker { kind: MediaKind::Image, text: "{line}(<image>./</image>)" },
            Marker { kind: MediaKind::Audio, text: "{line}(<audio>./</audio>)" },
        ]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        match media {
            Media::Image(image, wanted) => shown(&image, &wanted, |image| Ok(self.picture(image))),
            Media::Audio(audio) => self.sound(audio),
            other => Err(other.refused()),
        }
    }
}

impl MiniCpmO {
    fn picture(&self, image: &Image) -> Processed {
        let (views, grid) = self.slicing.views(image, self.pixels.filter);
        let patch = self.slicing.patch;
        let patches = views.iter().flat_map(|view| [(view.height() / patch) as f32, (view.width() / patch) as f32]).collect();
        let sizes = Array { shape: vec![views.len(), 2], data: patches };
        // Views have different shapes: they follow each other.
        let pixels: Vec<f32> = views.iter().flat_map(|view| self.pixels.planes(std::slice::from_ref(view)).data).collect();
        let arrays = [("pixel_values", Array { shape: vec![pixels.len()], data: pixels }), ("tgt_sizes", sizes)];
        let rows = views.len() * self.config.query_num;
        Processed::seen(MediaInput::new(MediaKind::Image, rows, arrays), self.picture_pieces(grid), views)
    }

    fn picture_pieces(&self, grid: Option<Grid>) -> Vec<Piece> {
        let text = |words: &str| Piece::Text(words.into());
        let mut pieces = Vec::new();
        if self.numbered {
            pieces.extend([text("<image_id>"), Piece::Counter, text("</image_id>")]);
        }
        pieces.extend([text("<image>"), self.slots(self.config.query_num), text("</image>")]);
        if let Some(Grid { columns, rows }) = grid {
            for row in 0..rows {
                if row > 0 {
                    pieces.push(text("\n"));
                }
                let slice = || [text("<slice>"), self.slots(self.config.query_num), text("</slice>")];
                pieces.extend((0..columns).flat_map(|_| slice()));
            }
        }
        pieces
    }

    fn sound(&self, audio: Audio) -> Result<Processed, ModelError> {
        let windows = self.features.of_each_window(audio);
        let rows_of = |frames| self.config.rows(states(frames));
        let windows: Vec<_> = windows.into_iter().filter(|window| rows_of(window.frames()) > 0).collect();
        let rows: usize = windows.iter().map(|window| rows_of(window.frames())).sum();
        if rows == 0 {
            return Err(ModelError::Unusable("the sound is too short: it must be some tens of milliseconds long".into()));
        }
        let bands = self.features.bands();
        let longest = windows.iter().map(|window| window.frames()).max().unwrap_or(0);
        let mut data = vec![0.0; windows.len() * bands * longest];
        for (window, all) in windows.iter().zip(data.chunks_exact_mut(bands * longest)) {
            for (band, line) in all.chunks_exact_mut(longest).enumerate() {
                line.iter_mut().zip(window.values[band..].iter().step_by(bands)).for_each(|(to, from)| *to = *from);
            }
        }
        let lengths = windows.iter().map(|window| window.frames() as f32).collect();
        let lengths = Array { shape: vec![windows.len()], data: lengths };
        let features = Array { shape: vec![windows.len(), bands, longest], data };
        let arrays = [("audio_features", features), ("audio_feature_lens", lengths)];
        Ok(Processed::heard(MediaInput::new(MediaKind::Audio, rows, arrays), self.sound_pieces(rows)))
    }

    /// Second by second.
    fn sound_pieces(&self, rows: usize) -> Vec<Piece> {
        let second = self.config.rows_per_second();
        let pieces = |first: usize| {
            let slots = self.slots(second.min(rows - first));
            [Piece::Text("<|audio_start|>".into()), slots, Piece::Text("<|audio_end|>".into())]
        };
        (0..rows).step_by(second).flat_map(pieces).collect()
    }

    fn slots(&self, count: usize) -> Piece {
        Piece::Slots { token: self.unknown_token, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_heard_window_by_window_and_written_second_by_second() {
        let processor = load(&Files::Folder(fixtures::model("minicpmo").unwrap())).unwrap();
        let sound = |length| Media::Audio(Audio { samples: vec![0.1; length], rate: 16_000 });
        // Samples, frames of each window, rows, blocks of rows.
        let cases: [(usize, &[f32], usize, usize); 4] =
            [(480, &[3.0], 1, 1), (8_000, &[50.0], 12, 1), (40_000, &[250.0], 62, 3), (31 * 16_000, &[3000.0, 100.0], 775, 31)];
        for (length, frames, rows, blocks) in cases {
            let Processed { input, pieces, .. } = processor.process(sound(length)).unwrap();
            assert_eq!((input.rows, pieces.len()), (rows, 3 * blocks), "{length} samples");
            assert_eq!(input.arrays["audio_feature_lens"].data, frames, "{length} samples");
        }
        assert!(processor.process(sound(320)).is_err(), "two frames make no row");
    }
}
