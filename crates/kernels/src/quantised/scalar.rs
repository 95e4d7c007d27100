//! The kernel in plain loops: the reference, and what runs where there are no intrinsics. Loops go over fixed lanes, so that the
//! compiler can use whatever vectors there are.

use super::activations::Unit;
use super::layout::{Layout, OUTPUTS, STEP_BYTES, STEPS, Scales, code_bits};
use super::scales::{Lanes, RunScales, UnitScales};

/// Rows of a tile: what unpacking codes is worth.
pub(super) const ROWS: usize = 8;

/// `panel`: weights; `units`: `[units, rows]`; `out`: `[rows, 16]`.
pub(super) fn tile(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
    let rows = out.len();
    out.fill([0.0; OUTPUTS]);
    for (run, units) in panel.chunks(layout.run_bytes()).zip(units.chunks(layout.scales().units() * rows)) {
        let (run_scales, codes) = run.split_at(layout.scales().bytes());
        let run_scales = RunScales::new(layout, run_scales);
        for ((u, codes), x) in codes.chunks_exact(layout.unit_bytes()).enumerate().zip(units.chunks_exact(rows)) {
            let codes = unpack(layout, codes);
            let scales = run_scales.unit(u);
            for (x, y) in x.iter().zip(out.iter_mut()) {
                add_unit(layout, &codes, &scales, x, y);
            }
        }
        for (r, y) in out.iter_mut().enumerate() {
            run_scales.subtract_pairs(&units[r..], rows, y);
        }
    }
}

/// All codes of a unit, a byte each.
fn unpack(layout: Layout, codes: &[u8]) -> [[u8; STEP_BYTES]; STEPS] {
    let [low, high] = code_bits(layout.format);
    let mut steps = [[0; STEP_BYTES]; STEPS];
    for (first, bits, up) in [(0, low, 0), (low, high, low)] {
        if bits == 0 {
            continue;
        }
        let mask = ((1_u16 << bits) - 1) as u8;
        for (i, step) in steps.iter_mut().enumerate() {
            let plane = &codes[(first + i % bits) * STEP_BYTES..];
            step.iter_mut().zip(plane).for_each(|(code, byte)| *code |= (byte >> (i / bits * bits) & mask) << up);
        }
    }
    steps
}

fn add_unit(layout: Layout, codes: &[[u8; STEP_BYTES]; STEPS], w: &UnitScales, x: &Unit, y: &mut Lanes) {
    let (halves, offset) = (layout.halves(), layout.format.offset() > 0);
    let mut sum = [0.0; OUTPUTS];
    for h in 0..halves {
        let mut dot = [if offset { x.sums[h].integer() } else { 0 }; OUTPUTS];
        for (step, x) in codes.iter().zip(x.codes.as_chunks::<4>().0).skip(h * STEPS / halves).take(STEPS / halves) {
            for (dot, codes) in dot.iter_mut().zip(step.as_chunks::<4>().0) {
                *dot += codes.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum::<i32>();
            }
        }
        sum.iter_mut().zip(dot).zip(&w.scales[h]).for_each(|((sum, dot), scale)| *sum += dot as f32 * scale);
    }
    y.iter_mut().zip(sum).for_each(|(y, sum)| *y += sum * x.scale);
    if layout.scales() == Scales::HalfMin {
        y.iter_mut().zip(&w.mins).for_each(|(y, min)| *y -= min * x.sums[0].float());
    }
}
