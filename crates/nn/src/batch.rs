//! What one step computes.

use std::ops::Range;

use crate::{Ahead, Cache, Encoded, Mode, NnError, Placement, Prompt, Tensor, Then};

/// Tokens of several sequences, packed without padding. A span of one row and a span of five hundred take the same path.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids, [rows].
    pub tokens: Vec<u32>,
    /// Rotary positions, [rows]; see [`crate::Positions`].
    pub positions: Vec<[u32; 3]>,
    /// The sequences' shares of the rows: adjacent, in order, covering all.
    pub spans: Vec<Span>,
    /// Encoded media that take the place of token embeddings.
    pub media: Vec<MediaRows>,
    /// Encoded media that rows look at.
    pub looks: Vec<MediaLook>,
    /// Rows whose logits are wanted, ascending.
    pub wanted: Vec<usize>,
}

impl Batch {
    /// A whole prompt and nobody else, in the first blocks of a cache. Its media, if any, are the caller's to add.
    pub fn alone(prompt: &Prompt, cache: &Cache, wanted: Vec<usize>) -> Self {
        let rows = prompt.tokens.len();
        let table = (0..rows.div_ceil(cache.block_size()) as u32).collect();
        Self {
            tokens: prompt.tokens.clone(),
            positions: (0..rows).map(|row| prompt.positions.at(row)).collect(),
            spans: vec![Span {
                rows: 0..rows,
                start: 0,
                tables: vec![table; cache.groups()],
                islands: prompt.islands.clone(),
                mode: prompt.mode,
            }],
            media: Vec::new(),
            looks: Vec::new(),
            wanted,
        }
    }

    /// Adds what of an encoded item is for these tokens of its sequence, the first of which is row `first`.
    ///
    /// # Errors
    /// The item has too few rows, or they are not what its placement is for.
    pub fn show(&mut self, placement: &Placement, item: &Encoded, tokens: Range<usize>, first: usize) -> Result<(), NnError> {
        let row = |token: usize| first + token - tokens.start;
        let mut passed = 0;
        for at in &placement.at {
            let both = at.start.max(tokens.start)..at.end.min(tokens.end);
            if !both.is_empty() {
                let rows = item.narrow(passed + both.start - at.start, both.len())?;
                self.media.push(MediaRows { at: row(both.start), rows });
            }
            passed += at.len();
        }
        self.looks.extend(placement.looks_of(tokens.clone()).map(|look| MediaLook {
            rows: row(look.tokens.start)..row(look.tokens.end),
            item: item.clone(),
            seen: look.rows,
            then: look.then,
        }));
        Ok(())
    }

    /// The wanted ones of rows x [rows, ..].
    ///
    /// # Errors
    /// There are no such rows, or the device failed.
    pub fn wanted_of(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let wanted: Vec<u32> = self.wanted.iter().map(|&row| row as u32).collect();
        Ok(x.index_select(&Tensor::new(wanted, x.device())?, 0)?)
    }
}

/// One sequence's rows in a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Tokens of the sequence that are in the cache already; the first row is token number `start`.
    pub start: usize,
    /// Cache blocks of the sequence for each group of layers ([`crate::CacheGroup`]): enough for `start + rows.len()` tokens,
    /// of which those that no row of this step looks at may lead nowhere; or the one of the state.
    pub tables: Vec<Vec<u32>>,
    /// Ranges of token numbers whose members see each other in both directions (see [`crate::Prompt::islands`]); those that
    /// reach into `rows` lie in them entirely.
    pub islands: Vec<Range<usize>>,
    /// How its rows are computed ([`crate::Prompt::mode`]).
    pub mode: Mode,
}

impl Span {
    /// Tokens that the last row sees: those in the cache and those of this step.
    pub fn end(&self) -> usize {
        self.start + self.rows.len()
    }

    /// As the kernels take it, for the layers of a group.
    pub(crate) fn kernel(&self, group: usize, ahead: Ahead) -> kernels::KvSpan<'_> {
        let islands = match ahead {
            Ahead::Island => self.islands.as_slice(),
            Ahead::Nothing => &[],
        };
        kernels::KvSpan { rows: self.rows.clone(), start: self.start, blocks: &self.tables[group], islands }
    }

    /// The block of its state.
    pub(crate) fn state(&self, group: usize) -> Option<u32> {
        self.tables.get(group)?.first().copied()
    }
}

/// Consecutive rows of an encoded item.
#[derive(Debug, Clone)]
pub struct MediaRows {
    /// First row of the batch that they replace.
    pub at: usize,
    /// As [`crate::Model::encode`] returned them, [rows, width].
    pub rows: Tensor,
}

/// Rows that look at an encoded item; see [`crate::Look`].
#[derive(Debug, Clone)]
pub struct MediaLook {
    /// Rows of the batch, of one sequence.
    pub rows: Range<usize>,
    /// As [`crate::Model::encode`] returned it.
    pub item: Encoded,
    /// How many of its rows they see, from the first on.
    pub seen: usize,
    /// What a layer does with them afterwards.
    pub then: Then,
}
