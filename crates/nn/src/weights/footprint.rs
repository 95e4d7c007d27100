//! What a model takes in main memory, noted while its weights are loaded, or while they would be.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Role;
use crate::MediaInput;

/// What a model takes in main memory. Tables whose rows are read from the mapped file take none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the language model's weights.
    pub language: usize,
    /// Bytes of the weights of towers and projectors.
    pub towers: usize,
    /// Numbers beside each other in the widest layer of the language model: what it takes, and what it makes.
    language_width: usize,
    /// Width of a patch's states in the widest tower.
    tower_width: usize,
    /// Pixels of a patch, times colours and frames; 0 where no tower takes patches.
    patch: usize,
    /// Bytes of keys and values of a media row that is looked at, in all layers that look.
    looked_at: usize,
}

/// States of all patches that there are at once: the tower's own, normed, queries, keys, values, and what attention makes of them.
/// Wider results are made a part at a time.
const STATES: usize = 6;

/// Numbers that a tower without patches has at once for each that it is given: the widest maps of a MobileNet, as
/// measured.
const NUMBERS_PER_PIXEL: usize = 24;

impl Footprint {
    /// Bytes of intermediate results of so many rows in the language model, logits not included.
    pub fn step(&self, rows: usize) -> usize {
        rows.saturating_mul(self.language_width).saturating_mul(size_of::<f32>())
    }

    /// Bytes that it takes to encode an item, at most: its arrays twice, and the states of all patches. What comes out is part of it
    /// where tokens look at it.
    pub fn encoding(&self, input: &MediaInput) -> usize {
        let given: usize = input.arrays.values().map(|array| array.data.len()).sum();
        let numbers = match self.patch {
            0 => given.saturating_mul(NUMBERS_PER_PIXEL),
            patch => given.div_ceil(patch).saturating_mul(STATES * self.tower_width),
        };
        let looked_at = input.rows.saturating_mul(self.looked_at);
        (2 * given).saturating_add(numbers).saturating_mul(size_of::<f32>()).saturating_add(looked_at)
    }
}

/// Adds up a [`Footprint`].
#[derive(Debug, Default)]
pub(super) struct Ledger {
    language: AtomicUsize,
    towers: AtomicUsize,
    language_width: AtomicUsize,
    tower_width: AtomicUsize,
    patch: AtomicUsize,
    looked_at: AtomicUsize,
}

impl Ledger {
    pub fn weights(&self, role: Role, bytes: usize) {
        let sum = if role == Role::Encoder { &self.towers } else { &self.language };
        sum.fetch_add(bytes, Relaxed);
    }

    /// Logits are made of few rows, and a tower's rows are counted otherwise.
    pub fn layer(&self, role: Role, width: usize) {
        match role {
            Role::Encoder | Role::Vocabulary => 0,
            Role::Decoder | Role::Expert | Role::Router => self.language_width.fetch_max(width, Relaxed),
        };
    }

    /// What a tower takes a picture as, and makes of it; a projection of single channels takes none.
    pub fn patch(&self, role: Role, shape: &[usize], width: usize) {
        let is_patch = shape.len() == 1 || shape.iter().skip(1).product::<usize>() > 1;
        if role == Role::Encoder && is_patch {
            self.patch.fetch_max(shape.iter().product(), Relaxed);
            self.tower_width.fetch_max(width, Relaxed);
        }
    }

    pub fn looked_at(&self, bytes: usize) {
        self.looked_at.fetch_add(bytes, Relaxed);
    }

    pub fn sum(&self) -> Footprint {
        let Self { language, towers, language_width, tower_width, patch, looked_at } = self;
        let [language, towers, language_width] = [language, towers, language_width].map(|n| n.load(Relaxed));
        let [tower_width, patch, looked_at] = [tower_width, patch, looked_at].map(|n| n.load(Relaxed));
        Footprint { language, towers, language_width, tower_width, patch, looked_at }
    }
}
