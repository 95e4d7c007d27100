//! How a checkpoint is to be loaded.

use std::sync::Arc;

use candle_core::{DType, Device};

use crate::importance::{Importance, Observer};
use crate::{Organization, Quant, Topology};

/// How much of a checkpoint is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reading {
    /// All that a model needs.
    #[default]
    Whole,
    /// Everything but what is in the matrices, which make zeros: names and shapes are checked, and what the model takes is known
    /// ([`Weights::footprint`]).
    Shapes,
}

/// How weights are kept once loaded.
#[derive(Clone)]
pub struct LoadSettings {
    /// Where they live and are computed with.
    pub device: Device,
    /// Number format of weights that are not quantised; the one that most of them have in the file when absent.
    pub dtype: Option<DType>,
    /// Block format of the language model's matrices.
    pub quant: Option<Quant>,
    /// Which of them it is for.
    pub organization: Organization,
    /// Formats of some of them, which come before these two.
    pub topology: Topology,
    /// What quantising goes by; without it, all inputs of a matrix are alike.
    pub importance: Option<Arc<Importance>>,
    /// Which part of a nested model it is, if not the whole.
    pub slice: Option<Slice>,
    /// Sees what the language model's matrices are given; [`crate::Calibration`] makes it.
    pub observer: Option<Observer>,
    /// How much is read.
    pub reading: Reading,
    /// Told which tensors are quantised.
    pub on_quantised: Option<OnQuantised>,
    /// Told how far loading is.
    pub progress: OnProgress,
}

/// A tensor that a model has in blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantised {
    /// Its full name.
    pub name: String,
    /// The format of the blocks.
    pub quant: Quant,
    /// Whether its matrices are stored the other way round, [inputs, outputs].
    pub turned: bool,
}

/// Told about every tensor that is quantised.
pub type OnQuantised = Arc<dyn Fn(Quantised) + Send + Sync>;

/// Told about every tensor that was loaded: bytes of the checkpoint that are done, and all of them.
pub type OnProgress = Arc<dyn Fn(usize, usize) + Send + Sync>;

impl Default for LoadSettings {
    /// On the CPU, in f32, quietly.
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: Some(DType::F32),
            quant: None,
            organization: Organization::Default,
            topology: Topology::default(),
            importance: None,
            slice: None,
            observer: None,
            reading: Reading::Whole,
            on_quantised: None,
            progress: Arc::new(|_, _| ()),
        }
    }
}

/// A part of a nested model that is a model too (MatFormer; Devvrit et al. 2023, arXiv:2310.07707). What is left out is never loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// What it is called.
    pub name: String,
    /// Width inside the feed-forward part of each layer that is kept: the first columns are.
    pub inner: Vec<usize>,
    /// Layers that are left out, by their number in the checkpoint; ascending.
    pub skipped: Vec<usize>,
}

/// What a matrix does; policies are functions of its name and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of the language model's layers.
    Decoder,
    /// One of many that a router chooses from.
    Expert,
    /// Chooses experts, or says how much is forgotten. Stays dense: it is small, and a wrong choice costs more than a small error.
    Router,
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
    /// Of stacked layers, all have one but those of these names.
    Except(&'static [&'static str]),
}

impl Bias {
    /// For configs that say it with a boolean.
    pub fn when(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }
}
