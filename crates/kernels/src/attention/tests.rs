//! Against the definition in f64, on every instruction set, alone and with a second thread.

#![expect(clippy::single_range_in_vec_init, reason = "islands are ranges")]

use std::ops::Range;

use fastrand::Rng;
use half::{bf16, f16};

use super::*;
use crate::isa::Level;
use crate::{Isa, KvFormat, KvShape, Pool};

const FORMATS: [KvFormat; 4] = [KvFormat::F32, KvFormat::Bf16, KvFormat::F16, KvFormat::Q8];

/// A sequence in a step: tokens before it, rows, islands.
type Sequence = (usize, usize, &'static [Range<usize>]);

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
}

const SMALL: Sizes = Sizes { heads: 4, kv_heads: 2, head_dim: 24, block_size: 16 };

/// Sequences with random keys and values, and a step of theirs.
struct World {
    sizes: Sizes,
    sequences: Vec<Sequence>,
    /// Of each sequence: keys and values, [tokens, kv_heads * head_dim].
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// [rows, (heads + 2 * kv_heads) * head_dim]
    fused: Vec<f32>,
    tables: Vec<Vec<u32>>,
}

impl World {
    fn new(sizes: Sizes, sequences: &[Sequence], rng: &mut Rng) -> Self {
        let Sizes { heads, kv_heads, head_dim, block_size } = sizes;
        let mut numbers = |count: usize, most: f32| -> Vec<f32> { (0..count).map(|_| most * (rng.f32() * 2.0 - 1.0)).collect() };
        let (mut keys, mut values, mut fused) = (vec![], vec![], vec![]);
        for &(start, rows, _) in sequences {
            keys.push(numbers((start + rows) * kv_heads * head_dim, 1.0));
            values.push(numbers((start + rows) * kv_heads * head_dim, 1.0));
            for token in start..start + rows {
                fused.extend(numbers(heads * head_dim, 3.0));
                let width = kv_heads * head_dim;
                fused.extend_from_slice(&keys[keys.len() - 1][token * width..][..width]);
                fused.extend_from_slice(&values[values.len() - 1][token * width..][..width]);
            }
        }
        let counts: Vec<usize> = sequences.iter().map(|(start, rows, _)| (start + rows).div_ceil(block_size)).collect();
        let mut free: Vec<u32> = (0..counts.iter().sum::<usize>() as u32).collect();
        rng.shuffle(&mut free);
        let tables = counts.iter().map(|&count| free.split_off(free.len() - count)).collect();
        Self { sizes, sequences: sequences.to_vec(), keys, values, fused, tables }
    }

