//! Keys and values of earlier tokens, in blocks that sequences own, laid out the way attention multiplies them.
//!
//! The unit is a *panel*: one head's keys, or values, of up to sixteen neighbouring tokens. Its vectors have sixteen lanes. In
//! a panel of keys a lane is a token, so that q · k of sixteen tokens is a sum of vectors and needs no sum across lanes; in a
//! panel of values a lane is one of sixteen neighbouring dimensions, so that the weighted sum of values is one, too:
//!
//! ```text
//! keys    [head_dim / n][16 tokens][n]              n: numbers that share a lane, 2 in bf16 (what vdpbf16ps takes), else 1
//! values  [head_dim / 16][16 tokens / n][16 dims][n]
//! block   [kv_heads][panels of a block]{ keys, values }
//! ```
//!
//! A block has memory of its own from when it is first written until it is discarded. `head_dim` is padded with zeros to a multiple of sixteen; a block of fewer than sixteen tokens leaves lanes unused.

use std::fmt;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Cpu;
use crate::attention::HeadRows;
use crate::convert;
use crate::disjoint::Disjoint;
use crate::isa::{MulAdd, for_each_isa};
use crate::memory::Line;

/// Lanes of a panel's vectors.
pub(crate) const LANES: usize = 16;

/// Sizes of one layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// Tokens of a block. Multiples of sixteen waste nothing.
    pub block_size: usize,
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// As they come.
    F32,
    /// Eight bits of precision. Where the machine multiplies bf16, queries and weights are rounded to it as well.
    Bf16,
    /// Eleven bits of precision, up to 65504; computed in f32.
    F16,
    /// A signed byte per number and an f32 scale per token and head; computed in f32.
    Q8,
}

impl KvFormat {
    /// Numbers that share a lane: neighbours along what products sum over.
    pub(crate) const fn numbers_per_lane(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::F16 | Self::Q8 => 1,
        }
    }

    /// Bytes of one number.
    pub const fn number_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Q8 => 1,
        }
    }

    /// Bytes in front of a panel's numbers: a scale per token.
    pub(crate) const fn scale_bytes(self) -> usize {
        match self {
            Self::Q8 => LANES * size_of::<f32>(),
            Self::F32 | Self::Bf16 | Self::F16 => 0,
        }
    }
}

impl KvShape {
    /// Bytes of one block with all its heads.
    pub fn block_bytes(&self, format: KvFormat) -> usize {
        self.kv_heads * self.panels_per_block() * 2 * self.panel_bytes(format)
    }

    /// `head_dim` with its padding.
    pub(crate) fn width(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn panels_per_block(&self) -> usize {
        self.block_size.div_ceil(LANES)
    }

    fn panel_bytes(&self, format: KvFormat) -> usize {
        format.scale_bytes() + self.width() * LANES * format.number_bytes()
    }
}

/// One sequence's rows in a step, and where its keys and values are kept.
#[derive(Debug, Clone)]
pub struct KvSpan<'a> {
    /// Rows of the step. Spans are in order and share none.
    pub rows: Range<usize>,
    /// Tokens of the sequence before the first row.
    pub start: usize,
    /// The sequence's blocks, enough for all its tokens.
    pub blocks: &'a [u32],
    /// Ranges of token numbers whose members see each other in both directions: a picture's, say. None goes on beyond the rows.
    pub islands: &'a [Range<usize>],
}

impl KvSpan<'_> {
    /// Tokens of the sequence, those of this step included.
    pub fn end(&self) -> usize {
        self.start + self.rows.len()
    }
}

/// Where a panel lies, and the tokens in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Number of its first token.
    pub first: usize,
    /// Tokens that it has room for.
    pub count: usize,
    pub block: usize,
    /// Byte of the block where the keys begin (their scales, if any); the values follow.
    pub keys: usize,
    pub values: usize,
}

/// One layer's keys and values. Who owns which block is the caller's affair.
pub struct KvCache {
    shape: KvShape,
    format: KvFormat,
    /// A block's memory, or nothing.
    blocks: Vec<Vec<Line>>,
}

impl KvCache {
    /// Places for `blocks` blocks. A block takes memory when it is first written.
    pub fn new(shape: KvShape, blocks: usize, format: KvFormat) -> Self {
        assert!(shape.kv_heads > 0 && shape.head_dim > 0 && shape.block_size > 0, "an empty cache: {shape:?}");
        Self { shape, format, blocks: vec![Vec::new(); blocks] }
    }

