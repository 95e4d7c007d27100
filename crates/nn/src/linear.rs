use std::sync::Arc;

use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Module, Tensor};
use kernels::{DenseMatrix, Out, QuantisedMatrix, Routes, Source};

use crate::adapter::{Adapted, Adapter};
use crate::importance::Watch;
use crate::{Checkpoint, NnError, Quant, host};

/// y = x Wᵀ + b.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,       // [outputs, inputs]
    bias: Option<Tensor>, // [outputs]
    outputs: usize,
    /// Sees every input while a model is watched.
    watch: Option<Watch>,
    /// By number; most layers have none.
    adapters: Box<[Option<Adapter>]>,
}

#[derive(Debug, Clone)]
enum Weight {
    /// In main memory, in the layout of the kernels.
    Packed(Arc<Packed>),
    /// On another device, in a number format of its own, widened when used.
    Dense(Tensor),
    /// On another device, in blocks.
    Blocks(QMatMul),
}

/// How a weight is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Number by number.
    Dense(DType),
    /// In blocks.
    Blocks(Quant),
}

impl Linear {
    /// A weight that was packed for the kernels, and a bias [outputs].
    pub(crate) fn packed(weight: Arc<Packed>, bias: Option<Tensor>) -> Self {
        Self { outputs: weight.outputs(), weight: Weight::Packed(weight), bias, watch: None, adapters: Box::default() }
    }

    /// A weight [outputs, inputs] on another device than the CPU. Candle knows what to do with an importance for k-quants only.
    pub(crate) fn elsewhere(
        weight: Tensor,
        bias: Option<Tensor>,
        format: Format,
        importance: Option<&[f32]>,
    ) -> Result<Self, NnError> {
        let outputs = weight.dim(0)?;
        let weight = match format {
            Format::Blocks(quant) => {
                let weight = weight.to_dtype(DType::F32)?;
                let blocks = match importance.filter(|_| quant.is_k_quant()) {
                    Some(importance) => QTensor::quantize_imatrix(&weight, importance, quant.ggml())?,
                    None => QTensor::quantize(&weight, quant.ggml())?,
                };
                Weight::Blocks(QMatMul::from_qtensor(blocks)?)
            }
            Format::Dense(dtype) => Weight::Dense(weight.to_dtype(dtype)?),
        };
        Ok(Self { weight, bias, outputs, watch: None, adapters: Box::default() })
    }

    /// The same layer, whose inputs are watched.
    pub(crate) fn watched(self, watch: Option<Watch>) -> Self {
        Self { watch, ..self }
    }

    /// The same layer with adapters, by their numbers.
    pub(crate) fn with_adapters(self, adapters: Box<[Option<Adapter>]>) -> Self {
        Self { adapters, ..self }
    }

    /// [rows, inputs] → [rows, outputs], with what the adapters add that the rows take.
    ///
    /// # Errors
    /// The input has another width, or the device failed.
    pub fn forward_adapted(&self, x: &Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        self.adapt(self.forward(x)?, x, adapted)
    }

    /// As [`Linear::add_to`], with what the adapters add that the rows take.
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn add_to_adapted(&self, y: Tensor, x: &Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        self.adapt(self.add_to(y, x)?, x, adapted)
    }

    fn adapt(&self, y: Tensor, x: &Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        for (number, adapter) in self.adapters.iter().enumerate() {
            let runs = adapted.runs(number);
            if let (Some(adapter), false) = (adapter, runs.is_empty()) {
                adapter.add_to(&y, x, &runs)?;
            }
        }
        Ok(y)
    }

