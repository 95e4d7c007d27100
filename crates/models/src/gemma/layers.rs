use nn::{Back, Files, KvSource, LayerConfig, RopeConfig, RopeScaling};
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

    /// What config.json gives, or every so manieth looks at everything.
    pub fn read(given: Option<Vec<Self>>, period: usize, layers: usize, files: &Files) -> Result<Vec<Self>, ModelError> {
        let types = given.unwrap_or_else(|| Self::every(period, layers));
        require(types.len() == layers, files, CONFIG, "layer_types must name every layer")?;
        Ok(types)
    }

    /// Number of the rotary embedding, and how far back is looked.
    pub fn reach(self, window: usize) -> (Option<usize>, Back) {
        match self {
            Self::SlidingAttention => (Some(SLIDING), Back::Window(window)),
            Self::FullAttention => (Some(FULL), Back::All),
        }
    }
}

/// `rope_parameters`, by type of layer.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RopeParameters {
    full_attention: Option<RopeScalingConfig>,
    sliding_attention: Option<RopeScalingConfig>,
}

impl RopeParameters {
    /// The rotary embedding of a type of layer; `default` where nothing is given.
    pub fn rope(&self, files: &Files, kind: LayerType, default: RopeConfig) -> Result<RopeConfig, ModelError> {
        let given = match kind {
            LayerType::SlidingAttention => &self.sliding_attention,
            LayerType::FullAttention => &self.full_attention,
        };
        given.as_ref().map_or(Ok(default.clone()), |given| given.rope(files, default.width, default.theta))
    }
}

/// For sliding layers, then for global ones. `rope_scaling`, which is in `full` already, is about global layers alone.
pub fn ropes(
    full: RopeConfig,
    local_theta: f64,
    by_type: Option<&RopeParameters>,
    files: &Files,
) -> Result<Vec<RopeConfig>, ModelError> {
    let sliding = RopeConfig { theta: local_theta, scaling: RopeScaling::None, ..full.clone() };
    match by_type {
        Some(by_type) => {
            let rope = |kind, default| by_type.rope(files, kind, default);
            Ok(vec![rope(LayerType::SlidingAttention, sliding)?, rope(LayerType::FullAttention, full)?])
        }
        None => Ok(vec![sliding, full]),
    }
}

/// A token sees itself at least.
pub fn check_window(sliding_window: usize, files: &Files) -> Result<(), ModelError> {
    require(sliding_window > 0, files, CONFIG, "sliding_window must be positive")
}

/// A cap leaves something.
pub fn check_cap(cap: Option<f64>, key: &str, files: &Files) -> Result<(), ModelError> {
    require(cap.is_none_or(|cap| cap.is_finite() && cap > 0.0), files, CONFIG, &format!("{key} must be positive"))
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
