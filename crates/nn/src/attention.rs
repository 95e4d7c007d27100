//! softmax(q kᵀ) v, once for all: every decoder and tower comes here.

use candle_core::{D, Tensor};
use kernels::KvFormat;
pub use kernels::Seen;

use crate::{HeadRange, NnError, host};

/// Constants of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Factor on q kᵀ.
    pub scale: f64,
    /// Scores s become cap * tanh(s / cap).
    pub softcap: Option<f64>,
    /// How far back is looked.
    pub back: Back,
    /// What of the later tokens is seen.
    pub ahead: Ahead,
}

/// How far a token of a decoder looks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Back {
    /// To the beginning.
    All,
    /// At so many tokens, itself included.
    Window(usize),
    /// To the beginning of its chunk: every so many tokens a new one begins.
    Chunk(usize),
}

impl Back {
    /// The first token that token number `token` sees.
    pub fn first(self, token: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Window(window) => (token + 1).saturating_sub(window),
            Self::Chunk(chunk) => token - token % chunk,
        }
    }
}

impl From<Option<usize>> for Back {
    /// A window, where there is one.
    fn from(window: Option<usize>) -> Self {
        window.map_or(Self::All, Self::Window)
    }
}

/// What a token of a decoder sees of the later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ahead {
    /// Those of its island ([`crate::Prompt::islands`]).
    Island,
    /// Nothing.
    Nothing,
}

impl Scores {
    /// Scaled by the width of a head (Vaswani et al. 2017), and nothing else.
    pub fn plain(head_dim: usize) -> Self {
        Self { scale: (head_dim as f64).powf(-0.5), softcap: None, back: Back::All, ahead: Ahead::Island }
    }

    pub(crate) fn kernel(&self) -> kernels::Scores<'static> {
        let (window, chunk) = match self.back {
            Back::All => (None, None),
            Back::Window(window) => (Some(window), None),
            Back::Chunk(chunk) => (None, Some(chunk)),
        };
        kernels::Scores { scale: self.scale as f32, softcap: self.softcap.map(|cap| cap as f32), window, chunk, sinks: None }
    }
}

/// Queries, keys and values side by side, as a fused projection gives them: [rows, (heads + 2 * kv_heads) * head_dim].
/// Neighbouring query heads share a key/value head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qkv {
    /// Query heads.
    pub heads: usize,
    /// Key heads, and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Qkv {
    /// The query heads.
    pub fn queries(self) -> HeadRange {
        HeadRange { first: 0, count: self.heads, width: self.head_dim }
    }

    /// The key heads.
    pub fn keys(self) -> HeadRange {
        HeadRange { first: self.heads, count: self.kv_heads, width: self.head_dim }
    }

    /// The value heads.
    pub fn values(self) -> HeadRange {
        HeadRange { first: self.heads + self.kv_heads, count: self.kv_heads, width: self.head_dim }
    }

    /// Query and key heads.
    pub fn turned(self) -> HeadRange {
        HeadRange { first: 0, count: self.heads + self.kv_heads, width: self.head_dim }
    }

    /// Elements of a row.
    pub fn stride(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Elements of a row of the result.
    pub fn width(self) -> usize {
        self.heads * self.head_dim
    }
}

/// Runs of neighbouring rows that see each other and nobody else: the patches of a picture, say.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    /// Rows of each.
    pub lengths: &'a [usize],
    /// What rows see of theirs.
    pub seen: Seen<'a>,
}

impl<'a> Segments<'a> {
    /// All rows of a segment see each other.
    pub fn whole(lengths: &'a [usize]) -> Self {
        Self { lengths, seen: Seen::All }
    }
}

