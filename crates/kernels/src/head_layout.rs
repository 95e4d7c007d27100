//! Heads inside wider rows, as queries and keys lie in the result of one fused projection.

use crate::{Cpu, share};

/// Where heads lie in a slice that begins with the first: head h of row r begins at `r * row_stride + h * width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Tokens.
    pub rows: usize,
    /// Heads of a row, one behind the other.
    pub count: usize,
    /// Elements of a head.
    pub width: usize,
    /// From one row to the next; at least `count * width`.
    pub row_stride: usize,
}

impl HeadLayout {
    /// [rows, count, width] without gaps.
    pub fn packed(rows: usize, count: usize, width: usize) -> Self {
        Self { rows, count, width, row_stride: count * width }
    }

    /// Calls `work` with the first row and the slice and heads of each thread's rows. An element is worth `steps`.
    pub(crate) fn share(self, cpu: &Cpu, x: &mut [f32], steps: usize, work: impl Fn(usize, &mut [f32], HeadLayout) + Sync) {
        let used = self.used();
        assert!(self.width > 0 && self.count > 0 && self.row_stride >= used, "{self:?} overlap or are empty");
        if self.rows == 0 {
            return;
        }
        let length = (self.rows - 1) * self.row_stride + used;
        assert!(x.len() >= length, "{self:?} in {} elements", x.len());
        share::rows(cpu, &mut x[..length], self.row_stride, used * steps, |first, x| {
            work(first, x, Self { rows: x.len().div_ceil(self.row_stride), ..self });
        });
    }

    /// Elements from the first to the last head of a row.
    pub(crate) fn used(self) -> usize {
        self.count * self.width
    }
}
