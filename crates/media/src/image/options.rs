use std::str::FromStr;

use crate::Limits;
use crate::options::OptionError;

/// Longest side of a picture that is looked at with little detail, in pixels.
const LOW_EDGE: usize = 512;

/// What is wanted of a picture. What is left open, the model family's own rule decides; its own largest size stays a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// How closely it is looked at.
    pub detail: Option<Detail>,
    /// Width times height that the model is shown, at least.
    pub min_pixels: Option<usize>,
    /// Width times height that the model is shown, at most.
    pub max_pixels: Option<usize>,
    /// Tokens that stand for it, at most.
    pub max_tokens: Option<usize>,
    /// The longer side of what the model is shown, in pixels, at most.
    pub max_edge: Option<usize>,
}

/// How closely a picture is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// As the model family does.
    Auto,
    /// No side is longer than 512 pixels, unless another option says how large it is.
    Low,
    /// As closely as the model family can.
    High,
}

impl FromStr for Detail {
    type Err = OptionError;

    /// `auto`, `low` or `high`.
    fn from_str(name: &str) -> Result<Self, OptionError> {
        match name {
            "auto" => Ok(Self::Auto),
            "low" => Ok(Self::Low),
            "high" => Ok(Self::High),
            _ => Err(OptionError::new("detail", "must be auto, low or high")),
        }
    }
}

impl ImageOptions {
    /// Refuses what makes no sense for any picture.
    ///
    /// # Errors
    /// The option at fault.
    pub fn check(&self) -> Result<(), OptionError> {
        let Limits { pixels_max, side_max, .. } = Limits::default();
        let fields = [
            ("min_pixels", self.min_pixels, pixels_max),
            ("max_pixels", self.max_pixels, pixels_max),
            ("max_tokens", self.max_tokens, pixels_max),
            ("max_edge", self.max_edge, side_max),
        ];
        for (field, value, most) in fields {
            if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
                return Err(OptionError::new(field, format!("must be between 1 and {most}, not {value}")));
            }
        }
        match (self.min_pixels, self.max_pixels) {
            (Some(min), Some(max)) if min > max => {
                Err(OptionError::new("min_pixels", format!("is {min}, more than max_pixels, which is {max}")))
            }
            _ => Ok(()),
        }
    }

    /// With defaults for what is left open; high detail wants none of them.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        if self.detail == Some(Detail::High) {
            return self;
        }
        Self {
            detail: self.detail.or(defaults.detail),
            min_pixels: self.min_pixels.or(defaults.min_pixels),
            max_pixels: self.max_pixels.or(defaults.max_pixels),
            max_tokens: self.max_tokens.or(defaults.max_tokens),
            max_edge: self.max_edge.or(defaults.max_edge),
        }
    }

    /// The longest side that may be shown, in pixels, if that is said.
    pub fn most_edge(&self) -> Option<usize> {
        let said = self.max_pixels.or(self.max_tokens).is_some();
        let low = self.detail == Some(Detail::Low) && !said;
        self.max_edge.or(low.then_some(LOW_EDGE))
    }

    /// The most pixels that may be shown of a picture of this size, if that is said. No less than one.
    pub fn most_pixels(&self, width: usize, height: usize) -> Option<usize> {
        let by_edge = self.most_edge().map(|edge| {
            let scale = edge as f64 / width.max(height) as f64;
            (width as f64 * scale * height as f64 * scale) as usize
        });
        self.max_pixels.into_iter().chain(by_edge).min().map(|pixels| pixels.max(1))
    }

    /// Width and height of a picture of this size as it is shown by a family that takes any size.
    pub fn fitted(&self, width: usize, height: usize) -> (usize, usize) {
        let scale = |pixels: usize| (pixels as f64 / (width * height) as f64).sqrt();
        let by_edge = self.most_edge().map(|edge| edge as f64 / width.max(height) as f64);
        let most = by_edge.into_iter().chain(self.max_pixels.map(scale)).fold(f64::INFINITY, f64::min);
        match self.min_pixels.map_or(0.0, scale).min(most) {
            _ if most < 1.0 => scaled(width, height, most, f64::floor),
            least if least > 1.0 => scaled(width, height, least, f64::ceil),
            _ => (width, height),
        }
    }
}

fn scaled(width: usize, height: usize, scale: f64, round: fn(f64) -> f64) -> (usize, usize) {
    let side_max = Limits::default().side_max;
    // What arithmetic misses by a hair is no pixel more or less.
    let side = |side: usize| (round((side as f64 * scale * 1e6).round() / 1e6) as usize).clamp(1, side_max);
    (side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_named() {
        let base = ImageOptions::default();
        let cases = [
            (ImageOptions { min_pixels: Some(0), ..base }, "min_pixels must be between 1 and 64000000, not 0"),
            (ImageOptions { max_pixels: Some(64_000_001), ..base }, "max_pixels must be"),
            (ImageOptions { max_tokens: Some(0), ..base }, "max_tokens must be"),
            (ImageOptions { max_edge: Some(16_385), ..base }, "max_edge must be between 1 and 16384, not 16385"),
            (ImageOptions { min_pixels: Some(2), max_pixels: Some(1), ..base }, "min_pixels is 2, more than max_pixels"),
        ];
        for (options, expected) in cases {
            let message = options.check().expect_err(expected).to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        assert_eq!(ImageOptions { min_pixels: Some(1), max_pixels: Some(1), ..base }.check(), Ok(()));
        assert!("medium".parse::<Detail>().is_err());
    }

    #[test]
    fn pictures_keep_their_shape_within_what_is_wanted() {
        let base = ImageOptions::default();
        let low = ImageOptions { detail: Some(Detail::Low), ..base };
        let cases = [
            (base, (4000, 3000), (4000, 3000)),
            (ImageOptions { max_pixels: Some(1_000_000), ..base }, (4000, 1000), (2000, 500)),
            (ImageOptions { min_pixels: Some(40_000), ..base }, (100, 100), (200, 200)),
            (ImageOptions { min_pixels: Some(40_000), max_edge: Some(150), ..base }, (100, 100), (150, 150)),
            (ImageOptions { max_edge: Some(100), ..base }, (400, 200), (100, 50)),
            (ImageOptions { max_edge: Some(100), ..base }, (50, 20), (50, 20)),
            (ImageOptions { max_edge: Some(10), ..base }, (16_000, 10), (10, 1)),
            (low, (1024, 256), (512, 128)),
            (ImageOptions { max_pixels: Some(1 << 20), ..low }, (1024, 1024), (1024, 1024)),
            (ImageOptions { detail: Some(Detail::High), ..base }, (1024, 256), (1024, 256)),
        ];
        for (options, (width, height), expected) in cases {
            assert_eq!(options.fitted(width, height), expected, "{options:?} of {width} x {height}");
        }
    }

    #[test]
    fn what_is_said_comes_before_defaults() {
        let defaults = ImageOptions { max_edge: Some(512), max_tokens: Some(64), ..ImageOptions::default() };
        let said = ImageOptions { max_edge: Some(1024), ..ImageOptions::default() };
        assert_eq!(said.or(&defaults), ImageOptions { max_edge: Some(1024), max_tokens: Some(64), ..ImageOptions::default() });
        let high = ImageOptions { detail: Some(Detail::High), ..ImageOptions::default() };
        assert_eq!(high.or(&defaults), high);
    }
}
