use candle_core::{D, Tensor};

use super::Routes;
use crate::importance::Watch;
use crate::linear::{Linear, Packed};
use crate::{NnError, host};

/// One linear layer without bias per expert, all of the same shape.
#[derive(Debug)]
pub struct ExpertLinear {
    weights: Weights, // [experts, outputs, inputs]
    outputs: usize,
}

#[derive(Debug)]
enum Weights {
    /// In main memory, all in one.
    Packed {
        all: Packed,
        /// Sees what each expert is given, while a model is watched.
        watches: Vec<Watch>,
    },
    /// On another device, one by one.
    Elsewhere(Vec<Linear>),
}

impl ExpertLinear {
    /// Weights that were packed for the kernels; a watch for each expert, or none.
    pub(crate) fn packed(all: Packed, watches: Vec<Watch>) -> Self {
        Self { outputs: all.outputs(), weights: Weights::Packed { all, watches } }
    }

    /// Layers on another device.
    pub(crate) fn elsewhere(outputs: usize, experts: Vec<Linear>) -> Self {
        Self { outputs, weights: Weights::Elsewhere(experts) }
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rows by the experts that they are routed to: x [rows, inputs] → [pairs, outputs].
    ///
    /// # Errors
    /// The input has another width, or the device failed.
    pub fn dispatch(&self, x: &Tensor, routes: &Routes) -> Result<Tensor, NnError> {
        match &self.weights {
            Weights::Packed { all, watches } => {
                check(all.inputs(), x)?;
                for (watch, (_, pairs)) in watched(watches, routes) {
                    watch.see(&pick(x, &routes.rows()[pairs])?)?;
                }
                let shape = (routes.len(), self.outputs);
                host::read(x, |x| host::make(shape, |y| all.dispatch(x, routes.of_kernels(), y)))?
            }
            Weights::Elsewhere(experts) => {
                let of_expert = |(expert, pairs): (usize, _)| experts[expert].forward(&pick(x, &routes.rows()[pairs])?);
                Ok(Tensor::cat(&routes.by_expert().map(of_expert).collect::<Result<Vec<_>, _>>()?, 0)?)
            }
        }
    }

    /// y [rows, outputs] + what the experts make of x [pairs, inputs], by their shares. A row gets its sums in the order of the
    /// experts. Takes the place of y where it can, so nobody else may hold it.
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn combine(&self, mut y: Tensor, x: &Tensor, routes: &Routes) -> Result<Tensor, NnError> {
        if y.dim(D::Minus1)? != self.outputs || x.dim(0)? != routes.len() {
            return Err(NnError::Input("a residual as wide as the result, and a row for each pair"));
        }
        match &self.weights {
            Weights::Packed { all, watches } => {
                check(all.inputs(), x)?;
                for (watch, (_, pairs)) in watched(watches, routes) {
                    watch.see(&x.narrow(0, pairs.start, pairs.len())?)?;
                }
                host::read(x, |x| host::change(&y, |y| all.combine(x, routes.of_kernels(), y)))??;
            }
            Weights::Elsewhere(experts) => {
                for (expert, pairs) in routes.by_expert() {
                    let made = experts[expert].forward(&x.narrow(0, pairs.start, pairs.len())?.contiguous()?)?;
                    let shares = Tensor::new(&routes.shares()[pairs.clone()], y.device())?.reshape(((), 1))?;
                    let rows = Tensor::new(&routes.rows()[pairs], y.device())?;
                    y = y.index_add(&rows, &made.broadcast_mul(&shares)?, 0)?;
                }
            }
        }
        Ok(y)
    }
}

/// Experts that have pairs, with their watches.
fn watched<'a>(watches: &'a [Watch], routes: &'a Routes) -> impl Iterator<Item = (&'a Watch, (usize, std::ops::Range<usize>))> {
    routes.by_expert().filter_map(|(expert, pairs)| Some((watches.get(expert)?, (expert, pairs))))
}

fn pick(x: &Tensor, rows: &[u32]) -> Result<Tensor, NnError> {
    Ok(x.index_select(&Tensor::new(rows, x.device())?, 0)?)
}

fn check(inputs: usize, x: &Tensor) -> Result<(), NnError> {
    if x.dims2()?.1 == inputs { Ok(()) } else { Err(NnError::Input("a matrix as wide as the weight")) }
}
