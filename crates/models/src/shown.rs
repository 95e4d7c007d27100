//! Pictures in the size that a request wants, for families that take any size.

use media::{Filter, Image, ImageOptions};

use crate::{ModelError, Processed};

/// By how much the sides of a picture are reduced that has too many tokens still, at least.
const STEP: f64 = 0.9;

/// A picture, reduced (or enlarged) to what is wanted and then processed. Where more tokens would stand for it than may, it is reduced
/// further, unless there are as many for the smallest picture.
///
/// # Errors
/// Those of `process`.
pub fn shown(
    image: &Image,
    wanted: &ImageOptions,
    process: impl Fn(&Image) -> Result<Processed, ModelError>,
) -> Result<Processed, ModelError> {
    let (mut width, mut height) = wanted.fitted(image.width(), image.height());
    let processed = |width, height| match (width, height) == (image.width(), image.height()) {
        true => process(image),
        false => process(&image.resize(width, height, Filter::Bicubic)),
    };
    let mut found = processed(width, height)?;
    let Some(most) = wanted.max_tokens.filter(|most| found.tokens() > *most) else { return Ok(found) };
    let least = process(&image.resize(1, 1, Filter::Bicubic))?.tokens();
    while least <= most && found.tokens() > most && width.max(height) > 1 {
        let scale = (most as f64 / found.tokens() as f64).sqrt().min(STEP);
        [width, height] = [width, height].map(|side| ((side as f64 * scale) as usize).max(1));
        found = processed(width, height)?;
    }
    Ok(found)
}