    fn part(&self, first: usize, heads: usize) -> HeadRows<'_> {
        let Sizes { heads: all, kv_heads, head_dim, .. } = self.sizes;
        let data = &self.fused[(first * head_dim).min(self.fused.len())..];
        HeadRows { data, stride: (all + 2 * kv_heads) * head_dim, heads, head_dim }
    }

    fn queries(&self) -> HeadRows<'_> {
        self.part(0, self.sizes.heads)
    }

    fn spans(&self) -> Vec<KvSpan<'_>> {
        let mut row = 0;
        let spans = self.sequences.iter().zip(&self.tables).map(|(&(start, rows, islands), blocks)| {
            row += rows;
            KvSpan { rows: row - rows..row, start, blocks, islands }
        });
        spans.collect()
    }

    /// A cache with all keys and values, whose blocks had another owner before.
    fn cache(&self, cpu: &Cpu, format: KvFormat) -> KvCache {
        let Sizes { heads, kv_heads, head_dim, block_size } = self.sizes;
        let blocks = self.tables.iter().map(Vec::len).sum();
        let mut kv = KvCache::new(KvShape { kv_heads, head_dim, block_size }, blocks, format);
        let all: Vec<u32> = (0..blocks as u32).collect();
        let infinite = vec![f32::INFINITY; blocks * block_size * kv_heads * head_dim];
        let one = |data| HeadRows { data, stride: kv_heads * head_dim, heads: kv_heads, head_dim };
        let stranger = KvSpan { rows: 0..blocks * block_size, start: 0, blocks: &all, islands: &[] };
        kv.append(cpu, one(&infinite), one(&infinite), &[stranger]);
        for (i, span) in self.spans().iter().enumerate() {
            let past = KvSpan { rows: 0..span.start, start: 0, blocks: span.blocks, islands: &[] };
            kv.append(cpu, one(&self.keys[i]), one(&self.values[i]), &[past]);
        }
        kv.append(cpu, self.part(heads, kv_heads), self.part(heads + kv_heads, kv_heads), &self.spans());
        kv
    }

    fn run(&self, cpu: &Cpu, format: KvFormat, scores: &Scores) -> Vec<f32> {
        let (kv, spans) = (self.cache(cpu, format), self.spans());
        let rows = spans.last().map_or(0, |span| span.rows.end);
        let mut out = vec![f32::NAN; rows * self.sizes.heads * self.sizes.head_dim];
        attention(cpu, self.queries(), Past { kv: &kv, spans: &spans }, scores, &mut out);
        out
    }

    /// The definition, for keys and values as they are stored, and queries as they are multiplied.
    fn expected(&self, format: KvFormat, dots: bool, scores: &Scores) -> Vec<f32> {
        let Sizes { heads, kv_heads, head_dim, .. } = self.sizes;
        let factor = scores.scale * scores.softcap.map_or(std::f32::consts::LOG2_E, |cap| 1.0 / cap);
        let query = |x: f32| if dots { f64::from(bf16::from_f32(x * factor).to_f32() / factor) } else { f64::from(x) };
        let mut out = vec![];
        for (i, span) in self.spans().iter().enumerate() {
            let (keys, values) = (stored(format, &self.keys[i], head_dim), stored(format, &self.values[i], head_dim));
            for (row, head) in span.rows.clone().flat_map(|row| (0..heads).map(move |head| (row, head))) {
                let at = |token: usize| (token * kv_heads + head / (heads / kv_heads)) * head_dim;
                let queries = self.queries().head(row, head);
                let seen = definition_of_seen(span, scores, span.start + row - span.rows.start);
                let score = |&token: &usize| {
                    let dot: f64 = queries.iter().zip(&keys[at(token)..]).map(|(q, k)| query(*q) * k).sum();
                    let score = dot * f64::from(scores.scale);
                    scores.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                };
                let weights: Vec<f64> = seen.iter().map(|token| score(token).exp()).collect();
                let total = weights.iter().sum::<f64>() + scores.sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
                out.extend((0..head_dim).map(|d| {
                    let sum: f64 = seen.iter().zip(&weights).map(|(&token, weight)| weight * values[at(token) + d]).sum();
                    (sum / total) as f32
                }));
            }
        }
        out
    }

    #[track_caller]
    fn check(&self, cpu: &Cpu, format: KvFormat, scores: &Scores) {
        let dots = format == KvFormat::Bf16 && cpu.isa.level() == Level::Avx512Bf16;
        let difference = difference(&self.run(cpu, format, scores), &self.expected(format, dots, scores));
        // Values are at most one. In f32 the scores (a few tens at most, sums of some hundred products) are off by some 1e-6,
        // and so are weights and their sums; rounding weights to bf16 moves each by 2^-9 of itself at most.
        let tolerance = if dots { 3e-3 } else { 1e-5 };
        assert!(difference < tolerance, "off by {difference}: {cpu:?} {format:?} {scores:?} {:?}", self.sequences);
    }
}

fn definition_of_seen(span: &KvSpan, scores: &Scores, token: usize) -> Vec<usize> {
    let same_island = |other: usize| span.islands.iter().any(|island| island.contains(&token) && island.contains(&other));
    let sees = |&other: &usize| {
        (other <= token || same_island(other))
            && scores.window.is_none_or(|window| token < other + window)
            && scores.chunk.is_none_or(|chunk| other / chunk >= token / chunk)
    };
    (0..span.end()).filter(sees).collect()
}

/// What is left of the numbers in a cache of this format.
fn stored(format: KvFormat, numbers: &[f32], head_dim: usize) -> Vec<f64> {
    let head = |head: &[f32]| -> Vec<f32> {
        let largest = head.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let store = |x: &f32| match format {
            KvFormat::F32 => *x,
            KvFormat::Bf16 => bf16::from_f32(*x).to_f32(),
            KvFormat::F16 => f16::from_f32(*x).to_f32(),
            KvFormat::Q8 => (x * (1.0 / (largest / 127.0))).round_ties_even() * (largest / 127.0),
        };
        head.iter().map(store).collect()
    };
    numbers.chunks(head_dim).flat_map(head).map(f64::from).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // Not `max`, which passes over what is not a number.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |most, x| if x <= most { most } else { x })
}

