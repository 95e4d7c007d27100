//! JPEG by a decoder that gives the same bytes as libjpeg-turbo, which the reference uses.

use image::metadata::Orientation;
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, PixelFormat, probe};

use super::Image;
use crate::{Limits, MediaError};

/// Progressive scans that are followed.
const SCANS_MAX: usize = 100;

/// RGB pixels as stored, and how they are meant to be turned.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<(Image, Orientation), MediaError> {
    let damaged = MediaError::Damaged { format: "JPEG" };
    let info = probe(bytes).map_err(|_| damaged.clone())?;
    limits.check_size(info.width, info.height, limits.pixels_max)?;
    let inks = matches!(info.color_space, ColorSpace::Cmyk | ColorSpace::Ycck);
    let mut decoder = Decoder::new(bytes).map_err(|_| damaged.clone())?;
    decoder.set_limits(DecodeLimits {
        max_scans: SCANS_MAX,
        max_memory: Some(limits.decoded_bytes_max as u64),
        ..DecodeLimits::default()
    });
    decoder.set_output_format(if inks { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    let decoded = decoder.decode_image().map_err(|_| damaged.clone())?;
    let rgb = if inks { decoded.data.chunks_exact(4).flat_map(without_ink).collect() } else { decoded.data };
    let image = Image::new(decoded.width, decoded.height, rgb).ok_or(damaged)?;
    let turned = info.exif_orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms);
    Ok((image, turned))
}

/// (1-C)(1-K) in integers. JPEG stores inks inverted (Adobe's convention), so a byte is what is left of the paper.
fn without_ink(pixel: &[u8]) -> [u8; 3] {
    let black = pixel[3] as u32;
    [pixel[0], pixel[1], pixel[2]].map(|left| {
        let product = (255 - left as u32) * black + 128;
        (black - (((product >> 8) + product) >> 8)) as u8
    })
}
