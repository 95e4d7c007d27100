use candle_core::Tensor;
use serde::Deserialize;

use crate::NnError;

/// Elementwise functions, by the names of Hugging Face configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// x σ(x)
    #[serde(rename = "silu")]
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
    /// The same shape.
    ///
    /// # Errors
    /// The device failed.
    pub fn forward(self, x: &Tensor) -> Result<Tensor, NnError> {
        Ok(match self {
            Self::Silu => x.silu()?,
            Self::Gelu => x.gelu_erf()?,
            Self::GeluTanh => x.gelu()?,
            Self::QuickGelu => (x / ((x * -1.702)?.exp()? + 1.0)?)?,
        })
    }
}