fn plain(head_dim: usize) -> Scores<'static> {
    Scores { scale: 1.0 / (head_dim as f32).sqrt(), ..Scores::default() }
}

const SINKS: &[f32] = &[0.5, -20.0, 20.0, 1.0];

#[test]
fn all_masks_alone_and_combined_in_a_mixed_batch() {
    let mut rng = Rng::with_seed(1);
    // Decode steps, a first prompt, a later part of one, an island in it, and one that is all island.
    let batch: &[Sequence] = &[
        (36, 1, &[]),
        (0, 70, &[3..9, 20..61]),
        (0, 1, &[]),
        (130, 21, &[131..140, 145..151]),
        (16, 16, &[16..32]),
        (300, 1, &[]),
        (5, 3, &[]),
    ];
    let world = World::new(SMALL, batch, &mut rng);
    let masks = [
        (None, None),
        (Some(1), None),
        (Some(7), None),
        (Some(40), None),
        (None, Some(8)),
        (None, Some(33)),
        (Some(20), Some(32)),
    ];
    for (window, chunk) in masks {
        for (softcap, sinks) in [(None, None), (Some(1.5), None), (None, Some(SINKS)), (Some(4.0), Some(SINKS))] {
            let scores = Scores { window, chunk, softcap, sinks, ..plain(24) };
            for cpu in Cpu::each() {
                FORMATS.into_iter().for_each(|format| world.check(&cpu, format, &scores));
            }
        }
    }
}

#[test]
fn all_sizes() {
    let mut rng = Rng::with_seed(2);
    let head_dims = [1, 7, 16, 32, 33, 48, 64, 72, 80, 88, 96, 112, 128, 160, 192, 256];
    for (i, head_dim) in head_dims.into_iter().enumerate() {
        for (j, block_size) in [4, 8, 16, 24, 32].into_iter().enumerate() {
            let (kv_heads, group) = ([1, 2, 3][(i + j) % 3], [1, 2, 3, 4, 5, 6, 7, 8, 49][(5 * i + j) % 9]);
            let world_sizes = Sizes { heads: kv_heads * group, kv_heads, head_dim, block_size };
            let rows = 1 + (3 * i + 5 * j) % 17;
            let world = World::new(world_sizes, &[(11 * j, rows, &[]), (3, 1, &[])], &mut rng);
            for cpu in Cpu::each() {
                FORMATS.into_iter().for_each(|format| world.check(&cpu, format, &Scores { window: Some(23), ..plain(head_dim) }));
            }
        }
    }
}

#[test]
fn parts_of_long_sequences_are_merged() {
    let mut rng = Rng::with_seed(3);
    for (start, rows) in [(255, 1), (256, 1), (257, 1), (1000, 1), (1000, 3), (2047, 1), (700, 20)] {
        let world = World::new(Sizes { block_size: 24, ..SMALL }, &[(start, rows, &[])], &mut rng);
        for window in [None, Some(300), Some(512)] {
            for cpu in Cpu::each() {
                let scores = Scores { window, sinks: Some(SINKS), ..plain(24) };
                FORMATS.into_iter().for_each(|format| world.check(&cpu, format, &scores));
            }
        }
    }
}

#[test]
fn a_prompt_at_once_in_chunks_and_token_by_token_is_the_same() {
    let mut rng = Rng::with_seed(4);
    let tokens = 90;
    let whole = World::new(SMALL, &[(0, tokens, &[])], &mut rng);
    let width = SMALL.heads * SMALL.head_dim;
    let scores = Scores { window: Some(50), ..plain(24) };
    for cpu in Cpu::each() {
        for format in FORMATS {
            let expected = whole.run(&cpu, format, &scores);
            for chunk in [1, 7, 32] {
                let mut out = vec![];
                for start in (0..tokens).step_by(chunk) {
                    let rows = chunk.min(tokens - start);
                    let fused = &whole.fused[start * (SMALL.heads + 2 * SMALL.kv_heads) * SMALL.head_dim..];
                    let known = |numbers: &[f32]| numbers[..(start + rows) * SMALL.kv_heads * SMALL.head_dim].to_vec();
                    let step = World {
                        sizes: SMALL,
                        sequences: vec![(start, rows, &[])],
                        keys: vec![known(&whole.keys[0])],
                        values: vec![known(&whole.values[0])],
                        fused: fused.to_vec(),
                        tables: whole.tables.clone(),
                    };
                    out.extend(step.run(&cpu, format, &scores));
                }
                // As above: the difference is where the tiles are cut, and with it which weights are rounded.
                let tolerance = if format == KvFormat::Bf16 { 3e-3 } else { 1e-5 };
                let difference = difference(&out[..tokens * width], &expected);
                assert!(difference < tolerance, "off by {difference}: {cpu:?} {format:?} by {chunk}");
            }
        }
    }
}

