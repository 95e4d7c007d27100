//! Rotary position embedding (Su et al. 2021): pairs of elements are turned by angles that grow with the position.

use std::f64::consts::TAU;
use std::iter::repeat_n;

use candle_core::{Device, Tensor};
use kernels::rope::{Pairing, Rotation};

use crate::norm::Norm;
use crate::{Batch, NnError, Reach, host};

/// How frequencies are changed for contexts longer than those of the first training.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by the factor.
    Linear {
        /// How many times longer the context became.
        factor: f64,
    },
    /// Low ones divided by the factor, high ones kept, those between blended (Llama 3).
    Llama3 {
        /// How many times longer the context became.
        factor: f64,
        /// Wavelengths above the old context divided by this are low.
        low: f64,
        /// Wavelengths below the old context divided by this are high.
        high: f64,
        /// Tokens of the old context.
        context: f64,
    },
    /// The same, blended by the number of a frequency instead of its wavelength, and all cosines and sines grown (YaRN; Peng et
    /// al. 2023, arXiv:2309.00071).
    Yarn {
        /// How many times longer the context became.
        factor: f64,
        /// Frequencies that turn more often than this in the old context are kept (`beta_fast`).
        fast: f64,
        /// Frequencies that turn less often than this in the old context are low (`beta_slow`).
        slow: f64,
        /// Tokens of the old context.
        context: f64,
        /// What cosines and sines are multiplied by (`attention_factor`).
        magnitude: f64,
    },
    /// The first of the pairs keep their frequencies, the others stand still.
    Proportional {
        /// Share of the pairs that turn.
        share: f64,
        /// All are divided by it.
        factor: f64,
    },
    /// Each divided by a factor of its own, of which there are two kinds (LongRoPE; Ding et al. 2024, arXiv:2402.13753).
    Long {
        /// For prompts as long as those of the first training ([`Reach::Near`]), one per pair.
        near: Vec<f64>,
        /// For longer ones.
        far: Vec<f64>,
        /// What cosines and sines are multiplied by (`attention_factor`).
        magnitude: f64,
    },
}

/// A rotary embedding of pairs of a head's elements.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Elements of a head that are turned; the rest stays as it is.
    pub width: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Change of the frequencies.
    pub scaling: RopeScaling,
    /// Which of the three axes of a position turns each pair: (axis, pairs) runs in order. Empty: all the first.
    pub sections: Vec<(usize, usize)>,
    /// Which elements are a pair.
    pub pairing: Pairing,
}

impl RopeConfig {
    /// Frequencies as they are, all of one axis, and pairs (i, i + half).
    pub fn plain(width: usize, theta: f64) -> Self {
        Self { width, theta, scaling: RopeScaling::None, sections: Vec::new(), pairing: Pairing::Halves }
    }
}

/// Frequencies and axes, ready to be multiplied with positions.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f32>, // [half]
    far: Option<Vec<f32>>, // [half], where those of far sequences are others
    axes: Vec<usize>,      // [half]
    magnitude: f32,
    pairing: Pairing,
}

/// Cosines and sines of a batch's rows, [rows, half] each.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
    pairing: Pairing,
}

impl Rope {
    /// Works out the frequencies.
    pub fn new(config: &RopeConfig) -> Self {
        let half = config.width / 2;
        let of = |reach: Reach| (0..half).map(|i| config.frequency(i, reach) as f32).collect();
        let far = if let RopeScaling::Long { .. } = config.scaling { Some(of(Reach::Far)) } else { None };
        let mut axes: Vec<usize> = config.sections.iter().flat_map(|&(axis, pairs)| vec![axis; pairs]).collect();
        axes.resize(half, 0);
        let magnitude = match config.scaling {
            RopeScaling::Yarn { magnitude, .. } | RopeScaling::Long { magnitude, .. } => magnitude as f32,
            _ => 1.0,
        };
        Self { frequencies: of(Reach::Near), far, axes, magnitude, pairing: config.pairing }
    }

