use nn::{
    Activation, Bias, D, Embedding, KeyValues, KvFormat, Linear, MediaInput, NnError, Norm, NormConfig, Pause, Qkv, Role, Scores,
    Sight, Tensor, Weights, add_to, attention_across, in_parts, patchify, scale,
};

use super::config::VisionConfig;
use crate::joined::Encode;

/// The norms of the tower outside of its blocks, whatever `norm_eps` says.
const NORM: NormConfig = NormConfig::Layer { eps: 1e-5 };
/// The rows of a tile are filled up with empty ones to a multiple of this, and other rows look at these as well.
const ROWS_MULTIPLE: usize = 8;

/// Tiles → rows: two towers, and a projector.
pub struct Tower {
    patch_embed: Linear, // [width, 3 * patch * patch]
    whole: Tensor,       // [1, 1, width]
    position: Tensor,    // [1, rows of a tile, width]
    places: Places,
    norm_pre: Norm,
    first: Vec<Block>,
    norm_post: Norm,
    second: Vec<Block>,
    projector: Linear, // [hidden, output]
    config: VisionConfig,
    format: KvFormat,
}

/// What is added for the tile's place on a canvas; a row of each table for each shape of a canvas.
struct Places {
    before: Gated,
    rows: Gated,
    between: Gated,
}

/// A table, and what its rows are multiplied by.
struct Gated {
    table: Embedding,
    gate: f64,
}

/// A block of either tower.
struct Block {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
    activation: Activation,
    heads: Qkv,
    /// Factors on what attention and the feed-forward part make, in the second tower.
    gates: Option<[f64; 2]>,
}

/// The rows of a canvas: first those that hold something, tile by tile, then the others, which do not see each other.
struct Rows {
    full: usize,
    all: usize,
}

impl Tower {
    pub fn load(config: &VisionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let v = config;
        let (width, rows, patch) = (v.hidden_size, v.rows_per_tile(), [3, v.patch_size, v.patch_size]);
        let w = w.role(Role::Encoder);
        let (tower, projector) = (w.at("vision_model"), w.linear("multi_modal_projector", v.output(), hidden, Bias::Present)?);
        let learned = tower.at("gated_positional_embedding");
        let position = learned.tensor("embedding", &[rows, width])?;
        let places = Places::load(v, &tower)?;
        let blocks = |name: &str, count: usize, load: fn(&VisionConfig, &Weights) -> Result<Block, NnError>| {
            (0..count).map(|i| load(v, &tower.at(name).at(i))).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            patch_embed: tower.patch_linear("patch_embedding", &patch, width, Bias::Absent)?,
            whole: tower.tensor("class_embedding", &[width])?.reshape((1, 1, width))?,
            position: (position * (1.0 - places.rows.gate))?.unsqueeze(0)?,
            places,
            norm_pre: tower.norm("layernorm_pre", width, NORM)?,
            first: blocks("transformer.layers", v.num_hidden_layers, Block::load)?,
            norm_post: tower.norm("layernorm_post", width, NORM)?,
            second: blocks("global_transformer.layers", v.num_global_layers, Block::load_gated)?,
            projector,
            format: tower.attention_format(),
            config: v.clone(),
        })
    }

    /// [tiles, rows, width] of the pixels, with all that says where they are.
    fn embed(&self, input: &MediaInput, shape: u32) -> Result<Tensor, NnError> {
        let VisionConfig { image_size, patch_size, hidden_size: width, max_num_tiles: tiles, .. } = self.config;
        let pixels = input.tensor("pixel_values", &[tiles, 3, image_size, image_size], self.position.device())?;
        let x = self.patch_embed.forward(&patchify(&pixels, patch_size)?)?.reshape((tiles, self.config.patches(), width))?;
        let x = x.broadcast_add(&self.places.before.of(shape, (tiles, 1, width))?)?;
        let x = Tensor::cat(&[self.whole.expand((tiles, 1, width))?, x], 1)?.broadcast_add(&self.position)?;
        let rows = self.config.rows_per_tile();
        self.norm_pre.forward(&(x + self.places.rows.of(shape, (tiles, rows, width))?)?)
    }

    /// Rows of the blocks, and which rows of a canvas filled up they are.
    fn order(&self, full_tiles: usize) -> (Rows, Vec<u32>) {
        let (tiles, rows) = (self.config.max_num_tiles, self.config.rows_per_tile());
        let stride = rows.next_multiple_of(ROWS_MULTIPLE);
        let full = |row: &usize| row / stride < full_tiles && row % stride < rows;
        let (mut order, others): (Vec<usize>, Vec<usize>) = (0..tiles * stride).partition(full);
        let counts = Rows { full: order.len(), all: tiles * stride };
        order.extend(others);
        (counts, order.into_iter().map(|row| row as u32).collect())
    }
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let VisionConfig { hidden_size: width, max_num_tiles: tiles, .. } = self.config;
        let rows = self.config.rows_per_tile();
        let stride = rows.next_multiple_of(ROWS_MULTIPLE);
        let (shape, full_tiles) = canvas(input, tiles)?;
        let (counts, order) = self.order(full_tiles);
        let device = self.position.device();
        let there = Tensor::new(order.as_slice(), device)?;
        let mut back = vec![0u32; order.len()];
        order.iter().enumerate().for_each(|(at, row)| back[*row as usize] = at as u32);
        // Of the rows of the blocks, those of all tiles without what fills them up.
        let kept: Vec<u32> = back.chunks_exact(stride).flat_map(|tile| &tile[..rows]).copied().collect();
        let kept = Tensor::new(kept, device)?;

        let x = self.embed(input, shape)?.pad_with_zeros(1, 0, stride - rows)?;
        let mut x = x.flatten_to(1)?.index_select(&there, 0)?;
        let mut shown = Vec::new();
        for (i, block) in self.first.iter().enumerate() {
            x = block.forward(x, &counts, self.format, pause)?;
            if self.config.intermediate_layers_indices.contains(&i) {
                shown.push(x.index_select(&kept, 0)?);
            }
        }
        let between = self.places.between.of(shape, (tiles, 1, width))?.expand((tiles, stride, width))?;
        x = (self.norm_post.forward(&x)? + between.flatten_to(1)?.index_select(&there, 0)?)?;
        for block in &self.second {
            x = block.forward(x, &counts, self.format, pause)?;
        }
        pause()?;
        let last = x.index_select(&kept, 0)?;
        let parts = match shown.is_empty() {
            true => last,
            // Element by element, not state by state.
            false => Tensor::cat(&[last, Tensor::stack(&shown, D::Minus1)?.flatten_from(1)?], 1)?,
        };
        self.projector.forward(&parts)
    }
}

