//! A step's attention, unit by unit.

use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::sync::atomic::Ordering;

use super::kernels::Panel;
use super::lanes::{Lanes, Portable};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::operand::{Bytes, Full, Halves, Operand, Pairs};
use super::plan::{Plan, Split, Unit, partial_len, seen};
use super::tile::{PANELS, ROWS, Scratch, Tile};
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{HeadRows, Out, Scores, Source};
use crate::disjoint::Disjoint;
use crate::isa::Level;
use crate::kv::LANES;
use crate::memory::Line;
use crate::{Cpu, KvFormat, KvShape};

/// Multiplications from which a step is worth a second thread: some two microseconds of work.
const SHARED_FROM: usize = 100_000;

thread_local! {
    /// What a thread computes its tiles in, kept for the next one.
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// What the threads share. Lengths were checked by whoever made it.
pub struct Job<'a> {
    pub q: HeadRows<'a>,
    /// At least one; their caches hold heads of the same shape in the same format.
    pub sources: &'a [Source<'a>],
    pub scores: &'a Scores<'a>,
    pub plan: &'a Plan,
    pub out: Out<'a>,
    pub partials: Disjoint<'a, f32>,
}

/// [`Job::run_unit`] for an instruction set and a format.
type RunUnit<'a> = unsafe fn(&Job<'a>, usize, &Scratch);

/// What is known of a row after some of its keys.
#[derive(Clone, Copy)]
struct Partial<'a> {
    /// Values, weighted by 2^(score - largest).
    sums: &'a [f32],
    /// Of these weights.
    total: f32,
    largest: f32,
}

impl<'a> Job<'a> {
    pub fn run(&self, cpu: &Cpu) {
        let (run_unit, width) = (self.pick(cpu.isa.level()), self.shape().width());
        let run = |index: usize| {
            SCRATCH.with_borrow_mut(|memory| {
                memory.resize(memory.len().max(Scratch::len(width).div_ceil(16)), Line::ZERO);
                // SAFETY: picked for an instruction set that the machine has.
                unsafe { run_unit(self, index, &Scratch::new(Line::numbers_mut(memory), width)) }
            });
        };
        let units = self.plan.units.len();
        if self.plan.work < SHARED_FROM { (0..units).for_each(run) } else { cpu.pool.run(units, run) }
    }

    #[cfg(target_arch = "x86_64")]
    fn pick(&self, level: Level) -> RunUnit<'a> {
        match (level, self.format()) {
            (Level::Avx512Bf16, KvFormat::Bf16) => Self::run_unit::<x86::Avx512<true>, x86::Dots>,
            (Level::Avx512Bf16 | Level::Avx512, format) => Self::pick_format::<x86::Avx512<false>>(format),
            (Level::Avx2, format) => Self::pick_format::<x86::Avx2>(format),
            (_, format) => Self::pick_format::<Portable>(format),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn pick(&self, level: Level) -> RunUnit<'a> {
        let format = self.format();
        if level == Level::Scalar { Self::pick_format::<Portable>(format) } else { Self::pick_format::<Neon>(format) }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn pick(&self, _: Level) -> RunUnit<'a> {
        Self::pick_format::<Portable>(self.format())
    }

