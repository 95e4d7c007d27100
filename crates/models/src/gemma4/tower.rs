use nn::{
    Activation, Array, Bias, HeadRange, KvFormat, Linear, MediaInput, MediaKind, NnError, Norm, NormConfig, Pairing, Pause, Qkv,
    Role, Rope, RopeTable, Scores, Segments, Tensor, Weights, add_to, attention_within, average_pool_by, in_parts,
};

use super::config::VisionConfig;
use crate::projection::Projection;

/// Pictures, or frames of a clip, one at a time → rows as wide as the decoder: patches with places, blocks, average pooling, and a
/// projection.
pub struct Tower {
    patch_embed: Linear, // [width, patch * patch * 3]
    places: [Tensor; 2], // by column, by row: [places, width]
    blocks: Vec<Block>,
    rope: Rope,
    standard: Option<[Tensor; 2]>, // what is subtracted, and then multiplied by: [width]
    norm: Norm,
    projection: Linear, // [hidden, width]
    format: KvFormat,
    config: VisionConfig,
}

struct Block {
    before_mixer: Norm,
    heads: Qkv,
    qkv: Projection,
    q_norm: Norm,
    k_norm: Norm,
    v_norm: Norm,
    out: Projection,
    after_mixer: Norm,
    before_mlp: Norm,
    gate_up: Projection, // [2 * inner, width]
    inner: usize,
    activation: Activation,
    down: Projection,
    after_mlp: Norm,
}

/// Where the patches of a picture are: so many columns, row by row.
struct View {
    columns: usize,
    places: Vec<[u32; 3]>, // column and row are the second and the third
}

/// What the reference's processor calls the arrays of an item.
pub struct ArrayNames {
    /// [pictures, patches at most, patch * patch * 3]
    pub pixels: &'static str,
    /// Column and row of each patch, -1 where there is none: [pictures, patches at most, 2]
    pub places: &'static str,
}

pub fn array_names(kind: MediaKind) -> ArrayNames {
    match kind {
        MediaKind::Video => ArrayNames { pixels: "pixel_values_videos", places: "video_position_ids" },
        _ => ArrayNames { pixels: "pixel_values", places: "image_position_ids" },
    }
}

impl Tower {
    /// `w` is where `vision_tower` and `embed_vision` are.
    pub fn load(config: &VisionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let (tower, width) = (w.at("vision_tower"), config.hidden_size);
        let table = tower.tensor("patch_embedder.position_embedding_table", &[2, config.position_embedding_size, width])?;
        let layers = tower.at("encoder.layers");
        let standard = |name| tower.tensor(name, &[width]);
        Ok(Self {
            patch_embed: tower.patch_linear("patch_embedder.input_proj", &[config.patch_elements()], width, Bias::Absent)?,
            places: [table.get(0)?, table.get(1)?],
            blocks: (0..config.num_hidden_layers).map(|i| Block::load(config, &layers.at(i))).collect::<Result<_, _>>()?,
            rope: Rope::rows_and_columns(config.head_dim, config.rope_parameters.rope_theta).paired(Pairing::Quarters),
            standard: if config.standardize { Some([standard("std_bias")?, standard("std_scale")?]) } else { None },
            norm: w.norm(
                "embed_vision.embedding_pre_projection_norm",
                width,
                NormConfig::RmsUnweighted { eps: config.rms_norm_eps },
            )?,
            projection: w.linear("embed_vision.embedding_projection", width, hidden, Bias::Absent)?,
            format: w.attention_format(),
            config: config.clone(),
        })
    }

    /// [input.rows, hidden]
    pub fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let names = array_names(input.kind);
        let array = |name| input.arrays.get(name).ok_or(NnError::Input(name));
        let (pixels, places) = (array(names.pixels)?, array(names.places)?);
        let [views, patches, elements] = pixels.shape[..] else { return Err(NnError::Input(names.pixels)) };
        if elements != self.config.patch_elements() || places.shape != [views, patches, 2] {
            return Err(NnError::Input(names.places));
        }
        let pixels = pixels.data.chunks_exact(patches * elements);
        let rows = pixels.zip(View::all(places)).map(|(pixels, view)| self.view(pixels, &view, pause));
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    fn view(&self, pixels: &[f32], view: &View, pause: &mut Pause) -> Result<Tensor, NnError> {
        let (device, patches, factor) = (self.norm.device(), view.places.len(), self.config.pooling_kernel_size);
        pause()?;
        let pixels = &pixels[..patches * self.config.patch_elements()];
        let x = Tensor::from_slice(pixels, (patches, self.config.patch_elements()), device)?;
        let mut x = self.patch_embed.forward(&x.affine(2.0, -1.0)?)?;
        for (table, axis) in self.places.iter().zip([1, 2]) {
            let at: Vec<u32> = view.places.iter().map(|place| place[axis]).collect();
            x = add_to(x, &table.index_select(&Tensor::new(at, device)?, 0)?)?;
        }
        let rope = self.rope.table(&view.places, device)?;
        for block in &self.blocks {
            x = block.forward(x, &rope, self.format, pause)?;
        }
        let x = average_pool_by(&x.unsqueeze(0)?, view.columns, factor)?.squeeze(0)?;
        let mut x = (x * (self.config.hidden_size as f64).sqrt())?;
        if let Some([subtracted, factor]) = &self.standard {
            x = x.broadcast_sub(subtracted)?.broadcast_mul(factor)?;
        }
        self.projection.forward(&self.norm.forward(&x)?)
    }
}

