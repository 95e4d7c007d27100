//! Reductions over a row, in many lanes at once. The order of additions depends on the length alone, not on instruction set
//! or threads.

/// Partial results of a reduction: four 512-bit registers hide the four cycles that an addition takes.
const LANES: usize = 64;

/// Takes x into [`LANES`] partial results by `step`, and these into one by `join`.
#[inline(always)]
pub(crate) fn fold(x: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [start; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = step(lanes[i], chunk[i]);
        }
    }
    // A copy, since what is indexed by a variable cannot stay in registers.
    let mut last = lanes;
    for (lane, x) in last.iter_mut().zip(rest) {
        *lane = step(*lane, *x);
    }
    joined(last, join)
}

/// x becomes f(x), and the sum of that.
#[inline(always)]
pub(crate) fn map_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = f(chunk[i]);
            lanes[i] += chunk[i];
        }
    }
    let mut last = lanes;
    for (lane, x) in last.iter_mut().zip(rest) {
        *x = f(*x);
        *lane += *x;
    }
    joined(last, |a, b| a + b)
}

/// The same over pairs (x[i], y[i]).
#[inline(always)]
pub(crate) fn fold_pairs(x: &[f32], y: &[f32], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] = step(lanes[i], x[i], y[i]);
        }
    }
    let mut last = lanes;
    for (lane, (x, y)) in last.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = step(*lane, *x, *y);
    }
    joined(last, |a, b| a + b)
}

/// Halves until one is left.
#[inline(always)]
fn joined(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut count = LANES / 2;
    while count > 0 {
        for i in 0..count {
            lanes[i] = join(lanes[i], lanes[i + count]);
        }
        count /= 2;
    }
    lanes[0]
}

/// The sum of x.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    fold(x, 0.0, |a, b| a + b, |a, b| a + b)
}

/// The largest of x; NaN is passed over; -∞ of nothing.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(x, f32::NEG_INFINITY, larger, larger)
}
