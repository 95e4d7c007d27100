//! Convolutions: windows of a picture gathered into rows, for a matrix product with the filters; and depthwise filters, which
//! are no matrix product. Sound is a picture one high; a sequence of tokens is one that grows.

use std::ops::Range;

use crate::activation::{self, STEPS as ACTIVATION_STEPS};
use crate::attention::HeadRows;
use crate::disjoint::Disjoint;
use crate::isa::MulAdd;
use crate::state::{self, StateSpan};
use crate::{Activation, Cpu, for_each_isa, share};

/// A window that moves over pictures. Pairs are vertical, then horizontal; what lies outside of the picture counts as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of a picture.
    pub size: [usize; 2],
    /// Taps of the window.
    pub kernel: [usize; 2],
    /// From one window to the next.
    pub stride: [usize; 2],
    /// From one tap to the next.
    pub dilation: [usize; 2],
    /// Lines before the picture, and behind it.
    pub padding: [[usize; 2]; 2],
}

impl Windows {
    /// Neighbouring rectangles: the patches of a vision transformer. Pixels that fill none are dropped.
    pub fn patches(size: [usize; 2], patch: [usize; 2]) -> Self {
        Self { size, kernel: patch, stride: patch, dilation: [1; 2], padding: [[0; 2]; 2] }
    }

    /// How many windows there are, vertically and horizontally.
    pub fn counts(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let length = self.size[axis] + self.padding[axis][0] + self.padding[axis][1];
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            if length < reach { 0 } else { (length - reach) / self.stride[axis] + 1 }
        })
    }

    /// Taps that lie inside the picture where the window is the `at`th along an axis.
    fn inside(&self, axis: usize, at: usize) -> Range<usize> {
        let before = self.padding[axis][0];
        let begin = at * self.stride[axis];
        let tap = |place: usize| place.saturating_sub(begin).div_ceil(self.dilation[axis]).min(self.kernel[axis]);
        tap(before)..tap(before + self.size[axis])
    }

    /// The line of the picture that a tap inside of it falls on.
    fn line(&self, axis: usize, at: usize, tap: usize) -> usize {
        at * self.stride[axis] + tap * self.dilation[axis] - self.padding[axis][0]
    }

    fn check(&self, pictures: usize, channels: usize, windows: usize) {
        let positive = [self.kernel, self.stride, self.dilation].as_flattened().iter().all(|&n| n > 0);
        assert!(positive && channels > 0, "{self:?} over {channels} channels");
        let [h, w] = self.counts();
        assert_eq!(pictures * h * w, windows, "windows of {pictures} pictures");
    }

    /// Where the `index`th window of all pictures is: the picture, and its place there.
    fn place(&self, index: usize) -> (usize, [usize; 2]) {
        let [h, w] = self.counts();
        (index / (h * w), [index / w % h, index % w])
    }
}

