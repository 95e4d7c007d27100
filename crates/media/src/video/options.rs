use std::ops::Range;

use super::VideoInfo;
use crate::options::{OptionError, check_span, starts_behind};
use crate::{Limits, MediaError};

const FPS_MAX: f64 = 240.0;
/// Times of frames are quotients: a frame that begins at 1/3 s is among those from 0.333333333 s on.
const SECONDS_EPSILON: f64 = 1e-6;

/// What is wanted of a clip. What is left open, the model family's own rule decides.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VideoOptions {
    /// Frames per second that are looked at, instead of the family's own number. Of frames that are given as pictures: how fast
    /// they follow each other.
    pub fps: Option<f64>,
    /// Frames that are looked at, at most, instead of the family's own limit.
    pub max_frames: Option<usize>,
    /// What comes before is left out, in seconds.
    pub start: Option<f64>,
    /// What comes after is left out, in seconds.
    pub end: Option<f64>,
}

impl VideoOptions {
    /// Refuses what makes no sense for any clip.
    ///
    /// # Errors
    /// The option at fault.
    pub fn check(&self) -> Result<(), OptionError> {
        let refuse = |field, reason: String| Err(OptionError::new(field, reason));
        let frames_max = Limits::default().frames_kept_max;
        match *self {
            Self { fps: Some(fps), .. } if !(fps > 0.0 && fps <= FPS_MAX) => {
                refuse("fps", format!("must be above 0 and at most {FPS_MAX}, not {fps}"))
            }
            Self { max_frames: Some(frames), .. } if !(1..=frames_max).contains(&frames) => {
                refuse("max_frames", format!("must be between 1 and {frames_max}, not {frames}"))
            }
            Self { start, end, .. } => check_span(start, end),
        }
    }

    /// The frames that are shown between start and end.
    pub(super) fn part(&self, clip: &VideoInfo) -> Result<Range<usize>, MediaError> {
        let first = self.start.map_or(0.0, |start| ((start + SECONDS_EPSILON) * clip.fps).floor());
        let last = self.end.map_or(f64::INFINITY, |end| ((end - SECONDS_EPSILON) * clip.fps).ceil());
        if first >= clip.frames as f64 {
            return Err(self.behind_the_end(clip.duration()));
        }
        let first = first as usize;
        Ok(first..(last as usize).clamp(first + 1, clip.frames))
    }

    pub(super) fn behind_the_end(&self, duration: f64) -> MediaError {
        starts_behind(self.start, "clip", duration).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_is_shown_in_the_meantime() {
        let clip = VideoInfo { frames: 30, fps: 10.0 };
        let cases = [
            (None, None, 0..30),
            (Some(0.0), Some(3.0), 0..30),
            (Some(1.0), None, 10..30),
            (Some(1.05), Some(1.06), 10..11),
            (None, Some(0.3), 0..3),
            (Some(2.9), Some(100.0), 29..30),
        ];
        for (start, end, expected) in cases {
            let options = VideoOptions { start, end, ..VideoOptions::default() };
            assert_eq!(options.part(&clip), Ok(expected), "{start:?} to {end:?}");
        }
        let late = VideoOptions { start: Some(3.0), ..VideoOptions::default() };
        assert_eq!(late.part(&clip).unwrap_err().to_string(), "start is 3 s, but the clip is 3.00 s long");
        // A third of a second is not a number that a computer has.
        let thirds = VideoInfo { frames: 9, fps: 3.0 };
        let options = VideoOptions { start: Some(0.333_333_333), end: Some(0.666_666_667), ..VideoOptions::default() };
        assert_eq!(options.part(&thirds), Ok(1..2));
    }

    #[test]
    fn options_that_make_no_sense_are_named() {
        let base = VideoOptions::default();
        let cases = [
            (VideoOptions { fps: Some(0.0), ..base }, "fps must be above 0"),
            (VideoOptions { fps: Some(f64::NAN), ..base }, "fps must be above 0"),
            (VideoOptions { fps: Some(1e9), ..base }, "at most 240"),
            (VideoOptions { max_frames: Some(0), ..base }, "max_frames must be between 1 and 768"),
            (VideoOptions { max_frames: Some(769), ..base }, "not 769"),
            (VideoOptions { start: Some(-1.0), ..base }, "start must be"),
            (VideoOptions { start: Some(f64::INFINITY), ..base }, "start must be"),
            (VideoOptions { start: Some(2.0), end: Some(2.0), ..base }, "end must be a number of seconds after start, not 2"),
            (VideoOptions { end: Some(0.0), ..base }, "end must be"),
        ];
        for (options, expected) in cases {
            let message = options.check().expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(VideoOptions { fps: Some(0.1), max_frames: Some(768), start: Some(0.0), end: Some(0.1) }.check(), Ok(()));
    }
}
