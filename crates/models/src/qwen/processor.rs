use media::{Clip, ImageOptions, VideoInfo, VideoOptions};
use nn::{Array, Files, MediaInput, MediaKind, Prompt};
use serde::Deserialize;
use serde_json::json;
use text::Piece;

use super::grid::array_names;
use super::patches::{Counted, PatchDefaults, Patches};
use super::positions::{SECONDS, arrange};
use super::{Config, TowerConfig};
use crate::config::{PREPROCESSOR, VIDEO_PREPROCESSOR, read, require};
use crate::{Marker, Media, ModelError, Processed, Processor};

/// How a family looks at clips.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clips {
    /// As one run of rows, the area counted frame by frame. Steps in time are one position apart.
    Steps,
    /// The same, with positions that are so many to a second.
    Seconds {
        /// Of M-RoPE's first axis.
        tokens_per_second: f32,
    },
    /// As a run of rows for each step in time, its moment in words before it; the area is that of all frames together. The
    /// template's own `<|vision_start|>` and `<|vision_end|>` stay around the whole, as in transformers 5 (not in 4.57).
    Moments,
}

/// Pictures and clips of the whole line.
pub struct VisionProcessor {
    images: Patches,
    videos: Patches,
    sampling: Sampling,
    clips: Clips,
    image_token: u32,
    video_token: u32,
}

/// Which frames of a clip are looked at.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Sampling {
    fps: f64,
    min_frames: usize,
    max_frames: usize,
}

impl VisionProcessor {
    /// Reads preprocessor_config.json, and video_preprocessor_config.json where there is one.
    pub fn load<V>(
        files: &Files,
        config: &Config<V>,
        tower: &TowerConfig,
        defaults: [PatchDefaults; 2],
        clips: Clips,
    ) -> Result<Box<dyn Processor>, ModelError> {
        let [image_defaults, video_defaults] = defaults;
        let video_file = if files.text(VIDEO_PREPROCESSOR)?.is_some() { VIDEO_PREPROCESSOR } else { PREPROCESSOR };
        let sampling: Sampling = read(files, video_file, json!({"fps": 2.0, "min_frames": 4, "max_frames": 768}))?;
        let usable = sampling.fps > 0.0 && sampling.min_frames > 0 && sampling.max_frames >= sampling.min_frames;
        require(usable, files, video_file, "fps and min_frames must be positive, and max_frames no less than min_frames")?;
        Ok(Box::new(Self {
            images: Patches::read(files, PREPROCESSOR, image_defaults, tower)?,
            videos: Patches::read(files, video_file, video_defaults, tower)?,
            sampling,
            clips,
            image_token: config.image_token_id,
            video_token: config.video_token_id,
        }))
    }

    fn image(&self, image: &media::Image, wanted: &ImageOptions) -> Result<Processed, ModelError> {
        let views = [self.images.within(wanted, image.width(), image.height()).resized(image, Counted::Frame)?];
        let (patches, grid) = self.images.cut(&views);
        let rows = grid.squares(self.images.merge).patches();
        let names = array_names(MediaKind::Image);
        let input = MediaInput::new(MediaKind::Image, rows, [(names.pixels, patches), (names.grid, grid.array())]);
        Ok(Processed::seen(input, vec![Piece::Slots { token: self.image_token, count: rows }], views))
    }

    fn video(&self, clip: Clip) -> Result<Processed, ModelError> {
        let (times, fps) = (clip.times.clone(), clip.fps);
        let counted = match self.clips {
            Clips::Steps | Clips::Seconds { .. } => Counted::Frame,
            Clips::Moments => Counted::Frames(times.len()),
        };
        let frames = clip.each(|frame| self.videos.resized(&frame, counted))?;
        let (patches, grid) = self.videos.cut(&frames);
        let rows = grid.squares(self.videos.merge).patches();
        let names = array_names(MediaKind::Video);
        let mut arrays = vec![(names.pixels, patches), (names.grid, grid.array())];
        if let Clips::Seconds { .. } = self.clips {
            let seconds = self.videos.step as f64 / fps;
            arrays.push((SECONDS, Array { shape: vec![1], data: vec![seconds as f32] }));
        }
        let slots = |count| Piece::Slots { token: self.video_token, count };
        let pieces = match self.clips {
            Clips::Steps | Clips::Seconds { .. } => vec![slots(rows)],
            Clips::Moments => {
                let moments = times.chunks(self.videos.step).map(moment);
                let around = |before| [Piece::Text(before), slots(rows / grid.times), Piece::Text("<|vision_end|>".into())];
                moments.flat_map(|seconds| around(format!("<{seconds:.1} seconds><|vision_start|>"))).collect()
            }
        };
        Ok(Processed::seen(MediaInput::new(MediaKind::Video, rows, arrays), pieces, frames))
    }
}