/// Pictures x [n, channels, height, width] → the windows, y [n * windows, channels * kernel], in the order of a convolution's
/// weights [outputs, channels, height, width].
pub fn im2col(cpu: &Cpu, windows: Windows, x: &[f32], channels: usize, y: &mut [f32]) {
    let Windows { size: [height, width], kernel: [kh, kw], dilation: [_, step], .. } = windows;
    let (area, columns) = (height * width, channels * kh * kw);
    assert!(area > 0 && columns > 0 && x.len().is_multiple_of(channels * area) && y.len().is_multiple_of(columns));
    windows.check(x.len() / (channels * area), channels, y.len() / columns);
    share::rows(cpu, y, columns, columns, |first, y| {
        for (i, row) in y.chunks_exact_mut(columns).enumerate() {
            let (picture, [v, h]) = windows.place(first + i);
            let (lines, taps) = (windows.inside(0, v), windows.inside(1, h));
            if lines.len() * taps.len() < kh * kw {
                row.fill(0.0);
            }
            if taps.is_empty() {
                continue;
            }
            let left = windows.line(1, h, taps.start);
            for channel in 0..channels {
                let plane = &x[(picture * channels + channel) * area..][..area];
                for line in lines.clone() {
                    let from = &plane[windows.line(0, v, line) * width + left..];
                    let to = &mut row[(channel * kh + line) * kw..][taps.clone()];
                    if step == 1 {
                        to.copy_from_slice(&from[..to.len()]);
                    } else {
                        to.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
    });
}

/// Pictures x [n, height, width, channels] → the windows, y [n * windows, kernel * channels], in the order of weights
/// [outputs, height, width, channels].
pub fn im2col_channels_last(cpu: &Cpu, windows: Windows, x: &[f32], channels: usize, y: &mut [f32]) {
    let Windows { size: [height, width], kernel: [kh, kw], .. } = windows;
    let (picture_size, columns) = (height * width * channels, channels * kh * kw);
    assert!(picture_size > 0 && columns > 0 && x.len().is_multiple_of(picture_size) && y.len().is_multiple_of(columns));
    windows.check(x.len() / picture_size, channels, y.len() / columns);
    share::rows(cpu, y, columns, columns, |first, y| {
        for (i, row) in y.chunks_exact_mut(columns).enumerate() {
            let (picture, [v, h]) = windows.place(first + i);
            row.fill(0.0);
            for line in windows.inside(0, v) {
                for tap in windows.inside(1, h) {
                    let from = (picture * height + windows.line(0, v, line)) * width + windows.line(1, h, tap);
                    row[(line * kw + tap) * channels..][..channels].copy_from_slice(&x[from * channels..][..channels]);
                }
            }
        }
    });
}

/// One filter per channel.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise<'a> {
    /// [taps, channels]: taps of a picture's window line by line.
    pub weight: &'a [f32],
    /// [channels]
    pub bias: Option<&'a [f32]>,
    /// Filters.
    pub channels: usize,
}

/// Weights of a tap, and what lies under it: [channels] each.
type Tap<'a> = [&'a [f32]; 2];

impl<'a> Depthwise<'a> {
    fn taps(&self) -> usize {
        let channels = self.channels;
        assert!(channels > 0 && self.weight.len().is_multiple_of(channels), "weights of {channels} channels");
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "biases of {channels} channels");
        self.weight.len() / channels
    }

    fn weight_row(&self, tap: usize) -> &'a [f32] {
        row_of(self.weight, tap, self.channels)
    }
}

/// Filters pictures x [n, height, width, channels] → y [n * windows, channels].
pub fn depthwise(cpu: &Cpu, windows: Windows, filter: Depthwise<'_>, x: &[f32], y: &mut [f32]) {
    let Windows { size: [height, width], kernel: [kh, kw], .. } = windows;
    let channels = filter.channels;
    assert_eq!(filter.taps(), kh * kw, "taps of {windows:?}");
    let picture_size = height * width * channels;
    assert!(picture_size > 0 && x.len().is_multiple_of(picture_size) && y.len().is_multiple_of(channels));
    windows.check(x.len() / picture_size, channels, y.len() / channels);
    share::rows(cpu, y, channels, channels * kh * kw, |first, y| {
        let mut taps = Vec::with_capacity(kh * kw);
        for (i, row) in y.chunks_exact_mut(channels).enumerate() {
            let (picture, [v, h]) = windows.place(first + i);
            taps.clear();
            for line in windows.inside(0, v) {
                for tap in windows.inside(1, h) {
                    let from = (picture * height + windows.line(0, v, line)) * width + windows.line(1, h, tap);
                    taps.push([filter.weight_row(line * kw + tap), row_of(x, from, channels)]);
                }
            }
            filter_row(cpu.isa, &taps, filter.bias, row);
        }
    });
}

/// A short filter along a sequence, whose rows see those before them: what gated delta nets and state space models look back
/// with before they forget.
#[derive(Debug, Clone, Copy)]
pub struct Causal<'a> {
    /// Its taps are the latest rows, the own one last.
    pub filter: Depthwise<'a>,
    /// Of what comes out.
    pub activation: Option<Activation>,
}

