//! Bytes → pixels, samples and frames.
//!
//! Knows: file formats ([`decode_image`], [`Video`]), how a picture is meant to be seen (orientation, transparency, deep and
//! subtractive colours) and how it is resized ([`Image::resize`]), how a sound is resampled ([`Audio::resampled`]) and what is
//! seen of it ([`mel`]), and what the pages of a PDF look like ([`read_pdf`]). The decoding rules are those of the reference: first
//! frame, EXIF orientation applied, alpha over white, 16 bits cut to 8, CMYK by (1-C)(1-K), then RGB; channels of a sound averaged.
//!
//! Must never know: tensors, models, the network, how many requests there are. Everything is a function of its bytes and of
//! the [`Limits`]; nothing is allocated before its size was checked against them.

mod audio;
mod error;
mod ffmpeg;
mod image;
mod interest;
mod limits;
pub mod mel;
mod options;
mod pdf;
mod video;

pub use audio::{Audio, decode_audio};
pub use error::MediaError;
pub use ffmpeg::Ffmpeg;
pub use image::{Detail, Filter, Image, ImageOptions, decode_image};
pub use interest::Interest;
pub use limits::Limits;
pub use options::{AudioOptions, OptionError};
pub use pdf::{PageOptions, Pages, PdfReader, is_pdf, read_pdf, write_pages};
pub use video::{Clip, Timing, Video, VideoInfo, VideoOptions};