impl Processor for VisionProcessor {
    fn markers(&self) -> &'static [Marker] {
        &[Marker { kind: MediaKind::Image, text: "<|image_pad|>" }, Marker { kind: MediaKind::Video, text: "<|video_pad|>" }]
    }

    fn sample(&self, clip: &VideoInfo, options: &VideoOptions) -> Vec<usize> {
        let sampling = self.sampling.with(options);
        match self.clips {
            Clips::Steps | Clips::Seconds { .. } => sampling.steps(clip, self.videos.step),
            Clips::Moments => sampling.ends(clip),
        }
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        match media {
            Media::Image(image, wanted) => self.image(&image, &wanted),
            Media::Video(clip) => self.video(clip),
            Media::Audio(_) => Err(media.refused()),
        }
    }

    fn arrange(&self, prompt: &mut Prompt) {
        let tokens_per_second = match self.clips {
            Clips::Seconds { tokens_per_second } => tokens_per_second,
            Clips::Steps | Clips::Moments => 1.0,
        };
        arrange(prompt, self.images.merge, tokens_per_second);
    }
}

impl Sampling {
    /// As a request wants it.
    fn with(self, options: &VideoOptions) -> Self {
        let max_frames = options.max_frames.unwrap_or(self.max_frames);
        Self { fps: options.fps.unwrap_or(self.fps), max_frames, min_frames: self.min_frames.min(max_frames) }
    }

    /// A number of frames that fills steps in time, each at the beginning of its share of the clip.
    fn steps(&self, clip: &VideoInfo, step: usize) -> Vec<usize> {
        let whole = |frames: usize| frames / step * step;
        let wanted = (clip.duration() * self.fps).max(self.min_frames as f64);
        let count = wanted.min(whole(clip.frames.min(self.max_frames)) as f64) as usize;
        let count = whole(count).max(1);
        let stride = clip.frames as f64 / count as f64;
        (0..count).map(|i| (i as f64 * stride) as usize).collect()
    }

    /// Evenly spread from the first frame to the last.
    fn ends(&self, clip: &VideoInfo) -> Vec<usize> {
        let wanted = (clip.duration() * self.fps) as usize;
        let count = wanted.clamp(self.min_frames, self.max_frames).min(clip.frames);
        let last = clip.frames - 1;
        let stride = last as f64 / (count.max(2) - 1) as f64;
        (0..count).map(|i| ((i as f64 * stride).round_ties_even() as usize).min(last)).collect()
    }
}

/// The middle between the first and the last frame of a step, in seconds.
fn moment(step: &[f64]) -> f64 {
    (step.first().unwrap_or(&0.0) + step.last().unwrap_or(&0.0)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_chosen_by_time() {
        let sampling = Sampling { fps: 2.0, min_frames: 4, max_frames: 8 };
        let cases: [(usize, f64, &[usize], &[usize]); 5] = [
            (36, 12.0, &[0, 6, 12, 18, 24, 30], &[0, 7, 14, 21, 28, 35]),
            (20, 8.0, &[0, 5, 10, 15], &[0, 5, 10, 14, 19]),
            (1, 10.0, &[0], &[0]),
            (3, 30.0, &[0, 1], &[0, 1, 2]),
            (100, 10.0, &[0, 12, 25, 37, 50, 62, 75, 87], &[0, 14, 28, 42, 57, 71, 85, 99]),
        ];
        for (frames, fps, steps, ends) in cases {
            let clip = VideoInfo { frames, fps };
            assert_eq!(sampling.steps(&clip, 2), steps, "{frames} frames at {fps}");
            assert_eq!(sampling.ends(&clip), ends, "{frames} frames at {fps}");
        }
    }
}
