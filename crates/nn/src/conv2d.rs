//! Convolutions over pictures whose channels lie last, in main memory: every kind of them is either a matrix product of gathered
//! windows, or a filter per channel.

use candle_core::{DType, Device, Tensor};
use kernels::conv::{Depthwise, Windows, depthwise, im2col, im2col_channels_last};

use crate::linear::Linear;
use crate::weights::{Bias, Weights};
use crate::{NnError, host};

/// A picture, or what has become of one.
#[derive(Debug, Clone)]
pub struct FeatureMap {
    /// [height * width, channels]
    pub rows: Tensor,
    /// Height and width.
    pub size: [usize; 2],
}

/// A window that moves over a picture. Pairs are vertical, then horizontal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Taps.
    pub kernel: [usize; 2],
    /// From one place to the next.
    pub stride: [usize; 2],
    /// What lies outside of the picture and is looked at, as zeros.
    pub padding: Padding,
}

/// Lines of zeros around a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As many as it takes for a place at every `stride`th line; of an odd number, one more lies behind than before.
    Same,
    /// So many before and behind.
    Lines([[usize; 2]; 2]),
}

/// A convolution that mixes channels.
#[derive(Debug)]
pub struct Conv2d {
    linear: Linear, // [outputs, window * inputs]; in the order of the first picture's planes [outputs, inputs * window]
    window: Window,
}

/// A convolution that filters each channel on its own.
#[derive(Debug)]
pub struct DepthwiseConv2d {
    filter: Vec<f32>,       // [window, channels]
    bias: Option<Vec<f32>>, // [channels]
    window: Window,
}

impl Window {
    /// A square one.
    pub fn square(kernel: usize, stride: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: Padding::Same }
    }

    fn over(self, size: [usize; 2]) -> Windows {
        let Self { kernel, stride, padding } = self;
        let same = |axis: usize| {
            let reach = (size[axis].div_ceil(stride[axis]).max(1) - 1) * stride[axis] + kernel[axis];
            let missing = reach.saturating_sub(size[axis]);
            [missing / 2, missing - missing / 2]
        };
        let padding = match padding {
            Padding::Same => [same(0), same(1)],
            Padding::Lines(lines) => lines,
        };
        Windows { size, kernel, stride, dilation: [1; 2], padding }
    }
}