/// The number of the canvas's shape, and how many of its tiles are full.
fn canvas(input: &MediaInput, tiles: usize) -> Result<(u32, usize), NnError> {
    let numbers = |name| input.arrays.get(name).map(|array| array.data.as_slice()).ok_or(NnError::Input(name));
    let (&[shape], mask) = (numbers("aspect_ratio_ids")?, numbers("aspect_ratio_mask")?) else {
        return Err(NnError::Input("aspect_ratio_ids"));
    };
    let full = mask.iter().filter(|tile| **tile != 0.0).count();
    if mask.len() == tiles && full > 0 { Ok((shape as u32, full)) } else { Err(NnError::Input("aspect_ratio_mask")) }
}

impl Places {
    fn load(v: &VisionConfig, w: &Weights) -> Result<Self, NnError> {
        let shapes = 1 + crate::canvas::Canvas::all(v.max_num_tiles).count();
        let load = |name: &str, table: &str, rows: usize| {
            let w = w.at(name);
            let table = w.embedding(table, shapes, v.max_num_tiles * rows * v.hidden_size)?;
            Ok::<_, NnError>(Gated { table, gate: w.number("gate", &[1])?.tanh() })
        };
        Ok(Self {
            before: load("pre_tile_positional_embedding", "embedding", 1)?,
            rows: load("gated_positional_embedding", "tile_embedding", v.rows_per_tile())?,
            between: load("post_tile_positional_embedding", "embedding", 1)?,
        })
    }
}

impl Gated {
    /// For a canvas of this shape.
    fn of(&self, canvas: u32, shape: (usize, usize, usize)) -> Result<Tensor, NnError> {
        Ok(scale(self.table.forward(&[canvas])?, self.gate)?.reshape(shape)?)
    }
}

