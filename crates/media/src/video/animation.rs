//! Animated pictures, decoded here.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, DynamicImage, Frame, ImageDecoder};

use super::VideoInfo;
use crate::image::flatten;
use crate::{Image, Limits, MediaError};

/// What players show for longer than nothing when a file says "no delay", in milliseconds.
const DEFAULT_DELAY_MS: f64 = 100.0;

/// File formats that hold animations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Gif,
    WebP,
    Png,
}

#[derive(Debug)]
pub struct Animation {
    format: Format,
    bytes: Vec<u8>,
}

impl Format {
    fn damaged(self) -> MediaError {
        let format = match self {
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Png => "PNG",
        };
        MediaError::Damaged { format }
    }
}

impl Animation {
    /// The format, if the bytes begin like an animation. Any GIF is one, if only of one frame.
    pub fn recognise(bytes: &[u8]) -> Result<Option<Format>, MediaError> {
        let format = match bytes {
            [b'G', b'I', b'F', b'8', ..] => Format::Gif,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Format::WebP,
            [0x89, b'P', b'N', b'G', ..] => Format::Png,
            _ => return Ok(None),
        };
        let moves = guarded(format, || match format {
            Format::Gif => Ok(true),
            Format::WebP => Ok(WebPDecoder::new(Cursor::new(bytes)).map_err(|_| format.damaged())?.has_animation()),
            Format::Png => {
                PngDecoder::new(Cursor::new(bytes)).and_then(|decoder| decoder.is_apng()).map_err(|_| format.damaged())
            }
        })?;
        if moves { Ok(Some(format)) } else { Err(MediaError::StillPicture) }
    }

    pub fn new(format: Format, bytes: Vec<u8>) -> Self {
        Self { format, bytes }
    }

    /// Counts frames and adds up their delays. Each has to be decoded for that: the decoders skip none.
    pub fn probe(&self, limits: &Limits) -> Result<VideoInfo, MediaError> {
        let (mut frames, mut milliseconds) = (0, 0.0);
        for frame in self.walk(limits)? {
            let (numerator, denominator) = frame?.delay().numer_denom_ms();
            let delay = numerator as f64 / denominator as f64;
            milliseconds += if delay > 0.0 { delay } else { DEFAULT_DELAY_MS };
            frames += 1;
        }
        Ok(VideoInfo { frames, fps: frames as f64 * 1000.0 / milliseconds.max(1.0) })
    }

    /// The frames at `indices`, ascending.
    pub fn frames(
        &self,
        indices: Vec<usize>,
        limits: &Limits,
    ) -> Result<impl Iterator<Item = Result<Image, MediaError>>, MediaError> {
        let mut wanted = indices.into_iter().peekable();
        let chosen = self.walk(limits)?.enumerate().filter(move |(i, frame)| frame.is_err() || wanted.next_if_eq(i).is_some());
        Ok(chosen.map(|(_, frame)| self.picture(frame?)))
    }

    fn picture(&self, frame: Frame) -> Result<Image, MediaError> {
        let pixels = frame.into_buffer();
        let (width, height) = (pixels.width() as usize, pixels.height() as usize);
        Image::new(width, height, flatten(DynamicImage::ImageRgba8(pixels))).ok_or(self.format.damaged())
    }

    /// All frames, one after the other, each as it is seen.
    fn walk(&self, limits: &Limits) -> Result<impl Iterator<Item = Result<Frame, MediaError>>, MediaError> {
        let (format, limits) = (self.format, *limits);
        let damaged = move |_| format.damaged();
        let mut frames = guarded(format, || {
            let bytes = Cursor::new(self.bytes.as_slice());
            let check = |(width, height): (u32, u32)| limits.check_size(width as usize, height as usize, limits.frame_pixels_max);
            Ok(match format {
                Format::Gif => {
                    let decoder = GifDecoder::new(bytes).map_err(damaged)?;
                    check(decoder.dimensions())?;
                    decoder.into_frames()
                }
                Format::WebP => {
                    let decoder = WebPDecoder::new(bytes).map_err(damaged)?;
                    check(decoder.dimensions())?;
                    decoder.into_frames()
                }
                Format::Png => {
                    let decoder = PngDecoder::new(bytes).map_err(damaged)?;
                    check(decoder.dimensions())?;
                    decoder.apng().map_err(damaged)?.into_frames()
                }
            })
        })?;
        let next = move || guarded(format, || frames.next().transpose().map_err(damaged)).transpose();
        let allowed = limits.frames_walked_max;
        let too_many = move |index| {
            let (found, allowed) = (format!("over {index} frames"), format!("{allowed} frames"));
            MediaError::TooLarge { what: "the video", found, allowed }
        };
        Ok(std::iter::from_fn(next).enumerate().map(move |(i, frame)| if i < allowed { frame } else { Err(too_many(i)) }))
    }
}

/// Decoders have panicked on hostile files before; such a file is a damaged one.
fn guarded<T>(format: Format, work: impl FnOnce() -> Result<T, MediaError>) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(format.damaged()))
}
