//! What of a sound models look at: how loud each band of pitches is, frame by frame. Bands are equally wide in mel, which is about
//! as an ear tells pitches apart (Stevens, Volkmann and Newman 1937).
//!
//! Front ends of Whisper and of the Universal Speech Model differ in how frames are cut, in scale and in what the logarithm is of:
//! [`MelConfig`] says all that as data.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// A front end.
#[derive(Debug, Clone, PartialEq)]
pub struct MelConfig {
    /// Samples per second.
    pub rate: u32,
    /// Samples of a frame.
    pub frame: usize,
    /// Samples from one frame to the next.
    pub hop: usize,
    /// Length of the Fourier transform, at least that of a frame: what is missing is silence behind it.
    pub fft: usize,
    /// What a frame's samples are weighed with.
    pub window: Window,
    /// What frames at the edges see.
    pub edges: Edges,
    /// What is done to a frame's samples first.
    pub emphasis: Emphasis,
    /// What is measured of each frequency.
    pub spectrum: Spectrum,
    /// Bands.
    pub bands: usize,
    /// Lowest and highest frequency, in Hz.
    pub hertz: [f64; 2],
    /// Where bands lie, and how high their triangles are.
    pub scale: MelScale,
    /// What is made of a band's sum.
    pub log: Log,
}

/// What a frame's samples are weighed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Half a cosine, periodic: it is zero at the frame's first sample and at the one behind its last.
    Hann,
    /// A cosine on a pedestal, the same at the frame's first and last sample.
    Hamming,
}

/// What frames at the edges see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edges {
    /// The sound in a mirror: frames are centred on every hop, from the first sample on.
    Mirrored,
    /// Silence, so many samples before the sound. A frame must lie within the sound, with one more sample behind it.
    Silent {
        /// Samples.
        before: usize,
    },
    /// Nothing else: a frame lies within the sound.
    Within,
}

/// What is done to a frame's samples first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Emphasis {
    /// Nothing.
    Absent,
    /// A share of each sample is taken from the next; the frame's first sample is its own predecessor (as the toolkit HTK does it).
    Within(f64),
    /// The same over the frame that begins a sample later, each sample with its true predecessor.
    Across(f64),
}

/// What is measured of each frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spectrum {
    /// |x|
    Magnitude,
    /// |x|²
    Power,
}

/// Where bands lie, and how high their triangles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MelScale {
    /// 2595 log10(1 + f / 700), all triangles of height one.
    Htk,
    /// Linear below 1 kHz and logarithmic above, all triangles of the same area (Slaney 1998).
    Slaney,
    /// As [`MelScale::Htk`], but the sides of the triangles are straight in mel instead of Hz (as the toolkit Kaldi does it).
    Kaldi,
}

/// What is made of a band's sum.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // floor: what keeps silence finite
pub enum Log {
    /// log10(max(x, floor))
    Ten { floor: f64 },
    /// ln(max(x, floor))
    Natural { floor: f64 },
    /// ln(x + floor)
    NaturalAbove { floor: f64 },
}

/// A front end, ready.
#[derive(Clone)]
pub struct Mel {
    config: MelConfig,
    window: Vec<f64>,
    triangles: Vec<Triangle>,
    fft: Arc<dyn RealToComplex<f64>>,
}

/// What a band takes of the spectrum.
#[derive(Debug, Clone, PartialEq)]
struct Triangle {
    first: usize,
    weights: Vec<f64>,
}

/// Loudness of bands, frame by frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrogram {
    /// Numbers of a frame.
    pub bands: usize,
    /// [frames, bands]
    pub values: Vec<f32>,
}

impl Spectrogram {
    /// Frames.
    pub fn frames(&self) -> usize {
        self.values.len() / self.bands.max(1)
    }

    /// Forgets the frames from this one on.
    pub fn truncate(&mut self, frames: usize) {
        self.values.truncate(frames * self.bands);
    }
}

impl Mel {
    /// Frame, hop and bands are positive, and the transform no shorter than a frame.
    pub fn new(config: MelConfig) -> Self {
        let window = (0..config.frame).map(|i| config.window.weight(i, config.frame)).collect();
        let fft = RealFftPlanner::new().plan_fft_forward(config.fft);
        Self { window, triangles: triangles(&config), fft, config }
    }

