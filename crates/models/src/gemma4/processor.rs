use media::mel::{Edges, Log, Mel, MelConfig, MelScale, Spectrum, Window};
use media::{Audio, Clip, Detail, Image, ImageOptions, VideoInfo, VideoOptions};
use nn::{Array, Files, MediaInput, MediaKind, Prompt};
use serde::Deserialize;
use serde_json::{Value, json};
use text::Piece;

use super::config::{Config, VisionConfig, has_islands};
use super::ears::{FEATURES, FRAMES_PER_ROW, rows};
use super::tower::array_names;
use crate::config::{CONFIG, read, read_part, require};
use crate::gemma::emphasis;
use crate::pixels::{PixelDefaults, Pixels};
use crate::{Marker, Media, ModelError, Processed, Processor};

/// Holds the configurations of all processors.
const PROCESSOR: &str = "processor_config.json";
/// The largest budget that the class knows.
const ROWS_MAX: usize = 1120;
const PIXELS: PixelDefaults = PixelDefaults { mean: [0.0; 3], std: [1.0; 3], resample: 3 };

struct Gemma4 {
    images: Patches,
    videos: Patches,
    /// Frames of a clip that are looked at.
    num_frames: usize,
    image_token: u32,
    video_token: u32,
    islands: bool,
    sounds: Option<Sounds>,
}

/// `feature_extractor`.
#[derive(Debug, Deserialize)]
struct FeatureConfig {
    feature_size: usize,
    sampling_rate: u32,
    frame_length: usize,
    hop_length: usize,
    fft_length: usize,
    min_frequency: f64,
    max_frequency: f64,
    preemphasis: f64,
    preemphasis_htk_flavor: bool,
    mel_floor: f64,
    input_scale_factor: f32,
    per_bin_mean: Option<Vec<f32>>,
    per_bin_stddev: Option<Vec<f32>>,
}

/// What processor_config.json says of all kinds together.
#[derive(Debug, Deserialize)]
struct Lengths {
    audio_seq_length: usize,
}

/// Sounds → spectrograms.
struct Sounds {
    mel: Mel,
    /// Rows that a sound becomes at most.
    rows_max: usize,
    audio_token: u32,
}

/// `image_processor` or `video_processor`.
#[derive(Debug, Deserialize)]
struct PatchConfig {
    patch_size: usize,
    pooling_kernel_size: usize,
    max_soft_tokens: usize,
}

/// What only `video_processor` has.
#[derive(Debug, Deserialize)]
struct VideoConfig {
    num_frames: usize,
}

/// Resizes and cuts pictures, or frames of clips.
#[derive(Clone)]
struct Patches {
    patch: usize,
    pooling: usize,
    /// Rows that a picture becomes at most.
    rows_max: usize,
    /// The most that this may be.
    rows_limit: usize,
    pixels: Pixels,
}

pub fn load(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    let config = Config::read(files)?;
    let video: VideoConfig = read_part(files, PROCESSOR, "video_processor", json!({"num_frames": 32}))?;
    require(video.num_frames > 0, files, PROCESSOR, "video_processor.num_frames must be positive")?;
    Ok(Box::new(Gemma4 {
        images: Patches::read(files, "image_processor", 280, &config.vision_config)?,
        videos: Patches::read(files, "video_processor", 70, &config.vision_config)?,
        num_frames: video.num_frames,
        image_token: config.image_token_id,
        video_token: config.video_token_id,
        islands: has_islands(files)?,
        sounds: if config.audio_config.is_some() { Some(Sounds::read(files, config.audio_token_id)?) } else { None },
    }))
}

/// Numbers of a frame of a spectrogram.
pub fn bands(files: &Files) -> Result<usize, ModelError> {
    Ok(FeatureConfig::read(files)?.feature_size)
}

