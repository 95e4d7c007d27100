use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::{Image, jpeg};
use crate::{Limits, MediaError};

/// Decodes the first frame of a picture as a person would see it.
///
/// # Errors
/// [`MediaError::NotAnImage`], [`MediaError::TooLarge`] (from the header, before decoding) or [`MediaError::Damaged`].
pub fn decode_image(bytes: &[u8], limits: &Limits) -> Result<Image, MediaError> {
    let format = image::guess_format(bytes).map_err(|_| MediaError::NotAnImage)?;
    let name = match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => return Err(MediaError::NotAnImage),
    };
    // Decoders have panicked on hostile files before; such a file is a damaged one.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, limits),
        _ => decode_other(bytes, format, name, limits),
    }));
    let (image, orientation) = decoded.unwrap_or(Err(MediaError::Damaged { format: name }))?;
    turn(image, orientation).ok_or(MediaError::Damaged { format: name })
}

fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: &Limits,
) -> Result<(Image, Orientation), MediaError> {
    let damaged = |_| MediaError::Damaged { format: name };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = image::Limits::default();
    memory.max_alloc = Some(limits.decoded_bytes_max as u64);
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    limits.check_size(width as usize, height as usize, limits.pixels_max)?;
    let orientation = decoder.orientation().map_err(damaged)?;
    let pixels = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let rgb = flatten(pixels);
    let image = Image::new(width as usize, height as usize, rgb).ok_or(MediaError::Damaged { format: name })?;
    Ok((image, orientation))
}

/// Any pixel layout as RGB8: deep channels cut to their high byte, alpha over white.
pub fn flatten(pixels: DynamicImage) -> Vec<u8> {
    let high = |deep: Vec<u16>| -> Vec<u8> { deep.into_iter().map(|c| (c >> 8) as u8).collect() };
    match pixels {
        DynamicImage::ImageLuma8(p) => spread_gray(&p),
        DynamicImage::ImageLumaA8(p) => over_white::<1>(&p),
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageRgba8(p) => over_white::<3>(&p),
        DynamicImage::ImageLuma16(p) => spread_gray(&high(p.into_raw())),
        DynamicImage::ImageLumaA16(p) => over_white::<1>(&high(p.into_raw())),
        DynamicImage::ImageRgb16(p) => high(p.into_raw()),
        DynamicImage::ImageRgba16(p) => over_white::<3>(&high(p.into_raw())),
        DynamicImage::ImageRgba32F(p) => over_white::<3>(&DynamicImage::ImageRgba32F(p).into_rgba8()),
        other => other.into_rgb8().into_raw(),
    }
}

fn spread_gray(gray: &[u8]) -> Vec<u8> {
    gray.iter().flat_map(|&v| [v; 3]).collect()
}

/// Composites `CHANNELS` colours and an alpha onto white, rounding as the reference does.
fn over_white<const CHANNELS: usize>(pixels: &[u8]) -> Vec<u8> {
    let composite = |pixel: &[u8]| {
        let alpha = pixel[CHANNELS] as u32;
        std::array::from_fn::<u8, 3, _>(|c| {
            let sum = pixel[c.min(CHANNELS - 1)] as u32 * alpha + 255 * (255 - alpha) + 128;
            (((sum >> 8) + sum) >> 8) as u8
        })
    };
    pixels.chunks_exact(CHANNELS + 1).flat_map(composite).collect()
}

fn turn(image: Image, orientation: Orientation) -> Option<Image> {
    if orientation == Orientation::NoTransforms {
        return Some(image);
    }
    let mut pixels = DynamicImage::ImageRgb8(RgbImage::from_raw(image.width as u32, image.height as u32, image.rgb)?);
    pixels.apply_orientation(orientation);
    Image::new(pixels.width() as usize, pixels.height() as usize, pixels.into_rgb8().into_raw())
}
