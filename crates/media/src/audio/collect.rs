use std::ops::ControlFlow;

use super::Audio;
use crate::options::starts_behind;
use crate::{AudioOptions, Interest, Limits, MediaError};

const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;

/// Samples as they are decoded: channels averaged, what is not wanted left out, limits kept.
pub struct Collector<'a> {
    options: &'a AudioOptions,
    pub limits: &'a Limits,
    pub interest: &'a Interest,
    samples: Vec<f32>,
    /// Of the samples so far; all have the same.
    rate: Option<u32>,
    /// Samples per channel, those left out included.
    seen: u64,
}

impl<'a> Collector<'a> {
    pub fn new(options: &'a AudioOptions, limits: &'a Limits, interest: &'a Interest) -> Self {
        Self { options, limits, interest, samples: Vec::new(), rate: None, seen: 0 }
    }

    /// Takes samples of all channels in turn. Breaks when all that is wanted is there.
    pub fn take(&mut self, rate: u32, channels: usize, interleaved: &[f32]) -> Result<ControlFlow<()>, MediaError> {
        self.interest.check()?;
        self.check_format(rate, channels)?;
        let part = self.options;
        let sample = |seconds: f64| (seconds * f64::from(rate)).round() as u64;
        let (first, end) = (part.start.map_or(0, sample), part.end.map_or(u64::MAX, sample));
        let count = (interleaved.len() / channels) as u64;
        let before = first.saturating_sub(self.seen).min(count);
        let wanted = end.saturating_sub(self.seen).min(count).saturating_sub(before);
        let share = 1.0 / channels as f32;
        let frames = interleaved.chunks_exact(channels).skip(before as usize).take(wanted as usize);
        self.samples.extend(frames.map(|frame| frame.iter().sum::<f32>() * share));
        self.seen += count;
        self.check_length(rate, first)?;
        Ok(if self.seen >= end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn check_format(&mut self, rate: u32, channels: usize) -> Result<(), MediaError> {
        let allowed = self.limits.audio_channels_max;
        if !(1..=allowed).contains(&channels) {
            return Err(too_large("the audio", format!("{channels} channels"), format!("{allowed} channels")));
        }
        if !RATES.contains(&rate) {
            let allowed = format!("{} Hz (and at least {} Hz)", RATES.end(), RATES.start());
            return Err(too_large("the audio's sample rate", format!("{rate} Hz"), allowed));
        }
        // A stream that changes its rate half way through.
        if *self.rate.get_or_insert(rate) != rate {
            return Err(MediaError::Damaged { format: "audio" });
        }
        Ok(())
    }

    fn check_length(&self, rate: u32, first: u64) -> Result<(), MediaError> {
        let Limits { audio_seconds_max, audio_skipped_seconds_max, audio_bytes_max, .. } = *self.limits;
        let over = |count: u64, seconds: u64| count > seconds.saturating_mul(u64::from(rate));
        let refused = |what, seconds: u64| {
            Err(too_large(what, format!("over {seconds} s long"), format!("{seconds} s (start and end choose a part)")))
        };
        if over(self.samples.len() as u64, audio_seconds_max) {
            return refused("the audio", audio_seconds_max);
        }
        if over(self.seen.min(first), audio_skipped_seconds_max) {
            return refused("what start leaves out", audio_skipped_seconds_max);
        }
        if self.samples.len() * 4 > audio_bytes_max {
            let allowed = format!("{} MiB decoded", audio_bytes_max >> 20);
            return Err(too_large("the audio", format!("over {allowed}"), allowed));
        }
        Ok(())
    }

    /// All that was taken.
    pub fn finish(self, format: &'static str) -> Result<Audio, MediaError> {
        let Some(rate) = self.rate.filter(|_| self.seen > 0) else { return Err(MediaError::NoSound) };
        if self.samples.is_empty() {
            return Err(starts_behind(self.options.start, "sound", self.seen as f64 / f64::from(rate)).into());
        }
        if !self.samples.iter().all(|sample| sample.is_finite()) {
            return Err(MediaError::Damaged { format });
        }
        Ok(Audio { samples: self.samples, rate })
    }
}

fn too_large(what: &'static str, found: String, allowed: String) -> MediaError {
    MediaError::TooLarge { what, found, allowed }
}
