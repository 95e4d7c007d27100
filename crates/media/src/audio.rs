//! A decoded sound, and what is done to it before a model hears it.

mod collect;
mod native;
mod program;
mod resample;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use collect::Collector;

use crate::{AudioOptions, Interest, Limits, MediaError};

/// A sound with one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// What was recorded, from -1 to 1 as a rule; the channels of the file averaged.
    pub samples: Vec<f32>,
    /// Samples per second.
    pub rate: u32,
}

impl Audio {
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// The same sound with another number of samples per second: a low pass that keeps 91 % of what both rates can carry, and
    /// nothing that one of them cannot (the response of the SoX resampler's HQ setting).
    pub fn resampled(self, rate: u32) -> Self {
        if self.rate == rate {
            return self;
        }
        Self { samples: resample::resample(&self.samples, self.rate, rate), rate }
    }
}

/// Decodes a sound, or the part of it that the options want, until nobody waits for it any more. The format is told by the first
/// bytes. Opus, and what else is not decoded here, takes the ffmpeg program.
///
/// # Errors
/// [`MediaError::NotAudio`], [`MediaError::TooLarge`] (counted while decoding), [`MediaError::NoSound`], [`MediaError::Damaged`],
/// [`MediaError::NoFfmpeg`] where only that program can help, or [`MediaError::Option`] for a part that is not there.
pub fn decode_audio(bytes: Vec<u8>, options: &AudioOptions, limits: &Limits, interest: &Interest) -> Result<Audio, MediaError> {
    options.check()?;
    let format = native::recognise(&bytes);
    if format.is_none() && !program::is_known(&bytes) {
        return Err(MediaError::NotAudio);
    }
    let bytes: Arc<[u8]> = bytes.into();
    let collector = || Collector::new(options, limits, interest);
    if let Some(format) = format {
        // Decoders have panicked on hostile files before; such a file is a damaged one.
        let decode = AssertUnwindSafe(|| native::decode(bytes.clone(), format, collector()));
        match catch_unwind(decode).unwrap_or(Err(MediaError::Damaged { format }))? {
            native::Decoded::Audio(audio) => return Ok(audio),
            native::Decoded::Unsupported => {}
        }
    }
    program::decode(&bytes, collector())
}
