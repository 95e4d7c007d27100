//! Gemma 4 (Google DeepMind 2026).
//!
//! A picture keeps its shape: it is resized to as many patches as a budget of rows allows, a tower with norms around both parts of
//! its blocks looks at them, and squares of three patches become a row. Frames of a clip are small pictures, each with its moment
//! in words before it. In the decoder five layers of six look back no further than a window; the others have wider heads, of which
//! a quarter is turned, and may make values of what they make keys of.
//!
//! Members differ. In the large ones the rows of a picture see each other in the layers with a window, and one has experts beside the
//! feed-forward part. In the small ones layers are told about each token once more, the last ones look at keys and values of earlier
//! ones, the towers clip what their linear layers are given and make, and a conformer hears sounds: 25 rows for a second, half a
//! minute at a time. Reference: transformers, models/gemma4.

mod config;
mod ears;
mod model;
mod processor;
mod tower;

use nn::MediaKind::{Audio, Image, Video};

use crate::{Boxes, Family};

pub const FAMILY: Family = Family {
    name: "gemma4",
    title: "Gemma 4",
    architectures: &["Gemma4ForConditionalGeneration"],
    modalities: &[Image, Audio, Video],
    slices: None,
    boxes: Some(Boxes::ThousandthsByLine),
    processor: processor::load,
    model: model::load,
};
