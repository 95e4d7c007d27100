//! Clips: how many frames, how fast, and some of them as pictures.

mod ffmpeg;
mod gif;

use crate::{Image, Limits, MediaError};

/// What a sampling rule needs to know of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoInfo {
    /// Number of frames.
    pub frames: usize,
    /// Average frames per second.
    pub fps: f64,
}

impl VideoInfo {
    /// Length in seconds.
    pub fn duration(&self) -> f64 {
        self.frames as f64 / self.fps
    }
}

/// A clip that was probed but not decoded.
#[derive(Debug)]
pub struct Video {
    info: VideoInfo,
    source: Source,
    limits: Limits,
}

#[derive(Debug)]
enum Source {
    /// Decoded here.
    Gif(Vec<u8>),
    /// Decoded by the ffmpeg program.
    Container(ffmpeg::Container),
}

impl Video {
    /// Recognises the container and counts its frames.
    pub fn open(bytes: Vec<u8>, limits: &Limits) -> Result<Self, MediaError> {
        let (info, source) = if bytes.starts_with(b"GIF8") {
            (gif::probe(&bytes, limits)?, Source::Gif(bytes))
        } else if ffmpeg::is_container(&bytes) {
            let container = ffmpeg::Container::new(&bytes)?;
            (container.probe(limits)?, Source::Container(container))
        } else {
            return Err(MediaError::NotAVideo);
        };
        if info.frames == 0 {
            return Err(MediaError::NoFrames);
        }
        Ok(Self { info, source, limits: *limits })
    }

    /// Frames and speed.
    pub fn info(&self) -> VideoInfo {
        self.info
    }

    /// The frames at `indices` (ascending), in display order. Only these are kept; decoding ends behind the last one.
    pub fn frames(&self, indices: &[usize]) -> Result<Vec<Image>, MediaError> {
        let allowed = self.limits.frames_kept_max;
        if indices.len() > allowed {
            let found = format!("{} frames", indices.len());
            return Err(MediaError::TooLarge { what: "the video's sample", found, allowed: format!("{allowed} frames") });
        }
        let frames = match &self.source {
            Source::Gif(bytes) => gif::frames(bytes, indices, &self.limits)?,
            Source::Container(container) => container.frames(indices, &self.limits)?,
        };
        match frames.len() == indices.len() {
            true => Ok(frames),
            false => Err(MediaError::Damaged { format: "video" }),
        }
    }
}

/// Counts the bytes of kept frames.
struct Budget {
    bytes: usize,
    allowed: usize,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self { bytes: 0, allowed: limits.decoded_bytes_max }
    }

    fn take(&mut self, width: usize, height: usize) -> Result<(), MediaError> {
        self.bytes = self.bytes.saturating_add(width.saturating_mul(height).saturating_mul(3));
        if self.bytes <= self.allowed {
            return Ok(());
        }
        let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
        Err(MediaError::TooLarge { what: "the video's sampled frames", found: mib(self.bytes), allowed: mib(self.allowed) })
    }
}
