//! Scales and minima of a unit in f32, in plain loops.

use half::f16;

use super::activations::Unit;
use super::layout::{Layout, OUTPUTS, Scales, UNITS, bytes_at, factors_at, min_pair_at, min_pairs};
use crate::convert::from_f16;

/// One number per output of a panel.
pub(super) type Lanes = [f32; OUTPUTS];

/// The scales of a unit, the second ones where 16 inputs share one; and its minima, where every unit has its own.
#[derive(Default)]
pub(super) struct UnitScales {
    pub scales: [Lanes; 2],
    pub mins: Lanes,
}

/// The scales of a run.
pub(super) struct RunScales<'a> {
    pub kind: Scales,
    /// As they lie.
    pub bytes: &'a [u8],
    /// What all units share, where they share something.
    scale: Lanes,
    /// The same of minima.
    pub min: Lanes,
}

impl<'a> RunScales<'a> {
    /// `bytes` are those before the codes of a run.
    #[inline(always)]
    pub(super) fn new(layout: Layout, bytes: &'a [u8]) -> Self {
        let kind = layout.scales();
        let (scale, min) = factors_at(kind, 0);
        Self { kind, bytes, scale: halves(bytes, scale), min: min.map_or([0.0; OUTPUTS], |min| halves(bytes, min)) }
    }

    /// Those of a unit.
    #[inline(always)]
    pub(super) fn unit(&self, unit: usize) -> UnitScales {
        let (scale, min) = factors_at(self.kind, unit);
        let at = bytes_at(self.kind, unit);
        let mut out = UnitScales::default();
        match self.kind {
            Scales::Half => out.scales[0] = halves(self.bytes, scale),
            Scales::HalfMin => {
                out.scales[0] = halves(self.bytes, scale);
                out.mins = halves(self.bytes, min.unwrap_or(scale));
            }
            Scales::ByteMin => times(&self.scale, &self.bytes[at..], f32::from, &mut out.scales[0]),
            Scales::Signed => {
                for h in 0..2 {
                    times(&self.scale, &self.bytes[at + h * OUTPUTS..], |b| f32::from(b as i8), &mut out.scales[h]);
                }
            }
            Scales::NibbleMin => {
                let pairs = self.bytes[at..at + 2 * OUTPUTS].as_chunks::<2>().0;
                for h in 0..2 {
                    for ((out, scale), pair) in out.scales[h].iter_mut().zip(&self.scale).zip(pairs) {
                        *out = scale * f32::from((u16::from_le_bytes(*pair) >> (8 * h) & 15) as u8);
                    }
                }
            }
        }
        out
    }

    /// Subtracts what minima in pairs contribute to the sums of a row, whose run is `x`, every `step`-th unit of it.
    #[inline(always)]
    pub(super) fn subtract_pairs(&self, x: &[Unit], step: usize, sums: &mut Lanes) {
        let pairs = min_pairs(self.kind);
        if pairs == 0 {
            return;
        }
        let mut dot = [0; OUTPUTS];
        for pair in 0..pairs {
            let (at, shift) = min_pair_at(self.kind, pair);
            let x = x[pair * (UNITS / pairs) * step].sums[0].integer();
            let mins = self.bytes[at..at + 2 * OUTPUTS].as_chunks::<2>().0;
            for (dot, mins) in dot.iter_mut().zip(mins) {
                *dot += i32::from(mins[0] >> shift) * i32::from(x as i16) + i32::from(mins[1] >> shift) * (x >> 16);
            }
        }
        let worth = x[0].sums[1].float();
        for ((sum, dot), min) in sums.iter_mut().zip(dot).zip(&self.min) {
            *sum -= dot as f32 * min * worth;
        }
    }
}

#[inline(always)]
fn times(factor: &Lanes, bytes: &[u8], value: impl Fn(u8) -> f32, out: &mut Lanes) {
    for ((out, factor), byte) in out.iter_mut().zip(factor).zip(&bytes[..OUTPUTS]) {
        *out = factor * value(*byte);
    }
}

/// Sixteen half-precision numbers at `at`.
#[inline(always)]
fn halves(run: &[u8], at: usize) -> Lanes {
    // Every unit of the simplest formats has some: worth the machine's own conversion where all machines have one.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    if let Some(bytes) = run[at..].first_chunk() {
        // SAFETY: the compiler's target has NEON.
        return unsafe { super::neon::halves(bytes) };
    }
    let mut out = [0.0; OUTPUTS];
    for (out, half) in out.iter_mut().zip(run[at..at + 2 * OUTPUTS].as_chunks::<2>().0) {
        *out = from_f16(f16::from_le_bytes(*half));
    }
    out
}
