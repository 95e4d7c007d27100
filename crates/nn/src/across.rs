//! Cross attention: rows that look at keys and values of others, a picture's, say.

use std::ops::Range;

use candle_core::Tensor;
use kernels::KvFormat;

use crate::attention::attention_elsewhere;
use crate::{HeadRange, NnError, Scores, host};

/// Keys and values that stay together.
#[derive(Debug)]
pub struct KeyValues(Kept);

#[derive(Debug)]
enum Kept {
    /// In main memory, in the layout of the kernels.
    Here(kernels::KeyValues),
    /// On another device: keys and values, [rows, kv_heads, head_dim] each.
    Elsewhere(Tensor, Tensor),
}

/// Rows of queries, and what each of them sees: the first rows of these.
#[derive(Debug, Clone)]
pub struct Sight<'a> {
    /// Rows. Sights are in order and share none.
    pub rows: Range<usize>,
    /// (keys and values, how many of them).
    pub at: Vec<(&'a KeyValues, usize)>,
}

impl KeyValues {
    /// Of all rows of x, [rows, any number of heads * width].
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn new(x: &Tensor, keys: HeadRange, values: HeadRange, format: KvFormat) -> Result<Self, NnError> {
        if !host::here(x) {
            return Ok(Self(Kept::Elsewhere(keys.take(x)?.contiguous()?, values.take(x)?.contiguous()?)));
        }
        let (rows, stride) = x.dims2()?;
        let keep = |x: &[f32]| kernels::KeyValues::new(host::cpu(), [keys.of(x, stride), values.of(x, stride)], rows, format);
        Ok(Self(Kept::Here(host::read(x, keep)?)))
    }

    /// How many there are.
    pub fn rows(&self) -> usize {
        match &self.0 {
            Kept::Here(kept) => kept.rows(),
            Kept::Elsewhere(keys, _) => keys.dims()[0],
        }
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Kept::Here(kept) => kept.bytes(),
            Kept::Elsewhere(keys, values) => [keys, values].map(|x| x.elem_count() * x.dtype().size_in_bytes()).iter().sum(),
        }
    }
}

/// Lets some heads of x [rows, any number of heads * width] look at what the sights say: [rows, heads * width], zero where there is
/// nothing to see.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn attention_across(x: &Tensor, queries: HeadRange, sights: &[Sight], scores: Scores) -> Result<Tensor, NnError> {
    let (rows, stride) = x.dims2()?;
    let width = queries.count * queries.width;
    if host::here(x) {
        let looks = sights.iter().map(|sight| {
            let at = sight.at.iter().map(|(kept, count)| match &kept.0 {
                Kept::Here(kept) => Ok((kept, *count)),
                Kept::Elsewhere(..) => Err(NnError::Input("keys and values in main memory")),
            });
            Ok(kernels::Look { rows: sight.rows.clone(), at: at.collect::<Result<_, NnError>>()? })
        });
        let looks = looks.collect::<Result<Vec<_>, NnError>>()?;
        return host::read(x, |x| {
            host::make((rows, width), |y| {
                kernels::attention_across(host::cpu(), queries.of(x, stride), &looks, &scores.kernel(), y);
            })
        })?;
    }
    let (q, y) = (queries.take(x)?, Tensor::zeros((rows, width), x.dtype(), x.device())?);
    for sight in sights {
        let parts = |part: fn(&Tensor, &Tensor) -> Tensor| {
            let seen = sight.at.iter().filter(|(_, count)| *count > 0).map(|(kept, count)| match &kept.0 {
                Kept::Elsewhere(keys, values) => Ok(part(keys, values).narrow(0, 0, *count)?),
                Kept::Here(_) => Err(NnError::Input("keys and values on the device of the queries")),
            });
            seen.collect::<Result<Vec<_>, NnError>>()
        };
        let (keys, values) = (parts(|keys, _| keys.clone())?, parts(|_, values| values.clone())?);
        if !keys.is_empty() {
            let q = q.narrow(0, sight.rows.start, sight.rows.len())?;
            let seen = attention_elsewhere(&q, &Tensor::cat(&keys, 0)?, &Tensor::cat(&values, 0)?, None, scores)?;
            y.slice_set(&seen.contiguous()?, 0, sight.rows.start)?;
        }
    }
    Ok(y)
}
