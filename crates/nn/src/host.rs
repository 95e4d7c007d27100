//! Tensors in main memory as slices, which is how they reach the crate `kernels`.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result as CandleResult, Shape, Storage, Tensor};
use kernels::{Cpu, DenseFormat, KvFormat};

use crate::{HeadRange, NnError};

/// What operations run on.
pub fn cpu() -> &'static Cpu {
    Cpu::host()
}

/// The kernels' name of a number format of weights.
pub fn dense_format(dtype: DType) -> DenseFormat {
    match dtype {
        DType::BF16 => DenseFormat::Bf16,
        DType::F16 => DenseFormat::F16,
        _ => DenseFormat::F32,
    }
}

/// Keys and values as precise as what a model computes with.
pub fn kv_format(dtype: DType) -> KvFormat {
    match dtype {
        DType::BF16 => KvFormat::Bf16,
        DType::F16 => KvFormat::F16,
        _ => KvFormat::F32,
    }
}

/// Whether a tensor's operations are those of `kernels`: it lies in main memory.
pub fn here(x: &Tensor) -> bool {
    x.device().is_cpu()
}

/// Hands out the numbers of a contiguous f32 tensor.
pub fn read<R>(x: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R, NnError> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Err(NnError::Input("a tensor in main memory")) };
    Ok(work(&storage.as_slice::<f32>()?[range(layout)?]))
}

/// Hands out the numbers of a contiguous f32 tensor to be changed. All tensors that share its storage change with it, so it is
/// one that was made a moment ago and has one owner.
pub fn change(x: &Tensor, work: impl FnOnce(&mut [f32])) -> Result<(), NnError> {
    Ok(x.inplace_op1(&Change(Cell::new(Some(work))))?)
}

/// A tensor of zeros that `work` fills.
pub fn make(shape: impl Into<Shape>, work: impl FnOnce(&mut [f32])) -> Result<Tensor, NnError> {
    let shape = shape.into();
    let mut numbers = vec![0.0; shape.elem_count()];
    work(&mut numbers);
    Ok(Tensor::from_vec(numbers, shape, &candle_core::Device::Cpu)?)
}

/// x [rows, width] times a factor for each row [rows, 1]. Takes the tensor's place where it can, so nobody else may hold it.
pub fn scale_rows(x: Tensor, factors: &Tensor) -> Result<Tensor, NnError> {
    if !here(&x) {
        return Ok(x.broadcast_mul(factors)?);
    }
    read(factors, |factors| change(&x, |x| kernels::elementwise::scale_rows(cpu(), factors, x)))??;
    Ok(x)
}

/// x [rows, any number of heads * width] with some heads of each row times the row's factor. Takes the tensor's place where it can, so
/// nobody else may hold it.
pub fn scale_heads(x: Tensor, heads: HeadRange, factors: &[f32]) -> Result<Tensor, NnError> {
    if !here(&x) {
        let factors = Tensor::new(factors, x.device())?.reshape((factors.len(), 1, 1))?;
        return heads.change(&x, |mine| Ok(mine.broadcast_mul(&factors)?));
    }
    let (rows, row_stride) = x.dims2()?;
    let places = kernels::HeadLayout { rows, count: heads.count, width: heads.width, row_stride };
    change(&x, |x| kernels::elementwise::scale_heads(cpu(), factors, &mut x[heads.start()..], places))?;
    Ok(x)
}

/// y + x, of the same shape. Takes the place of y where it can, so nobody else may hold it.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn add_to(y: Tensor, x: &Tensor) -> Result<Tensor, NnError> {
    if !here(&y) || y.dims() != x.dims() {
        return Ok((y + x)?);
    }
    read(x, |x| change(&y, |y| kernels::elementwise::add(cpu(), x, y)))??;
    Ok(y)
}

/// Adds x to the rows of y from `first` on, in their place.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn add_rows(y: &Tensor, first: usize, x: &Tensor) -> Result<(), NnError> {
    let rows = y.narrow(0, first, x.dim(0)?)?;
    if here(y) {
        return add_to(rows, x).map(drop);
    }
    Ok(y.slice_set(&(rows + x)?, 0, first)?)
}

/// x times a number. Takes the tensor's place where it can, so nobody else may hold it.
///
/// # Errors
/// The device failed.
pub fn scale(x: Tensor, factor: f64) -> Result<Tensor, NnError> {
    if !here(&x) {
        return Ok((x * factor)?);
    }
    change(&x, |x| kernels::elementwise::scale(cpu(), factor as f32, x))?;
    Ok(x)
}

/// x [rows, width] times a factor for each column [width]. Takes the tensor's place where it can, so nobody else may hold it.
///
/// # Errors
/// Shapes do not fit, or the device failed.
pub fn scale_columns(x: Tensor, factors: &Tensor) -> Result<Tensor, NnError> {
    if !here(&x) || x.dim(candle_core::D::Minus1)? != factors.elem_count() {
        return Ok(x.broadcast_mul(factors)?);
    }
    read(factors, |factors| change(&x, |x| kernels::elementwise::mul_row(cpu(), factors, x)))??;
    Ok(x)
}

/// x, no less than `least` and no more than `most`. Takes the tensor's place where it can, so nobody else may hold it.
///
/// # Errors
/// The device failed.
pub fn clamp(x: Tensor, [least, most]: [f32; 2]) -> Result<Tensor, NnError> {
    if !here(&x) {
        return Ok(x.clamp(least, most)?);
    }
    change(&x, |x| kernels::elementwise::clamp(cpu(), [least, most], x))?;
    Ok(x)
}

/// cap * tanh(x / cap). Takes the tensor's place where it can, so nobody else may hold it.
pub fn soft_cap(x: Tensor, cap: f64) -> Result<Tensor, NnError> {
    if !here(&x) {
        return Ok(((x / cap)?.tanh()? * cap)?);
    }
    change(&x, |x| kernels::activation::soft_cap(cpu(), x, cap as f32))?;
    Ok(x)
}

/// Numbers of an intermediate result that are worth keeping together: 16 MiB. Larger ones would come fresh from the system and go
/// back to it every time, page by page.
pub const NUMBERS_AT_A_TIME: usize = 4 << 20;

/// Changes x [rows, width] by adding to it what `work` makes of some of its rows at a time; `inner` is the width of the widest
/// intermediate result. `work` is handed neighbouring rows of x and their numbers, and takes their place where it can.
pub fn in_parts(
    x: Tensor,
    inner: usize,
    mut work: impl FnMut(Tensor, Range<usize>) -> Result<Tensor, NnError>,
) -> Result<Tensor, NnError> {
    let rows = x.dim(0)?;
    let part = (NUMBERS_AT_A_TIME / inner.max(1)).max(1);
    if !here(&x) || rows <= part {
        return work(x, 0..rows);
    }
    for first in (0..rows).step_by(part) {
        let rows = first..rows.min(first + part);
        work(x.narrow(0, first, rows.len())?, rows)?;
    }
    Ok(x)
}

struct Change<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        let CpuStorage::F32(numbers) = storage else { candle_core::bail!("not f32") };
        if let Some(work) = self.0.take() {
            work(&mut numbers[range(layout)?]);
        }
        Ok(())
    }
}

fn range(layout: &Layout) -> CandleResult<Range<usize>> {
    match layout.contiguous_offsets() {
        // A tensor without elements may begin behind its storage.
        Some((first, last)) if first == last => Ok(0..0),
        Some((first, last)) => Ok(first..last),
        None => candle_core::bail!("not contiguous"),
    }
}