    /// [rows, inputs] → [rows, outputs].
    ///
    /// # Errors
    /// The input has another width, or the device failed.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        if let Some(watch) = &self.watch {
            watch.see(x)?;
        }
        let y = match &self.weight {
            Weight::Packed(weight) => {
                let shape = (weight.rows(x)?, self.outputs);
                return host::read(x, |x| self.with_bias(|bias| host::make(shape, |y| weight.matmul(x, bias, Out::Write(y)))))??;
            }
            Weight::Dense(weight) => x.matmul(&weight.to_dtype(x.dtype())?.t()?)?,
            Weight::Blocks(weight) => weight.forward(&x.contiguous()?)?,
        };
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    /// y + x Wᵀ + b, [rows, outputs]. Takes the place of y where it can, so nobody else may hold it.
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn add_to(&self, y: Tensor, x: &Tensor) -> Result<Tensor, NnError> {
        let Weight::Packed(weight) = &self.weight else { return Ok((y + self.forward(x)?)?) };
        if y.dims() != [weight.rows(x)?, self.outputs] {
            return Err(NnError::Input("a residual of the same shape"));
        }
        if let Some(watch) = &self.watch {
            watch.see(x)?;
        }
        host::read(x, |x| self.with_bias(|bias| host::change(&y, |y| weight.matmul(x, bias, Out::Add(y)))))???;
        Ok(y)
    }

    fn with_bias<R>(&self, work: impl FnOnce(Option<&[f32]>) -> R) -> Result<R, NnError> {
        match &self.bias {
            Some(bias) => host::read(bias, |bias| work(Some(bias))),
            None => Ok(work(None)),
        }
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// A weight [outputs, inputs] in the layout of the kernels, or those of several experts, [experts, outputs, inputs].
#[derive(Debug)]
pub enum Packed {
    /// Number by number.
    Dense(DenseMatrix),
    /// In blocks.
    Blocks(QuantisedMatrix),
    /// Nowhere: only its shape was read. What it makes is zero.
    Unread {
        /// Width of the result.
        outputs: usize,
        /// Width of what is multiplied.
        inputs: usize,
    },
}

impl Packed {
    /// Zeros, to be filled by [`Packed::fill`].
    pub fn new(shape: (usize, usize), format: Format) -> Self {
        Self::of_experts(1, shape, format)
    }

    /// Zeros; the outputs of expert `e` are those from `e * outputs` on.
    pub fn of_experts(experts: usize, (outputs, inputs): (usize, usize), format: Format) -> Self {
        match format {
            Format::Dense(dtype) => Self::Dense(DenseMatrix::of_experts(experts, (outputs, inputs), host::dense_format(dtype))),
            Format::Blocks(quant) => Self::Blocks(QuantisedMatrix::of_experts(experts, quant.block_format(), outputs, inputs)),
        }
    }

    /// Bytes that a weight of this shape takes.
    pub fn bytes_of(experts: usize, (outputs, inputs): (usize, usize), format: Format) -> usize {
        match format {
            Format::Dense(dtype) => DenseMatrix::bytes_of(experts, (outputs, inputs), host::dense_format(dtype)),
            Format::Blocks(quant) => QuantisedMatrix::bytes_of(experts, quant.block_format(), outputs, inputs),
        }
    }

    /// Takes rows [.., inputs] as those from `at_output` on. Blocks go by the importance of their inputs, where it is known.
    pub fn fill(&mut self, at_output: usize, rows: Source<'_>, importance: Option<&[f32]>) {
        match self {
            Self::Dense(matrix) => matrix.pack_rows(host::cpu(), at_output, rows),
            Self::Blocks(matrix) => matrix.quantise_rows(host::cpu(), at_output, rows, importance),
            Self::Unread { .. } => {}
        }
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.outputs(),
            Self::Blocks(matrix) => matrix.outputs(),
            Self::Unread { outputs, .. } => *outputs,
        }
    }

    /// Width of what is multiplied.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.inputs(),
            Self::Blocks(matrix) => matrix.inputs(),
            Self::Unread { inputs, .. } => *inputs,
        }
    }

    fn rows(&self, x: &Tensor) -> Result<usize, NnError> {
        match x.dims() {
            [rows, inputs] if *inputs == self.inputs() => Ok(*rows),
            _ => Err(NnError::Input("a matrix as wide as the weight")),
        }
    }

    fn matmul(&self, x: &[f32], bias: Option<&[f32]>, y: Out<'_>) {
        match self {
            Self::Dense(matrix) => matrix.matmul(host::cpu(), x, bias, y),
            Self::Blocks(matrix) => matrix.matmul(host::cpu(), x, bias, y),
            Self::Unread { .. } => {
                if let Out::Write(y) = y {
                    y.fill(0.0);
                }
            }
        }
    }

    /// Rows x [.., inputs] by the experts that they are routed to, y [pairs, outputs].
    pub fn dispatch(&self, x: &[f32], routes: Routes<'_>, y: &mut [f32]) {
        match self {
            Self::Dense(matrix) => matrix.dispatch(host::cpu(), x, routes, y),
            Self::Blocks(matrix) => matrix.dispatch(host::cpu(), x, routes, y),
            Self::Unread { .. } => y.fill(0.0),
        }
    }

    /// Adds what the experts make of x [pairs, inputs], by their shares, to the rows y [.., outputs] that these came from.
    pub fn combine(&self, x: &[f32], routes: Routes<'_>, y: &mut [f32]) {
        match self {
            Self::Dense(matrix) => matrix.combine(host::cpu(), x, routes, y),
            Self::Blocks(matrix) => matrix.combine(host::cpu(), x, routes, y),
            Self::Unread { .. } => {}
        }
    }

    fn row(&self, output: usize, into: &mut [f32]) {
        match self {
            Self::Dense(matrix) => matrix.row(output, into),
            Self::Blocks(matrix) => matrix.row(output, into),
            Self::Unread { .. } => into.fill(0.0),
        }
    }
}

