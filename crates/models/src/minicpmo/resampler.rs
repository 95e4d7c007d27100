//! The resampler: learned queries that attend to a view's patches, and to where they lie.

use nn::{
    Bias, HeadRange, KeyValues, KvFormat, Linear, NnError, Norm, NormConfig, Role, Scores, Sight, Tensor, Weights,
    attention_across,
};

/// Elements of a head.
const HEAD_DIM: usize = 128;
/// Of all norms.
const NORM: NormConfig = NormConfig::Layer { eps: 1e-6 };
/// Longest wave of the places, over 2π.
const PERIOD_MAX: f64 = 10_000.0;

/// Sizes of a resampler.
#[derive(Debug, Clone, Copy)]
pub struct ResamplerConfig {
    /// Width of a patch's state.
    pub inputs: usize,
    /// Width of a row.
    pub hidden: usize,
    /// Rows of a view.
    pub queries: usize,
}

/// A loaded resampler.
pub struct Resampler {
    queries: Tensor,    // [queries, hidden], ready to meet keys
    kv: Option<Linear>, // [hidden, inputs]
    kv_norm: Norm,
    k: Linear,   // [hidden, hidden]
    v: Linear,   // [hidden, hidden]
    out: Linear, // [hidden, hidden]
    norm: Norm,
    projection: Linear, // [hidden, hidden]
    heads: usize,
    format: KvFormat,
}

impl ResamplerConfig {
    /// Heads share rows evenly, and so do waves.
    pub fn fits(&self) -> bool {
        self.hidden > 0 && self.hidden.is_multiple_of(HEAD_DIM)
    }
}

impl Resampler {
    /// Loads all below `w`.
    pub fn load(config: ResamplerConfig, w: &Weights) -> Result<Self, NnError> {
        let ResamplerConfig { inputs, hidden, queries } = config;
        let (w, attention) = (w.role(Role::Encoder), w.role(Role::Encoder).at("attn"));
        let fused = attention.tensor("in_proj_weight", &[3 * hidden, hidden])?;
        let biases = attention.tensor("in_proj_bias", &[3 * hidden])?;
        let part = |i: usize| {
            attention.linear_of(fused.narrow(0, i * hidden, hidden)?, Some(biases.narrow(0, i * hidden, hidden)?.contiguous()?))
        };
        // What the queries are does not depend on the picture.
        let normed = w.norm("ln_q", hidden, NORM)?.forward(&w.tensor("query", &[queries, hidden])?)?;
        Ok(Self {
            queries: part(0)?.forward(&normed)?,
            kv: if inputs == hidden { None } else { Some(w.linear("kv_proj", inputs, hidden, Bias::Absent)?) },
            kv_norm: w.norm("ln_kv", hidden, NORM)?,
            k: part(1)?,
            v: part(2)?,
            out: attention.linear("out_proj", hidden, hidden, Bias::Present)?,
            norm: w.norm("ln_post", hidden, NORM)?,
            // Rows are multiplied by it from the left.
            projection: w.linear_of(w.tensor("proj", &[hidden, hidden])?.t()?.contiguous()?, None)?,
            heads: hidden / HEAD_DIM,
            format: w.attention_format(),
        })
    }

    /// A view's patches [rows * columns, inputs] → [queries, hidden].
    pub fn forward(&self, x: &Tensor, [rows, columns]: [usize; 2]) -> Result<Tensor, NnError> {
        let x = self.kv_norm.forward(&self.kv.as_ref().map_or_else(|| Ok(x.clone()), |kv| kv.forward(x))?)?;
        let places = Tensor::from_vec(places(rows, columns, self.heads * HEAD_DIM), x.shape(), x.device())?;
        let keys_values = Tensor::cat(&[self.k.forward(&(&x + places)?)?, self.v.forward(&x)?], 1)?;
        let range = |first| HeadRange { first, count: self.heads, width: HEAD_DIM };
        let kept = KeyValues::new(&keys_values, range(0), range(self.heads), self.format)?;
        let sight = Sight { rows: 0..self.queries.dim(0)?, at: vec![(&kept, kept.rows())] };
        let mixed = attention_across(&self.queries, range(0), &[sight], Scores::plain(HEAD_DIM))?;
        self.projection.forward(&self.norm.forward(&self.out.forward(&mixed)?)?)
    }
}

/// Waves over columns, then waves over rows, [rows * columns, width].
fn places(rows: usize, columns: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let waves = waves(rows.max(columns), half);
    let mut places = Vec::with_capacity(rows * columns * width);
    for row in 0..rows {
        for column in 0..columns {
            places.extend_from_slice(&waves[column * half..][..half]);
            places.extend_from_slice(&waves[row * half..][..half]);
        }
    }
    places
}

/// Sines, then cosines, of ever longer waves (Vaswani et al. 2017), [count, width].
fn waves(count: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| PERIOD_MAX.powf(-(i as f64) / half as f64) as f32).collect();
    let mut waves = Vec::with_capacity(count * width);
    for place in 0..count {
        waves.extend(frequencies.iter().map(|frequency| (place as f32 * frequency).sin()));
        waves.extend(frequencies.iter().map(|frequency| (place as f32 * frequency).cos()));
    }
    waves
}