#[test]
fn strangers_and_threads_change_no_bit() {
    let mut rng = Rng::with_seed(5);
    let alone = World::new(SMALL, &[(600, 2, &[])], &mut rng);
    let stranger = World::new(SMALL, &[(40, 60, &[])], &mut rng);
    let both = World {
        sizes: SMALL,
        sequences: [&stranger.sequences[..], &alone.sequences].concat(),
        keys: [&stranger.keys[..], &alone.keys].concat(),
        values: [&stranger.values[..], &alone.values].concat(),
        fused: [&stranger.fused[..], &alone.fused].concat(),
        tables: vec![
            stranger.tables[0].iter().map(|block| block + alone.tables[0].len() as u32).collect(),
            alone.tables[0].clone(),
        ],
    };
    for isa in Isa::available() {
        for format in FORMATS {
            let scores = plain(24);
            let expected = alone.run(&Cpu { isa, pool: Pool::new(1) }, format, &scores);
            for threads in [1, 2, 3] {
                let out = both.run(&Cpu { isa, pool: Pool::new(threads) }, format, &scores);
                assert_eq!(out[60 * SMALL.heads * SMALL.head_dim..], expected, "{isa:?} {format:?} {threads}");
            }
        }
    }
}

#[test]
fn segments_see_themselves_alone() {
    let mut rng = Rng::with_seed(6);
    let small = Sizes { heads: 3, kv_heads: 3, head_dim: 72, block_size: 16 };
    // So large that segments are not all dealt with at once, and the heads of the longest neither.
    let large = Sizes { heads: 16, kv_heads: 8, head_dim: 128, block_size: 16 };
    let few: &[Sequence] = &[(0, 64, &[0..64]), (0, 1, &[0..1]), (0, 0, &[]), (0, 17, &[0..17]), (0, 130, &[0..130])];
    let many: &[Sequence] = &[(0, 300, &[0..300]), (0, 5, &[0..5]), (0, 600, &[0..600]), (0, 9, &[0..9])];
    let few_chunks: &[Sequence] = &[(0, 64, &[0..20, 20..64]), (0, 1, &[0..1]), (0, 0, &[]), (0, 130, &[0..50, 50..130])];
    let many_chunks: &[Sequence] = &[(0, 300, &[0..7, 7..300]), (0, 600, &[0..600]), (0, 9, &[0..1, 1..2, 2..9])];
    let (all, best) = (|| Cpu::each().collect(), || vec![Cpu { isa: Isa::best(), pool: Pool::new(2) }]);
    let cases: [(_, _, Vec<Cpu>); 4] =
        [(small, few, all()), (small, few_chunks, all()), (large, many, best()), (large, many_chunks, best())];
    for (sizes, sequences, cpus) in cases {
        let world = World::new(sizes, sequences, &mut rng);
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.1).collect();
        let chunks: Vec<usize> = sequences.iter().flat_map(|sequence| sequence.2).map(Range::len).collect();
        let seen = if chunks.len() > lengths.len() { Seen::Chunks(&chunks) } else { Seen::All };
        let (heads, kv_heads) = (sizes.heads, sizes.kv_heads);
        let (k, v) = (world.part(heads, kv_heads), world.part(heads + kv_heads, kv_heads));
        let rows = Segments { q: world.queries(), k, v, lengths: &lengths, seen };
        let sinks: Vec<f32> = (0..heads).map(|head| head as f32 / 4.0).collect();
        for cpu in cpus {
            for format in FORMATS {
                let mut out = vec![f32::NAN; lengths.iter().sum::<usize>() * heads * sizes.head_dim];
                let scores = Scores { sinks: Some(&sinks), ..plain(sizes.head_dim) };
                attention_within(&cpu, rows, &Scores { window: Some(1), chunk: Some(2), ..scores }, format, &mut out);
                assert!(out == world.run(&cpu, format, &scores), "{cpu:?} {format:?}");
            }
        }
    }
}

