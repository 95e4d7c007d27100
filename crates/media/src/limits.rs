use crate::MediaError;

/// What one picture, sound or clip may cost. Checked against headers, before anything is allocated, and again while decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Width or height of a picture or frame, in pixels.
    pub side_max: usize,
    /// Width times height of a picture, in pixels.
    pub pixels_max: usize,
    /// Width times height of a frame, in pixels.
    pub frame_pixels_max: usize,
    /// Frames that a clip may have.
    pub frames_max: usize,
    /// Frames of a clip that are decoded.
    pub frames_walked_max: usize,
    /// Frames of a clip that are kept.
    pub frames_kept_max: usize,
    /// Decoded bytes that are held at once: of one picture, or of what is made of a clip's frames.
    pub decoded_bytes_max: usize,
    /// Length of a sound, or of the part of it that is wanted, in seconds.
    pub audio_seconds_max: u64,
    /// Length of what is decoded of a sound, and left out before the part that is wanted, in seconds.
    pub audio_skipped_seconds_max: u64,
    /// Bytes of a decoded sound, four for each sample.
    pub audio_bytes_max: usize,
    /// Channels of a sound.
    pub audio_channels_max: usize,
    /// Pages of a PDF that are read.
    pub pages_max: usize,
    /// Time that a program may take to decode one file, in seconds.
    pub decoding_seconds_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            side_max: 16_384,
            pixels_max: 64_000_000,
            frame_pixels_max: 50_000_000,
            frames_max: 1_000_000,
            frames_walked_max: 36_000,
            frames_kept_max: 768,
            decoded_bytes_max: 512 << 20,
            audio_seconds_max: 600,
            audio_skipped_seconds_max: 7200,
            audio_bytes_max: 256 << 20,
            audio_channels_max: 8,
            pages_max: 32,
            decoding_seconds_max: 30,
        }
    }
}

impl Limits {
    /// Refuses a picture (or frame) of this size.
    pub(crate) fn check_size(&self, width: usize, height: usize, pixels_max: usize) -> Result<(), MediaError> {
        let refused = |found: String, allowed: String| MediaError::TooLarge { what: "the picture", found, allowed };
        if width.max(height) > self.side_max {
            return Err(refused(format!("{width}x{height} pixels"), format!("{} pixels a side", self.side_max)));
        }
        if width.saturating_mul(height) > pixels_max {
            return Err(refused(format!("{width}x{height} pixels"), format!("{pixels_max} pixels in all")));
        }
        Ok(())
    }
}