impl Processor for Gemma4 {
    fn markers(&self) -> &'static [Marker] {
        &[
            Marker { kind: MediaKind::Image, text: "<|image|>" },
            Marker { kind: MediaKind::Audio, text: "<|audio|>" },
            Marker { kind: MediaKind::Video, text: "<|video|>" },
        ]
    }

    /// Evenly spread, each at the beginning of its share of the clip.
    fn sample(&self, clip: &VideoInfo, options: &VideoOptions) -> Vec<usize> {
        let most = options.max_frames.unwrap_or(self.num_frames);
        let wanted = options.fps.map_or(most, |fps| (clip.duration() * fps) as usize);
        let count = wanted.min(most).clamp(1, clip.frames);
        let stride = clip.frames as f64 / count as f64;
        (0..count).map(|i| (i as f64 * stride) as usize).collect()
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        match media {
            Media::Image(image, wanted) => Ok(self.image(&image, &wanted)),
            Media::Video(clip) => self.video(clip),
            Media::Audio(audio) => match &self.sounds {
                Some(sounds) => sounds.process(audio),
                None => Err(ModelError::Unusable("this member of the family does not take audio input".into())),
            },
        }
    }

    fn arrange(&self, prompt: &mut Prompt) {
        if self.islands {
            let seen = prompt.media.iter().filter(|item| item.input.kind != MediaKind::Audio);
            prompt.islands = seen.flat_map(|item| item.at.iter().cloned()).collect();
        }
    }
}

impl Gemma4 {
    fn image(&self, image: &Image, wanted: &ImageOptions) -> Processed {
        let patches = self.images.within(wanted, image.width(), image.height());
        let views = [patches.resized(image)];
        let rows = patches.rows(&views[0]);
        let names = array_names(MediaKind::Image);
        let [pixels, places] = patches.cut(&views);
        let input = MediaInput::new(MediaKind::Image, rows, [(names.pixels, pixels), (names.places, places)]);
        Processed::seen(input, view("", self.image_token, rows).into(), views)
    }

    fn video(&self, clip: Clip) -> Result<Processed, ModelError> {
        let times = clip.times.clone();
        let frames = clip.each(|frame| Ok::<_, ModelError>(self.videos.resized(&frame)))?;
        let rows = frames.first().map_or(0, |frame| self.videos.rows(frame));
        let names = array_names(MediaKind::Video);
        let [pixels, places] = self.videos.cut(&frames);
        let count = Array { shape: vec![1], data: vec![frames.len() as f32] };
        let arrays = [(names.pixels, pixels), (names.places, places), ("num_frames_per_video", count)];
        let input = MediaInput::new(MediaKind::Video, rows * frames.len(), arrays);
        let separators = std::iter::once("").chain(std::iter::repeat(" "));
        let moments = times.iter().zip(separators).map(|(time, separator)| format!("{separator}{} ", moment(*time)));
        let pieces = moments.flat_map(|moment| view(&moment, self.video_token, rows)).collect();
        Ok(Processed::seen(input, pieces, frames))
    }
}

impl FeatureConfig {
    fn read(files: &Files) -> Result<Self, ModelError> {
        let config: Self = read_part(
            files,
            PROCESSOR,
            "feature_extractor",
            json!({
                "feature_size": 128, "sampling_rate": 16000, "frame_length": 320, "hop_length": 160, "fft_length": 512,
                "min_frequency": 0.0, "max_frequency": 8000.0, "preemphasis": 0.0, "preemphasis_htk_flavor": true,
                "mel_floor": 1e-3, "input_scale_factor": 1.0,
            }),
        )?;
        let check = |met, reason: &str| require(met, files, PROCESSOR, &format!("feature_extractor.{reason}"));
        check((1..=1024).contains(&config.feature_size), "feature_size must be between 1 and 1024")?;
        check((1_000..=384_000).contains(&config.sampling_rate), "sampling_rate must be between 1000 and 384000")?;
        let frame = config.frame_length;
        check(frame > 0 && config.hop_length > 0, "frame_length and hop_length must be positive")?;
        check((frame..=1 << 16).contains(&config.fft_length), "fft_length must be between frame_length and 65536")?;
        let band = 0.0 <= config.min_frequency && config.min_frequency < config.max_frequency && config.max_frequency.is_finite();
        check(band, "min_frequency must be less than max_frequency")?;
        check(config.mel_floor > 0.0, "mel_floor must be positive")?;
        let plain = config.input_scale_factor == 1.0 && config.per_bin_mean.is_none() && config.per_bin_stddev.is_none();
        check(plain, "input_scale_factor, per_bin_mean and per_bin_stddev are not supported")?;
        Ok(config)
    }
}

