//! The gated delta rule (Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464): attention whose past is one matrix per head.
//!
//! A head's state S, [key_dim, value_dim], maps keys to values. A row forgets a share of it, looks up what its key maps to,
//! moves that towards its value, and reads at its query:
//!
//! ```text
//! S ← e^decay S;   S ← S + k ⊗ beta (v - Sᵀ k);   y = scale Sᵀ q
//! ```
//!
//! Columns of S never meet, so they are kept in panels of sixteen, [value_heads][value_dim / 16][key_dim][16], and shared out to
//! threads. A few rows are taken one by one ([`recurrent`]: a state passes through the first cache twice); many are taken in
//! chunks of sixteen ([`chunked`]: all is products of matrices). Which it is depends on the number of rows of the span alone, so
//! what a row gets is the same, bit by bit, for any number of threads and with any other sequences in the step.

mod chunked;
mod gates;
mod recurrent;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use crate::attention::HeadRows;
use crate::attention::lanes::{self, Lanes, Work};
use crate::disjoint::Disjoint;
use crate::state::{self, SharedSpan, StateSpan};
use crate::{Cpu, kv, share};
pub use gates::{DeltaGates, delta_gates};

/// Columns of a panel.
const LANES: usize = kv::LANES;
/// Rows of the state are padded to a multiple of this: the rows of a register tile.
const TILE: usize = 8;
/// Rows of a span from which chunks are faster, measured: up to eight rows cost a chunk as much as six of them one by one.
const CHUNKED_FROM: usize = 6;
/// Units of work per thread, so that threads end at about the same time.
const UNITS_PER_THREAD: usize = 4;

/// What the rule works on. Neighbouring value heads share a query head and a key head.
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    /// Queries, [rows, key_heads, key_dim].
    pub q: HeadRows<'a>,
    /// Keys, of length one: [rows, key_heads, key_dim].
    pub k: HeadRows<'a>,
    /// Values, [rows, value_heads, value_dim].
    pub v: HeadRows<'a>,
    /// The logarithm of what is kept of the state, at most zero: [rows, value_heads].
    pub decay: &'a [f32],
    /// How far the state moves towards a value: [rows, value_heads].
    pub beta: &'a [f32],
    /// Factor on queries.
    pub scale: f32,
}

/// Numbers of a sequence's state.
pub fn delta_state_len(value_heads: usize, key_dim: usize, value_dim: usize) -> usize {
    value_heads * value_dim.next_multiple_of(LANES) * key_dim.next_multiple_of(TILE)
}

/// Lets every span's rows pass by its state, and puts what they read there into y [rows, value_heads * value_dim].
///
/// # Panics
/// Lengths do not fit.
pub fn gated_delta(cpu: &Cpu, x: &Delta<'_>, spans: &mut [StateSpan<'_>], y: &mut [f32]) {
    let Delta { q, k, v, .. } = x;
    let (spans, rows) = state::share(spans, delta_state_len(v.heads, k.head_dim, v.head_dim));
    [q, k, v].iter().for_each(|part| part.check(rows));
    assert!(q.heads == k.heads && q.head_dim == k.head_dim && k.heads > 0, "queries unlike keys");
    assert!(v.heads.is_multiple_of(k.heads), "{} value heads cannot share {}", v.heads, k.heads);
    assert!(x.decay.len() >= rows * v.heads && x.beta.len() >= rows * v.heads, "gates of {rows} rows");
    assert!(y.len() >= rows * v.heads * v.head_dim, "{} numbers have no room for {rows} rows", y.len());
    Job { x, spans: &spans, y: Disjoint::new(y) }.run(cpu);
}

/// What the threads share. Lengths were checked.
struct Job<'a> {
    x: &'a Delta<'a>,
    spans: &'a [SharedSpan<'a>],
    y: Disjoint<'a, f32>,
}

