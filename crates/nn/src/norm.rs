use candle_core::{D, Device, Tensor};

use crate::{HeadRange, NnError, host};

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
    /// x / rms(x): the checkpoint holds nothing.
    RmsUnweighted {
        /// Added to the mean square.
        eps: f64,
    },
    /// (x - mean) / std * w + b (Ba et al. 2016).
    Layer {
        /// Added to the variance.
        eps: f64,
    },
    /// (x - mean) / std * w
    LayerUnbiased {
        /// Added to the variance.
        eps: f64,
    },
}

impl NormConfig {
    /// The norm that makes of x what this one makes of x times a factor.
    pub(crate) fn of_scaled(self, factor: f64) -> Self {
        let less = |eps: f64| eps / (factor * factor);
        match self {
            Self::Rms { eps } => Self::Rms { eps: less(eps) },
            Self::RmsPlusOne { eps } => Self::RmsPlusOne { eps: less(eps) },
            Self::RmsUnweighted { eps } => Self::RmsUnweighted { eps: less(eps) },
            Self::Layer { eps } => Self::Layer { eps: less(eps) },
            Self::LayerUnbiased { eps } => Self::LayerUnbiased { eps: less(eps) },
        }
    }
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

    /// Norms some heads of x, [rows, any number of heads * width], each on its own; the others stay as they are. Takes the tensor's
    /// place where it can, so nobody else may hold it.
    ///
    /// # Errors
    /// The norm is for heads of another width, or the device failed.
    pub fn heads(&self, x: Tensor, heads: HeadRange) -> Result<Tensor, NnError> {
        if !host::here(&x) {
            return heads.change(&x, |mine| self.forward(mine));
        }
        let (rows, stride) = x.dims2()?;
        let places = kernels::HeadLayout { rows, count: heads.count, width: heads.width, row_stride: stride };
        self.with_kernel(|norm| {
            host::change(&x, |x| kernels::norm::norm_heads(host::cpu(), norm, &mut x[heads.start()..], places))
        })??;
        Ok(x)
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