impl Sounds {
    fn read(files: &Files, audio_token: u32) -> Result<Self, ModelError> {
        let config = FeatureConfig::read(files)?;
        let lengths: Lengths = read(files, PROCESSOR, json!({"audio_seq_length": 750}))?;
        require(lengths.audio_seq_length > 0, files, PROCESSOR, "audio_seq_length must be positive")?;
        let mel = Mel::new(MelConfig {
            rate: config.sampling_rate,
            frame: config.frame_length,
            hop: config.hop_length,
            fft: config.fft_length,
            window: Window::Hann,
            edges: Edges::Silent { before: config.frame_length / 2 },
            emphasis: emphasis(config.preemphasis, config.preemphasis_htk_flavor),
            spectrum: Spectrum::Magnitude,
            bands: config.feature_size,
            hertz: [config.min_frequency, config.max_frequency],
            scale: MelScale::Htk,
            log: Log::NaturalAbove { floor: config.mel_floor },
        });
        Ok(Self { mel, rows_max: lengths.audio_seq_length, audio_token })
    }

    fn process(&self, audio: Audio) -> Result<Processed, ModelError> {
        let config = self.mel.config();
        let seconds = audio.seconds();
        let seconds_max = (self.rows_max * FRAMES_PER_ROW * config.hop) as f64 / f64::from(config.rate);
        if seconds > seconds_max {
            let reason = format!(
                "the sound is {seconds:.1} s long, and this model hears {seconds_max:.0} s at a time: ask about a part (start, end), or \
                 about several parts of it"
            );
            return Err(ModelError::Unusable(reason));
        }
        let spectrogram = self.mel.spectrogram(&audio.resampled(config.rate).samples);
        let frames = spectrogram.frames();
        let count = rows(frames);
        if count == 0 {
            return Err(ModelError::Unusable(format!("the sound is {seconds:.3} s long, too short to be heard")));
        }
        let features = Array { shape: vec![1, frames, config.bands], data: spectrogram.values };
        let input = MediaInput::new(MediaKind::Audio, count, [(FEATURES, features)]);
        let words = |words: &str| Piece::Text(words.into());
        let pieces = vec![words("<|audio>"), Piece::Slots { token: self.audio_token, count }, words("<audio|>")];
        Ok(Processed::heard(input, pieces))
    }
}

/// The rows of a picture or frame, between its brackets.
fn view(before: &str, token: u32, rows: usize) -> [Piece; 3] {
    let words = |words: String| Piece::Text(words);
    [words(format!("{before}<|image>")), Piece::Slots { token, count: rows }, words("<image|>".into())]
}

