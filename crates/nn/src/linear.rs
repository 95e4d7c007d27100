use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Module, Tensor};

use crate::{NnError, Quant};

/// y = x Wᵀ + b.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,       // [outputs, inputs]
    bias: Option<Tensor>, // [outputs]
    outputs: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    /// In the number format of the activations.
    Dense(Tensor),
    /// In 16 bits, widened when used.
    Half(Tensor),
    Blocks(QMatMul),
}

impl Linear {
    /// Keeps the weight [outputs, inputs] in blocks when a format is given that fits, in `dtype` otherwise.
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>, dtype: DType, quant: Option<Quant>) -> Result<Self, NnError> {
        let (outputs, inputs) = weight.dims2()?;
        let weight = match quant.and_then(|q| q.fitting(inputs)) {
            Some(quant) => {
                Weight::Blocks(QMatMul::from_qtensor(QTensor::quantize(&weight.to_dtype(DType::F32)?, quant.ggml())?)?)
            }
            None if dtype == DType::F32 => Weight::Dense(weight.to_dtype(DType::F32)?),
            None => Weight::Half(weight.to_dtype(dtype)?),
        };
        Ok(Self { weight, bias, outputs })
    }

    /// [rows, inputs] → [rows, outputs].
    ///
    /// # Errors
    /// The input has another width, or the device failed.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let y = match &self.weight {
            Weight::Dense(weight) => x.matmul(&weight.t()?)?,
            Weight::Half(weight) => x.matmul(&weight.to_dtype(x.dtype())?.t()?)?,
            Weight::Blocks(weight) => weight.forward(&x.contiguous()?)?,
        };
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// A table with one row per token.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Tensor, // [vocab, width], as in the file
}

impl Embedding {
    pub(crate) fn new(table: Tensor) -> Self {
        Self { table }
    }

    /// Rows of the tokens as f32, [tokens, width].
    ///
    /// # Errors
    /// An id is outside the table, or the device failed.
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor, NnError> {
        let ids = Tensor::new(tokens, self.table.device())?;
        Ok(self.table.index_select(&ids, 0)?.to_dtype(DType::F32)?)
    }

    /// The table itself, [vocab, width]: an output head that is tied to it.
    pub fn table(&self) -> &Tensor {
        &self.table
    }
}
