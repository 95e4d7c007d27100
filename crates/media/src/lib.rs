//! Bytes → pixels and frames.
//!
//! Knows: file formats ([`decode_image`], [`Video`]), how a picture is meant to be seen (orientation, transparency, deep and
//! subtractive colours) and how it is resized ([`Image::resize`]). The decoding rules are those of the reference: first
//! frame, EXIF orientation applied, alpha over white, 16 bits cut to 8, CMYK by (1-C)(1-K), then RGB.
//!
//! Must never know: tensors, models, the network, how many requests there are. Everything is a function of its bytes and of
//! the [`Limits`]; nothing is allocated before its size was checked against them.

mod error;
mod image;
mod limits;
mod video;

pub use error::MediaError;
pub use image::{Filter, Image, decode_image};
pub use limits::Limits;
pub use video::{Clip, Ffmpeg, Interest, OptionError, Timing, Video, VideoInfo, VideoOptions};