    /// The same with memory that may have been used: nothing is read that was not written.
    pub(crate) fn reusing(mut blocks: Vec<Vec<Line>>, shape: KvShape, count: usize, format: KvFormat) -> Self {
        blocks.resize_with(count.max(blocks.len()), Vec::new);
        Self { blocks, ..Self::new(shape, 0, format) }
    }

    /// What [`Self::reusing`] takes.
    pub(crate) fn into_blocks(self) -> Vec<Vec<Line>> {
        self.blocks
    }

    /// Sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// How numbers are stored.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Forgets what a block holds, and gives its memory back.
    pub fn discard(&mut self, block: usize) {
        self.blocks[block] = Vec::new();
    }

    /// Writes the keys and values (`[rows, kv_heads, head_dim]` each) of the spans' rows into their blocks.
    ///
    /// # Panics
    /// Lengths or block tables do not fit, or a block would be written for two of its places.
    pub fn append(&mut self, cpu: &Cpu, keys: HeadRows, values: HeadRows, spans: &[KvSpan]) {
        for heads in [&keys, &values] {
            heads.check(spans.last().map_or(0, |span| span.rows.end));
            assert_eq!((heads.heads, heads.head_dim), (self.shape.kv_heads, self.shape.head_dim), "heads of another cache");
        }
        self.check(spans, |span| span.start);
        let (shape, format) = (self.shape, self.format);
        let written = |span: &KvSpan| span.start / shape.block_size..span.end().div_ceil(shape.block_size);
        let written = spans.iter().filter(|span| !span.rows.is_empty()).flat_map(|span| written(span).map(move |i| (span, i)));
        let written: Vec<(&KvSpan, usize)> = written.collect();
        let mut numbers: Vec<u32> = written.iter().map(|(span, index)| span.blocks[*index]).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "a block that is written by two");
        let lines = shape.block_bytes(format).div_ceil(size_of::<Line>());
        for block in numbers {
            let block = &mut self.blocks[block as usize];
            block.resize(lines.max(block.len()), Line::ZERO);
        }
        let blocks = Disjoint::new(&mut self.blocks);
        let write = |part: usize| {
            let (span, index) = written[part];
            let tokens = span.start.max(index * shape.block_size)..span.end().min((index + 1) * shape.block_size);
            let number = span.blocks[index] as usize;
            // SAFETY: nobody else writes this block.
            let block = Line::bytes_mut(unsafe { &mut blocks.part(number..number + 1)[0] });
            for (are_keys, source) in [(true, keys), (false, values)] {
                write_tokens(cpu.isa, &Writing { shape, format, source, are_keys, span, tokens: tokens.clone() }, block);
            }
        };
        let numbers = keys.heads * keys.head_dim * spans.iter().map(|span| span.rows.len()).sum::<usize>();
        if numbers < SHARED_FROM { (0..written.len()).for_each(write) } else { cpu.pool.run(written.len(), write) }
    }

    /// Asserts that the spans are in order, and that their tables lead to blocks of this cache, from the block of the token that
    /// `from` names.
    fn check(&self, spans: &[KvSpan], from: impl Fn(&KvSpan) -> usize) {
        let mut rows = 0;
        for span in spans {
            assert!(rows <= span.rows.start && span.rows.start <= span.rows.end, "spans out of order");
            rows = span.rows.end;
            let used = span.end().div_ceil(self.shape.block_size);
            assert!(used <= span.blocks.len(), "{} blocks for {} tokens", span.blocks.len(), span.end());
            let mut blocks = span.blocks[..used].iter().skip(from(span) / self.shape.block_size);
            assert!(blocks.all(|&block| (block as usize) < self.blocks.len()), "no such block: {:?}", span.blocks);
        }
    }

    /// [`Self::check`], and that these blocks were written.
    pub(crate) fn check_written(&self, spans: &[KvSpan], from: impl Fn(&KvSpan) -> usize) {
        self.check(spans, &from);
        let bytes = self.shape.block_bytes(self.format);
        let written = |block: &u32| Line::bytes(&self.blocks[*block as usize]).len() >= bytes;
        for span in spans {
            let used = from(span) / self.shape.block_size..span.end().div_ceil(self.shape.block_size);
            assert!(span.blocks[used].iter().all(written), "a block that was never written: {:?}", span.blocks);
        }
    }

    /// The panels that hold the tokens `tokens` of a span, for one head.
    pub(crate) fn panels(&self, span: &KvSpan, head: usize, tokens: Range<usize>) -> impl Iterator<Item = Place> {
        panels(self.shape, self.format, span, head, tokens)
    }

    /// A block's memory.
    pub(crate) fn block(&self, number: usize) -> &[u8] {
        Line::bytes(&self.blocks[number])
    }
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks of {:?} in {:?}", self.blocks.len(), self.shape, self.format)
    }
}

