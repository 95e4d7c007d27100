use std::fmt::Display;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::linear::{Embedding, Linear};
use crate::norm::{Norm, NormConfig};
use crate::{Checkpoint, NnError, Quant};

/// How weights are kept once loaded.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// Where they live and are computed with.
    pub device: Device,
    /// Number format of weights that are not quantised.
    pub dtype: DType,
    /// Block format of the language model's matrices.
    pub quant: Option<Quant>,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32, quant: None }
    }
}

/// What a matrix does; policies are functions of its name and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of the language model's layers.
    Decoder,
    /// Token table or output head.
    Vocabulary,
    /// Part of a tower or a projector. Stays dense.
    Encoder,
}

/// Whether a linear layer has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Bias {
    Absent,
    Present,
}

impl Bias {
    /// For configs that say it with a boolean.
    pub fn when(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }
}

/// A position in a checkpoint. What is loaded here is loaded as [`LoadSettings`] and [`Role`] say.
#[derive(Clone)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    settings: Arc<LoadSettings>,
    prefix: String,
    role: Role,
}

impl Weights {
    /// The top of a checkpoint.
    pub fn new(checkpoint: Arc<Checkpoint>, settings: LoadSettings) -> Self {
        Self { checkpoint, settings: Arc::new(settings), prefix: String::new(), role: Role::Decoder }
    }

    /// One or several levels further down.
    pub fn at(&self, name: impl Display) -> Self {
        Self { prefix: self.full(&name.to_string()), ..self.clone() }
    }

    /// The first of several places that exists: the names of one thing in different releases. Without any, the first.
    pub fn at_any(&self, names: &[&str]) -> Self {
        let found = names.iter().find(|name| self.checkpoint.has_below(&self.full(name)));
        self.at(found.or(names.first()).copied().unwrap_or_default())
    }

    /// The same position for another use.
    pub fn role(&self, role: Role) -> Self {
        Self { role, ..self.clone() }
    }

    /// Where the model lives.
    pub fn device(&self) -> &Device {
        &self.settings.device
    }

    /// Whether there is a tensor of this name here.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(&self.full(name))
    }

    /// Marks tensors here whose names begin with `name` as known and not needed.
    pub fn skip(&self, name: &str) {
        self.checkpoint.skip(&self.full(name));
    }

    /// A tensor as f32.
    ///
    /// # Errors
    /// It is missing or shaped otherwise.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        Ok(self.raw(name, shape)?.to_dtype(DType::F32)?)
    }

    /// A linear layer: `name.weight` [outputs, inputs] and, where present, `name.bias` [outputs].
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: Bias) -> Result<Linear, NnError> {
        self.stacked(&[(name, outputs)], inputs, bias)
    }

    /// Several linear layers that read the same input, as one: the outputs of (name, outputs) follow each other.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn stacked(&self, parts: &[(&str, usize)], inputs: usize, bias: Bias) -> Result<Linear, NnError> {
        let mut weights = Vec::with_capacity(parts.len());
        let mut biases = Vec::with_capacity(parts.len());
        for (name, outputs) in parts {
            weights.push(self.raw(&format!("{name}.weight"), &[*outputs, inputs])?);
            if bias == Bias::Present {
                biases.push(self.tensor(&format!("{name}.bias"), &[*outputs])?);
            }
        }
        let bias = if biases.is_empty() { None } else { Some(join(biases)?) };
        self.linear_of(join(weights)?, bias)
    }

    /// A convolution whose stride is its kernel, as a linear layer over flattened patches: `name.weight`
    /// [outputs, patch...] and `name.bias` where present.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn patch_linear(&self, name: &str, patch: &[usize], outputs: usize, bias: Bias) -> Result<Linear, NnError> {
        let shape: Vec<usize> = [&[outputs], patch].concat();
        let weight = self.raw(&format!("{name}.weight"), &shape)?.flatten_from(1)?;
        let bias = if bias == Bias::Present { Some(self.tensor(&format!("{name}.bias"), &[outputs])?) } else { None };
        self.linear_of(weight, bias)
    }

    /// A linear layer of tensors that need work before they are one: weight [outputs, inputs], bias [outputs].
    ///
    /// # Errors
    /// The device failed.
    pub fn linear_of(&self, weight: Tensor, bias: Option<Tensor>) -> Result<Linear, NnError> {
        Linear::new(weight, bias, self.settings.dtype, self.quant())
    }

    /// `name.weight` as a token table [vocab, width].
    ///
    /// # Errors
    /// It is missing or shaped otherwise.
    pub fn embedding(&self, name: &str, vocab: usize, width: usize) -> Result<Embedding, NnError> {
        Ok(Embedding::new(self.raw(&format!("{name}.weight"), &[vocab, width])?))
    }

    /// A norm over `width` elements: `name.weight`, and `name.bias` where its kind has one.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn norm(&self, name: &str, width: usize, config: NormConfig) -> Result<Norm, NnError> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        Ok(match config {
            NormConfig::Rms { eps } => Norm::Rms { weight, eps },
            NormConfig::RmsPlusOne { eps } => Norm::Rms { weight: (weight + 1.0)?, eps },
            NormConfig::Layer { eps } => Norm::Layer { weight, bias: self.tensor(&format!("{name}.bias"), &[width])?, eps },
        })
    }

    fn quant(&self) -> Option<Quant> {
        match self.role {
            Role::Decoder => self.settings.quant,
            Role::Vocabulary => self.settings.quant.map(Quant::promoted),
            Role::Encoder => None,
        }
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        self.checkpoint.tensor(&self.full(name), shape, &self.settings.device)
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

fn join(mut parts: Vec<Tensor>) -> Result<Tensor, NnError> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(Tensor::cat(&parts, 0)?),
    }
}