    /// Frequencies of the pairs that two axes share in a picture: the first half turns by row, the second by column.
    pub fn rows_and_columns(width: usize, theta: f64) -> Self {
        let quarter = width / 4;
        let frequency = |i: usize| theta.powf(-(2.0 * i as f64) / (width / 2) as f64) as f32;
        let frequencies: Vec<f32> = (0..quarter).map(frequency).collect();
        let axes = [vec![1; quarter], vec![2; quarter]].concat();
        Self { frequencies: frequencies.repeat(2), far: None, axes, magnitude: 1.0, pairing: Pairing::Halves }
    }

    /// The same with a head's frequencies dealt out to rows and columns by turns.
    pub fn rows_and_columns_by_turns(width: usize, theta: f64) -> Self {
        let frequency = |i: usize| theta.powf(-(2.0 * i as f64) / width as f64) as f32;
        let frequencies = (0..width / 2).step_by(2).chain((1..width / 2).step_by(2)).map(frequency).collect();
        Self { frequencies, ..Self::rows_and_columns(width, theta) }
    }

    /// The same frequencies for other pairs.
    pub fn paired(self, pairing: Pairing) -> Self {
        Self { pairing, ..self }
    }

    /// Angles of these positions.
    ///
    /// # Errors
    /// The device has no room.
    pub fn table(&self, positions: &[[u32; 3]], device: &Device) -> Result<RopeTable, NnError> {
        self.turned(positions.iter().map(|position| (position, Reach::Near)), device)
    }

    /// Angles of a batch's rows.
    ///
    /// # Errors
    /// The device has no room.
    pub fn table_of(&self, batch: &Batch, device: &Device) -> Result<RopeTable, NnError> {
        let reaches = batch.spans.iter().flat_map(|span| repeat_n(span.mode.reach, span.rows.len()));
        self.turned(batch.positions.iter().zip(reaches), device)
    }

    fn turned<'a>(&self, rows: impl Iterator<Item = (&'a [u32; 3], Reach)>, device: &Device) -> Result<RopeTable, NnError> {
        let mut angles: Vec<f32> = Vec::new();
        for (position, reach) in rows {
            let far = self.far.as_ref().filter(|_| reach == Reach::Far);
            let turns = far.unwrap_or(&self.frequencies).iter().zip(&self.axes);
            angles.extend(turns.map(|(frequency, axis)| frequency * position[*axis] as f32));
        }
        let half = self.frequencies.len();
        let shape = (angles.len() / half.max(1), half);
        let grown = |function: fn(f32) -> f32| angles.iter().map(|&a| function(a) * self.magnitude).collect();
        let of = |function: fn(f32) -> f32| Tensor::from_vec(grown(function), shape, device);
        Ok(RopeTable { cos: of(f32::cos)?, sin: of(f32::sin)?, pairing: self.pairing })
    }
}

impl RopeConfig {
    /// Of pair `i`, in radians per position.
    fn frequency(&self, i: usize, reach: Reach) -> f64 {
        let plain = self.theta.powf(-(2.0 * i as f64) / self.width as f64);
        let blended = |kept: f64, factor: f64| (1.0 - kept) * plain / factor + kept * plain;
        match self.scaling {
            RopeScaling::None => plain,
            RopeScaling::Long { ref near, ref far, .. } => {
                let factors = if reach == Reach::Far { far } else { near };
                plain / factors.get(i).copied().unwrap_or(1.0)
            }
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Proportional { share, .. } if i >= (share * (self.width / 2) as f64) as usize => 0.0,
            RopeScaling::Proportional { factor, .. } => plain / factor,
            RopeScaling::Llama3 { factor, low, high, context } => {
                blended(((context * plain / TAU - low) / (high - low)).clamp(0.0, 1.0), factor)
            }
            RopeScaling::Yarn { factor, fast, slow, context, .. } => {
                // The pair that turns so often in the old context, as a number that need not be whole.
                let pair = |turns: f64| self.width as f64 * (context / (turns * TAU)).ln() / (2.0 * self.theta.ln());
                let first = pair(fast).floor().max(0.0);
                let last = pair(slow).ceil().min(self.width as f64 - 1.0);
                let last = if last == first { first + 0.001 } else { last };
                blended(1.0 - ((i as f64 - first) / (last - first)).clamp(0.0, 1.0), factor)
            }
        }
    }
}