impl Block {
    fn load(v: &VisionConfig, w: &Weights) -> Result<Self, NnError> {
        let (width, inner, norm) = (v.hidden_size, v.intermediate_size, NormConfig::Layer { eps: v.norm_eps });
        let (attention, mlp) = (w.at("self_attn"), w.at("mlp"));
        let qkv = [("q_proj", width), ("k_proj", width), ("v_proj", width)];
        Ok(Self {
            norm1: w.norm("input_layernorm", width, norm)?,
            qkv: attention.stacked(&qkv, width, Bias::Absent)?,
            out: attention.linear("o_proj", width, width, Bias::Absent)?,
            norm2: w.norm("post_attention_layernorm", width, norm)?,
            up: mlp.linear("fc1", width, inner, Bias::Present)?,
            down: mlp.linear("fc2", inner, width, Bias::Present)?,
            activation: v.hidden_act,
            heads: Qkv { heads: v.attention_heads, kv_heads: v.attention_heads, head_dim: width / v.attention_heads },
            gates: None,
        })
    }

    fn load_gated(v: &VisionConfig, w: &Weights) -> Result<Self, NnError> {
        let gate = |name| Ok::<_, NnError>(w.number(name, &[1])?.tanh());
        Ok(Self { gates: Some([gate("gate_attn")?, gate("gate_ffn")?]), ..Self::load(v, w)? })
    }

    /// x [rows, width] → the same shape, in its place.
    fn forward(&self, x: Tensor, rows: &Rows, format: KvFormat, pause: &mut Pause) -> Result<Tensor, NnError> {
        pause()?;
        let qkv = self.qkv.forward(&self.norm1.forward(&x)?)?;
        pause()?;
        let y = self.attend(&qkv, rows, format)?;
        let y = if let Some([gate, _]) = self.gates { scale(y, gate)? } else { y };
        let x = self.out.add_to(x, &y)?;
        in_parts(x, self.up.outputs(), |x, _| {
            pause()?;
            let inner = self.activation.forward(self.up.forward(&self.norm2.forward(&x)?)?)?;
            match self.gates {
                None => self.down.add_to(x, &inner),
                Some([_, gate]) => add_to(x, &scale(self.down.forward(&inner)?, gate)?),
            }
        })
    }

    /// Rows that hold something see all; the others see those.
    fn attend(&self, qkv: &Tensor, rows: &Rows, format: KvFormat) -> Result<Tensor, NnError> {
        let kept = KeyValues::new(qkv, self.heads.keys(), self.heads.values(), format)?;
        let sights = [
            Sight { rows: 0..rows.full, at: vec![(&kept, rows.all)] },
            Sight { rows: rows.full..rows.all, at: vec![(&kept, rows.full)] },
        ];
        attention_across(qkv, self.heads.queries(), &sights, Scores::plain(self.heads.head_dim))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nn::{Array, Checkpoint, Files, LoadSettings, MediaKind};

    use super::*;
    use crate::mllama::config::Config;

    #[test]
    fn rows_are_those_of_the_reference() {
        let files = Files::Folder(fixtures::model("mllama").unwrap());
        let config = Config::read(&files).unwrap().vision_config;
        let checkpoint = Arc::new(Checkpoint::open(&files).unwrap());
        let tower = Tower::load(&config, 48, &Weights::new(checkpoint, LoadSettings::default())).unwrap();
        let (tiles, side, rows) = (config.max_num_tiles, config.image_size, config.max_num_tiles * config.rows_per_tile());
        for case in ["single_tile", "tiles", "wide", "strip", "adjacent_images"] {
            let path = fixtures::root().join(format!("mllama/cases/{case}/expected.safetensors"));
            let arrays = fixtures::arrays(&path).unwrap();
            let pictures = arrays["processor.aspect_ratio_ids"].len();
            let mut found: Vec<f32> = Vec::new();
            for picture in 0..pictures {
                let array = |name: &'static str, shape: Vec<usize>| {
                    let (all, count) = (&arrays[&format!("processor.{name}")], shape.iter().product::<usize>());
                    (name, Array { shape, data: all[picture * count..][..count].to_vec() })
                };
                let arrays = [
                    array("pixel_values", vec![tiles, 3, side, side]),
                    array("aspect_ratio_ids", vec![1]),
                    array("aspect_ratio_mask", vec![tiles]),
                ];
                let input = MediaInput::new(MediaKind::Image, rows, arrays);
                found.extend(tower.encode(&input, &mut || Ok(())).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
            }
            let expected = &arrays["encoder.cross_attention_states"];
            assert_eq!(found.len(), expected.len(), "{case}");
            let worst = found.iter().zip(expected.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{case}: off by {worst}");
        }
    }
}
