use nn::{
    Activation, Bias, Linear, MediaInput, NnError, Pause, Runs, Seen, Tensor, Vit, VitConfig, Weights, average_pool_by, patchify,
};

use super::config::Names;
use crate::features::Features;
use crate::siglip::{SiglipConfig, places};
use crate::tiles;

/// Tiles → rows: SigLIP without the margins of a picture, squares averaged, separators, two matrices.
pub struct Eyes {
    patch_embed: Linear, // [width, channels * patch * patch]
    position: Tensor,    // [patches, width]
    blocks: Vit,
    line_end: Tensor, // [1, 1, width]
    between: Tensor,  // [1, width]
    up: Linear,       // [hidden, width]
    down: Linear,     // [hidden, hidden]
    config: SiglipConfig,
}

/// Height and width of the enlarged picture with its margins, in pixels: [1, 2].
pub const SIZES: &str = "image_sizes";
/// Rows and columns of its patches that are not margins: [2].
pub const USEFUL: &str = "useful_patches";
/// [1 + tiles, 3, side, side]
pub const PIXELS: &str = "image_pixel_values";

/// The part of a tile that is no margin, in patches from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Useful {
    rows: usize,
    columns: usize,
}

impl Eyes {
    /// `w` is where `img_processor` and the projection are.
    pub fn load(
        (config, features): (SiglipConfig, Features),
        names: &Names,
        hidden: usize,
        w: &Weights,
    ) -> Result<Self, NnError> {
        let tower = w.at("img_processor");
        let (embeddings, width) = (tower.at("embeddings"), config.hidden_size);
        let patch = [config.num_channels, config.patch_size, config.patch_size];
        let vit = VitConfig { layers: features.blocks, ..config.vit() };
        ["post_layernorm.", "head."].iter().for_each(|unused| tower.skip(unused));
        (features.blocks..config.num_hidden_layers).for_each(|block| tower.skip(&format!("encoder.layers.{block}.")));
        let [up, down] = names.image_projection;
        Ok(Self {
            patch_embed: embeddings.patch_linear("patch_embedding", &patch, width, Bias::Present)?,
            position: embeddings.tensor("position_embedding.weight", &[config.side().pow(2), width])?,
            blocks: Vit::load(&vit, &tower)?,
            line_end: w.tensor(names.line_end, &[1, 1, 1, width])?.reshape((1, 1, width))?,
            between: w.tensor(names.between, &[1, 1, width])?.reshape((1, width))?,
            up: w.linear(up, width, hidden, Bias::Present)?,
            down: w.linear(down, hidden, hidden, Bias::Present)?,
            config,
        })
    }

