//! Scales and minima of a unit in f32, in plain loops.

use half::f16;

use super::layout::{Layout, OUTPUTS, Scales, bytes_at, factors_at, scales};
use crate::convert::from_f16;

/// One number per output of a panel.
pub(super) type Lanes = [f32; OUTPUTS];

/// Scales and minima of a unit; the second ones where 16 inputs share a scale.
#[derive(Default)]
pub(super) struct UnitScales {
    pub scales: [Lanes; 2],
    pub mins: [Lanes; 2],
}

/// The scales of a run.
pub(super) struct RunScales<'a> {
    kind: Scales,
    bytes: &'a [u8],
    /// What all units share, where they share something.
    scale: Lanes,
    min: Lanes,
}

impl<'a> RunScales<'a> {
    /// `bytes` are those before the codes of a run.
    #[inline(always)]
    pub(super) fn new(layout: Layout, bytes: &'a [u8]) -> Self {
        let kind = scales(layout.format);
        let (scale, min) = factors_at(kind, 0);
        Self { kind, bytes, scale: halves(bytes, scale), min: min.map_or([0.0; OUTPUTS], |min| halves(bytes, min)) }
    }

    /// Those of a unit.
    #[inline(always)]
    pub(super) fn unit(&self, unit: usize) -> UnitScales {
        let (scale, min) = factors_at(self.kind, unit);
        let entry = bytes_at(self.kind) + unit * 2 * OUTPUTS;
        let mut out = UnitScales::default();
        match self.kind {
            Scales::Half => out.scales[0] = halves(self.bytes, scale),
            Scales::HalfMin => {
                out.scales[0] = halves(self.bytes, scale);
                out.mins[0] = halves(self.bytes, min.unwrap_or(scale));
            }
            Scales::ByteMin => {
                times(&self.scale, self.bytes, entry, f32::from, &mut out.scales[0]);
                times(&self.min, self.bytes, entry + OUTPUTS, f32::from, &mut out.mins[0]);
            }
            Scales::Signed => {
                for h in 0..2 {
                    times(&self.scale, self.bytes, entry + h * OUTPUTS, |b| f32::from(b as i8), &mut out.scales[h]);
                }
            }
            Scales::NibbleMin => {
                for h in 0..2 {
                    times(&self.scale, self.bytes, entry + h * OUTPUTS, |b| f32::from(b & 15), &mut out.scales[h]);
                    times(&self.min, self.bytes, entry + h * OUTPUTS, |b| f32::from(b >> 4), &mut out.mins[h]);
                }
            }
        }
        out
    }
}

#[inline(always)]
fn times(factor: &Lanes, run: &[u8], at: usize, value: impl Fn(u8) -> f32, out: &mut Lanes) {
    for ((out, factor), byte) in out.iter_mut().zip(factor).zip(&run[at..at + OUTPUTS]) {
        *out = factor * value(*byte);
    }
}

/// Sixteen half-precision numbers at `at`.
#[inline(always)]
fn halves(run: &[u8], at: usize) -> Lanes {
    let mut out = [0.0; OUTPUTS];
    for (out, half) in out.iter_mut().zip(run[at..at + 2 * OUTPUTS].as_chunks::<2>().0) {
        *out = from_f16(f16::from_le_bytes(*half));
    }
    out
}
