use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, DynamicImage, Frame, ImageDecoder};

use super::{Budget, VideoInfo};
use crate::image::flatten;
use crate::{Image, Limits, MediaError};

const DAMAGED: MediaError = MediaError::Damaged { format: "GIF" };
/// What players show for longer than nothing when a file says "no delay", in milliseconds.
const DEFAULT_DELAY_MS: f64 = 100.0;

pub fn probe(bytes: &[u8], limits: &Limits) -> Result<VideoInfo, MediaError> {
    let (mut frames, mut milliseconds) = (0, 0.0);
    walk(bytes, limits, |_, frame| {
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        let delay = numerator as f64 / denominator as f64;
        milliseconds += if delay > 0.0 { delay } else { DEFAULT_DELAY_MS };
        frames += 1;
        Ok(true)
    })?;
    Ok(VideoInfo { frames, fps: frames as f64 * 1000.0 / milliseconds.max(1.0) })
}

pub fn frames(bytes: &[u8], indices: &[usize], limits: &Limits) -> Result<Vec<Image>, MediaError> {
    let mut kept = Vec::with_capacity(indices.len());
    let mut budget = Budget::new(limits);
    walk(bytes, limits, |index, frame| {
        while indices.get(kept.len()) == Some(&index) {
            let pixels = frame.buffer().clone();
            let (width, height) = (pixels.width() as usize, pixels.height() as usize);
            budget.take(width, height)?;
            kept.push(Image::new(width, height, flatten(DynamicImage::ImageRgba8(pixels))).ok_or(DAMAGED)?);
        }
        Ok(kept.len() < indices.len())
    })?;
    Ok(kept)
}

/// Decodes frame by frame until `see` says that it has seen enough.
fn walk(bytes: &[u8], limits: &Limits, mut see: impl FnMut(usize, Frame) -> Result<bool, MediaError>) -> Result<(), MediaError> {
    let walked = catch_unwind(AssertUnwindSafe(|| {
        let decoder = GifDecoder::new(Cursor::new(bytes)).map_err(|_| DAMAGED)?;
        let (width, height) = decoder.dimensions();
        limits.check_size(width as usize, height as usize, limits.frame_pixels_max)?;
        for (index, frame) in decoder.into_frames().enumerate() {
            if index >= limits.frames_walked_max {
                let (found, allowed) = (format!("over {index} frames"), format!("{} frames", limits.frames_walked_max));
                return Err(MediaError::TooLarge { what: "the video", found, allowed });
            }
            if !see(index, frame.map_err(|_| DAMAGED)?)? {
                return Ok(());
            }
        }
        Ok(())
    }));
    walked.unwrap_or(Err(DAMAGED))
}