impl Causal<'_> {
    /// Numbers that a sequence remembers: its last taps - 1 rows, [taps - 1, channels].
    pub fn state_len(&self) -> usize {
        (self.filter.taps() - 1) * self.filter.channels
    }
}

/// Filters rows of x, `channels` numbers each, into y [rows, channels].
pub fn causal(cpu: &Cpu, conv: &Causal<'_>, x: HeadRows<'_>, spans: &mut [StateSpan<'_>], y: &mut [f32]) {
    /// Channels that are worked on at a time: few enough for a single row to be shared out.
    const BLOCK: usize = 512;
    let Causal { filter, activation } = *conv;
    let (channels, taps) = (filter.channels, filter.taps());
    let (spans, end) = state::share(spans, conv.state_len());
    x.check(end);
    assert!(x.heads * x.head_dim == channels && y.len() >= end * channels, "{end} rows of {channels} channels");
    let (blocks, y) = (channels.div_ceil(BLOCK), Disjoint::new(y));
    let rows: usize = spans.iter().map(|span| span.rows.len()).sum();
    share::units(cpu, spans.len() * blocks, rows * channels * (taps + ACTIVATION_STEPS), |unit| {
        let (span, block) = (&spans[unit / blocks], unit % blocks);
        let columns = block * BLOCK..channels.min((block + 1) * BLOCK);
        let place = |row: usize| row * channels + columns.start..row * channels + columns.end;
        // SAFETY: these columns of this span's state and rows belong to this unit.
        let (state, y) = unsafe { (|row| span.state.part(place(row)), |row| y.part(place(row))) };
        // Copies: rows may be so far apart that they share lines of the first cache.
        let mut weights = Vec::with_capacity(taps * columns.len());
        (0..taps).for_each(|tap| weights.extend_from_slice(&filter.weight_row(tap)[columns.clone()]));
        let mut remembered = Vec::with_capacity(weights.len());
        (0..taps - 1).for_each(|row| remembered.extend_from_slice(state(row)));
        let history = |at: usize| match at.checked_sub(taps - 1) {
            None => row_of(&remembered, at, columns.len()),
            Some(row) => &x.row(span.rows.start + row)[columns.clone()],
        };
        let mut under = Vec::with_capacity(taps);
        for row in 0..span.rows.len() {
            under.clear();
            under.extend((0..taps).map(|tap| [row_of(&weights, tap, columns.len()), history(row + tap)]));
            let y = y(span.rows.start + row);
            filter_row(cpu.isa, &under, filter.bias.map(|bias| &bias[columns.clone()]), y);
            if let Some(activation) = activation {
                activation::activate_part(cpu.isa, activation, y);
            }
        }
        (0..taps - 1).for_each(|row| state(row).copy_from_slice(history(span.rows.len() + row)));
    });
}

fn row_of(x: &[f32], row: usize, width: usize) -> &[f32] {
    &x[row * width..][..width]
}

for_each_isa!(fn filter_row(taps: &[Tap<'_>], bias: Option<&[f32]>, y: &mut [f32]) = filter_row_body);

/// y [channels] = bias + Σ weight * x over the taps.
#[inline(always)]
fn filter_row_body<M: MulAdd>(taps: &[Tap<'_>], bias: Option<&[f32]>, y: &mut [f32]) {
    /// Channels that are summed up in registers: four of 512 bits, so that four additions are under way.
    const LANES: usize = 64;
    let (chunks, rest) = y.as_chunks_mut::<LANES>();
    let done = chunks.len() * LANES;
    for (i, y) in chunks.iter_mut().enumerate() {
        let chunk = |row: &[f32]| row[i * LANES..].first_chunk::<LANES>().copied().unwrap_or([0.0; LANES]);
        let mut sum = bias.map_or([0.0; LANES], chunk);
        for [weight, x] in taps {
            let (weight, x) = (chunk(weight), chunk(x));
            for i in 0..LANES {
                sum[i] = M::mul_add(weight[i], x[i], sum[i]);
            }
        }
        *y = sum;
    }
    for (i, y) in (done..).zip(rest) {
        *y = bias.map_or(0.0, |bias| bias[i]);
        for [weight, x] in taps {
            *y = M::mul_add(weight[i], x[i], *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    const CASES: [Windows; 8] = [
        Windows { size: [1, 1], kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [[0; 2]; 2] },
        Windows { size: [28, 29], kernel: [14, 14], stride: [14, 14], dilation: [1, 1], padding: [[0; 2]; 2] },
        Windows { size: [7, 9], kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [[1; 2]; 2] },
        Windows { size: [8, 11], kernel: [3, 5], stride: [2, 3], dilation: [2, 1], padding: [[0, 1], [2, 4]] },
        Windows { size: [5, 6], kernel: [2, 3], stride: [1, 2], dilation: [3, 2], padding: [[4, 0], [5, 5]] },
        Windows { size: [1, 50], kernel: [1, 9], stride: [1, 1], dilation: [1, 1], padding: [[0; 2], [4; 2]] },
        Windows { size: [2, 2], kernel: [5, 5], stride: [1, 1], dilation: [1, 1], padding: [[0; 2]; 2] },
        Windows { size: [60, 40], kernel: [3, 3], stride: [2, 2], dilation: [1, 1], padding: [[0, 1]; 2] },
    ];

    /// The number under a tap, in a picture [n, channels, height, width].
    fn tap(w: Windows, x: &[f32], channels: [usize; 3], at: [[usize; 2]; 2]) -> f32 {
        let [n, channel, of] = channels;
        let [v, h] = [0, 1].map(|i| (at[0][i] * w.stride[i] + at[1][i] * w.dilation[i]).wrapping_sub(w.padding[i][0]));
        let inside = v < w.size[0] && h < w.size[1];
        if inside { x[((n * of + channel) * w.size[0] + v) * w.size[1] + h] } else { 0.0 }
    }

    fn channels_last(x: &[f32], channels: usize, area: usize) -> Vec<f32> {
        let picture = |x: &[f32]| (0..area * channels).map(|i| x[i % channels * area + i / channels]).collect::<Vec<_>>();
        x.chunks(area * channels).flat_map(picture).collect()
    }

    #[test]
    fn windows_are_gathered_and_filtered() {
        let mut rng = fastrand::Rng::with_seed(13);
        for cpu in Cpu::each() {
            for (w, n, channels) in CASES.into_iter().flat_map(|w| [(w, 1, 1), (w, 3, 3), (w, 2, 37)]) {
                let ([vs, hs], [kh, kw]) = (w.counts(), w.kernel);
                let x = random(&mut rng, n * channels * w.size[0] * w.size[1], 2.0);
                let last = channels_last(&x, channels, w.size[0] * w.size[1]);
                let places = || (0..n * vs * hs).map(|i| (i / (vs * hs), [i / hs % vs, i % hs]));
                let taps = || (0..kh * kw).map(|i| [i / kw, i % kw]);
                let at = |n, channel, place, t| tap(w, &x, [n, channel, channels], [place, t]);

                let mut y = vec![f32::NAN; n * vs * hs * channels * kh * kw];
                im2col(&cpu, w, &x, channels, &mut y);
                let all = places().flat_map(|(n, p)| (0..channels).flat_map(move |c| taps().map(move |t| (n, p, c, t))));
                let expected: Vec<f32> = all.map(|(n, p, c, t)| at(n, c, p, t)).collect();
                assert_eq!(y, expected, "{cpu:?} {w:?} {n} {channels}");

                im2col_channels_last(&cpu, w, &last, channels, &mut y);
                let all = places().flat_map(|(n, p)| taps().flat_map(move |t| (0..channels).map(move |c| (n, p, c, t))));
                let expected: Vec<f32> = all.map(|(n, p, c, t)| at(n, c, p, t)).collect();
                assert_eq!(y, expected, "{cpu:?} {w:?} {n} {channels}, channels last");

                let (weight, bias) = (random(&mut rng, kh * kw * channels, 1.0), random(&mut rng, channels, 1.0));
                let mut y = vec![f32::NAN; n * vs * hs * channels];
                depthwise(&cpu, w, Depthwise { weight: &weight, bias: Some(&bias), channels }, &last, &mut y);
                let product =
                    |n, p, c, t: [usize; 2]| f64::from(at(n, c, p, t)) * f64::from(weight[(t[0] * kw + t[1]) * channels + c]);
                let filtered = |n, p, c| f64::from(bias[c]) + taps().map(|t| product(n, p, c, t)).sum::<f64>();
                let filtered = &filtered;
                let expected = places().flat_map(|(n, p)| (0..channels).map(move |c| filtered(n, p, c)));
                // Up to 196 products, added one after the other.
                close(&y, expected, 1e-5, (&cpu, w, n, channels));
            }
        }
    }

    #[test]
    fn sequences_in_pieces_are_filtered_as_wholes() {
        let mut rng = fastrand::Rng::with_seed(14);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        for cpu in Cpu::each() {
            for (rows, channels, taps) in [(1, 1, 1), (5, 3, 4), (17, 70, 4), (200, 128, 4), (9, 20, 9), (3, 1100, 2)] {
                let [weight, bias] = [taps * channels, channels].map(|count| random(&mut rng, count, 1.0));
                let conv = Causal {
                    filter: Depthwise { weight: &weight, bias: (rows % 2 == 0).then_some(bias.as_slice()), channels },
                    activation: Some(Activation::Silu).filter(|_| taps == 4),
                };
                // Two sequences, the second in wider rows behind the first.
                let stride = channels + 2;
                let x = random(&mut rng, 2 * rows * stride, 2.0);
                let x = HeadRows { data: &x[1..], stride, heads: 1, head_dim: channels };
                let past = random(&mut rng, (taps - 1) * channels, 2.0);
                let sequence = |i: usize| {
                    let rows = (i * rows..(i + 1) * rows).flat_map(|row| x.row(row).to_vec());
                    past.iter().copied().chain(rows).collect::<Vec<f32>>()
                };
                let all = [sequence(0), sequence(1)];
                let filtered = |all: &[f32], i: usize| {
                    let product = |k: usize| f64::from(all[i + k * channels]) * f64::from(weight[k * channels + i % channels]);
                    let start = conv.filter.bias.map_or(0.0, |bias| f64::from(bias[i % channels]));
                    let sum = start + (0..taps).map(product).sum::<f64>();
                    if conv.activation.is_some() { silu(sum) } else { sum }
                };
                for cut in [0, rows / 3, rows / 2, rows] {
                    let (mut y, mut states) = (vec![f32::NAN; 2 * rows * channels], [past.clone(), past.clone()]);
                    for (from, to) in [(0, cut), (cut, rows)] {
                        let span = |(i, state)| StateSpan { rows: i * rows + from..i * rows + to, state };
                        let mut spans: Vec<StateSpan<'_>> =
                            states.iter_mut().map(Vec::as_mut_slice).enumerate().map(span).collect();
                        causal(&cpu, &conv, x, &mut spans, &mut y);
                    }
                    let expected = all.iter().flat_map(|all| (0..rows * channels).map(|i| filtered(all, i)));
                    close(&y, expected, 2e-6, (&cpu, rows, channels, taps, cut));
                    assert!(states.iter().zip(&all).all(|(state, all)| *state == all[rows * channels..]), "{cpu:?} {rows} {cut}");
                }
            }
        }
    }

    #[test]
    fn windows_are_counted_as_in_a_convolution() {
        let counts = CASES.map(|w| w.counts());
        assert_eq!(counts, [[1, 1], [2, 2], [7, 9], [3, 5], [6, 6], [1, 50], [0, 0], [30, 20]]);
        assert_eq!(Windows::patches([448, 450], [14, 14]).counts(), [32, 32]);
    }
}
