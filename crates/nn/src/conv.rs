//! Convolutions over time.

use candle_core::{D, Tensor};
use kernels::conv::{Windows, im2col_channels_last};

use crate::linear::Linear;
use crate::weights::Weights;
use crate::{NnError, host};

/// A convolution over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dConfig {
    /// Numbers of a step before it.
    pub inputs: usize,
    /// Numbers of a step behind it.
    pub outputs: usize,
    /// Steps that it looks at.
    pub kernel: usize,
    /// Steps from one place to the next.
    pub stride: usize,
    /// Steps of zeros before the first step, and as many behind the last.
    pub padding: usize,
}

/// A loaded convolution over time: windows, and a matrix product with the filters.
#[derive(Debug)]
pub struct Conv1d {
    config: Conv1dConfig,
    filters: Linear, // [outputs, kernel * inputs]
}

impl Conv1d {
    /// `name.weight` [outputs, inputs, kernel] and `name.bias` [outputs].
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(name: &str, config: Conv1dConfig, w: &Weights) -> Result<Self, NnError> {
        let Conv1dConfig { inputs, outputs, kernel, .. } = config;
        let weight = w.tensor(&format!("{name}.weight"), &[outputs, inputs, kernel])?;
        let weight = weight.transpose(1, 2)?.reshape((outputs, kernel * inputs))?;
        let bias = w.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok(Self { config, filters: w.linear_of(weight, Some(bias))? })
    }

    /// x [steps, inputs] → [places, outputs].
    ///
    /// # Errors
    /// The input has another width or too few steps, or the device failed.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let Conv1dConfig { inputs, kernel, stride, padding, .. } = self.config;
        let steps = x.dim(0)?;
        let windows = Windows {
            size: [1, steps],
            kernel: [1, kernel],
            stride: [1, stride],
            dilation: [1; 2],
            padding: [[0; 2], [padding; 2]],
        };
        let [_, places] = windows.counts();
        if x.dims() != [steps, inputs] || places == 0 {
            return Err(NnError::Input("steps for a convolution"));
        }
        if host::here(x) {
            let shape = (places, kernel * inputs);
            let rows = host::read(x, |x| host::make(shape, |rows| im2col_channels_last(host::cpu(), windows, x, inputs, rows)))??;
            return self.filters.forward(&rows);
        }
        let padded = x.pad_with_zeros(0, padding, padding + stride)?;
        let tap = |tap| padded.narrow(0, tap, places * stride)?.reshape((places, stride, inputs))?.narrow(1, 0, 1)?.squeeze(1);
        let taps = (0..kernel).map(tap).collect::<Result<Vec<_>, _>>()?;
        self.filters.forward(&Tensor::cat(&taps, D::Minus1)?)
    }
}