/// Numbers from which an append is worth a second thread: some ten microseconds of work.
const SHARED_FROM: usize = 16 * 1024;

/// See [`KvCache::panels`].
fn panels(shape: KvShape, format: KvFormat, span: &KvSpan, head: usize, tokens: Range<usize>) -> impl Iterator<Item = Place> {
    let (bytes, per_block, mut token) = (shape.panel_bytes(format), shape.panels_per_block(), tokens.start);
    std::iter::from_fn(move || {
        if token >= tokens.end {
            return None;
        }
        let (index, inside) = (token / shape.block_size, token % shape.block_size / LANES);
        let number = head * per_block + inside;
        let first = index * shape.block_size + inside * LANES;
        let count = LANES.min(shape.block_size - inside * LANES);
        token = first + count;
        let block = span.blocks[index] as usize;
        Some(Place { first, count, block, keys: 2 * number * bytes, values: (2 * number + 1) * bytes })
    })
}

/// Rows that go into one block.
struct Writing<'a> {
    shape: KvShape,
    format: KvFormat,
    source: HeadRows<'a>,
    are_keys: bool,
    span: &'a KvSpan<'a>,
    tokens: Range<usize>,
}

for_each_isa!(fn write_tokens(writing: &Writing, block: &mut [u8]) = write_tokens_as);

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "`for_each_isa` hands it over")]
fn write_tokens_as<M: MulAdd>(writing: &Writing, block: &mut [u8]) {
    match writing.format {
        KvFormat::F32 => writing.write::<f32, 1>(block),
        KvFormat::Bf16 => writing.write::<bf16, 2>(block),
        KvFormat::F16 => writing.write::<f16, 1>(block),
        KvFormat::Q8 => writing.write::<i8, 1>(block),
    }
}

impl Writing<'_> {
    /// For `N` numbers that share a lane.
    #[inline(always)]
    fn write<T: Number, const N: usize>(&self, block: &mut [u8]) {
        let width = self.source.heads * self.source.head_dim;
        let mut encoded = vec![T::default(); self.tokens.len() * width]; // [tokens, kv_heads, head_dim]
        for (row, encoded) in (self.row(self.tokens.start)..).zip(encoded.chunks_exact_mut(width)) {
            if T::SCALED {
                for (head, encoded) in encoded.chunks_exact_mut(self.source.head_dim).enumerate() {
                    T::encode(self.source.head(row, head), encoded);
                }
            } else {
                T::encode(self.source.row(row), encoded);
            }
        }
        for head in 0..self.source.heads {
            for panel in panels(self.shape, self.format, self.span, head, self.tokens.clone()) {
                let at = if self.are_keys { panel.keys } else { panel.values };
                let place = &mut block[at..at + self.shape.panel_bytes(self.format)];
                let (scales, place) = place.split_at_mut(self.format.scale_bytes());
                // SAFETY: any bits are numbers, and panels begin at cache lines.
                let (scales, place) = unsafe { (scales.align_to_mut::<f32>().1, place.align_to_mut::<T>().1) };
                let tokens = self.tokens.start.max(panel.first)..self.tokens.end.min(panel.first + panel.count);
                let row = |token: usize| {
                    &encoded[(token - self.tokens.start) * width + head * self.source.head_dim..][..self.source.head_dim]
                };
                for token in tokens.clone() {
                    let lane = token - panel.first;
                    if let Some(place) = scales.get_mut(lane) {
                        *place = T::scale(self.source.head(self.row(token), head));
                    }
                    if self.are_keys {
                        write_key::<T, N>(lane, row(token), place);
                    } else if N == 1 {
                        write_value(lane, row(token), place);
                    } else if lane % 2 == 1 && token > tokens.start {
                        write_values(lane, row(token - 1), row(token), place);
                    } else if lane % 2 == 1 || token + 1 == tokens.end {
                        write_half(lane, row(token), place);
                    }
                }
            }
        }
    }

    /// The row of a token.
    fn row(&self, token: usize) -> usize {
        self.span.rows.start + token - self.span.start
    }
}