    fn pick_format<L: Lanes>(format: KvFormat) -> RunUnit<'a> {
        match format {
            KvFormat::F32 => Self::run_unit::<L, Full>,
            KvFormat::Bf16 => Self::run_unit::<L, Pairs>,
            KvFormat::F16 => Self::run_unit::<L, Halves>,
            KvFormat::Q8 => Self::run_unit::<L, Bytes>,
        }
    }

    /// # Safety
    /// The machine has L; the scratch is for this width.
    unsafe fn run_unit<L: Lanes, F: Operand<L>>(&self, index: usize, scratch: &Scratch) {
        let unit = &self.plan.units[index];
        let (shape, span, group) = (self.shape(), self.sources[unit.source].span, self.group());
        let mut ranges = [const { 0..0 }; ROWS];
        for (range, row) in ranges.iter_mut().zip(unit.rows.clone()) {
            let seen = seen(span, self.scores, span.start + row / group);
            *range = seen.start.max(unit.keys.start)..seen.end.min(unit.keys.end);
        }
        // Scores are powers of two from here on; those with a soft cap not until they have passed it.
        let cap = self.scores.softcap;
        let factor = self.scores.scale * cap.map_or(LOG2_E, |cap| 1.0 / cap);
        let softcap = cap.map(|cap| cap * LOG2_E);
        let (head_dim, width, seen) = (shape.head_dim, shape.width(), &ranges[..unit.rows.len()]);
        let tile = Tile { head_dim, width, seen, softcap };

        let queries = unit.rows.clone().map(|row| self.q.head(span.rows.start + row / group, self.head(unit, row)));
        let sinks = self.scores.sinks.filter(|_| unit.part == 0);
        let sinks = sinks.map(|sinks| unit.rows.clone().map(|row| sinks[self.head(unit, row)] * LOG2_E));
        // SAFETY: as promised.
        unsafe { tile.begin::<L, F>(scratch, queries, factor, sinks) };

        let (mut panels, none) =
            (self.panels(unit), Panel { first: 0, count: 0, keys: std::ptr::null(), values: std::ptr::null() });
        let (mut now, mut next) = ([none; PANELS], [none; PANELS]);
        let mut count = fill(&mut now, &mut panels);
        while count > 0 {
            let mut following = fill(&mut next, &mut panels);
            let last = following == 0;
            if last && let Some(unit) = self.plan.units.get(index + 1) {
                following = fill(&mut next, self.panels(unit));
            }
            // SAFETY: as promised; the blocks of the panels were checked.
            unsafe { tile.pass::<L, F>(scratch, &now[..count], &next[..following]) };
            (now, count) = (next, if last { 0 } else { following });
        }
        // SAFETY: the tile is done.
        unsafe { self.finish(unit, scratch) };
    }

    fn panels(&self, unit: &Unit) -> impl Iterator<Item = Panel> {
        let Source { kv, span } = self.sources[unit.source];
        let scales = kv.format().scale_bytes();
        kv.panels(span, unit.head, unit.keys.clone()).map(move |place| {
            let block = kv.block(place.block).as_ptr();
            Panel {
                first: place.first,
                count: place.count,
                keys: block.wrapping_add(place.keys + scales),
                values: block.wrapping_add(place.values + scales),
            }
        })
    }

    /// Of the heads; blocks may have other sizes.
    fn shape(&self) -> KvShape {
        self.sources[0].kv.shape()
    }

    fn format(&self) -> KvFormat {
        self.sources[0].kv.format()
    }

    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.q.heads / self.shape().kv_heads
    }

    /// The query head of a unit's row.
    fn head(&self, unit: &Unit, row: usize) -> usize {
        unit.head * self.group() + row % self.group()
    }

    /// # Safety
    /// The scratch holds the unit's results.
    unsafe fn finish(&self, unit: &Unit, scratch: &Scratch) {
        let width = self.shape().width();
        let partial = |row: usize| {
            // SAFETY: as promised.
            unsafe {
                let sums = std::slice::from_raw_parts(scratch.sums.row(row), width);
                let totals = &*scratch.running.totals.row(row).cast::<[f32; LANES]>();
                Partial { sums, total: sum(totals), largest: *scratch.running.largest.add(row) }
            }
        };
        let Some(split) = unit.split.map(|split| &self.plan.splits[split]) else {
            (0..unit.rows.len()).for_each(|row| self.write(unit, row, std::iter::once(partial(row))));
            return;
        };
        let records = unit.rows.len() * partial_len(width);
        let own = split.at + unit.part * records;
        // SAFETY: nobody else has this part of this split, and it is not read before all are done.
        let own = unsafe { self.partials.part(own..own + records) };
        for (row, record) in own.chunks_exact_mut(partial_len(width)).enumerate() {
            let Partial { sums, total, largest } = partial(row);
            record[..width].copy_from_slice(sums);
            record[width..].copy_from_slice(&[total, largest]);
        }
        if split.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.merge(unit, split);
        }
    }

    /// Puts the parts of a split together; all are done.
    fn merge(&self, unit: &Unit, split: &Split) {
        let (width, rows) = (self.shape().width(), unit.rows.len());
        let length = partial_len(width);
        // SAFETY: all that wrote are done.
        let records: &[f32] = unsafe { self.partials.part(split.at..split.at + split.parts * rows * length) };
        for row in 0..rows {
            let records = (0..split.parts).map(|part| &records[(part * rows + row) * length..][..length]);
            let parts =
                records.map(|record| Partial { sums: &record[..width], total: record[width], largest: record[width + 1] });
            self.write(unit, row, parts);
        }
    }

    /// Writes a row's result.
    fn write<'b>(&self, unit: &Unit, row: usize, parts: impl Iterator<Item = Partial<'b>> + Clone) {
        let (head_dim, index) = (self.q.head_dim, unit.rows.start + row);
        let row = self.sources[unit.source].span.rows.start + index / self.group();
        let at = row * self.out.stride + self.head(unit, index) * head_dim;
        // SAFETY: this head of this row belongs to this unit, or to the last one of its split.
        let out = unsafe { self.out.numbers.part(at..at + head_dim) };
        let largest = parts.clone().fold(f32::MIN, |largest, part| largest.max(part.largest));
        let weight = |part: &Partial| if part.largest == largest { 1.0 } else { (part.largest - largest).exp2() };
        let total: f32 = parts.clone().map(|part| weight(&part) * part.total).sum();
        for (i, part) in parts.enumerate() {
            let weight = weight(&part) / total;
            if i == 0 {
                out.iter_mut().zip(part.sums).for_each(|(out, sum)| *out = weight * sum);
            } else {
                out.iter_mut().zip(part.sums).for_each(|(out, sum)| *out += weight * sum);
            }
        }
    }
}

/// Neighbours first, so that lanes are added side by side.
fn sum(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// Fills an array as far as possible, and says how far that is.
fn fill<T>(array: &mut [T], items: impl IntoIterator<Item = T>) -> usize {
    array.iter_mut().zip(items).map(|(place, item)| *place = item).count()
}