/// A table with one row per token.
#[derive(Debug, Clone)]
pub enum Embedding {
    /// The output head's weight: one copy serves both.
    Head(Arc<Packed>),
    /// Rows read from the mapped file when they are asked for.
    File {
        /// Holds the table.
        checkpoint: Arc<Checkpoint>,
        /// Its full name.
        name: String,
        /// (tokens, width)
        shape: (usize, usize),
    },
    /// [vocab, width] on another device, as in the file.
    Table(Tensor),
}

impl Embedding {
    /// Rows of the tokens as f32, [tokens, width].
    ///
    /// # Errors
    /// An id is outside the table, or the device failed.
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor, NnError> {
        match self {
            Self::Head(packed) => {
                let (vocab, width) = (packed.outputs(), packed.inputs());
                check(tokens, vocab)?;
                host::make((tokens.len(), width), |rows| {
                    rows.chunks_exact_mut(width).zip(tokens).for_each(|(row, id)| packed.row(*id as usize, row));
                })
            }
            Self::File { checkpoint, name, shape: (vocab, width) } => {
                check(tokens, *vocab)?;
                checkpoint.rows(name, tokens, *width)
            }
            Self::Table(table) => {
                let ids = Tensor::new(tokens, table.device())?;
                Ok(table.index_select(&ids, 0)?.to_dtype(DType::F32)?)
            }
        }
    }
}

fn check(tokens: &[u32], vocab: usize) -> Result<(), NnError> {
    if tokens.iter().all(|id| (*id as usize) < vocab) { Ok(()) } else { Err(NnError::Input("token ids of the vocabulary")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn another_device_quantises_by_importance_where_candle_can() {
        let numbers = |count: usize| (0..count).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
        let weight = Tensor::from_vec(numbers(2 * 256), (2, 256), &Device::Cpu).unwrap();
        let x = Tensor::from_vec(numbers(256), (1, 256), &Device::Cpu).unwrap();
        let importance: Vec<f32> = (1..=256_u16).map(f32::from).collect();
        for (quant, differs) in [(Quant::Q2K, true), (Quant::Q4K, true), (Quant::Q4_0, false), (Quant::Q8_0, false)] {
            let [with, without] = [Some(importance.as_slice()), None].map(|importance| {
                let linear = Linear::elsewhere(weight.clone(), None, Format::Blocks(quant), importance).unwrap();
                linear.forward(&x).unwrap().to_vec2::<f32>().unwrap()
            });
            assert_eq!(with != without, differs, "{quant}");
        }
    }
}