/// Attention within segments: x is laid out as `qkv` says, and the result is [rows, heads * head_dim]. Keys and values are rounded
/// to `format` on the way.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn attention_within(x: &Tensor, qkv: Qkv, segments: Segments, scores: Scores, format: KvFormat) -> Result<Tensor, NnError> {
    let Segments { lengths, seen } = segments;
    let (rows, stride) = x.dims2()?;
    let covered = |lengths: &[usize]| lengths.iter().sum::<usize>() == rows;
    let in_chunks = !matches!(seen, Seen::Chunks(chunks) if !covered(chunks));
    if !covered(lengths) || !in_chunks || stride != qkv.stride() {
        return Err(NnError::Input("segments that cover all rows"));
    }
    if host::here(x) {
        return host::read(x, |x| {
            let [q, k, v] = [qkv.queries(), qkv.keys(), qkv.values()].map(|heads| heads.of(x, stride));
            let segments = kernels::Segments { q, k, v, lengths, seen };
            host::make((rows, qkv.width()), |y| {
                kernels::attention_within(host::cpu(), segments, &scores.kernel(), format, y);
            })
        })?;
    }
    let [q, k, v] = [qkv.queries().take(x)?, qkv.keys().take(x)?, qkv.values().take(x)?];
    let (mut done, mut rest) = (0, seen);
    let mut parts = Vec::with_capacity(lengths.len());
    for &rows in lengths {
        let (now, later) = rest.split(&[rows]);
        let (keys, mask) = match now {
            Seen::All => (rows, None),
            Seen::Chunks(chunks) => (rows, Some(mask(chunks, x)?)),
            Seen::Onlookers(counts) => (rows - counts.iter().sum::<usize>(), None),
        };
        let part = |x: &Tensor, rows| x.narrow(0, done, rows);
        parts.push(attention_elsewhere(&part(&q, rows)?, &part(&k, keys)?, &part(&v, keys)?, mask.as_ref(), scores)?);
        (done, rest) = (done + rows, later);
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// For rows in chunks, 0 where one sees another and -inf elsewhere, where `x` lives.
fn mask(chunks: &[usize], x: &Tensor) -> Result<Tensor, NnError> {
    let rows = chunks.iter().sum();
    let mut mask = Vec::with_capacity(rows * rows);
    let mut seen = 0;
    for chunk in chunks {
        seen += chunk;
        let row = (0..rows).map(|token| if token < seen { 0.0 } else { f32::NEG_INFINITY });
        (0..*chunk).for_each(|_| mask.extend(row.clone()));
    }
    Ok(Tensor::from_vec(mask, (rows, rows), x.device())?)
}

/// Attention of the rows of a sound to the latest ones, with an embedding of how far back they are; in main memory.
#[derive(Debug)]
pub struct Nearby {
    /// Queries, scaled, keys and values. There are as many of each.
    pub qkv: Qkv,
    /// [distances, heads * head_dim], that of the own row first.
    pub distances: Tensor,
    /// Scores s become cap * tanh(s / cap).
    pub softcap: f64,
}

impl Nearby {
    /// x, laid out as `qkv` says → [rows, heads * head_dim]. A row sees itself and those before it, as many as there are distances.
    ///
    /// # Errors
    /// Shapes do not fit, or the tensors are not in main memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let (rows, stride) = x.dims2()?;
        if stride != self.qkv.stride() || self.qkv.heads != self.qkv.kv_heads || self.distances.dim(1)? != self.qkv.width() {
            return Err(NnError::Input("as many queries as keys, and distances"));
        }
        host::read(x, |x| {
            host::read(&self.distances, |distances| {
                let [q, k, v] = [self.qkv.queries(), self.qkv.keys(), self.qkv.values()].map(|heads| heads.of(x, stride));
                let nearby = kernels::Nearby { q, k, v, distances, softcap: self.softcap as f32 };
                host::make((rows, self.qkv.width()), |y| kernels::attention_nearby(host::cpu(), nearby, y))
            })
        })??
    }
}

/// Attention among all rows of a sound, with a bias for how far apart two are; in main memory.
#[derive(Debug)]
pub struct Biased {
    /// Queries, keys and values. There are as many of each.
    pub qkv: Qkv,
    /// [heads, 2 * reach]: for keys `reach` rows before the query, then one less, and so on; further away the bias of the end.
    pub bias: Tensor,
}

impl Biased {
    /// x, laid out as `qkv` says → [rows, heads * head_dim].
    ///
    /// # Errors
    /// Shapes do not fit, or the tensors are not in main memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let (rows, stride) = x.dims2()?;
        let (heads, biases) = self.bias.dims2()?;
        let fits = stride == self.qkv.stride() && [self.qkv.heads, self.qkv.kv_heads] == [heads; 2];
        if !fits || biases == 0 || !biases.is_multiple_of(2) {
            return Err(NnError::Input("as many queries as keys, and a bias for each distance"));
        }
        let scale = (self.qkv.head_dim as f32).powf(-0.5);
        host::read(x, |x| {
            host::read(&self.bias, |bias| {
                let [q, k, v] = [self.qkv.queries(), self.qkv.keys(), self.qkv.values()].map(|heads| heads.of(x, stride));
                let biased = kernels::Biased { q, k, v, scale, bias };
                host::make((rows, self.qkv.width()), |y| kernels::attention_biased(host::cpu(), biased, y))
            })
        })??
    }
}

/// q [rows, heads, head_dim], k and v [tokens, kv_heads, head_dim], mask [rows, tokens] with 0 or -inf → [rows, heads * head_dim],
/// on any device.
pub(crate) fn attention_elsewhere(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    scores: Scores,
) -> Result<Tensor, NnError> {
    let (rows, heads, width) = q.dims3()?;
    let (tokens, kv_heads, _) = k.dims3()?;
    let group = heads / kv_heads;
    let q = q.reshape((rows, kv_heads, group, width))?.permute((1, 2, 0, 3))?.reshape((kv_heads, group * rows, width))?;
    let k = k.permute((1, 2, 0))?.contiguous()?;
    let v = v.permute((1, 0, 2))?.contiguous()?;
    let mut s = (q.matmul(&k)? * scores.scale)?; // [kv_heads, group * rows, tokens]
    if let Some(cap) = scores.softcap {
        s = ((s / cap)?.tanh()? * cap)?;
    }
    if let Some(mask) = mask {
        s = s.reshape((heads, rows, tokens))?.broadcast_add(mask)?.reshape((kv_heads, group * rows, tokens))?;
    }
    let out = softmax(&s)?.matmul(&v)?; // [kv_heads, group * rows, width]
    let out = out.reshape((kv_heads, group, rows, width))?.permute((2, 0, 1, 3))?;
    Ok(out.reshape((rows, heads * width))?)
}

fn softmax(scores: &Tensor) -> Result<Tensor, NnError> {
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?)
}
