use candle_core::Tensor;

use super::config::{DecoderConfig, Head};
use crate::linear::{Embedding, Linear};
use crate::norm::Norm;
use crate::weights::{Bias, Role, Weights};
use crate::{MediaRows, NnError, host};

/// Both ends of a decoder: tokens → hidden states, and hidden states → logits.
#[derive(Debug)]
pub struct Vocabulary {
    table: Embedding,
    /// Rows of the table.
    size: usize,
    scale: f64,
    /// Parts of a media row, each as wide as a hidden state.
    media_parts: usize,
    norm: Norm,
    head: Linear, // [vocab, hidden]
    softcap: Option<f64>,
}

impl Vocabulary {
    /// Loads `embed_tokens` and `norm` at `body`, and `lm_head` at `top` when it is not tied.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &DecoderConfig, body: &Weights, top: &Weights) -> Result<Self, NnError> {
        let vocabulary = body.role(Role::Vocabulary);
        let (table, head) = match config.head {
            Head::Tied => {
                top.skip("lm_head.");
                vocabulary.tied_embedding("embed_tokens", config.vocab, config.hidden)?
            }
            Head::Own => {
                let table = vocabulary.embedding("embed_tokens", config.vocab + config.unspoken, config.hidden)?;
                (table, top.role(Role::Vocabulary).linear("lm_head", config.hidden, config.vocab, Bias::Absent)?)
            }
        };
        let norm = body.norm("norm", config.hidden, config.norm)?;
        let (scale, media_parts, softcap) = (config.embedding_scale, 1 + config.deepstack, config.logit_softcap);
        let size = config.vocab + if config.head == Head::Own { config.unspoken } else { 0 };
        Ok(Self { table, size, scale, media_parts, norm, head, softcap })
    }

    /// Number of logits per row.
    pub fn size(&self) -> usize {
        self.head.outputs()
    }

    /// Number of tokens that can be read.
    pub fn table_size(&self) -> usize {
        self.size
    }

    /// Token embeddings with media rows in their places, [rows, hidden].
    ///
    /// # Errors
    /// A token is unknown, media rows have another width, or the device failed.
    pub fn embed(&self, tokens: &[u32], media: &[MediaRows]) -> Result<Tensor, NnError> {
        let rows = self.table.forward(tokens)?;
        let rows = if self.scale == 1.0 { rows } else { host::scale(rows, self.scale)? };
        for item in media {
            if item.rows.dim(1)? != rows.dim(1)? * self.media_parts {
                return Err(NnError::Input("media rows as wide as the decoder takes them"));
            }
            rows.slice_set(&item.part(0, rows.dim(1)?)?, 0, item.at)?;
        }
        Ok(rows)
    }

    /// Hidden states [rows, hidden] → logits [rows, vocab].
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let logits = self.head.forward(&self.norm.forward(x)?)?;
        match self.softcap {
            None => Ok(logits),
            Some(cap) => host::soft_cap(logits, cap),
        }
    }
}

impl MediaRows {
    /// Columns of the rows, of which each part has `hidden`.
    pub(super) fn part(&self, number: usize, hidden: usize) -> Result<Tensor, NnError> {
        Ok(self.rows.narrow(1, number * hidden, hidden)?.contiguous()?)
    }
}