    /// [input.rows, hidden]
    pub fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let pair = |name: &'static str| match input.arrays.get(name).map(|array| array.data.as_slice()) {
            Some(&[first, second]) => Ok([first as usize, second as usize]),
            _ => Err(NnError::Input(name)),
        };
        let (side, tile) = (self.config.side(), self.config.image_size);
        let ([height, width], [down, across]) = (pair(SIZES)?, pair(USEFUL)?);
        let (rows, columns) = (height / tile, width / tile);
        let pixels = input.tensor(PIXELS, &[1 + rows * columns, 3, tile, tile], self.position.device())?;
        let inside = |patches: usize, number: usize| patches.saturating_sub(number * side).clamp(1, side);
        let useful =
            (0..rows * columns).map(|i| Useful { rows: inside(down, i / columns), columns: inside(across, i % columns) });
        let useful: Vec<Useful> = std::iter::once(Useful { rows: side, columns: side }).chain(useful).collect();
        let mut views = self.look(&pixels, &useful, pause)?.into_iter();
        let whole = tiles::with_ends(&views.next().ok_or(NnError::Input(PIXELS))?, &self.line_end)?;
        let views: Vec<Tensor> = views.collect();
        let lines = views.chunks(columns.max(1)).map(|line| Tensor::cat(line, 1)).collect::<Result<Vec<_>, _>>()?;
        let parts = tiles::with_ends(&Tensor::cat(&lines, 0)?, &self.line_end)?;
        pause()?;
        let x = self.up.forward(&Tensor::cat(&[&parts, &self.between, &whole], 0)?)?;
        self.down.forward(&Activation::Gelu.forward(x)?)
    }

    /// Tiles → the rows of each, [rows / 2, columns / 2, width]. Of patches that are margins, those are looked at that share a row
    /// with one that is not; they see the others and are not seen.
    fn look(&self, pixels: &Tensor, useful: &[Useful], pause: &mut Pause) -> Result<Vec<Tensor>, NnError> {
        let (side, device) = (self.config.side(), pixels.device());
        let (mut patches, mut positions) = (Vec::new(), Vec::new());
        let (mut lengths, mut onlookers) = (Vec::new(), Vec::new());
        for (tile, part) in useful.iter().enumerate() {
            let order = part.order();
            patches.extend(order.iter().map(|[row, column]| ((tile * side + row) * side + column) as u32));
            let seen = part.rows * part.columns;
            positions.extend(places(part.rows, part.columns, side));
            // Margins are all in the first place.
            positions.resize(patches.len(), 0);
            lengths.push(order.len());
            onlookers.push(order.len() - seen);
        }
        let count = patches.len();
        let x = patchify(pixels, self.config.patch_size)?.index_select(&Tensor::from_vec(patches, count, device)?, 0)?;
        pause()?;
        let places = self.position.index_select(&Tensor::from_vec(positions, count, device)?, 0)?;
        let x = (self.patch_embed.forward(&x)? + places)?;
        let runs = Runs { seen: Seen::Onlookers(&onlookers), ..Runs::whole(&lengths) };
        let x = self.blocks.states(x, runs, None, pause)?.pop().ok_or(NnError::Input(PIXELS))?;
        let mut first = 0;
        let pooled = |(part, length): (&Useful, &usize)| {
            first += length;
            part.pooled(&x.narrow(0, first - length, *length)?)
        };
        useful.iter().zip(&lengths).map(pooled).collect()
    }
}

impl Useful {
    /// With the margins that complete squares of 2 x 2 patches.
    fn completed(self) -> Self {
        Self { rows: self.rows.next_multiple_of(2), columns: self.columns.next_multiple_of(2) }
    }

    /// Rows and columns of the patches that are looked at: first those that are no margins.
    fn order(self) -> Vec<[usize; 2]> {
        let Self { rows, columns } = self.completed();
        let all = || (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]));
        let useful = |[row, column]: &[usize; 2]| *row < self.rows && *column < self.columns;
        all().filter(useful).chain(all().filter(|patch| !useful(patch))).collect()
    }

    /// Patches in this order, [patches, width] → averages of 2 x 2, [rows / 2, columns / 2, width].
    fn pooled(self, x: &Tensor) -> Result<Tensor, NnError> {
        let Self { rows, columns } = self.completed();
        let mut places = vec![0u32; rows * columns];
        self.order().iter().zip(0..).for_each(|([row, column], place)| places[row * columns + column] = place);
        let x = x.index_select(&Tensor::from_vec(places, rows * columns, x.device())?, 0)?;
        let x = average_pool_by(&x.unsqueeze(0)?, columns, 2)?;
        Ok(x.reshape((rows / 2, columns / 2, ()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::Device;

    #[test]
    fn margins_come_last_and_are_averaged_in_their_place() {
        let useful = Useful { rows: 1, columns: 3 };
        let order = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3]];
        assert_eq!(useful.order(), order);
        let useful = Useful { rows: 3, columns: 2 };
        assert_eq!(useful.order()[4..], [[2, 0], [2, 1], [3, 0], [3, 1]]);
        let x: Vec<f32> = useful.order().iter().map(|[row, column]| (row * 10 + column) as f32).collect();
        let pooled = useful.pooled(&Tensor::from_vec(x, (8, 1), &Device::Cpu).unwrap()).unwrap();
        assert_eq!(pooled.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [5.5, 25.5]);
    }
}