impl View {
    fn all(places: &Array) -> impl Iterator<Item = Self> {
        places.data.chunks_exact(places.shape[1] * 2).map(|places| {
            let places = places.chunks_exact(2).take_while(|place| place[0] >= 0.0);
            let places: Vec<[u32; 3]> = places.map(|place| [0, place[0] as u32, place[1] as u32]).collect();
            Self { columns: places.iter().map(|place| place[1] as usize + 1).max().unwrap_or(0), places }
        })
    }
}

impl Block {
    fn load(config: &VisionConfig, w: &Weights) -> Result<Self, NnError> {
        let VisionConfig { hidden_size: width, intermediate_size: inner, head_dim, .. } = *config;
        let (heads, stored) = (config.heads(), config.stored());
        let rms = NormConfig::Rms { eps: config.rms_norm_eps };
        let (attention, mlp) = (w.at("self_attn"), w.at("mlp"));
        let kv = heads.kv_heads * head_dim;
        Ok(Self {
            before_mixer: w.norm("input_layernorm", width, rms)?,
            heads,
            qkv: Projection::load(&[("q_proj", heads.width()), ("k_proj", kv), ("v_proj", kv)], width, stored, &attention)?,
            q_norm: attention.norm("q_norm", head_dim, rms)?,
            k_norm: attention.norm("k_norm", head_dim, rms)?,
            v_norm: attention.norm("v_norm", head_dim, NormConfig::RmsUnweighted { eps: config.rms_norm_eps })?,
            out: Projection::load(&[("o_proj", width)], heads.width(), stored, &attention)?,
            after_mixer: w.norm("post_attention_layernorm", width, rms)?,
            before_mlp: w.norm("pre_feedforward_layernorm", width, rms)?,
            gate_up: Projection::load(&[("gate_proj", inner), ("up_proj", inner)], width, stored, &mlp)?,
            down: Projection::load(&[("down_proj", width)], inner, stored, &mlp)?,
            after_mlp: w.norm("post_feedforward_layernorm", width, rms)?,
            inner,
            activation: config.hidden_activation,
        })
    }

    /// x [patches, width] of one picture → the same shape.
    fn forward(&self, x: Tensor, rope: &RopeTable, format: KvFormat, pause: &mut Pause) -> Result<Tensor, NnError> {
        let heads = self.heads;
        pause()?;
        let mut mixed = self.qkv.forward(&self.before_mixer.forward(&x)?)?;
        let turn = |x, some: HeadRange, norm| rope.turn(x, some, Some(norm));
        mixed = turn(mixed, heads.queries(), &self.q_norm)?;
        mixed = turn(mixed, heads.keys(), &self.k_norm)?;
        mixed = self.v_norm.heads(mixed, heads.values())?;
        pause()?;
        let scores = Scores { scale: 1.0, ..Scores::plain(heads.head_dim) };
        let mixed = attention_within(&mixed, heads, Segments::whole(&[x.dim(0)?]), scores, format)?;
        let x = add_to(x, &self.after_mixer.forward(&self.out.forward(&mixed)?)?)?;
        in_parts(x, 2 * self.inner, |x, _| {
            pause()?;
            let both = self.gate_up.forward(&self.before_mlp.forward(&x)?)?;
            let made = self.down.forward(&self.activation.gate(both)?)?;
            add_to(x, &self.after_mlp.forward(&made)?)
        })
    }
}

impl VisionConfig {
    fn patch_elements(&self) -> usize {
        self.patch_size * self.patch_size * 3
    }

    fn heads(&self) -> Qkv {
        Qkv { heads: self.num_attention_heads, kv_heads: self.num_key_value_heads, head_dim: self.head_dim }
    }
}