/// Heads that lie side by side in rows of more: queries, keys and values behind one fused projection, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRange {
    /// Number of the first one, counted in heads of this width.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Elements of a head.
    pub width: usize,
}

impl HeadRange {
    /// x [rows, any number of heads * width] with these heads [rows, count, width] changed by `work`, on any device.
    pub(crate) fn change(self, x: &Tensor, work: impl FnOnce(&Tensor) -> Result<Tensor, NnError>) -> Result<Tensor, NnError> {
        let Self { first, count, width } = self;
        let (rows, stride) = x.dims2()?;
        let x = x.reshape((rows, stride / width, width))?;
        let mine = work(&x.narrow(1, first, count)?.contiguous()?)?;
        let behind = first + count;
        let parts = [x.narrow(1, 0, first)?, mine, x.narrow(1, behind, stride / width - behind)?];
        Ok(Tensor::cat(&parts, 1)?.reshape((rows, stride))?)
    }

    /// Elements of a row before the first head.
    pub(crate) fn start(self) -> usize {
        self.first * self.width
    }

    /// These heads of x [rows, stride]: [rows, count, width].
    pub(crate) fn take(self, x: &Tensor) -> Result<Tensor, NnError> {
        let rows = x.dim(0)?;
        Ok(x.narrow(1, self.start(), self.count * self.width)?.reshape((rows, self.count, self.width))?)
    }

    /// The heads of `x` as the kernels take them; `x` has rows of `stride`.
    pub(crate) fn of<'a>(self, x: &'a [f32], stride: usize) -> kernels::HeadRows<'a> {
        let data = x.get(self.start()..).unwrap_or_default();
        kernels::HeadRows { data, stride, heads: self.count, head_dim: self.width }
    }
}

impl RopeTable {
    /// The angles of some rows.
    pub(crate) fn narrow(&self, first: usize, rows: usize) -> Result<Self, NnError> {
        Ok(Self { cos: self.cos.narrow(0, first, rows)?, sin: self.sin.narrow(0, first, rows)?, ..*self })
    }

