//! softmax(q kᵀ) v, once for all: every decoder and tower comes here.

use candle_core::{D, Tensor};

use crate::NnError;

/// Constants of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Factor on q kᵀ.
    pub scale: f64,
    /// Scores s become cap * tanh(s / cap).
    pub softcap: Option<f64>,
}

/// q [rows, heads, head_dim], k and v [tokens, kv_heads, head_dim], mask [rows, tokens] with 0 or -inf → [rows, heads * head_dim].
/// Neighbouring query heads share a key/value head.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scores: Scores) -> Result<Tensor, NnError> {
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

/// Attention among the rows of each segment and nobody else: a picture's patches, say. All are [rows, heads, head_dim].
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn attention_within(q: &Tensor, k: &Tensor, v: &Tensor, segments: &[usize], scores: Scores) -> Result<Tensor, NnError> {
    let mut done = 0;
    let mut parts = Vec::with_capacity(segments.len());
    for &rows in segments {
        let part = |x: &Tensor| x.narrow(0, done, rows);
        parts.push(attention(&part(q)?, &part(k)?, &part(v)?, None, scores)?);
        done += rows;
    }
    Ok(Tensor::cat(&parts, 0)?)
}
