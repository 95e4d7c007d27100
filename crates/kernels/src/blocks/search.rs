//! How a quantiser finds the scale of a group: it tries several, rounds, solves for the best scale of those codes (least squares), and
//! keeps what has the smallest weighted error. llama.cpp's quantisers do the same.
//!
//! Sixteen groups are searched side by side, one in each lane, so that all sums are vertical.

use crate::isa::MulAdd;

/// One number of each of 16 groups.
pub(super) type Lanes = [f32; LANES];

/// Groups side by side: the lanes of the widest register.
pub(crate) const LANES: usize = 16;

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Rounded, and not beyond the ends.
#[inline(always)]
pub(super) fn round_between(v: f32, low: f32, high: f32) -> f32 {
    let v = (v + ROUND) - ROUND;
    let v = if v > low { v } else { low };
    if v < high { v } else { high }
}

/// 1 / v, and 0 for 0.
#[inline(always)]
pub(super) fn inverse(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { 1.0 / v }
}

/// The values of a group with what errors of them cost, and sums over them.
pub(super) struct Group<'a, const N: usize> {
    x: &'a [Lanes; N],
    w: [Lanes; N],
    least: Lanes,
    most: Lanes,
    /// Of `w`, `w x` and `w x^2`.
    w_sum: Lanes,
    wx_sum: Lanes,
    wxx_sum: Lanes,
}

impl<'a, const N: usize> Group<'a, N> {
    /// Errors of `x` cost its importance times `sqrt(usual + x^2)`: more for larger values.
    #[inline(always)]
    pub(super) fn weighed<M: MulAdd>(x: &'a [Lanes; N], importance: &[Lanes; N], usual: &Lanes) -> Self {
        let mut w = *importance;
        let (mut least, mut most) = (x[0], x[0]);
        let [mut w_sum, mut wx_sum, mut wxx_sum] = [[0.0; LANES]; 3];
        for (x, w) in x.iter().zip(&mut w) {
            for l in 0..LANES {
                let weight = w[l] * M::mul_add(x[l], x[l], usual[l]).sqrt();
                w[l] = weight;
                least[l] = if x[l] < least[l] { x[l] } else { least[l] };
                most[l] = if x[l] > most[l] { x[l] } else { most[l] };
                w_sum[l] += weight;
                wx_sum[l] = M::mul_add(weight, x[l], wx_sum[l]);
                wxx_sum[l] = M::mul_add(weight * x[l], x[l], wxx_sum[l]);
            }
        }
        Self { x, w, least, most, w_sum, wx_sum, wxx_sum }
    }
}

/// A scale `s` with codes between two ends, so that the sum of `w * (x - s * code)^2` is small.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The scale.
    pub scale: Lanes,
    /// The sum of `w * code^2`: how much an error of the scale would weigh.
    pub weight: Lanes,
}

impl Scale {
    /// Codes go from `low` to `high`; the value that is largest comes near the end that is farther from zero, for some positions
    /// around it.
    #[inline(always)]
    pub(super) fn search<M: MulAdd, const N: usize>(x: &[Lanes; N], w: &[Lanes; N], [low, high]: [f32; 2]) -> Self {
        let mut largest = [0.0_f32; LANES];
        for x in x {
            for l in 0..LANES {
                largest[l] = if x[l].abs() > largest[l].abs() { x[l] } else { largest[l] };
            }
        }
        let end = if -low > high { low } else { high };
        let mut best = [0.0; LANES];
        let mut found = Self { scale: [0.0; LANES], weight: [0.0; LANES] };
        for i in -9..=9_i8 {
            let mut factor = [0.0; LANES];
            for l in 0..LANES {
                factor[l] = (end + 0.1 * f32::from(i)) * inverse(largest[l]);
            }
            let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
            for (x, w) in x.iter().zip(w) {
                for l in 0..LANES {
                    let q = round_between(x[l] * factor[l], low, high);
                    let wq = w[l] * q;
                    xq[l] = M::mul_add(wq, x[l], xq[l]);
                    qq[l] = M::mul_add(wq, q, qq[l]);
                }
            }
            for l in 0..LANES {
                // What the best scale xq / qq takes off the error of zero.
                let scale = xq[l] * inverse(qq[l]);
                let gain = xq[l] * scale;
                let better = gain > best[l];
                best[l] = if better { gain } else { best[l] };
                found.scale[l] = if better { scale } else { found.scale[l] };
                found.weight[l] = if better { qq[l] } else { found.weight[l] };
            }
        }
        found
    }

