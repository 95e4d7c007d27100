//! Another number of samples per second, by one low pass whose taps lie at the places of the input (Smith 1984, "A flexible
//! sampling-rate conversion method").

use std::f64::consts::PI;

/// Share of the lower rate's bandwidth that passes unchanged, and what is left of all that lies above its bandwidth: those of the SoX
/// resampler's HQ setting.
const PASSED: f64 = 0.9136;
const ATTENUATION_DB: f64 = 126.4;
/// Places between two samples of the input that have taps of their own. Those between two of them are interpolated, which is needed
/// where the rates have no small ratio.
const PHASES_MAX: u64 = 1024;
/// Products that are summed side by side.
const LANES: usize = 16;

/// Samples at one rate (not 0) → samples at another; as many as fill the same time, rounded up.
pub fn resample(x: &[f32], from: u32, to: u32) -> Vec<f32> {
    let divisor = gcd(from, to).max(1);
    let (up, down) = (u64::from(to / divisor).max(1), u64::from(from / divisor).max(1));
    let filter = Filter::new(f64::from(from), f64::from(to), up.min(PHASES_MAX));
    let count = (x.len() as u64 * up).div_ceil(down);
    let padded = [&vec![0.0; filter.half - 1], x, &vec![0.0; filter.row + 1]].concat();
    let sample = |i: u64| {
        let (at, place) = ((i * down / up) as usize, i * down % up);
        let phase = (place * filter.phases) as f64 / up as f64;
        filter.apply(&padded[at..], phase)
    };
    (0..count).map(sample).collect()
}

/// Taps for each of the places at which an output may lie behind a sample of the input.
struct Filter {
    /// Samples on each side of the output.
    half: usize,
    /// Length of a row: both sides, filled up with zeros.
    row: usize,
    phases: u64,
    taps: Vec<f32>, // [phases + 1, row]
}

impl Filter {
    fn new(from: f64, to: f64, phases: u64) -> Self {
        // In units of the input's rate.
        let bandwidth = from.min(to) / 2.0 / from;
        let (transition, cutoff) = ((1.0 - PASSED) * bandwidth, (1.0 + PASSED) / 2.0 * bandwidth);
        // Kaiser's estimates of the length and shape of a window with this attenuation.
        let half = ((ATTENUATION_DB - 7.95) / (2.285 * 2.0 * PI * transition) / 2.0).ceil();
        let beta = 0.1102 * (ATTENUATION_DB - 8.7);
        let tap = |t: f64| {
            let place = 1.0 - (t / half).powi(2);
            if place < 0.0 {
                0.0
            } else {
                2.0 * cutoff * sinc(2.0 * cutoff * t) * bessel_i0(beta * place.sqrt()) / bessel_i0(beta)
            }
        };
        let half = half as usize;
        let row = (2 * half).next_multiple_of(LANES);
        let mut taps = vec![0.0; (phases as usize + 1) * row];
        for (phase, taps) in taps.chunks_exact_mut(row).enumerate() {
            let behind = phase as f64 / phases as f64;
            for (i, out) in taps[..2 * half].iter_mut().enumerate() {
                *out = tap(i as f64 - (half as f64 - 1.0) - behind) as f32;
            }
        }
        Self { half, row, phases, taps }
    }

    /// The output at a place behind sample number `half - 1` of x, counted in phases.
    fn apply(&self, x: &[f32], phase: f64) -> f32 {
        let (whole, share) = (phase as usize, phase.fract() as f32);
        let at = |phase: usize| dot(&self.taps[phase * self.row..][..self.row], &x[..self.row]);
        if share == 0.0 { at(whole) } else { (1.0 - share) * at(whole) + share * at(whole + 1) }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// sin(πx) / πx
fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The modified Bessel function of order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1.. {
        term *= (x / 2.0 / f64::from(n)).powi(2);
        if term < sum * 1e-17 {
            break;
        }
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second of a tone.
    fn tone(hertz: f64, rate: u32) -> Vec<f32> {
        (0..rate / 2).map(|i| (2.0 * PI * hertz * f64::from(i) / f64::from(rate)).sin() as f32).collect()
    }

    #[test]
    fn tones_that_both_rates_carry_stay_and_others_go() {
        let cases = [
            (8_000, 16_000, 1_000.0, true),
            (8_000, 16_000, 3_600.0, true),
            (44_100, 16_000, 440.0, true),
            (44_100, 16_000, 7_200.0, true),
            (44_100, 16_000, 8_100.0, false),
            (44_100, 16_000, 20_000.0, false),
            (48_000, 16_000, 7_000.0, true),
            (48_000, 16_000, 9_000.0, false),
            (11_025, 24_000, 5_000.0, true),
            (192_000, 16_000, 1_000.0, true),
            // No small ratio: taps are interpolated.
            (44_101, 16_000, 1_000.0, true),
            (383_999, 16_000, 1_000.0, true),
        ];
        for (from, to, hertz, stays) in cases {
            let found = resample(&tone(hertz, from), from, to);
            let expected = tone(hertz, to);
            assert_eq!(found.len(), (from as usize / 2 * to as usize).div_ceil(from as usize), "{from} to {to}");
            // Where the sound begins and ends, it is no tone.
            let inside = to as usize / 10..to as usize / 10 * 4;
            let worst = inside.map(|i| (found[i] - if stays { expected[i] } else { 0.0 }).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-5, "{hertz} Hz from {from} to {to}: off by {worst}");
        }
    }

    #[test]
    fn lengths_are_rounded_up() {
        for (samples, from, to, expected) in
            [(0, 8_000, 16_000, 0), (1, 48_000, 16_000, 1), (3, 48_000, 16_000, 1), (4, 48_000, 16_000, 2)]
        {
            assert_eq!(resample(&vec![0.5; samples], from, to).len(), expected, "{samples} samples from {from} to {to}");
        }
    }
}
