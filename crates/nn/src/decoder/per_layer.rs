//! Per-layer embeddings; see [`PerLayerConfig`].

use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::Tensor;

use super::config::PerLayerConfig;
use crate::linear::{Embedding, Linear};
use crate::norm::{Norm, NormConfig};
use crate::weights::{Bias, Outputs, Weights};
use crate::{Activation, Batch, HeadRange, NnError};

/// What makes the vectors of all layers.
#[derive(Debug)]
pub struct PerLayerTable {
    config: PerLayerConfig,
    table: Embedding,   // [vocab, stored * width]
    projection: Linear, // [layers * width, hidden]
    norm: Norm,
}

/// What a layer does with its vectors.
#[derive(Debug)]
pub struct PerLayerInput {
    gate: Linear,       // [width, hidden]
    projection: Linear, // [hidden, width]
    norm: Norm,
    activation: Activation,
}

impl PerLayerConfig {
    /// Neighbouring vectors that there are layers for: (number of the first, how many).
    fn runs(&self) -> Vec<(usize, usize)> {
        self.layers.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run.len())).collect()
    }
}

impl PerLayerTable {
    /// Loads `embed_tokens_per_layer`, `per_layer_model_projection` and `per_layer_projection_norm`.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &PerLayerConfig, hidden: usize, norm: NormConfig, w: &Weights) -> Result<Self, NnError> {
        let PerLayerConfig { width, vocab, stored, .. } = *config;
        let of_run =
            |(first, count)| Outputs::some("per_layer_model_projection", stored * width, first * width..(first + count) * width);
        let parts: Vec<Outputs> = config.runs().into_iter().map(of_run).collect();
        // The projection is scaled by hidden^-0.5, which its norm undoes but for what is added to the mean square.
        let norm = norm.of_scaled((hidden as f64).powf(-0.5));
        Ok(Self {
            table: w.embedding("embed_tokens_per_layer", vocab, stored * width)?,
            projection: w.stacked_outputs(&parts, hidden, Bias::Absent)?,
            norm: w.norm("per_layer_projection_norm", width, norm)?,
            config: config.clone(),
        })
    }

    /// The vectors of a batch's rows, whose embeddings are x [rows, hidden]: for each layer in order [rows, width].
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn vectors(&self, x: &Tensor, batch: &Batch) -> Result<Vec<Tensor>, NnError> {
        let PerLayerConfig { width, vocab, pad, .. } = self.config;
        let mut tokens: Vec<u32> = batch.tokens.iter().map(|&id| if (id as usize) < vocab { id } else { pad }).collect();
        for item in &batch.media {
            tokens[item.at..item.at + item.rows.dim(0)?].fill(pad);
        }
        let layers = self.config.layers.len();
        let own = self.table.forward(&tokens)?;
        let own = match layers == self.config.stored {
            true => own,
            false => {
                let run = |(first, count)| own.narrow(1, first * width, count * width);
                Tensor::cat(&self.config.runs().into_iter().map(run).collect::<Result<Vec<_>, _>>()?, 1)?
            }
        };
        let projected = self.projection.forward(x)?;
        let projected = self.norm.heads(projected, HeadRange { first: 0, count: layers, width })?;
        let both = ((projected + (own * (width as f64).sqrt())?)? * FRAC_1_SQRT_2)?;
        (0..layers).map(|layer| Ok(both.narrow(1, layer * width, width)?.contiguous()?)).collect()
    }
}

impl PerLayerInput {
    /// Loads `per_layer_input_gate`, `per_layer_projection` and `post_per_layer_input_norm` of a layer.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &PerLayerConfig, hidden: usize, norm: NormConfig, w: &Weights) -> Result<Self, NnError> {
        Ok(Self {
            gate: w.linear("per_layer_input_gate", hidden, config.width, Bias::Absent)?,
            projection: w.linear("per_layer_projection", config.width, hidden, Bias::Absent)?,
            norm: w.norm("post_per_layer_input_norm", hidden, norm)?,
            activation: config.activation,
        })
    }

    /// Hidden states x [rows, hidden] and the layer's vectors [rows, width] → what is added to the hidden states.
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn forward(&self, x: &Tensor, vectors: &Tensor) -> Result<Tensor, NnError> {
        let inner = self.activation.gate_columns(&self.gate.forward(x)?, 0, vectors)?;
        self.norm.forward(&self.projection.forward(&inner)?)
    }
}