impl Conv2d {
    /// Loads `name.weight` [outputs, inputs, window] and, where present, `name.bias`, for pictures whose channels lie last.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(name: &str, [inputs, outputs]: [usize; 2], window: Window, bias: Bias, w: &Weights) -> Result<Self, NnError> {
        let [kh, kw] = window.kernel;
        let weight = w.tensor(&format!("{name}.weight"), &[outputs, inputs, kh, kw])?;
        let weight = weight.permute((0, 2, 3, 1))?.contiguous()?.reshape((outputs, kh * kw * inputs))?;
        Ok(Self { linear: w.linear_of(weight, bias_of(name, outputs, bias, w)?)?, window })
    }

    /// The same for planes of pixels, with a bias.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn of_planes(name: &str, [planes, outputs]: [usize; 2], window: Window, w: &Weights) -> Result<Self, NnError> {
        let linear = w.conv_linear(name, &[&[planes], &window.kernel[..]].concat(), outputs, Bias::Present)?;
        Ok(Self { linear, window })
    }

    /// What `work` makes of the result [places, outputs], a part of the lines at a time.
    ///
    /// # Errors
    /// Shapes do not fit, the map is not in main memory, or `work` failed.
    pub fn forward(&self, x: &FeatureMap, work: impl FnMut(Tensor) -> Result<Tensor, NnError>) -> Result<FeatureMap, NnError> {
        let channels = x.rows.dim(1)?;
        let columns = channels * self.window.kernel.iter().product::<usize>();
        let stride = x.size[1] * channels;
        self.in_parts(x.size, columns, work, |windows, lines, rows| {
            host::read(&x.rows, |x| {
                let x = &x[lines.start * stride..lines.end * stride];
                host::make((rows, columns), |y| im2col_channels_last(host::cpu(), windows, x, channels, y))
            })?
        })
    }

    /// The same for planes of pixels [planes, height, width].
    ///
    /// # Errors
    /// As for [`Self::forward`].
    pub fn forward_planes(
        &self,
        x: &Tensor,
        mut work: impl FnMut(Tensor) -> Result<Tensor, NnError>,
    ) -> Result<FeatureMap, NnError> {
        let (planes, height, width) = x.dims3()?;
        let windows = self.window.over([height, width]);
        let (size, columns) = (windows.counts(), planes * self.window.kernel.iter().product::<usize>());
        let gathered =
            host::read(x, |x| host::make((size[0] * size[1], columns), |y| im2col(host::cpu(), windows, x, planes, y)))??;
        Ok(FeatureMap { rows: work(self.linear.forward(&gathered)?)?, size })
    }

    /// Goes through a picture by as many lines of places as are worth keeping together. `gather` is told the windows over a part, which
    /// lines of the picture the part is, and how many places there are.
    fn in_parts(
        &self,
        size: [usize; 2],
        columns: usize,
        mut work: impl FnMut(Tensor) -> Result<Tensor, NnError>,
        gather: impl Fn(Windows, std::ops::Range<usize>, usize) -> Result<Tensor, NnError>,
    ) -> Result<FeatureMap, NnError> {
        let whole = self.window.over(size);
        let [height, width] = whole.counts();
        let wide = columns.max(self.linear.outputs());
        let at_a_time = (host::NUMBERS_AT_A_TIME / (width * wide).max(1)).max(1);
        let (before, stride, kernel) = (whole.padding[0][0], whole.stride[0], whole.kernel[0]);
        let mut parts = Vec::with_capacity(height.div_ceil(at_a_time));
        for first in (0..height).step_by(at_a_time) {
            let last = height.min(first + at_a_time) - 1;
            let (begin, end) = (first * stride, last * stride + kernel); // lines of the padded picture
            let lines = begin.saturating_sub(before)..(end.saturating_sub(before)).min(size[0]);
            let above = before.saturating_sub(begin);
            let below = end - above - begin - lines.len();
            let windows = Windows { size: [lines.len(), size[1]], padding: [[above, below], whole.padding[1]], ..whole };
            parts.push(work(self.linear.forward(&gather(windows, lines, (last + 1 - first) * width)?)?)?);
        }
        Ok(FeatureMap { rows: Tensor::cat(&parts, 0)?, size: [height, width] })
    }
}

impl DepthwiseConv2d {
    /// Loads `name.weight` [channels, 1, window] and, where present, `name.bias`; of a window one high, the height may be missing.
    ///
    /// # Errors
    /// The tensor is missing or shaped otherwise.
    pub fn load(name: &str, channels: usize, window: Window, bias: Bias, w: &Weights) -> Result<Self, NnError> {
        let [kh, kw] = window.kernel;
        let shape = [channels, 1, kh, kw];
        let shape = if kh == 1 { vec![channels, 1, kw] } else { shape.to_vec() };
        let weight = w.tensor(&format!("{name}.weight"), &shape)?.reshape((channels, kh * kw))?;
        let weight = weight.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let bias = bias_of(name, channels, bias, w)?.map(|bias| bias.to_device(&Device::Cpu)?.to_vec1()).transpose()?;
        Ok(Self { filter: weight.t()?.flatten_all()?.to_vec1()?, bias, window })
    }

    /// The filtered picture.
    ///
    /// # Errors
    /// It has other channels, or is not in main memory.
    pub fn forward(&self, x: &FeatureMap) -> Result<FeatureMap, NnError> {
        let channels = x.rows.dim(1)?;
        let windows = self.window.over(x.size);
        if channels * self.window.kernel.iter().product::<usize>() != self.filter.len() {
            return Err(NnError::Input("a picture of as many channels as there are filters"));
        }
        let size = windows.counts();
        let filter = Depthwise { weight: &self.filter, bias: self.bias.as_deref(), channels };
        let rows = host::read(&x.rows, |x| {
            host::make((size[0] * size[1], channels), |y| depthwise(host::cpu(), windows, filter, x, y))
        })??;
        Ok(FeatureMap { rows, size })
    }
}

fn bias_of(name: &str, outputs: usize, bias: Bias, w: &Weights) -> Result<Option<Tensor>, NnError> {
    match bias {
        Bias::Absent | Bias::Except(_) => Ok(None),
        Bias::Present => Ok(Some(w.tensor(&format!("{name}.bias"), &[outputs])?)),
    }
}
