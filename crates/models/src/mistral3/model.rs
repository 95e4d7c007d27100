use nn::{Activation, Bias, Files, Head, Linear, MediaInput, Model, NnError, Norm, Pause, Role, Tensor, Weights, join_squares};
use serde_json::json;

use super::config::Config;
use super::tower::Pixtral;
use crate::joined::{Encode, Joined, Layout};
use crate::{ModelError, llama};

/// A picture → rows: tower, norm, squares of patches, two matrices.
struct Tower {
    pixtral: Pixtral,
    norm: Norm,
    merge: Linear, // [width, merge * merge * width]
    merge_size: usize,
    linear_1: Linear, // [hidden, width]
    activation: Activation,
    linear_2: Linear, // [hidden, hidden]
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let layout = Layout::of(w);
    let mut decoder = llama::decoder_config(files, json!({"model_type": "mistral"}))?;
    // The class ties the head where config.json is silent; releases are silent, and bring a head along.
    if !layout.top.has("lm_head.weight") {
        decoder.head = Head::Tied;
    }
    let (width, merge_size, hidden) = (config.vision_config.hidden_size, config.spatial_merge_size, decoder.hidden);
    let projector = layout.projector.role(Role::Encoder);
    let bias = Bias::when(config.multimodal_projector_bias);
    let tower = Tower {
        pixtral: Pixtral::load(&config.vision_config, &config.features(files)?, &layout.tower)?,
        norm: projector.norm("norm", width, decoder.norm)?,
        merge: merge(&projector.at("patch_merger"), width, merge_size)?,
        merge_size,
        linear_1: projector.linear("linear_1", width, hidden, bias)?,
        activation: config.projector_hidden_act,
        linear_2: projector.linear("linear_2", hidden, hidden, bias)?,
    };
    Ok(Box::new(Joined { tower, decoder: layout.decoder(&decoder)? }))
}

/// The inputs of `merging_layer` go element by element through all patches of a square; here, patch by patch.
fn merge(w: &Weights, width: usize, size: usize) -> Result<Linear, NnError> {
    let square = size.pow(2);
    let weight = w.tensor("merging_layer.weight", &[width, width * square])?;
    let weight = weight.reshape((width, width, square))?.transpose(1, 2)?.contiguous()?;
    w.linear_of(weight.reshape((width, square * width))?, None)
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let (x, columns) = self.pixtral.forward(input, pause)?;
        let x = join_squares(&self.norm.forward(&x)?, columns, self.merge_size)?;
        pause()?;
        let x = self.linear_1.forward(&self.merge.forward(&x)?)?;
        self.linear_2.forward(&self.activation.forward(x)?)
    }
}
