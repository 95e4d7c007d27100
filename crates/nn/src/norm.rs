use candle_core::{D, Device, Tensor};

use crate::{NnError, host};

/// Which norm, as configs name it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormConfig {
    /// x / rms(x) * w (Zhang and Sennrich 2019).
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
    /// x / rms(x) * (1 + w): the checkpoint holds what differs from one.
    RmsPlusOne {
        /// Added to the mean square.
        eps: f64,
    },
    /// (x - mean) / std * w + b (Ba et al. 2016).
    Layer {
        /// Added to the variance.
        eps: f64,
    },
}

/// A norm over the last dimension.
#[derive(Debug, Clone)]
pub enum Norm {
    /// See [`NormConfig::Rms`].
    Rms {
        /// [width]
        weight: Tensor,
        /// Added to the mean square.
        eps: f64,
    },
    /// See [`NormConfig::Layer`].
    Layer {
        /// [width]
        weight: Tensor,
        /// [width]
        bias: Tensor,
        /// Added to the variance.
        eps: f64,
    },
}

impl Norm {
    /// Where its weights live.
    pub fn device(&self) -> &Device {
        match self {
            Self::Rms { weight, .. } | Self::Layer { weight, .. } => weight.device(),
        }
    }

    /// [.., width] → the same shape.
    ///
    /// # Errors
    /// The input has another width, or the device failed.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        if host::here(x) {
            let width = x.dim(D::Minus1)?;
            return self.with_kernel(|norm| {
                host::read(x, |x_| host::make(x.shape(), |y| kernels::norm::norm(host::cpu(), norm, x_, y, width)))
            })??;
        }
        match self {
            Self::Rms { weight, eps } => {
                let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
                Ok(x.broadcast_div(&(mean_square + *eps)?.sqrt()?)?.broadcast_mul(weight)?)
            }
            Self::Layer { weight, bias, eps } => {
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
                let normed = centred.broadcast_div(&(variance + *eps)?.sqrt()?)?;
                Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
            }
        }
    }

    /// Hands out the norm as the kernels know it.
    pub(crate) fn with_kernel<R>(&self, work: impl FnOnce(kernels::norm::Norm<'_>) -> R) -> Result<R, NnError> {
        match self {
            Self::Rms { weight, eps } => host::read(weight, |weight| work(kernels::norm::Norm::rms(Some(weight), *eps as f32))),
            Self::Layer { weight, bias, eps } => host::read(weight, |weight| {
                host::read(bias, |bias| work(kernels::norm::Norm::layer(Some(weight), Some(bias), *eps as f32)))
            })?,
        }
    }
}