    /// Norms (where there is one) and turns some heads of x, [rows, any number of heads * width]; the others stay as they are.
    /// Takes the tensor's place where it can, so nobody else may hold it.
    ///
    /// # Errors
    /// The rows differ in number, or the device failed.
    pub fn turn(&self, x: Tensor, heads: HeadRange, norm: Option<&Norm>) -> Result<Tensor, NnError> {
        let (rows, stride) = x.dims2()?;
        if !host::here(&x) {
            return self.turn_elsewhere(&x, heads, norm);
        }
        let half = self.cos.dim(1)?;
        let places = kernels::HeadLayout { rows, count: heads.count, width: heads.width, row_stride: stride };
        let turn = |norm: Option<kernels::norm::Norm<'_>>| {
            host::read(&self.cos, |cos| {
                host::read(&self.sin, |sin| {
                    let rotation = Rotation { cos, sin, half, pairing: self.pairing };
                    host::change(&x, |x| kernels::rope::rope(host::cpu(), &mut x[heads.start()..], places, rotation, norm))
                })
            })
        };
        match norm {
            Some(norm) => norm.with_kernel(|norm| turn(Some(norm)))????,
            None => turn(None)???,
        }
        Ok(x)
    }

    fn turn_elsewhere(&self, x: &Tensor, heads: HeadRange, norm: Option<&Norm>) -> Result<Tensor, NnError> {
        heads.change(x, |mine| match norm {
            Some(norm) => self.turn_heads(&norm.forward(mine)?),
            None => self.turn_heads(mine),
        })
    }

    /// x [rows, heads, head_dim] → the same shape.
    fn turn_heads(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let half = self.cos.dim(1)?;
        let rest = x.dim(2)? - 2 * half;
        let (cos, sin) = (self.cos.unsqueeze(1)?, self.sin.unsqueeze(1)?);
        let turn = |first: Tensor, second: Tensor, cos: &Tensor, sin: &Tensor| {
            let firsts = (first.broadcast_mul(cos)? - second.broadcast_mul(sin)?)?;
            Ok::<_, NnError>([firsts, (second.broadcast_mul(cos)? + first.broadcast_mul(sin)?)?])
        };
        let mut parts = Vec::new();
        let runs = match self.pairing {
            Pairing::Neighbours => {
                let pairs = x.narrow(2, 0, 2 * half)?.reshape((x.dim(0)?, x.dim(1)?, half, 2))?;
                let turned = turn(pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?, &cos, &sin)?;
                parts.push(Tensor::stack(&turned, 3)?.flatten_from(2)?);
                vec![]
            }
            Pairing::Quarters => vec![(0, half / 2), (half / 2, half / 2)], // pairs
            Pairing::Halves => vec![(0, half)],
        };
        for (pair, pairs) in runs {
            let (cos, sin) = (cos.narrow(2, pair, pairs)?, sin.narrow(2, pair, pairs)?);
            let (first, second) = (x.narrow(2, 2 * pair, pairs)?, x.narrow(2, 2 * pair + pairs, pairs)?);
            parts.extend(turn(first, second, &cos, &sin)?);
        }
        if rest > 0 {
            parts.push(x.narrow(2, 2 * half, rest)?);
        }
        Ok(Tensor::cat(&parts, 2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Span};

    #[test]
    fn turns_pairs_by_their_axis() {
        let config = RopeConfig { sections: vec![(0, 1), (2, 1)], ..RopeConfig::plain(4, 100.0) };
        let table = Rope::new(&config).table(&[[2, 9, 5]], &Device::Cpu).unwrap();
        let (a, b) = (2f32, 5f32 * 0.1);
        let expected = [3.0, 3.0, 3.0, 3.0, 3.0, a.cos(), -b.sin(), a.sin(), b.cos(), 7.0];
        let heads = HeadRange { first: 1, count: 1, width: 5 };
        type Turn = fn(&RopeTable, Tensor, HeadRange) -> Result<Tensor, NnError>;
        let arms: [Turn; 2] =
            [|table, x, heads| table.turn(x, heads, None), |table, x, heads| table.turn_elsewhere(&x, heads, None)];
        for turn in arms {
            let x = Tensor::new(&[[3f32, 3.0, 3.0, 3.0, 3.0, 1.0, 0.0, 0.0, 1.0, 7.0]], &Device::Cpu).unwrap();
            let y: Vec<f32> = turn(&table, x, heads).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            y.iter().zip(expected).for_each(|(y, e)| assert!((y - e).abs() < 1e-6, "{y} {e}"));
        }
    }

    #[test]
    fn pairs_are_of_elements_here_and_there() {
        let heads = HeadRange { first: 0, count: 1, width: 8 };
        let expected = [2f32, 0.2, 5.0, 0.5].map(|angle| [angle.cos(), angle.sin()]);
        // Where the two elements of each pair are.
        let cases = [
            (Pairing::Halves, [(0, 4), (1, 5), (2, 6), (3, 7)]),
            (Pairing::Neighbours, [(0, 1), (2, 3), (4, 5), (6, 7)]),
            (Pairing::Quarters, [(0, 2), (1, 3), (4, 6), (5, 7)]),
        ];
        for (pairing, pairs) in cases {
            let table = Rope::rows_and_columns(8, 100.0).paired(pairing).table(&[[9, 2, 5]], &Device::Cpu).unwrap();
            let mut x = [[0f32; 8]];
            pairs.iter().for_each(|(first, _)| x[0][*first] = 1.0);
            let x = || Tensor::new(&x, &Device::Cpu).unwrap();
            for y in [table.turn(x(), heads, None).unwrap(), table.turn_elsewhere(&x(), heads, None).unwrap()] {
                let y: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
                for ((first, second), [cos, sin]) in pairs.into_iter().zip(expected) {
                    assert!((y[first] - cos).abs() < 1e-6 && (y[second] - sin).abs() < 1e-6, "{pairing:?}: {y:?}");
                }
            }
        }
    }

    #[test]
    fn pairs_behind_the_share_stand_still() {
        let scaling = RopeScaling::Proportional { share: 0.5, factor: 2.0 };
        let rope = Rope::new(&RopeConfig { scaling, ..RopeConfig::plain(8, 16.0) });
        assert_eq!(rope.frequencies, [0.5, 0.25, 0.0, 0.0]);
    }

    /// Numbers of transformers, modeling_rope_utils.py.
    #[test]
    fn frequencies_are_scaled() {
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, context: 8192.0 };
        let yarn = RopeScaling::Yarn { factor: 4.0, fast: 32.0, slow: 1.0, context: 512.0, magnitude: 1.1 };
        let cases: [(RopeScaling, [f64; 8]); 4] = [
            (RopeScaling::None, [1.0, 0.316_227_8, 0.1, 0.031_622_78, 0.01, 3.162_278e-3, 1e-3, 3.162_278e-4]),
            (
                RopeScaling::Linear { factor: 4.0 },
                [0.25, 0.079_056_94, 0.025, 7.905_695e-3, 2.5e-3, 7.905_695e-4, 2.5e-4, 7.905_695e-5],
            ),
            (llama3, [1.0, 0.316_227_8, 0.1, 0.031_622_78, 0.01, 3.162_278e-3, 2.136_076e-4, 3.952_847e-5]),
            (yarn, [1.0, 0.256_935_1, 0.0625, 0.013_834_97, 2.5e-3, 7.905_695e-4, 2.5e-4, 7.905_695e-5]),
        ];
        for (scaling, expected) in cases {
            let config = RopeConfig { scaling, ..RopeConfig::plain(16, 10_000.0) };
            for (i, expected) in expected.into_iter().enumerate() {
                let found = config.frequency(i, Reach::Near);
                assert!((found / expected - 1.0).abs() < 1e-5, "{:?}, pair {i}: {found} {expected}", config.scaling);
            }
        }
    }

    #[test]
    fn far_sequences_turn_by_other_factors() {
        let scaling = RopeScaling::Long { near: vec![1.0, 2.0], far: vec![4.0, 8.0], magnitude: 2.0 };
        let rope = Rope::new(&RopeConfig { scaling, ..RopeConfig::plain(4, 100.0) });
        let span = |rows, reach| Span { rows, mode: Mode { reach, ..Mode::default() }, ..Span::default() };
        let spans = vec![span(0..1, Reach::Far), span(1..2, Reach::Near)];
        let batch = Batch { positions: vec![[3; 3], [3; 3]], spans, ..Batch::default() };
        let cos = rope.table_of(&batch, &Device::Cpu).unwrap().cos.to_vec2::<f32>().unwrap();
        let expected = [[0.75f32, 0.0375], [3.0, 0.15]].map(|angles| angles.map(|angle| 2.0 * angle.cos()));
        let differences = cos.iter().flatten().zip(expected.as_flattened()).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f32::max) < 1e-6, "{cos:?}");
    }

    #[test]
    fn rows_and_columns_share_frequencies() {
        for (rope, expected) in [
            (Rope::rows_and_columns(8, 16.0), [1.0, 0.25, 1.0, 0.25]),
            (Rope::rows_and_columns_by_turns(8, 16.0), [1.0, 0.25, 0.5, 0.125]),
        ] {
            assert_eq!((rope.frequencies, rope.axes), (expected.to_vec(), vec![1, 1, 2, 2]));
        }
    }
}