/// Some columns of one head's state in one sequence, and the rows that pass by.
struct Unit<'a> {
    x: &'a Delta<'a>,
    rows: Range<usize>,
    /// The value head.
    head: usize,
    /// The first of its columns.
    column: usize,
    /// [rows, value_heads * value_dim], where this unit's columns belong to nobody else.
    y: &'a Disjoint<'a, f32>,
}

thread_local! {
    /// What a thread computes a chunk in, kept for the next one.
    static SCRATCH: RefCell<chunked::Scratch> = RefCell::default();
}

impl Job<'_> {
    fn run(&self, cpu: &Cpu) {
        let Delta { k, v, .. } = self.x;
        let panels = v.head_dim.div_ceil(LANES);
        let heads = self.spans.len() * v.heads;
        let threads = cpu.pool.threads();
        // Where heads are few, their panels are shared out as well, two at a time.
        let cuts = (threads * UNITS_PER_THREAD).div_ceil(heads.max(1)).clamp(1, panels.div_ceil(2).max(1));
        let run = |index: usize| {
            let (head, cut) = (index / cuts, index % cuts);
            let (span, head) = (&self.spans[head / v.heads], head % v.heads);
            let at = |cut: usize| (cut * panels.div_ceil(2) / cuts * 2).min(panels);
            let panel = k.head_dim.next_multiple_of(TILE) * LANES;
            let first = head * panels;
            // SAFETY: every panel of every head of every span is a part of one unit.
            let state = unsafe { span.state.part((first + at(cut)) * panel..(first + at(cut + 1)) * panel) };
            let unit = Unit { x: self.x, rows: span.rows.clone(), head, column: at(cut) * LANES, y: &self.y };
            SCRATCH.with_borrow_mut(|scratch| lanes::run(cpu.isa, Passing { unit, state, scratch }));
        };
        let rows: usize = self.spans.iter().map(|span| span.rows.len()).sum();
        share::units(cpu, heads * cuts, rows * v.heads * k.head_dim * v.head_dim, run);
    }
}

/// A unit's rows pass by its panels, [panels, padded key_dim, 16].
struct Passing<'a> {
    unit: Unit<'a>,
    state: &'a mut [f32],
    scratch: &'a mut chunked::Scratch,
}

impl<L: Lanes> Work<L> for Passing<'_> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { unit, state, scratch } = self;
        // SAFETY: called by `Lanes::run`.
        unsafe {
            match unit.rows.len() {
                0 => (),
                1..CHUNKED_FROM => unit.recurrent::<L>(state),
                _ => unit.chunked::<L>(state, scratch),
            }
        }
    }
}

impl Unit<'_> {
    /// The head whose queries and keys this one shares.
    fn key_head(&self) -> usize {
        self.head / (self.x.v.heads / self.x.k.heads)
    }

    /// Rows of the state, with padding.
    fn depth(&self) -> usize {
        self.x.k.head_dim.next_multiple_of(TILE)
    }

    /// Decay and beta of a row.
    fn gates(&self, row: usize) -> (f32, f32) {
        let at = row * self.x.v.heads + self.head;
        (self.x.decay[at], self.x.beta[at])
    }

    /// Sixteen values of a row from a column on, padded with zeros.
    #[inline(always)]
    fn values(&self, row: usize, column: usize) -> [f32; LANES] {
        let values = &self.x.v.head(row, self.head)[column..];
        values.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0.0; LANES];
            padded[..values.len()].copy_from_slice(values);
            padded
        })
    }

    /// Puts down what a row has read in the columns from one on.
    #[inline(always)]
    fn put(&self, row: usize, column: usize, read: &[f32; LANES]) {
        let (heads, width) = (self.x.v.heads, self.x.v.head_dim);
        let first = (row * heads + self.head) * width;
        // SAFETY: these columns of this head are this unit's.
        let y = unsafe { self.y.part(first + column..first + width.min(column + LANES)) };
        match y.first_chunk_mut() {
            Some(whole) => *whole = *read,
            None => y.copy_from_slice(&read[..y.len()]),
        }
    }
}
