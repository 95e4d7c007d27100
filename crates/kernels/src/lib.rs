//! Arithmetic on slices, as fast as the machine allows.
//!
//! Knows: lanes, caches, threads, number formats. [`Cpu`] holds what a machine has: an instruction set ([`Isa`]) and threads
//! ([`Pool`]); every operation takes one, so that tests can force any instruction set that the machine offers.
//!
//! Must never know: tensors, names of weights, models. Lengths are asserted, nothing is returned that could fail.
//!
//! One operation, one file: the scalar version first, which is always compiled and which the others are tested against. Where
//! the compiler vectorises a plain loop well, the loop is written once and compiled for every instruction set
//! ([`isa::for_each_isa`]); where it does not, a file per instruction set holds intrinsics. This is the only crate that may
//! mention a processor architecture.

#![allow(unsafe_code)] // each with a SAFETY line
#![allow(clippy::needless_range_loop)] // lanes and halves of several arrays are walked side by side
#![allow(clippy::extra_unused_type_parameters)] // bodies for `for_each_isa` take `M: MulAdd` even where nothing is multiplied

pub mod activation;
mod attention;
mod biased;
pub mod blocks;
#[cfg(test)]
mod check;
pub mod conv;
pub mod convert;
mod delta;
mod dense;
mod disjoint;
pub mod elementwise;
mod head_layout;
pub mod isa;
mod kv;
mod lanes;
mod math;
mod memory;
pub mod norm;
mod pool;
mod product;
mod quantised;
pub mod reduce;
mod relative;
pub mod rope;
mod share;
pub mod softmax;
mod sparsity;
mod state;
mod streams;

use std::sync::OnceLock;

pub use activation::Activation;
pub use attention::{HeadRows, KeyValues, Look, Past, Scores, Seen, Segments, attention, attention_across, attention_within};
pub use biased::{Biased, attention_biased};
pub use blocks::BlockFormat;
pub use delta::{Delta, DeltaGates, delta_gates, delta_state_len, gated_delta};
pub use dense::{DenseFormat, DenseMatrix};
pub use head_layout::HeadLayout;
pub use isa::Isa;
pub use kv::{KvCache, KvFormat, KvShape, KvSpan};
pub use memory::Memory;
pub use pool::Pool;
pub use product::{Out, Routes, Source};
pub use quantised::QuantisedMatrix;
pub use relative::{Nearby, attention_nearby};
pub use sparsity::above;
pub use state::StateSpan;
pub use streams::{add_to_streams, mix_streams};

/// What operations run on.
#[derive(Debug)]
pub struct Cpu {
    /// Instructions they may use.
    pub isa: Isa,
    /// Threads that share the work.
    pub pool: Pool,
}

impl Cpu {
    /// The best instruction set and all threads of this machine.
    pub fn host() -> &'static Self {
        static HOST: OnceLock<Cpu> = OnceLock::new();
        HOST.get_or_init(|| {
            let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
            Self { isa: Isa::best(), pool: Pool::new(threads) }
        })
    }

    /// Every instruction set of this machine, alone and with a second thread: what tests run on.
    pub fn each() -> impl Iterator<Item = Self> {
        Isa::available().flat_map(|isa| [1, 2].map(|threads| Self { isa, pool: Pool::new(threads) }))
    }
}
