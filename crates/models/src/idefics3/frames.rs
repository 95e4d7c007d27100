//! Clips in words: how many frames, of how long a clip, and when each was.

use media::VideoInfo;

use super::config::VideoSampling;

const SKIPPED_SECONDS: f64 = 1.0;

/// Evenly spread frames; a long clip loses its first and last second.
pub fn sample(clip: &VideoInfo, sampling: &VideoSampling) -> Vec<usize> {
    let duration = clip.duration();
    let estimated = (sampling.fps * duration).round_ties_even() as usize;
    let count = estimated.clamp(1, sampling.max_frames);
    let end = clip.frames - 1;
    let long = duration - 2.0 * SKIPPED_SECONDS > sampling.max_frames as f64 * sampling.fps;
    let skipped = SKIPPED_SECONDS * clip.fps;
    let (first, last) = match long {
        true => (skipped as usize, ((clip.frames as f64 - skipped) as usize).min(end)),
        false => (0, end),
    };
    let (first, last) = if first < last { (first, last) } else { (0, end) };
    let step = (last - first) as f64 / (count.max(2) - 1) as f64;
    let mut indices: Vec<usize> = (0..count).map(|i| (i as f64 * step + first as f64) as usize).collect();
    if count > 1 {
        indices[count - 1] = last;
    }
    indices.dedup();
    indices
}

/// What stands before the frames.
pub fn introduction(frames: usize, clip: &VideoInfo) -> String {
    let seconds = clip.duration() as usize;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let count = in_words(frames);
    format!("You are provided the following series of {count} frames from a {hours}:{minutes:02}:{seconds:02} [H:MM:SS] video.\n")
}

/// What stands before one frame.
pub fn moment(seconds: f64) -> String {
    format!("\nFrame from {:02}:{:02}:", (seconds / 60.0) as usize, (seconds % 60.0) as usize)
}

fn in_words(n: usize) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match n {
        0..20 => SMALL[n].to_string(),
        20..100 if n.is_multiple_of(10) => TENS[n / 10].to_string(),
        20..100 => format!("{}-{}", TENS[n / 10], SMALL[n % 10]),
        100..1000 if n.is_multiple_of(100) => format!("{} hundred", SMALL[n / 100]),
        100..1000 => format!("{} hundred and {}", SMALL[n / 100], in_words(n % 100)),
        _ => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Size;

    #[test]
    fn numbers_in_words() {
        for (n, words) in
            [(0, "zero"), (3, "three"), (17, "seventeen"), (40, "forty"), (64, "sixty-four"), (101, "one hundred and one")]
        {
            assert_eq!(in_words(n), words);
        }
    }

    #[test]
    fn frames_are_spread_evenly() {
        let sampling = VideoSampling { fps: 1.0, max_frames: 4, video_size: Size::default() };
        let cases: [(usize, f64, &[usize]); 5] =
            [(36, 12.0, &[0, 17, 35]), (1, 10.0, &[0]), (3, 30.0, &[0]), (2, 0.5, &[0, 1]), (100, 10.0, &[10, 36, 63, 90])];
        for (frames, fps, expected) in cases {
            assert_eq!(sample(&VideoInfo { frames, fps }, &sampling), expected, "{frames} frames at {fps}");
        }
    }

    #[test]
    fn times_in_words() {
        let clip = VideoInfo { frames: 75_000, fps: 10.0 };
        assert!(introduction(2, &clip).contains("two frames from a 2:05:00 [H:MM:SS]"));
        assert_eq!(moment(73.5), "\nFrame from 01:13:");
    }
}
