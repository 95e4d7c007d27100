//! Hidden states of several streams per row, side by side: [rows, streams * width].

use candle_core::{DType, Tensor};

use crate::{NnError, host};

/// Each stream plus a mixture of all: y[o] = x[o] + Σ c[o, i] x[i], for c [rows, streams * streams].
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn mix_streams(x: &Tensor, coefficients: &Tensor) -> Result<Tensor, NnError> {
    let (rows, row) = x.dims2()?;
    let (others, square) = coefficients.dims2()?;
    let streams = square.isqrt();
    if rows != others || streams * streams != square || square == 0 || !row.is_multiple_of(streams) {
        return Err(NnError::Input("coefficients for all streams"));
    }
    let width = row / streams;
    if host::here(x) {
        return host::read(coefficients, |c| {
            host::read(x, |x| host::make((rows, row), |y| kernels::mix_streams(host::cpu(), c, x, y, width)))
        })??;
    }
    let c = coefficients.reshape((rows, streams, streams))?;
    let c = c.broadcast_add(&Tensor::eye(streams, DType::F32, x.device())?)?;
    Ok(c.matmul(&x.reshape((rows, streams, width))?)?.reshape((rows, row))?)
}

/// v [rows, width] is added to every stream of x, times its share: x[o] + s[o] v, for s [rows, streams]. Takes the place of x where it
/// can, so nobody else may hold it.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn add_to_streams(x: Tensor, shares: &Tensor, v: &Tensor) -> Result<Tensor, NnError> {
    let ((rows, streams), (others, width)) = (shares.dims2()?, v.dims2()?);
    if rows != others || x.dims() != [rows, streams * width] {
        return Err(NnError::Input("a share for each stream"));
    }
    if host::here(&x) {
        host::read(shares, |s| host::read(v, |v| host::change(&x, |x| kernels::add_to_streams(host::cpu(), s, v, x, width))))???;
        return Ok(x);
    }
    let added = shares.unsqueeze(2)?.broadcast_mul(&v.unsqueeze(1)?)?;
    Ok((x + added.reshape((rows, streams * width))?)?)
}