    /// The same for a group.
    #[inline(always)]
    pub(super) fn of<M: MulAdd, const N: usize>(group: &Group<N>, ends: [f32; 2]) -> Self {
        Self::search::<M, N>(group.x, &group.w, ends)
    }
}

/// A scale `s` and a minimum `m` with codes from zero on, so that the sum of `w * (x - (s * code - m))^2` is small.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    /// The scale.
    pub scale: Lanes,
    /// What is subtracted.
    pub min: Lanes,
    /// The sum of `w * code^2`: how much an error of the scale would weigh.
    pub scale_weight: Lanes,
    /// The sum of `w`: how much an error of the minimum would weigh.
    pub min_weight: Lanes,
}

/// What is tried: the largest value comes to `code_max + first`, `code_max + first + step`, ...
#[derive(Clone, Copy)]
pub(super) struct Tries {
    pub code_max: f32,
    pub first: f32,
    pub step: f32,
    pub count: u8,
    /// How often the best of them is rounded and solved for again.
    pub again: u8,
    /// Whether minima may be negative.
    pub any_min: bool,
}

impl Affine {
    #[inline(always)]
    pub(super) fn search<M: MulAdd, const N: usize>(group: &Group<N>, tries: Tries) -> Self {
        let (mut least, mut factor) = (group.least, [0.0; LANES]);
        let mut range = [0.0; LANES];
        for l in 0..LANES {
            least[l] = if tries.any_min || least[l] < 0.0 { least[l] } else { 0.0 };
            let most = if tries.any_min || group.most[l] > 0.0 { group.most[l] } else { 0.0 };
            range[l] = inverse(most - least[l]);
        }
        let nothing = [0.0; LANES];
        let mut best = [f32::INFINITY; LANES];
        let mut found = Self { scale: nothing, min: nothing, scale_weight: nothing, min_weight: group.w_sum };
        for i in 0..tries.count + tries.again {
            for l in 0..LANES {
                if i < tries.count {
                    factor[l] = range[l] * (tries.code_max + tries.first + tries.step * f32::from(i));
                } else {
                    (least[l], factor[l]) = (-found.min[l], inverse(found.scale[l]));
                }
            }
            let (mut q1, mut xq, mut qq) = (nothing, nothing, nothing);
            for (x, w) in group.x.iter().zip(&group.w) {
                for l in 0..LANES {
                    let q = round_between((x[l] - least[l]) * factor[l], 0.0, tries.code_max);
                    let wq = w[l] * q;
                    q1[l] += wq;
                    xq[l] = M::mul_add(wq, x[l], xq[l]);
                    qq[l] = M::mul_add(wq, q, qq[l]);
                }
            }
            for l in 0..LANES {
                let (w, x, xx) = (group.w_sum[l], group.wx_sum[l], group.wxx_sum[l]);
                // The best scale and minimum for these codes; where all codes are about the same or the minimum may not be, the
                // better of a scale or a minimum alone.
                let spread = w * qq[l] - q1[l] * q1[l];
                let over = if spread > 1e-5 * w * qq[l] { 1.0 / spread } else { 0.0 };
                let min = (q1[l] * xq[l] - qq[l] * x) * over;
                let (scale_only, min_only) = (xq[l] * inverse(qq[l]), -x * inverse(w));
                let no_scale = (tries.any_min || min_only > 0.0) && -x * min_only > xq[l] * scale_only;
                let alone = if no_scale { [0.0, min_only] } else { [scale_only, 0.0] };
                let both = over > 0.0 && (tries.any_min || min > 0.0);
                let min = if both { min } else { alone[1] };
                let scale = if both { (w * xq[l] - x * q1[l]) * over } else { alone[0] };
                // The error, from its sums.
                let cross = M::mul_add(min, q1[l], xq[l]);
                let error = M::mul_add(scale, scale * qq[l] - 2.0 * cross, min * (min * w + 2.0 * x)) + xx;
                let better = error < best[l];
                best[l] = if better { error } else { best[l] };
                found.scale[l] = if better { scale } else { found.scale[l] };
                found.min[l] = if better { min } else { found.min[l] };
                found.scale_weight[l] = if better { qq[l] } else { found.scale_weight[l] };
            }
        }
        found
    }
}
