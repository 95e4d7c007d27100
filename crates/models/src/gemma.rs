//! What language models of the Gemma line have in common: layers that look at everything and layers that look at a window, with a
//! rotary embedding for each type, and layers at the end that share keys and values.

use nn::{Files, KvSource, LayerConfig, RopeConfig, RopeScaling};
use serde::Deserialize;

use crate::ModelError;
use crate::config::{CONFIG, RopeScalingConfig, require};

/// Number of the rotary embedding of each type of layer.
pub const SLIDING: usize = 0;
pub const FULL: usize = 1;

/// A member of `layer_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    SlidingAttention,
    FullAttention,
}

impl LayerType {
    /// Types of layers of which every so manieth looks at everything.
    pub fn every(period: usize, layers: usize) -> Vec<Self> {
        let at = |i: usize| if (i + 1).is_multiple_of(period.max(1)) { Self::FullAttention } else { Self::SlidingAttention };
        (0..layers).map(at).collect()
    }

    /// Number of the rotary embedding, and the window.
    pub fn reach(self, window: usize) -> (usize, Option<usize>) {
        match self {
            Self::SlidingAttention => (SLIDING, Some(window)),
            Self::FullAttention => (FULL, None),
        }
    }
}

/// `rope_parameters`, by type of layer.
#[derive(Debug, Clone, Deserialize)]
pub struct RopeParameters {
    full_attention: Option<RopeScalingConfig>,
    sliding_attention: Option<RopeScalingConfig>,
}

/// For sliding layers, then for global ones. `rope_scaling`, which is in `full` already, is about global layers alone.
pub fn ropes(
    full: RopeConfig,
    local_theta: f64,
    by_type: Option<&RopeParameters>,
    files: &Files,
) -> Result<Vec<RopeConfig>, ModelError> {
    let sliding = RopeConfig { theta: local_theta, scaling: RopeScaling::None, ..full.clone() };
    let changed = |rope: RopeConfig, change: &Option<RopeScalingConfig>| match change {
        Some(change) => Ok::<_, ModelError>(RopeConfig {
            theta: change.rope_theta.unwrap_or(rope.theta),
            scaling: change.scaling(files)?,
            ..rope
        }),
        None => Ok(rope),
    };
    match by_type {
        Some(by_type) => Ok(vec![changed(sliding, &by_type.sliding_attention)?, changed(full, &by_type.full_attention)?]),
        None => Ok(vec![sliding, full]),
    }
}

/// Lets the last `shared` layers look at the keys and values of the last layer of their type that is not one of them.
pub fn share_keys_and_values(
    layers: &mut [LayerConfig],
    types: &[LayerType],
    shared: usize,
    files: &Files,
) -> Result<(), ModelError> {
    let refused = |reason: &str| require(false, files, CONFIG, &format!("text_config.num_kv_shared_layers {reason}"));
    let Some(first) = layers.len().checked_sub(shared).filter(|first| *first > 0 || shared == 0) else {
        return refused("must be less than num_hidden_layers");
    };
    let (own, sharing) = types.split_at(first.min(types.len()));
    for (layer, kind) in layers[first..].iter_mut().zip(sharing) {
        let Some(from) = own.iter().rposition(|own| own == kind) else {
            return refused("leaves no layer with keys and values of its own for one of the layer_types");
        };
        if let Some(attention) = layer.mixer.attention_mut() {
            attention.kv = KvSource::Layer(from);
        }
    }
    Ok(())
}