/// Minutes and seconds.
fn moment(seconds: f64) -> String {
    let seconds = seconds as usize;
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

impl Patches {
    fn read(files: &Files, key: &str, rows_max: usize, vision: &VisionConfig) -> Result<Self, ModelError> {
        let defaults: Value = json!({"patch_size": 16, "pooling_kernel_size": 3, "max_soft_tokens": rows_max});
        let config: PatchConfig = read_part(files, PROCESSOR, key, defaults)?;
        let check = |met, reason: &str| require(met, files, PROCESSOR, &format!("{key}.{reason}"));
        let same = config.patch_size == vision.patch_size && config.pooling_kernel_size == vision.pooling_kernel_size;
        check(same, &format!("patch_size and pooling_kernel_size must be those of vision_config of {CONFIG}"))?;
        check((1..=ROWS_MAX).contains(&config.max_soft_tokens), &format!("max_soft_tokens must be between 1 and {ROWS_MAX}"))?;
        let places = config.max_soft_tokens * config.pooling_kernel_size <= vision.position_embedding_size;
        check(places, &format!("max_soft_tokens does not fit vision_config.position_embedding_size of {CONFIG}"))?;
        Ok(Self {
            patch: config.patch_size,
            pooling: config.pooling_kernel_size,
            rows_max: config.max_soft_tokens,
            rows_limit: ROWS_MAX.min(vision.position_embedding_size / config.pooling_kernel_size),
            pixels: Pixels::read_part(files, PROCESSOR, key, PIXELS)?,
        })
    }

    /// With the budget that is wanted for a picture of this size. The class knows five of them; any number will do.
    fn within(&self, wanted: &ImageOptions, width: usize, height: usize) -> Self {
        let usual = if wanted.detail == Some(Detail::High) { self.rows_limit } else { self.rows_max };
        let by_pixels = wanted.most_pixels(width, height).map(|pixels| pixels / (self.patch * self.pooling).pow(2));
        let most = by_pixels.into_iter().chain(wanted.max_tokens).fold(self.rows_limit, usize::min).max(1);
        let pixels = |rows: usize| self.size([width, height], rows).iter().product::<usize>();
        let rows_max = (usual.min(most)..=most).find(|rows| pixels(*rows) >= wanted.min_pixels.unwrap_or(0)).unwrap_or(most);
        Self { rows_max, ..self.clone() }
    }

    fn resized(&self, image: &Image) -> Image {
        let [width, height] = self.size([image.width(), image.height()], self.rows_max);
        image.resize(width, height, self.pixels.filter)
    }

    /// Width and height: the largest multiples of a row's side with nearly the same shape, of no more rows than allowed.
    fn size(&self, [width, height]: [usize; 2], rows_max: usize) -> [usize; 2] {
        let unit = self.patch * self.pooling;
        let area = rows_max * unit * unit;
        let factor = (area as f64 / (width * height) as f64).sqrt();
        let [mut columns, mut rows] = [width, height].map(|side| (factor * side as f64 / unit as f64).floor() as usize);
        if rows == 0 {
            (rows, columns) = (1, (width / height).min(rows_max));
        } else if columns == 0 {
            (rows, columns) = ((height / width).min(rows_max), 1);
        }
        [columns.max(1) * unit, rows.max(1) * unit]
    }

    /// Rows that a resized picture becomes.
    fn rows(&self, image: &Image) -> usize {
        let unit = self.patch * self.pooling;
        (image.width() / unit) * (image.height() / unit)
    }

    /// Pictures of one size as patches [pictures, patches at most, patch * patch * 3], pixel by pixel, and their columns and rows
    /// [pictures, patches at most, 2]; zero and -1 where there is no patch.
    fn cut(&self, images: &[Image]) -> [Array; 2] {
        let (patch, most) = (self.patch, self.rows_max * self.pooling * self.pooling);
        let elements = patch * patch * 3;
        let (mut pixels, mut places) = (Vec::with_capacity(images.len() * most * elements), Vec::new());
        for (image, end) in images.iter().zip(1..) {
            for row in 0..image.height() / patch {
                for column in 0..image.width() / patch {
                    for y in row * patch..(row + 1) * patch {
                        let line = &image.rgb()[(y * image.width() + column * patch) * 3..][..patch * 3];
                        pixels.extend(line.iter().enumerate().map(|(i, level)| self.pixels.value(i % 3, *level)));
                    }
                    places.extend([column as f32, row as f32]);
                }
            }
            pixels.resize(end * most * elements, 0.0);
            places.resize(end * most * 2, -1.0);
        }
        let array = |width, data| Array { shape: vec![images.len(), most, width], data };
        [array(elements, pixels), array(2, places)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_minutes_and_seconds() {
        for (seconds, words) in [(0.0, "00:00"), (1.99, "00:01"), (61.0, "01:01"), (3600.0, "60:00")] {
            assert_eq!(moment(seconds), words);
        }
    }
}
