use candle_core::{D, Tensor};
use kernels::activation::{Gate, Gated, activate, gated};
use serde::Deserialize;

use crate::{NnError, host};

/// Elementwise functions, by the names of Hugging Face configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// max(x, 0)
    #[serde(rename = "relu")]
    Relu,
    /// σ(x) = 1 / (1 + e^-x)
    #[serde(rename = "sigmoid")]
    Sigmoid,
    /// x σ(x)
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// x Φ(x) (Hendrycks and Gimpel 2016)
    #[serde(rename = "gelu")]
    Gelu,
    /// x Φ(x) by the tanh formula
    #[serde(rename = "gelu_pytorch_tanh", alias = "gelu_tanh", alias = "gelu_new")]
    GeluTanh,
    /// x σ(1.702 x)
    #[serde(rename = "quick_gelu")]
    QuickGelu,
}

impl Activation {
    /// The same shape. Takes the tensor's place where it can, so nobody else may hold it.
    ///
    /// # Errors
    /// The device failed.
    pub fn forward(self, x: Tensor) -> Result<Tensor, NnError> {
        if host::here(&x) {
            host::change(&x, |x| activate(host::cpu(), self.kernel(), x))?;
            return Ok(x);
        }
        Ok(match self {
            Self::Relu => x.relu()?,
            Self::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip()?,
            Self::Silu => x.silu()?,
            Self::Gelu => x.gelu_erf()?,
            Self::GeluTanh => x.gelu()?,
            Self::QuickGelu => (&x / ((&x * -1.702)?.exp()? + 1.0)?)?,
        })
    }

    /// Gates and values side by side, [rows, 2 * inner] → activation(gates) * values, [rows, inner].
    ///
    /// # Errors
    /// The device failed.
    pub fn gate(self, both: Tensor) -> Result<Tensor, NnError> {
        self.gate_half(&both, 0)
    }

    /// Values and gates side by side (Dauphin et al. 2016): the same.
    ///
    /// # Errors
    /// The device failed.
    pub fn gate_last(self, both: Tensor) -> Result<Tensor, NnError> {
        self.gate_half(&both, 1)
    }

    /// `gates` is the number of the half that they are.
    fn gate_half(self, both: &Tensor, gates: usize) -> Result<Tensor, NnError> {
        let (rows, width) = both.dims2()?;
        let inner = width / 2;
        if host::here(both) {
            let gate = Gate::new(self.kernel());
            return host::read(both, |both| {
                let both = if gates == 0 { Gated::gate_first(both, inner) } else { Gated::gate_last(both, inner) };
                host::make((rows, inner), |y| gated(host::cpu(), gate, both, y))
            })?;
        }
        let half = |number: usize| both.narrow(D::Minus1, number * inner, inner);
        Ok((self.forward(half(gates)?.contiguous()?)? * half(1 - gates)?)?)
    }

    /// Gates in the columns of wider rows from `first` on, and values [rows, inner] → activation(gates) * values, [rows, inner].
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn gate_columns(self, gates: &Tensor, first: usize, values: &Tensor) -> Result<Tensor, NnError> {
        let ((rows, stride), (others, inner)) = (gates.dims2()?, values.dims2()?);
        if rows != others || first + inner > stride {
            return Err(NnError::Input("gates for all values"));
        }
        if host::here(values) {
            return host::read(gates, |gates| {
                host::read(values, |values| {
                    let both = Gated::apart(gates.get(first..).unwrap_or_default(), values, inner).gates_in_rows_of(stride);
                    host::make((rows, inner), |y| gated(host::cpu(), Gate::new(self.kernel()), both, y))
                })
            })??;
        }
        Ok((self.forward(gates.narrow(D::Minus1, first, inner)?.contiguous()?)? * values)?)
    }

    fn kernel(self) -> kernels::Activation {
        match self {
            Self::Relu => kernels::Activation::Relu,
            Self::Sigmoid => kernels::Activation::Sigmoid,
            Self::Silu => kernels::Activation::Silu,
            Self::Gelu => kernels::Activation::Gelu,
            Self::GeluTanh => kernels::Activation::GeluTanh,
            Self::QuickGelu => kernels::Activation::QuickGelu,
        }
    }
}
