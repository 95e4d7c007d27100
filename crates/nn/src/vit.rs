//! The one vision transformer: pre-norm blocks over patches that attend within their segment.

use candle_core::{D, Tensor};

use kernels::KvFormat;

use crate::attention::{Qkv, Scores, attention_within};
use crate::linear::Linear;
use crate::norm::{Norm, NormConfig};
use crate::rope::RopeTable;
use crate::weights::{Bias, Role, Weights};
use crate::{Activation, NnError, Pause, host};

/// Patches that pass the tower together, unless a single segment has more.
const ROWS_AT_A_TIME: usize = 1024;

/// Sizes of a tower, and what its parts are called in the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct VitConfig {
    /// Width of a patch's state.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the feed-forward part.
    pub inner: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Norms of the blocks.
    pub norm: NormConfig,
    /// Of the feed-forward part.
    pub activation: Activation,
    /// Names in the checkpoint.
    pub names: &'static VitNames,
}

/// What the parts of a block are called.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)] // one name each
pub struct VitNames {
    pub layers: &'static str,
    pub norm1: &'static str,
    /// One fused matrix, or q, k and v.
    pub qkv: &'static [&'static str],
    pub out: &'static str,
    pub norm2: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// CLIP and SigLIP.
pub const SIGLIP_NAMES: VitNames = VitNames {
    layers: "encoder.layers",
    norm1: "layer_norm1",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.out_proj",
    norm2: "layer_norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
};

/// Towers that keep q, k and v in one matrix.
pub const FUSED_NAMES: VitNames = VitNames {
    layers: "blocks",
    norm1: "norm1",
    qkv: &["attn.qkv"],
    out: "attn.proj",
    norm2: "norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
};

/// A loaded tower, without patch embedding and projector.
#[derive(Debug)]
pub struct Vit {
    blocks: Vec<Block>,
    qkv: Qkv,
    format: KvFormat,
}

#[derive(Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear, // [3 * width, width]
    out: Linear,
    norm2: Norm,
    up: Linear,
    activation: Activation,
    down: Linear,
}

impl Vit {
    /// Loads the blocks.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &VitConfig, w: &Weights) -> Result<Self, NnError> {
        let layers = w.role(Role::Encoder).at(config.names.layers);
        let blocks = (0..config.layers).map(|i| Block::load(config, &layers.at(i))).collect::<Result<_, _>>()?;
        let qkv = Qkv { heads: config.heads, kv_heads: config.heads, head_dim: config.width / config.heads };
        Ok(Self { blocks, qkv, format: w.attention_format() })
    }

    /// x [patches, width] → the same shape. Patches attend within their segment; `segments` are lengths that add up to all.
    ///
    /// # Errors
    /// Shapes do not fit, the device failed, or the pause said to stop.
    pub fn forward(&self, x: Tensor, segments: &[usize], rope: Option<&RopeTable>, pause: &mut Pause) -> Result<Tensor, NnError> {
        if !host::here(&x) {
            return self.forward_rows(x, segments, rope, pause);
        }
        // Segments know nothing of each other: a few at a time keep what they become in the caches.
        let mut parts = Vec::new();
        let (mut row, mut rest) = (0, segments);
        while !rest.is_empty() {
            let fits = |count: &usize| rest[..*count].iter().sum::<usize>() <= ROWS_AT_A_TIME;
            let count = (2..=rest.len()).take_while(fits).last().unwrap_or(1);
            let (now, later) = rest.split_at(count);
            let rows = now.iter().sum();
            let rope = rope.map(|rope| rope.narrow(row, rows)).transpose()?;
            parts.push(self.forward_rows(x.narrow(0, row, rows)?, now, rope.as_ref(), pause)?);
            (row, rest) = (row + rows, later);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn forward_rows(
        &self,
        x: Tensor,
        segments: &[usize],
        rope: Option<&RopeTable>,
        pause: &mut Pause,
    ) -> Result<Tensor, NnError> {
        let mut x = x;
        for block in &self.blocks {
            pause()?;
            let mut qkv = block.qkv.forward(&block.norm1.forward(&x)?)?;
            if let Some(rope) = rope {
                qkv = rope.turn(qkv, self.qkv.turned(), None)?;
            }
            pause()?;
            let scores = Scores { scale: (self.qkv.head_dim as f64).powf(-0.5), softcap: None, window: None };
            x = block.out.add_to(x, &attention_within(&qkv, self.qkv, segments, scores, self.format)?)?;
            x = host::in_parts(x, block.up.outputs(), |x| {
                pause()?;
                let inner = block.activation.forward(block.up.forward(&block.norm2.forward(&x)?)?)?;
                block.down.add_to(x, &inner)
            })?;
        }
        Ok(x)
    }
}

impl Block {
    fn load(config: &VitConfig, w: &Weights) -> Result<Self, NnError> {
        let VitConfig { width, inner, names, .. } = *config;
        let fused = 3 * width / names.qkv.len();
        let qkv: Vec<(&str, usize)> = names.qkv.iter().map(|name| (*name, fused)).collect();
        Ok(Self {
            norm1: w.norm(names.norm1, width, config.norm)?,
            qkv: w.stacked(&qkv, width, Bias::Present)?,
            out: w.linear(names.out, width, width, Bias::Present)?,
            norm2: w.norm(names.norm2, width, config.norm)?,
            up: w.linear(names.up, width, inner, Bias::Present)?,
            activation: config.activation,
            down: w.linear(names.down, inner, width, Bias::Present)?,
        })
    }
}

/// Cuts pictures [n, channels, height, width] into squares, row by row: [n * rows * columns, channels * patch * patch].
/// Pixels that fill no square are dropped.
///
/// # Errors
/// The pictures are smaller than a square, or the device failed.
pub fn patchify(pixels: &Tensor, patch: usize) -> Result<Tensor, NnError> {
    let (n, channels, height, width) = pixels.dims4()?;
    let (rows, columns) = (height / patch, width / patch);
    let whole = pixels.narrow(2, 0, rows * patch)?.narrow(3, 0, columns * patch)?;
    let squares = whole.reshape(&[n, channels, rows, patch, columns, patch])?.permute([0, 2, 4, 1, 3, 5])?;
    Ok(squares.reshape((n * rows * columns, channels * patch * patch))?)
}

/// Joins squares of `factor` x `factor` neighbouring tokens into one: [n, side * side, width] →
/// [n, (side / factor)², width * factor²], the token's elements first, then columns, then rows of the square.
///
/// # Errors
/// The sides do not divide, or the device failed.
pub fn pixel_shuffle(x: &Tensor, factor: usize) -> Result<Tensor, NnError> {
    let (n, tokens, width) = x.dims3()?;
    let side = tokens.isqrt();
    let small = side / factor;
    let squares = x.reshape(&[n, small, factor, small, factor, width])?.permute([0, 1, 3, 2, 4, 5])?;
    Ok(squares.reshape((n, small * small, width * factor * factor))?)
}

/// Averages squares of tokens: [n, side * side, width] → [n, small * small, width].
///
/// # Errors
/// The sides do not divide, or the device failed.
pub fn average_pool(x: &Tensor, small: usize) -> Result<Tensor, NnError> {
    let (n, tokens, width) = x.dims3()?;
    let factor = tokens.isqrt() / small;
    let squares = x.reshape(&[n, small, factor, small, factor, width])?.permute([0, 1, 3, 5, 2, 4])?;
    Ok(squares.reshape((n, small * small, width, factor * factor))?.mean(D::Minus1)?)
}
