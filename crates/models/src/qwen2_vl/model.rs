use nn::{
    Activation, Batch, Bias, Cache, CacheSpec, Decoder, Files, Linear, MediaInput, MediaKind, Model, NnError, Norm, NormConfig,
    Pause, Role, Rope, Tensor, Vit, Weights,
};

use super::config::{Config, VisionConfig};
use super::processor::grid;
use crate::ModelError;

struct Qwen2Vl {
    tower: Tower,
    decoder: Decoder,
}

/// Patches → rows: tower, then a merger that makes 2 x 2 patches one row.
struct Tower {
    patch_embed: Linear, // [embed_dim, channels * time * patch * patch]
    blocks: Vit,
    rope: Rope,
    merge_norm: Norm, // ln_q
    merge_up: Linear,
    merge_down: Linear, // [hidden, embed_dim * merge²]
    merge: usize,
    patch_elements: usize,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = config.decoder(files)?;
    Ok(Box::new(Qwen2Vl {
        tower: Tower::load(&config.vision_config, decoder.hidden, &w.at_any(&["visual", "model.visual"]))?,
        decoder: Decoder::load(&decoder, &w.at_any(&["model.language_model", "model"]), w)?,
    }))
}

impl Model for Qwen2Vl {
    fn cache_spec(&self) -> &CacheSpec {
        self.decoder.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        self.tower.forward(input, pause)
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        self.decoder.forward(self.decoder.embed(&batch.tokens, &batch.media)?, batch, cache)
    }
}

impl Tower {
    fn load(config: &VisionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let merger = w.at("merger");
        let merged = config.embed_dim * config.spatial_merge_size.pow(2);
        Ok(Self {
            patch_embed: w.patch_linear("patch_embed.proj", &config.patch(), config.embed_dim, Bias::Absent)?,
            blocks: Vit::load(&config.vit(), &w)?,
            rope: Rope::rows_and_columns(config.embed_dim / config.num_heads, 10_000.0),
            merge_norm: merger.norm("ln_q", config.embed_dim, NormConfig::Layer { eps: 1e-6 })?,
            merge_up: merger.linear("mlp.0", merged, merged, Bias::Present)?,
            merge_down: merger.linear("mlp.2", merged, hidden, Bias::Present)?,
            merge: config.spatial_merge_size,
            patch_elements: config.patch().iter().product(),
        })
    }

    fn forward(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let name = if input.kind == MediaKind::Video { "pixel_values_videos" } else { "pixel_values" };
        let [times, rows, columns] = grid(input);
        let patches = input.tensor(name, &[times * rows * columns, self.patch_elements], self.merge_norm.device())?;
        let x = self.patch_embed.forward(&patches)?;
        let rope = self.rope.table(&self.places(times, rows, columns), x.device())?;
        let x = self.blocks.forward(x, &vec![rows * columns; times], Some(&rope), pause)?;
        let x = self.merge_norm.forward(&x)?.reshape((input.rows, ()))?;
        self.merge_down.forward(&Activation::Gelu.forward(self.merge_up.forward(&x)?)?)
    }

    /// Row and column of every patch, in the order of the merged squares.
    fn places(&self, times: usize, rows: usize, columns: usize) -> Vec<[u32; 3]> {
        let merge = self.merge;
        let mut places = Vec::with_capacity(times * rows * columns);
        for _ in 0..times {
            for square in 0..rows * columns / (merge * merge) {
                let (top, left) = (square / (columns / merge) * merge, square % (columns / merge) * merge);
                places.extend((0..merge * merge).map(|cell| [0, (top + cell / merge) as u32, (left + cell % merge) as u32]));
            }
        }
        places
    }
}
