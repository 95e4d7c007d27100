//! Rows of a result, or other units of work, shared out to the threads where that pays.

use crate::Cpu;
use crate::disjoint::Disjoint;

/// Work of an operation that a second thread is asked to share, in steps. A step is a load, a multiplication and a store of one
/// number: some 0.06 ns. A hand-off costs half a microsecond while the other thread looks for work and ten when it sleeps, so
/// what takes less than four is done at once.
const STEPS_MIN: usize = 1 << 16;

/// Steps that an exponential is worth.
pub(crate) const EXP: usize = 5;

/// Calls `work` with runs of neighbouring rows of y [rows, width] (the last may be cut short), and the number of the first.
/// A row is worth `steps`.
pub(crate) fn rows<T: Send>(cpu: &Cpu, y: &mut [T], width: usize, steps: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    rows_of_two(cpu, Two { x: y, widths: [width, 1], y: &mut [] as &mut [()] }, steps, |first, y, _| work(first, y));
}

/// Calls `work` with every number below `count`; all together are worth `steps`.
pub(crate) fn units(cpu: &Cpu, count: usize, steps: usize, work: impl Fn(usize) + Sync) {
    if steps < STEPS_MIN { (0..count).for_each(work) } else { cpu.pool.run(count, work) }
}

/// Two results with the same number of rows.
pub(crate) struct Two<'a, T, U> {
    /// [rows, widths[0]]
    pub x: &'a mut [T],
    /// [rows, widths[1]], or nothing
    pub y: &'a mut [U],
    pub widths: [usize; 2],
}

/// As [`rows`], with two results.
pub(crate) fn rows_of_two<T: Send, U: Send>(
    cpu: &Cpu,
    both: Two<T, U>,
    steps: usize,
    work: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let Two { x, y, widths } = both;
    assert!(widths[0] > 0 && widths[1] > 0, "rows without elements");
    let rows = x.len().div_ceil(widths[0]);
    if rows < 2 || rows.saturating_mul(steps) < STEPS_MIN {
        return work(0, x, y);
    }
    let ends = [x.len(), y.len()];
    let (x, y) = (Disjoint::new(x), Disjoint::new(y));
    cpu.pool.split(rows, 1, |range| {
        let of = |i: usize| (range.start * widths[i]).min(ends[i])..(range.end * widths[i]).min(ends[i]);
        // SAFETY: the ranges of rows that a split makes do not overlap.
        let (x, y) = unsafe { (x.part(of(0)), y.part(of(1))) };
        work(range.start, x, y);
    });
}
