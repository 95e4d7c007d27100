//! Gemma 4 (Google DeepMind 2026).
//!
//! A picture keeps its shape: it is resized to as many patches as a budget of rows allows, a tower with norms around both parts of
//! its blocks looks at them, and squares of three patches become a row. Frames of a clip are small pictures, each with its moment
//! in words before it. In the decoder five layers of six look back no further than a window; the others have wider heads, of which
//! a quarter is turned, and may make values of what they make keys of. Members differ: some have experts beside the feed-forward
//! part, in some the rows of a picture see each other in the layers with a window. Reference: transformers, models/gemma4.

mod config;
mod model;
mod processor;
mod tower;

use nn::MediaKind::{Image, Video};

use crate::Family;

pub const FAMILY: Family = Family {
    name: "gemma4",
    title: "Gemma 4",
    architectures: &["Gemma4ForConditionalGeneration"],
    modalities: &[Image, Video],
    slices: None,
    processor: processor::load,
    model: model::load,
};
