//! The one vision transformer: pre-norm blocks over patches that attend within their segment, or within a window of it.

use candle_core::{D, Tensor};

use kernels::KvFormat;

use crate::attention::{Qkv, Scores, Seen, Segments, attention_within};
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
    /// Feed-forward part.
    pub mlp: Mlp,
    /// Number of blocks.
    pub layers: usize,
    /// Blocks that look no further than their window, by number.
    pub windowed: Vec<usize>,
    /// Blocks whose states are asked for too, by number, ascending.
    pub tapped: Vec<usize>,
    /// Norms of the blocks.
    pub norm: NormConfig,
    /// Of every matrix of the blocks.
    pub bias: Bias,
    /// Names in the checkpoint.
    pub names: &'static VitNames,
}

/// What works on each patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // inner: width inside
pub enum Mlp {
    /// down(activation(up(x)))
    Plain { inner: usize, activation: Activation },
    /// down(activation(gate(x)) * up(x)) (Shazeer 2020)
    Gated { inner: usize, activation: Activation },
}

/// Which patches see each other: lengths of neighbouring runs. Each list adds up to all patches.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    /// Pictures, or steps in time of a clip.
    pub segments: &'a [usize],
    /// What the segments are cut into for blocks that look no further.
    pub windows: &'a [usize],
    /// What is seen of the segments by all other blocks.
    pub seen: Seen<'a>,
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
    /// One matrix, or gate and values.
    pub up: &'static [&'static str],
    pub down: &'static str,
}

/// CLIP and SigLIP.
pub const SIGLIP_NAMES: VitNames = VitNames {
    layers: "encoder.layers",
    norm1: "layer_norm1",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.out_proj",
    norm2: "layer_norm2",
    up: &["mlp.fc1"],
    down: "mlp.fc2",
};

/// Whisper, whose keys have no bias.
pub const WHISPER_NAMES: VitNames = VitNames {
    layers: "layers",
    norm1: "self_attn_layer_norm",
    norm2: "final_layer_norm",
    up: &["fc1"],
    down: "fc2",
    ..SIGLIP_NAMES
};

/// Towers that keep q, k and v in one matrix.
pub const FUSED_NAMES: VitNames = VitNames {
    layers: "blocks",
    norm1: "norm1",
    qkv: &["attn.qkv"],
    out: "attn.proj",
    norm2: "norm2",
    up: &["mlp.fc1"],
    down: "mlp.fc2",
};

/// The same with a gate.
pub const FUSED_GATED_NAMES: VitNames = VitNames { up: &["mlp.gate_proj", "mlp.up_proj"], down: "mlp.down_proj", ..FUSED_NAMES };

/// The same with other names in the feed-forward part.
pub const FUSED_LINEAR_NAMES: VitNames = VitNames { up: &["mlp.linear_fc1"], down: "mlp.linear_fc2", ..FUSED_NAMES };

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
    reach: Reach,
    out: Linear,
    norm2: Norm,
    up: Linear, // [inner, width], or [2 * inner, width] with a gate
    mlp: Mlp,
    down: Linear,
    after: After,
}

/// How far the patches of a block see.
#[derive(Debug, Clone, Copy)]
enum Reach {
    Segment,
    Window,
}

/// What becomes of a block's states, beside being the next one's.
#[derive(Debug, Clone, Copy)]
enum After {
    Passed,
    Tapped,
}

impl Vit {
    /// Loads the blocks.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &VitConfig, w: &Weights) -> Result<Self, NnError> {
        let layers = w.role(Role::Encoder).at(config.names.layers);
        let blocks = (0..config.layers).map(|i| Block::load(config, i, &layers.at(i))).collect::<Result<_, _>>()?;
        let qkv = Qkv { heads: config.heads, kv_heads: config.heads, head_dim: config.width / config.heads };
        Ok(Self { blocks, qkv, format: w.attention_format() })
    }

    /// x [patches, width] → the same shape. Patches attend within their segment; `segments` are lengths that add up to all.
    ///
    /// # Errors
    /// Shapes do not fit, the device failed, or the pause said to stop.
    pub fn forward(&self, x: Tensor, segments: &[usize], rope: Option<&RopeTable>, pause: &mut Pause) -> Result<Tensor, NnError> {
        let mut states = self.states(x, Runs::whole(segments), rope, pause)?;
        states.pop().ok_or(NnError::Input("a segment of patches"))
    }

    /// x [patches, width] → the states behind each tapped block and behind the last one, of the same shape.
    ///
    /// # Errors
    /// Shapes do not fit, the device failed, or the pause said to stop.
    pub fn states(&self, x: Tensor, runs: Runs<'_>, rope: Option<&RopeTable>, pause: &mut Pause) -> Result<Vec<Tensor>, NnError> {
        if !host::here(&x) {
            return self.states_of(x, runs, rope, pause);
        }
        // Segments know nothing of each other: a few at a time keep what they become in the caches.
        let mut parts: Vec<Vec<Tensor>> = Vec::new(); // by state
        let (mut row, mut rest) = (0, runs);
        while !rest.segments.is_empty() {
            let (now, later) = rest.split(ROWS_AT_A_TIME);
            let rows = now.segments.iter().sum();
            let rope = rope.map(|rope| rope.narrow(row, rows)).transpose()?;
            let states = self.states_of(x.narrow(0, row, rows)?, now, rope.as_ref(), pause)?;
            parts.resize_with(states.len(), Vec::new);
            parts.iter_mut().zip(states).for_each(|(part, state)| part.push(state));
            (row, rest) = (row + rows, later);
        }
        parts.into_iter().map(|part| Ok(Tensor::cat(&part, 0)?)).collect()
    }

    fn states_of(&self, x: Tensor, runs: Runs<'_>, rope: Option<&RopeTable>, pause: &mut Pause) -> Result<Vec<Tensor>, NnError> {
        let mut x = x;
        let mut states = Vec::new();
        for block in &self.blocks {
            pause()?;
            let mut qkv = block.qkv.forward(&block.norm1.forward(&x)?)?;
            if let Some(rope) = rope {
                qkv = rope.turn(qkv, self.qkv.turned(), None)?;
            }
            pause()?;
            let runs = match block.reach {
                Reach::Segment => Segments { lengths: runs.segments, seen: runs.seen },
                Reach::Window => Segments::whole(runs.windows),
            };
            let scores = Scores::plain(self.qkv.head_dim);
            x = block.out.add_to(x, &attention_within(&qkv, self.qkv, runs, scores, self.format)?)?;
            x = host::in_parts(x, block.up.outputs(), |x, _| {
                pause()?;
                let inner = block.mlp.inner(block.up.forward(&block.norm2.forward(&x)?)?)?;
                block.down.add_to(x, &inner)
            })?;
            if let After::Tapped = block.after {
                states.push(x.copy()?); // The next block takes the place of x.
            }
        }
        states.push(x);
        Ok(states)
    }
}