/// One key: N numbers in each of its lane's places.
#[inline(always)]
fn write_key<T: Number, const N: usize>(lane: usize, row: &[T], panel: &mut [T]) {
    let (numbers, rest) = row.as_chunks::<N>();
    let places = panel.as_chunks_mut::<N>().0;
    for (vector, numbers) in places.chunks_exact_mut(LANES).zip(numbers) {
        vector[lane] = *numbers;
    }
    if let Some(lane) = places.get_mut(numbers.len() * LANES + lane)
        && !rest.is_empty()
    {
        *lane = [T::default(); N]; // an odd dimension's neighbour
        lane[..rest.len()].copy_from_slice(rest);
    }
}

/// One value, where numbers have lanes of their own.
#[inline(always)]
fn write_value<T: Number>(lane: usize, row: &[T], panel: &mut [T]) {
    let (numbers, rest) = row.as_chunks::<LANES>();
    let groups = panel.as_chunks_mut::<LANES>().0;
    for (group, numbers) in groups.chunks_exact_mut(LANES).zip(numbers) {
        group[lane] = *numbers;
    }
    if let Some(group) = groups.get_mut(numbers.len() * LANES + lane) {
        group[..rest.len()].copy_from_slice(rest);
    }
}

/// Values of two tokens that share lanes.
#[inline(always)]
fn write_values<T: Number>(lane: usize, first: &[T], second: &[T], panel: &mut [T]) {
    for (i, (a, b)) in first.chunks(LANES).zip(second.chunks(LANES)).enumerate() {
        let vector = &mut panel[(i * LANES + lane - 1) * LANES..][..2 * LANES];
        for ((place, x), y) in vector.as_chunks_mut().0.iter_mut().zip(a).zip(b) {
            *place = [*x, *y];
        }
    }
}

/// The value of one token of two that share lanes. If the other one is to come, it is zero until then: a block that had another
/// owner holds that one's numbers, which may be infinite, and a weight of zero does not help against that.
#[inline(always)]
fn write_half<T: Number>(lane: usize, row: &[T], panel: &mut [T]) {
    for (i, numbers) in row.chunks(LANES).enumerate() {
        let vector = &mut panel[(i * LANES + lane / 2 * 2) * LANES..][..2 * LANES];
        for (place, x) in vector.as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = if lane.is_multiple_of(2) { [*x, T::default()] } else { [place[0], *x] };
        }
    }
}

/// A number as it is stored.
trait Number: Copy + Default {
    /// Whether a row of a head has a scale.
    const SCALED: bool = false;
    fn scale(_row: &[f32]) -> f32 {
        1.0
    }
    fn encode(row: &[f32], encoded: &mut [Self]);
}

impl Number for f32 {
    #[inline(always)]
    fn encode(row: &[f32], encoded: &mut [Self]) {
        encoded.copy_from_slice(row);
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn encode(row: &[f32], encoded: &mut [Self]) {
        for (place, x) in encoded.iter_mut().zip(row) {
            *place = convert::to_bf16(*x);
        }
    }
}

impl Number for f16 {
    #[inline(always)]
    fn encode(row: &[f32], encoded: &mut [Self]) {
        encoded.convert_from_f32_slice(row);
    }
}

impl Number for i8 {
    const SCALED: bool = true;
    #[inline(always)]
    fn scale(row: &[f32]) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        for numbers in row.chunks(LANES) {
            lanes.iter_mut().zip(numbers).for_each(|(largest, x)| *largest = largest.max(x.abs()));
        }
        lanes.into_iter().fold(0.0, f32::max) / 127.0
    }
    #[inline(always)]
    fn encode(row: &[f32], encoded: &mut [Self]) {
        let scale = Self::scale(row);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (place, x) in encoded.iter_mut().zip(row) {
            // Rounded to even, and left in the lowest bits; a conversion would be a call, or one by one.
            *place = (x * inverse + 12_582_912.0).to_bits() as i8; // 1.5 * 2^23
        }
    }
}
