use nn::{Activation, Bias, Files, Linear, MediaInput, Model, NnError, Pause, Role, Tensor, Weights};

use super::anyres::{Grid, Pinpoints};
use super::config::{Config, Select, decoder};
use crate::clip::Clip;
use crate::joined::{Encode, Joined, Layout};
use crate::{ModelError, tiles};

/// Views → rows: tower, two matrices.
struct Tower {
    clip: Clip,
    select: Select,
    linear_1: Linear, // [hidden, width * parts]
    activation: Activation,
    linear_2: Linear, // [hidden, hidden]
    packing: Packing,
}

/// What stands for a picture.
enum Packing {
    /// The rows of its one view.
    View,
    /// Those of the whole, then those of the tiles' patches.
    Grid {
        pinpoints: Pinpoints,
        newline: Tensor, // [1, 1, hidden]
    },
}

pub fn llava(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    load(files, w, |_, _| Ok(Packing::View))
}

pub fn llava_next(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    load(files, w, |config, hidden| {
        const NEWLINE: &str = "image_newline";
        let place = if w.has(NEWLINE) { w.clone() } else { w.at("model") };
        let newline = place.tensor(NEWLINE, &[hidden])?.reshape((1, 1, hidden)).map_err(NnError::from)?;
        Ok(Packing::Grid { pinpoints: config.pinpoints(files)?, newline })
    })
}

fn load(
    files: &Files,
    w: &Weights,
    packing: impl Fn(&Config, usize) -> Result<Packing, ModelError>,
) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::read(files)?;
    let decoder = decoder(files)?;
    let (layout, hidden, features) = (Layout::of(w), decoder.hidden, config.features(files)?);
    let projector = layout.projector.role(Role::Encoder);
    let bias = Bias::when(config.multimodal_projector_bias);
    let tower = Tower {
        clip: Clip::load(&config.vision_config, &features, &layout.tower)?,
        select: config.vision_feature_select_strategy,
        linear_1: projector.linear("linear_1", config.vision_config.hidden_size * features.parts(), hidden, bias)?,
        activation: config.projector_hidden_act,
        linear_2: projector.linear("linear_2", hidden, hidden, bias)?,
        packing: packing(&config, hidden)?,
    };
    Ok(Box::new(Joined { tower, decoder: layout.decoder(&decoder)? }))
}

impl Encode for Tower {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        match &self.packing {
            Packing::View => self.project(&self.look(input, 1, pause)?.flatten_to(1)?),
            Packing::Grid { pinpoints, newline } => {
                let grid = grid(pinpoints, input)?;
                let x = self.look(input, 1 + grid.rows * grid.columns, pause)?;
                let whole = self.project(&x.get(0)?)?;
                pause()?;
                let patches = self.project(&kept(&x, &grid)?)?;
                let lines = patches.reshape((grid.down.count, grid.across.count, patches.dim(1)?))?;
                Ok(Tensor::cat(&[whole, tiles::with_ends(&lines, newline)?], 0)?)
            }
        }
    }
}

impl Tower {
    /// [views, rows, width * parts]
    fn look(&self, input: &MediaInput, views: usize, pause: &mut Pause) -> Result<Tensor, NnError> {
        let x = self.clip.forward(input, views, pause)?;
        pause()?;
        match self.select {
            Select::Default => Ok(x.narrow(1, 1, x.dim(1)? - 1)?),
            Select::Full => Ok(x),
        }
    }

    /// [rows, width * parts] → [rows, hidden]
    fn project(&self, x: &Tensor) -> Result<Tensor, NnError> {
        self.linear_2.forward(&self.activation.forward(self.linear_1.forward(x)?)?)
    }
}

/// How the picture was cut.
fn grid(pinpoints: &Pinpoints, input: &MediaInput) -> Result<Grid, NnError> {
    const SIZES: &str = "image_sizes";
    match input.arrays.get(SIZES).map(|sizes| sizes.data.as_slice()) {
        Some(&[height, width]) if height >= 1.0 && width >= 1.0 => Ok(pinpoints.grid(height as usize, width as usize)),
        _ => Err(NnError::Input(SIZES)),
    }
}

/// Views [1 + tiles, side * side, width], of which the first is the whole → the tiles' patches that are no margin, line by line.
fn kept(x: &Tensor, grid: &Grid) -> Result<Tensor, NnError> {
    let Grid { rows, columns, down, across, .. } = *grid;
    let lines = tiles::joined(&x.narrow(0, 1, rows * columns)?, rows, columns)?;
    Ok(lines.narrow(0, down.first, down.count)?.narrow(1, across.first, across.count)?.contiguous()?.flatten_to(1)?)
}