impl<'a> Runs<'a> {
    /// Segments whose patches all see each other.
    pub fn whole(segments: &'a [usize]) -> Self {
        Self { segments, windows: segments, seen: Seen::All }
    }

    /// The first segments, which have at most `rows_max` patches together or are a single one, and the others.
    fn split(self, rows_max: usize) -> (Self, Self) {
        let fits = |count: &usize| self.segments[..*count].iter().sum::<usize>() <= rows_max;
        let count = (2..=self.segments.len()).take_while(fits).last().unwrap_or(1);
        let (now, later) = self.segments.split_at(count);
        let (rows, mut covered) = (now.iter().sum::<usize>(), 0);
        let inside = self.windows.iter().take_while(|window| {
            covered += **window;
            covered <= rows
        });
        let windows = self.windows.split_at(inside.count());
        let seen = self.seen.split(now);
        (Self { segments: now, windows: windows.0, seen: seen.0 }, Self { segments: later, windows: windows.1, seen: seen.1 })
    }
}

impl Mlp {
    /// What `up` made of rows → [rows, inner].
    fn inner(self, up: Tensor) -> Result<Tensor, NnError> {
        match self {
            Self::Plain { activation, .. } => activation.forward(up),
            Self::Gated { activation, .. } => activation.gate(up),
        }
    }
}

impl Block {
    fn load(config: &VitConfig, number: usize, w: &Weights) -> Result<Self, NnError> {
        let VitConfig { width, names, mlp, bias, .. } = *config;
        let (Mlp::Plain { inner, .. } | Mlp::Gated { inner, .. }) = mlp;
        let parts = |names: &[&'static str], outputs| names.iter().map(|name| (*name, outputs)).collect::<Vec<_>>();
        Ok(Self {
            norm1: w.norm(names.norm1, width, config.norm)?,
            qkv: w.stacked(&parts(names.qkv, 3 * width / names.qkv.len()), width, bias)?,
            reach: if config.windowed.contains(&number) { Reach::Window } else { Reach::Segment },
            out: w.linear(names.out, width, width, bias)?,
            norm2: w.norm(names.norm2, width, config.norm)?,
            up: w.stacked(&parts(names.up, inner), width, bias)?,
            mlp,
            down: w.linear(names.down, inner, width, bias)?,
            after: if config.tapped.contains(&number) { After::Tapped } else { After::Passed },
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
    join_squares(&x.flatten_to(1)?, side, factor)?.reshape((n, tokens / factor.pow(2), width * factor.pow(2))).map_err(Into::into)
}

/// The same for tokens in any number of rows of `columns` each: [rows * columns, width] → [rows * columns / factor²,
/// width * factor²].
///
/// # Errors
/// The sides do not divide, or the device failed.
pub fn join_squares(x: &Tensor, columns: usize, factor: usize) -> Result<Tensor, NnError> {
    let (tokens, width) = x.dims2()?;
    let (down, across) = (tokens / columns / factor, columns / factor);
    let squares = x.reshape(&[down, factor, across, factor, width])?.permute([0, 2, 1, 3, 4])?;
    Ok(squares.reshape((down * across, width * factor.pow(2)))?)
}

/// Averages squares of tokens: [n, side * side, width] → [n, small * small, width].
///
/// # Errors
/// The sides do not divide, or the device failed.
pub fn average_pool(x: &Tensor, small: usize) -> Result<Tensor, NnError> {
    let side = x.dim(1)?.isqrt();
    average_pool_by(x, side, side / small)
}

/// Averages squares of `factor` x `factor` tokens: [n, rows * columns, width] → [n, rows * columns / factor², width].
///
/// # Errors
/// The sides do not divide, or the device failed.
pub fn average_pool_by(x: &Tensor, columns: usize, factor: usize) -> Result<Tensor, NnError> {
    let (n, tokens, width) = x.dims3()?;
    let (rows, columns) = (tokens / columns.max(1) / factor, columns / factor);
    let squares = x.reshape(&[n, rows, factor, columns, factor, width])?.permute([0, 1, 3, 5, 2, 4])?;
    Ok(squares.reshape((n, rows * columns, width, factor * factor))?.mean(D::Minus1)?)
}