#[test]
fn onlookers_see_and_are_not_seen() {
    let (sizes, seen, scores) = (Sizes { heads: 3, kv_heads: 3, head_dim: 24, block_size: 16 }, 40, plain(24));
    let world = World::new(sizes, &[(0, 180, &[])], &mut Rng::with_seed(11));
    let (q, k, v) = (world.queries(), world.part(3, 3), world.part(6, 3));
    for cpu in Cpu::each() {
        let attend = |q, k, v, lengths: &[usize], seen| {
            let mut out = vec![f32::NAN; lengths.iter().sum::<usize>() * 72];
            attention_within(&cpu, Segments { q, k, v, lengths, seen }, &scores, KvFormat::F32, &mut out);
            out
        };
        let out = attend(q, k, v, &[140, 40], Seen::Onlookers(&[100, 0]));
        for first in [0, 40, 80, 120] {
            let rows = seen.min(140 - first) * 72;
            assert!(
                attend(q.part(first, 0..3), k, v, &[seen], Seen::All)[..rows] == out[first * 72..][..rows],
                "{cpu:?} {first}"
            );
        }
        let [q, k, v] = [q, k, v].map(|heads| heads.part(140, 0..3));
        assert!(attend(q, k, v, &[40], Seen::All) == out[140 * 72..], "{cpu:?}");
    }
}

#[test]
fn scores_far_apart_and_equal() {
    let mut rng = Rng::with_seed(7);
    let world = World::new(SMALL, &[(100, 40, &[])], &mut rng);
    for cpu in Cpu::each() {
        for scale in [0.0, 1e-3, 30.0, -1.0] {
            // Scores of hundreds are off by some 1e-4 in f32.
            let scores = Scores { scale, ..Scores::default() };
            let difference = difference(&world.run(&cpu, KvFormat::F32, &scores), &world.expected(KvFormat::F32, false, &scores));
            assert!(difference < 1e-5 + 3e-5 * scale.abs(), "off by {difference}: {cpu:?} {scale}");
        }
    }
}

#[test]
fn what_lies_behind_the_window_need_not_be_there() {
    let mut rng = Rng::with_seed(8);
    let (cpu, scores) = (Cpu::host(), Scores { window: Some(20), ..plain(24) });
    let world = World::new(SMALL, &[(60, 3, &[])], &mut rng);
    let whole = world.run(cpu, KvFormat::F32, &scores);
    // Tokens 41 to 62 are seen, in blocks of 16.
    for (gone, refused) in [(2, false), (3, true)] {
        let mut kv = world.cache(cpu, KvFormat::F32);
        let mut blocks = world.tables[0].clone();
        for block in &mut blocks[..gone] {
            kv.discard(*block as usize);
            *block = u32::MAX;
        }
        let spans = [KvSpan { rows: 0..3, start: 60, blocks: &blocks, islands: &[] }];
        let attend = || {
            let mut out = vec![0.0; 3 * 96];
            attention(cpu, world.queries(), Past { kv: &kv, spans: &spans }, &scores, &mut out);
            out
        };
        let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attend));
        assert_eq!(out.is_err(), refused);
        assert!(out.is_err() || out.is_ok_and(|out| out == whole));
    }
}

