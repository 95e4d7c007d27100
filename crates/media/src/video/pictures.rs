use std::ops::Range;

use super::{VideoInfo, VideoOptions};
use crate::options::OptionError;
use crate::{Image, Limits, MediaError, decode_image};

/// When frames are shown that are given as pictures.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// At equal distances, so many in a second.
    Fps(f64),
    /// At these seconds, one for each frame, ascending.
    At(Vec<f64>),
}

/// Frames as files of pictures, decoded one by one.
#[derive(Debug)]
pub struct Pictures {
    files: Vec<Vec<u8>>,
    timing: Timing,
}

impl Pictures {
    pub fn new(files: Vec<Vec<u8>>, timing: Timing) -> Result<Self, MediaError> {
        if let Timing::At(times) = &timing {
            let refuse = |reason: String| Err(OptionError::new("timestamps", reason).into());
            if times.len() != files.len() {
                return refuse(format!("has {} numbers for {} frames", times.len(), files.len()));
            }
            let ascend = times.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascend || times.iter().any(|time| !(time.is_finite() && *time >= 0.0)) {
                return refuse("must be ascending numbers of seconds from 0 on".into());
            }
        }
        Ok(Self { files, timing })
    }

    pub fn info(&self) -> VideoInfo {
        let frames = self.files.len();
        let fps = match &self.timing {
            Timing::Fps(fps) => *fps,
            Timing::At(times) => match times.as_slice() {
                [first, .., last] => (frames - 1) as f64 / (last - first),
                _ => 1.0,
            },
        };
        VideoInfo { frames, fps }
    }

    /// When a frame is shown, in seconds.
    pub fn time(&self, index: usize) -> f64 {
        match &self.timing {
            Timing::Fps(fps) => index as f64 / fps,
            Timing::At(times) => times[index],
        }
    }

    /// The frames between start and end.
    pub fn part(&self, options: &VideoOptions) -> Result<Range<usize>, MediaError> {
        let Timing::At(times) = &self.timing else { return options.part(&self.info()) };
        let before = |seconds: f64| times.partition_point(|time| *time < seconds);
        let part = options.start.map_or(0, before)..options.end.map_or(times.len(), before);
        let last = times.last().copied().unwrap_or_default();
        match options.start {
            Some(start) if start > last => Err(options.behind_the_end(last)),
            _ if part.is_empty() => Err(OptionError::new("end", "leaves no frame between itself and start").into()),
            _ => Ok(part),
        }
    }

    pub fn frames(&self, indices: Vec<usize>, limits: &Limits) -> impl Iterator<Item = Result<Image, MediaError>> {
        let limits = *limits;
        indices.into_iter().map(move |i| decode_image(&self.files[i], &limits))
    }
}

/// So many of these, evenly.
pub fn spread(part: Range<usize>, count_max: Option<usize>) -> Vec<usize> {
    let count = count_max.unwrap_or(part.len()).min(part.len());
    (0..count).map(|i| part.start + i * part.len() / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_somebody_chose_are_thinned_evenly() {
        for (part, count, expected) in
            [(0..3, None, vec![0, 1, 2]), (2..8, Some(3), vec![2, 4, 6]), (0..2, Some(5), vec![0, 1]), (5..10, Some(1), vec![5])]
        {
            assert_eq!(spread(part, count), expected);
        }
    }

    #[test]
    fn parts_go_by_timestamps() {
        let files = vec![Vec::new(); 4];
        let pictures = Pictures::new(files.clone(), Timing::At(vec![0.5, 1.0, 4.0, 6.5])).unwrap();
        assert_eq!(pictures.info(), VideoInfo { frames: 4, fps: 0.5 });
        let part = |start, end| pictures.part(&VideoOptions { start, end, ..VideoOptions::default() });
        assert_eq!(part(Some(1.0), Some(6.5)), Ok(1..3));
        assert_eq!(part(None, None), Ok(0..4));
        assert_eq!(part(Some(7.0), None).unwrap_err().to_string(), "start is 7 s, but the clip is 6.50 s long");
        assert_eq!(part(Some(1.5), Some(2.0)).unwrap_err().to_string(), "end leaves no frame between itself and start");
        for (times, expected) in [(vec![0.0, 1.0], "2 numbers for 4 frames"), (vec![0.0, 2.0, 1.0, 3.0], "ascending")] {
            let message = Pictures::new(files.clone(), Timing::At(times)).unwrap_err().to_string();
            assert!(message.starts_with("timestamps ") && message.contains(expected), "{message}");
        }
    }
}