    /// What it is.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Logarithms of all bands of samples at the front end's rate.
    pub fn spectrogram(&self, samples: &[f32]) -> Spectrogram {
        let MelConfig { frame, hop, fft, edges, bands, .. } = self.config;
        let (padded, needed) = match edges {
            Edges::Mirrored => (mirrored(samples, fft / 2), fft),
            Edges::Silent { before } => ([&vec![0.0; before], samples].concat(), frame + 1),
            Edges::Within => (samples.to_vec(), frame),
        };
        let frames = if padded.len() < needed { 0 } else { (padded.len() - needed) / hop + 1 };
        let mut values = Vec::with_capacity(frames * bands);
        let (mut input, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut scratch = self.fft.make_scratch_vec();
        for i in 0..frames {
            self.cut(&padded[i * hop..][..needed], &mut input);
            // Lengths are those that the transform was made for.
            if self.fft.process_with_scratch(&mut input, &mut spectrum, &mut scratch).is_err() {
                break;
            }
            self.measure(&spectrum, &mut values);
        }
        Spectrogram { bands, values }
    }

    /// A frame's samples under the window, and silence behind them.
    fn cut(&self, x: &[f32], input: &mut [f64]) {
        input.fill(0.0);
        let x = |i: usize| f64::from(x[i]);
        for (i, (out, window)) in input.iter_mut().zip(&self.window).enumerate() {
            let sample = match self.config.emphasis {
                Emphasis::Absent => x(i),
                Emphasis::Within(share) => x(i) - share * x(i.saturating_sub(1)),
                Emphasis::Across(share) => x(i + 1) - share * x(i),
            };
            *out = sample * window;
        }
    }

    fn measure(&self, spectrum: &[Complex<f64>], values: &mut Vec<f32>) {
        let levels: Vec<f64> = match self.config.spectrum {
            Spectrum::Magnitude => spectrum.iter().map(|x| x.norm()).collect(),
            Spectrum::Power => spectrum.iter().map(|x| x.norm_sqr()).collect(),
        };
        values.extend(self.triangles.iter().map(|triangle| {
            let levels = &levels[triangle.first..];
            let sum: f64 = triangle.weights.iter().zip(levels).map(|(weight, level)| weight * level).sum();
            let log = match self.config.log {
                Log::Ten { floor } => sum.max(floor).log10(),
                Log::Natural { floor } => sum.max(floor).ln(),
                Log::NaturalAbove { floor } => (sum + floor).ln(),
            };
            log as f32
        }));
    }
}

impl Window {
    /// Of a sample.
    fn weight(self, sample: usize, frame: usize) -> f64 {
        let cosine = |last: usize| (2.0 * PI * sample as f64 / last.max(1) as f64).cos();
        match self {
            Self::Hann => 0.5 - 0.5 * cosine(frame),
            Self::Hamming => 0.54 - 0.46 * cosine(frame - 1),
        }
    }
}

/// The sound with so many samples of its mirror image on both sides; the samples at the edges are not repeated.
fn mirrored(samples: &[f32], by: usize) -> Vec<f32> {
    let Some(last) = samples.len().checked_sub(1) else { return Vec::new() };
    let before = (1..=by).rev().map(|i| samples[i.min(last)]);
    let behind = (1..=by).map(|i| samples[last.saturating_sub(i)]);
    before.chain(samples.iter().copied()).chain(behind).collect()
}

fn triangles(config: &MelConfig) -> Vec<Triangle> {
    let MelConfig { rate, fft, bands, hertz, scale, .. } = *config;
    let [low, high] = hertz.map(|hertz| scale.mel(hertz));
    // Where each triangle begins; it has its top where the next begins, and ends where the one after that begins.
    let corners: Vec<f64> = (0..bands + 2).map(|i| scale.place(low + (high - low) * i as f64 / (bands + 1) as f64)).collect();
    let frequency = |bin: usize| scale.place_of(bin as f64 * f64::from(rate) / fft as f64);
    let triangle = |band: usize| {
        let [begin, top, end] = [0, 1, 2].map(|i| corners[band + i]);
        let height = match scale {
            MelScale::Htk | MelScale::Kaldi => 1.0,
            MelScale::Slaney => 2.0 / (end - begin),
        };
        let weight = |bin: usize| {
            let at = frequency(bin);
            height * ((at - begin) / (top - begin)).min((end - at) / (end - top)).max(0.0)
        };
        let all: Vec<f64> = (0..=fft / 2).map(weight).collect();
        let first = all.iter().position(|weight| *weight > 0.0).unwrap_or(0);
        let behind = all.iter().rposition(|weight| *weight > 0.0).map_or(first, |last| last + 1);
        Triangle { first, weights: all[first..behind].to_vec() }
    };
    (0..bands).map(triangle).collect()
}

impl MelScale {
    /// Where a number of mel lies on the axis that triangles are straight on.
    fn place(self, mel: f64) -> f64 {
        match self {
            Self::Htk | Self::Slaney => self.hertz(mel),
            Self::Kaldi => mel,
        }
    }

