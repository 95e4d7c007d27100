//! What the families of the Qwen line share. Their own folders say which of it they are made of.
//!
//! A picture keeps its shape: it is resized to multiples of a merged patch, cut into patches, and squares of patches become one
//! row each. Frames of a clip make steps in time. The tower turns queries and keys by row and column, the decoder by time,
//! height and width (M-RoPE; Wang et al. 2024, "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any
//! Resolution").

mod config;
mod experts;
mod grid;
mod hybrid;
mod model;
mod patches;
mod positions;
mod processor;
mod text;
mod tower;

pub use config::{Config, MediaTokens, TOKENS};
pub use experts::{Experts, Normalising};
pub use model::load;
pub use patches::PatchDefaults;
pub use processor::{Clips, VisionProcessor};
pub use text::{Axes, Feed, Line, Text};
pub use tower::{LINEAR_MERGER, MLP_MERGER, Places, TowerConfig};
