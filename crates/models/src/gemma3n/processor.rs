use media::{Image, VideoInfo, VideoOptions};
use nn::{Files, MediaInput, MediaKind};
use serde::Deserialize;
use serde_json::json;
use text::Piece;

use super::config::Config;
use super::mobilenet::REDUCTION;
use super::model::PICTURES;
use super::sound::Sound;
use crate::config::{PREPROCESSOR, read, require};
use crate::pixels::{PixelDefaults, Pixels, Size};
use crate::shown::shown;
use crate::{Marker, Media, ModelError, Processed, Processor};

const IMAGE: &str = "<image_soft_token>";
const SOUND: &str = "<audio_soft_token>";
const BEGIN: &str = "<start_of_image>";
const END: &str = "<end_of_image>";

/// Frames of a clip that are looked at per second, and at most.
const FPS: f64 = 1.0;
const FRAMES_MAX: usize = 32;

const PIXELS: PixelDefaults = PixelDefaults { mean: [0.0; 3], std: [1.0; 3], resample: 2 };

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
struct ProcessorConfig {
    size: Size,
}

struct Gemma3n {
    pixels: Pixels,
    size: [usize; 2],
    image_token: u32,
    rows: usize,
    sound: Sound,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let model = Config::read(files)?;
    let config: ProcessorConfig = read(files, PREPROCESSOR, json!({"size": {"height": 768, "width": 768}}))?;
    let size = [config.size.height, config.size.width].map(Option::unwrap_or_default);
    // Behind the stage before the last, places are as many as rows, or squares of as many places stand for a row.
    let places = size[0] / REDUCTION * 2;
    let side = model.vision_config.model_args.msfa_output_resolution;
    let fits = size[0] == size[1] && size[0] > 0 && size[0].is_multiple_of(REDUCTION) && places.is_multiple_of(side);
    require(
        fits,
        files,
        PREPROCESSOR,
        &format!("size must be a square whose side is a multiple of {REDUCTION} and of {}", side * 16),
    )?;
    let (image_token, rows) = (model.image_token_id, model.vision_soft_tokens_per_image);
    Ok(Box::new(Gemma3n { pixels: Pixels::read(files, PIXELS)?, size, image_token, rows, sound: Sound::read(files, &model)? }))
}

impl Processor for Gemma3n {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: IMAGE }, Marker { kind: MediaKind::Audio, text: SOUND }]
    }

    /// The template knows no clips: their frames are pictures.
    fn shown_as(&self, kind: MediaKind) -> MediaKind {
        if kind == MediaKind::Video { MediaKind::Image } else { kind }
    }

    /// Evenly spread, the first frame of each part.
    fn sample(&self, clip: &VideoInfo, options: &VideoOptions) -> Vec<usize> {
        let wanted = (clip.duration() * options.fps.unwrap_or(FPS)).round() as usize;
        let count = wanted.clamp(1, options.max_frames.unwrap_or(FRAMES_MAX)).min(clip.frames);
        (0..count).map(|i| i * clip.frames / count).collect()
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        let [height, width] = self.size;
        let view = |image: &Image| image.resize(width, height, self.pixels.filter);
        match media {
            Media::Image(image, wanted) => shown(&image, &wanted, |image| Ok(self.seen(&[view(image)]))),
            Media::Audio(audio) => self.sound.process(audio),
            Media::Video(clip) => Ok(self.seen(&clip.each(|frame| Ok::<_, ModelError>(view(&frame)))?)),
        }
    }
}

impl Gemma3n {
    /// Pictures, or frames of a clip.
    fn seen(&self, views: &[Image]) -> Processed {
        let pieces = views.iter().flat_map(|_| block([BEGIN, END], self.image_token, self.rows)).collect();
        let arrays = [(PICTURES, self.pixels.planes(views))];
        let input = MediaInput::new(MediaKind::Image, views.len() * self.rows, arrays);
        Processed::seen(input, pieces, views.to_vec())
    }
}

/// What stands for one picture, or for one window of a sound.
pub fn block([begin, end]: [&str; 2], token: u32, rows: usize) -> [Piece; 3] {
    let words = |words: String| Piece::Text(words);
    [words(format!("\n\n{begin}")), Piece::Slots { token, count: rows }, words(format!("{end}\n\n"))]
}