    /// Where a frequency lies there.
    fn place_of(self, hertz: f64) -> f64 {
        match self {
            Self::Htk | Self::Slaney => hertz,
            Self::Kaldi => self.mel(hertz),
        }
    }

    fn mel(self, hertz: f64) -> f64 {
        match self {
            Self::Htk | Self::Kaldi => 2595.0 * (1.0 + hertz / 700.0).log10(),
            Self::Slaney if hertz < LINEAR_HZ => hertz / LINEAR_STEP,
            Self::Slaney => LINEAR_HZ / LINEAR_STEP + (hertz / LINEAR_HZ).ln() / log_step(),
        }
    }

    fn hertz(self, mel: f64) -> f64 {
        match self {
            Self::Htk | Self::Kaldi => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            Self::Slaney if mel < LINEAR_HZ / LINEAR_STEP => mel * LINEAR_STEP,
            Self::Slaney => LINEAR_HZ * (log_step() * (mel - LINEAR_HZ / LINEAR_STEP)).exp(),
        }
    }
}

/// Slaney's scale: up to here a mel is so many Hz, and above 27 of them make a factor of 6.4.
const LINEAR_HZ: f64 = 1000.0;
const LINEAR_STEP: f64 = 200.0 / 3.0;

fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whisper() -> MelConfig {
        MelConfig {
            rate: 16_000,
            frame: 400,
            hop: 160,
            fft: 400,
            window: Window::Hann,
            edges: Edges::Mirrored,
            emphasis: Emphasis::Absent,
            spectrum: Spectrum::Power,
            bands: 80,
            hertz: [0.0, 8000.0],
            scale: MelScale::Slaney,
            log: Log::Ten { floor: 1e-10 },
        }
    }

    #[test]
    fn frames_are_as_many_as_fit() {
        let silent = |before| MelConfig { edges: Edges::Silent { before }, ..whisper() };
        let cases = [
            (whisper(), 0, 0),
            (whisper(), 1600, 11),
            (silent(0), 400, 0),
            (silent(0), 401, 1),
            (silent(0), 561, 2),
            (silent(200), 401, 2),
            (MelConfig { edges: Edges::Within, ..whisper() }, 399, 0),
            (MelConfig { edges: Edges::Within, ..whisper() }, 560, 2),
        ];
        for (config, samples, expected) in cases {
            let found = Mel::new(config.clone()).spectrogram(&vec![0.1; samples]);
            assert_eq!(found.frames(), expected, "{samples} samples of {config:?}");
        }
    }

    #[test]
    fn scales_go_both_ways() {
        for scale in [MelScale::Htk, MelScale::Slaney] {
            for hertz in [0.0, 125.0, 999.0, 1000.0, 1001.0, 7600.0] {
                assert!((scale.hertz(scale.mel(hertz)) - hertz).abs() < 1e-9, "{hertz} Hz on {scale:?}");
            }
        }
        assert!((MelScale::Htk.mel(1000.0) - 999.985_537).abs() < 1e-6 && MelScale::Slaney.mel(6400.0) == 42.0);
    }

    #[test]
    fn a_tone_is_in_its_band() {
        let tone: Vec<f32> = (0..16_000).map(|i| (2.0 * PI * 1000.0 * f64::from(i) / 16_000.0).sin() as f32).collect();
        let spectrogram = Mel::new(whisper()).spectrogram(&tone);
        let frame = &spectrogram.values[50 * 80..][..80];
        let loudest = frame.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let corners = [loudest, loudest + 2].map(|i| MelScale::Slaney.hertz(MelScale::Slaney.mel(8000.0) * i as f64 / 81.0));
        assert!(corners[0] < 1000.0 && 1000.0 < corners[1], "band {loudest}");
    }
}