#[test]
fn what_is_not_a_number_is_seen_by_those_who_look_at_it() {
    let mut rng = Rng::with_seed(9);
    for cpu in Cpu::each() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::F16] {
            let mut world = World::new(SMALL, &[(0, 20, &[]), (0, 20, &[])], &mut rng);
            let width = (SMALL.heads + 2 * SMALL.kv_heads) * SMALL.head_dim;
            world.fused[10 * width + SMALL.heads * SMALL.head_dim] = f32::NAN; // a key of the first sequence
            let out = world.run(&cpu, format, &plain(24));
            let nan = |row: usize| out[row * 96..(row + 1) * 96].iter().any(|x| x.is_nan());
            let expected = |row: usize| (10..20).contains(&row);
            assert!((0..40).all(|row| nan(row) == expected(row)), "{cpu:?} {format:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let world = World::new(SMALL, &[(20, 3, &[]), (0, 2, &[])], &mut Rng::with_seed(10));
    let cpu = Cpu::host();
    let scores = plain(24);
    let refused = |change: &dyn Fn(&mut Vec<KvSpan>), rows: usize| {
        let mut kv = world.cache(cpu, KvFormat::F32);
        let mut spans = world.spans();
        change(&mut spans);
        let mut out = vec![0.0; rows * 96];
        let attend = || attention(cpu, world.queries(), Past { kv: &kv, spans: &spans }, &scores, &mut out);
        let attended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attend));
        let append = || kv.append(cpu, world.part(4, 2), world.part(6, 2), &spans);
        let appended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(append));
        (attended.is_err(), appended.is_err())
    };
    assert_eq!(refused(&|_| (), 5), (false, false));
    assert_eq!(refused(&|_| (), 4), (true, false), "rows that have no room");
    assert_eq!(refused(&|spans| spans[0].blocks = &[0], 5), (true, true), "too few blocks");
    assert_eq!(refused(&|spans| spans[1].blocks = &[3], 5), (true, true), "a block that is not there");
    assert_eq!(refused(&|spans| spans.swap(0, 1), 5), (true, true), "spans out of order");
    assert_eq!(refused(&|spans| spans[1].rows = 3..6, 6), (true, true), "more rows than queries");
    assert_eq!(refused(&|spans| spans[1].blocks = spans[0].blocks.split_at(1).1, 5), (false, true), "a block of two");
    assert_eq!(refused(&|spans| spans[1].islands = &[0..1, 1..3], 5), (true, false), "an island that goes on");
}

#[test]
fn rows_look_across_at_the_first_rows_of_others() {
    let mut rng = Rng::with_seed(11);
    let Sizes { heads, kv_heads, head_dim, .. } = SMALL;
    // Three pictures, and rows of queries.
    let world = World::new(SMALL, &[(0, 70, &[]), (0, 1200, &[]), (0, 5, &[])], &mut rng);
    type At = &'static [(usize, usize)];
    let looks: [(Range<usize>, At); 6] = [
        (0..1, &[(1, 1200)]),
        (1..2, &[(1, 700), (0, 70)]),
        (3..60, &[(2, 5), (0, 33), (1, 1)]),
        (60..61, &[(2, 0)]),
        (61..200, &[(1, 600), (0, 0)]),
        (200..230, &[(2, 2)]),
    ];
    let one = |data| HeadRows { data, stride: kv_heads * head_dim, heads: kv_heads, head_dim };
    let scores = plain(head_dim);
    let all = [&world.keys, &world.values].map(|of| of.iter().map(|of| stored(KvFormat::F32, of, head_dim)).collect::<Vec<_>>());
    let mut expected = vec![7.0; 230 * heads * head_dim];
    for (row, head) in (0..230).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        let at = looks.iter().find(|(rows, _)| rows.contains(&row)).map_or(&[][..], |(_, at)| at);
        let seen: Vec<(usize, usize)> = at.iter().flat_map(|&(of, count)| (0..count).map(move |key| (of, key))).collect();
        let place = |key: usize| (key * kv_heads + head / (heads / kv_heads)) * head_dim;
        let score = |&(of, key): &(usize, usize)| {
            let products = world.queries().head(row, head).iter().zip(&all[0][of][place(key)..]);
            (products.map(|(q, k)| f64::from(*q) * k).sum::<f64>() * f64::from(scores.scale)).exp()
        };
        let weights: Vec<f64> = seen.iter().map(score).collect();
        for (d, out) in expected[(row * heads + head) * head_dim..][..head_dim].iter_mut().enumerate() {
            let sum: f64 = seen.iter().zip(&weights).map(|(&(of, key), weight)| weight * all[1][of][place(key) + d]).sum();
            *out = if seen.is_empty() { *out } else { (sum / weights.iter().sum::<f64>()) as f32 };
        }
    }
    for cpu in Cpu::each() {
        let keep = |i: usize| {
            let rows = world.sequences[i].1;
            KeyValues::new(&cpu, [one(&world.keys[i]), one(&world.values[i])], rows, KvFormat::F32)
        };
        let kept: Vec<KeyValues> = (0..3).map(keep).collect();
        let look = |(rows, at): &(Range<usize>, &[(usize, usize)])| Look {
            rows: rows.clone(),
            at: at.iter().map(|&(of, count)| (&kept[of], count)).collect(),
        };
        let looks: Vec<Look> = looks.iter().map(look).collect();
        let mut out = vec![7.0; expected.len()];
        attention_across(&cpu, world.queries(), &looks, &scores, &mut out);
        let difference = difference(&out, &expected);
        assert!(difference < 1e-5, "off by {difference}: {cpu:?}");
    }
}
