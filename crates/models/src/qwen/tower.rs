use nn::{Activation, Bias, Files, Linear, MediaInput, NnError, Norm, Pause, Role, Rope, Runs, Tensor, Vit, VitConfig, Weights};

use super::grid::{Grid, array_names};
use crate::ModelError;
use crate::config::{CONFIG, require};
use crate::joined::Encode;

/// Pixels, frames or patches along a side of anything.
const SIZE_MAX: usize = 256;

/// A tower as data.
#[derive(Debug, Clone, PartialEq)]
pub struct TowerConfig {
    /// Its blocks. What the tapped ones give follows the row's own elements (DeepStack).
    pub vit: VitConfig,
    /// A flattened patch: [channels, time, height, width].
    pub patch: [usize; 4],
    /// Where patches learn their place from, beside the turning of queries and keys.
    pub places: Places,
    /// Patches along a side of a square that becomes one row.
    pub merge: usize,
    /// Squares along a side of a window, for blocks that look no further.
    pub window: Option<usize>,
    /// Names of the part that makes rows of squares.
    pub merger: &'static MergerNames,
}

/// Where patches learn their place from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// From nothing else.
    Turned,
    /// From a table of `side` x `side` learned places, stretched over the picture. The patch embedding has a bias then.
    Learned { side: usize },
}

/// What the parts of a merger are called.
#[derive(Debug, PartialEq, Eq)]
pub struct MergerNames {
    norm: &'static str,
    up: &'static str,
    down: &'static str,
}

/// Qwen2-VL and Qwen2.5-VL.
pub const MLP_MERGER: MergerNames = MergerNames { norm: "ln_q", up: "mlp.0", down: "mlp.2" };
/// Qwen3-VL and later.
pub const LINEAR_MERGER: MergerNames = MergerNames { norm: "norm", up: "linear_fc1", down: "linear_fc2" };

impl TowerConfig {
    /// The sizes make sense together.
    pub fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, reason);
        let sizes = self.patch[1..].iter().chain([&self.merge]).all(|size| (1..=SIZE_MAX).contains(size));
        check(sizes, &format!("vision_config: patch and merge sizes must lie between 1 and {SIZE_MAX}"))?;
        check(self.patch[0] == 3, "vision_config: there must be 3 channels")?;
        let (width, heads) = (self.vit.width, self.vit.heads);
        let whole = heads > 0 && width > 0 && width.is_multiple_of(4) && (width / 4).is_multiple_of(heads);
        check(whole, "vision_config: the width is not a multiple of 4 * num_heads")?;
        check(self.window != Some(0), "vision_config.window_size is less than a merged patch")
    }

    /// Elements of a square's states side by side.
    fn merged(&self) -> usize {
        self.vit.width * self.merge.pow(2)
    }
}

/// Patches → rows.
pub struct Tower {
    patch_embed: Linear, // [width, channels * time * patch * patch]
    table: Option<Table>,
    blocks: Vit,
    rope: Rope,
    merger: Merger,
    deepstack: Vec<Merger>, // one for each tapped block
    config: TowerConfig,
}

impl Tower {
    /// Loads `patch_embed`, `blocks`, `merger`, and where they are `pos_embed` and `deepstack_merger_list`; the rows are
    /// [rows, hidden * (1 + tapped blocks)].
    pub fn load(config: &TowerConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let w = w.role(Role::Encoder);
        let VitConfig { width, heads, .. } = config.vit;
        let taps = 0..config.vit.tapped.len();
        let (bias, table) = match config.places {
            Places::Turned => (Bias::Absent, None),
            Places::Learned { side } => (Bias::Present, Some(Table::load(side, width, &w.at("pos_embed"))?)),
        };
        let tap = |i: usize| Merger::load(config, config.merged(), hidden, &w.at("deepstack_merger_list").at(i));
        Ok(Self {
            patch_embed: w.patch_linear("patch_embed.proj", &config.patch, width, bias)?,
            table,
            blocks: Vit::load(&config.vit, &w)?,
            rope: Rope::rows_and_columns(width / heads, 10_000.0),
            merger: Merger::load(config, width, hidden, &w.at("merger"))?,
            deepstack: taps.map(tap).collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }
}

impl Encode for Tower {
    /// An item's rows, [input.rows, hidden * (1 + tapped blocks)].
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        let TowerConfig { patch, merge, window, .. } = self.config;
        let grid = Grid::of(input);
        let shape = [grid.patches(), patch.iter().product()];
        let patches = input.tensor(array_names(input.kind).pixels, &shape, self.merger.norm.device())?;
        let places = grid.places(merge);
        let mut x = self.patch_embed.forward(&patches)?;
        if let Some(table) = &self.table {
            x = table.add_to(&x, grid, &places)?;
        }
        let order = Order::new(grid.squares(merge), window);
        let segments = vec![grid.rows * grid.columns; grid.times];
        let windows: Vec<usize> = order.windows.iter().map(|squares| squares * merge * merge).collect();
        let rope = self.rope.table(&order.turns(&places, merge), x.device())?;
        let runs = Runs { windows: &windows, ..Runs::whole(&segments) };
        let mut states = self.blocks.states(order.there(x)?, runs, Some(&rope), pause)?;
        let last = states.pop().ok_or(NnError::Input("a grid of patches"))?;
        let mut rows = vec![self.merger.forward(&last)?];
        for (merger, state) in self.deepstack.iter().zip(&states) {
            pause()?;
            rows.push(merger.forward(state)?);
        }
        order.back(Tensor::cat(&rows, 1)?)
    }
}

/// The order in which squares pass the blocks: window by window, row by row within each.
struct Order {
    squares: Vec<u32>,
    /// Squares of each window.
    windows: Vec<usize>,
}

impl Order {
    /// Of a grid of squares. Windows at the border are smaller; without windows, a step in time is one.
    fn new(grid: Grid, window: Option<usize>) -> Self {
        let side = window.unwrap_or(usize::MAX);
        let mut order = Self { squares: Vec::with_capacity(grid.patches()), windows: Vec::new() };
        for time in 0..grid.times {
            for top in (0..grid.rows).step_by(side) {
                for left in (0..grid.columns).step_by(side) {
                    let rows = top..top.saturating_add(side).min(grid.rows);
                    let columns = left..left.saturating_add(side).min(grid.columns);
                    order.windows.push(rows.len() * columns.len());
                    let first = |row| (time * grid.rows + row) * grid.columns;
                    order.squares.extend(rows.flat_map(|row| columns.clone().map(move |column| (first(row) + column) as u32)));
                }
            }
        }
        order
    }

    /// Patches, square by square, in this order.
    fn there(&self, x: Tensor) -> Result<Tensor, NnError> {
        pick(x, &self.squares)
    }

    /// Rows in their own order again.
    fn back(&self, rows: Tensor) -> Result<Tensor, NnError> {
        let mut places = vec![0; self.squares.len()];
        self.squares.iter().zip(0..).for_each(|(square, at)| places[*square as usize] = at);
        pick(rows, &places)
    }

    /// Positions of the patches in this order, of which `places` are those of a step in time in their own.
    fn turns(&self, places: &[(usize, usize)], merge: usize) -> Vec<[u32; 3]> {
        let squares: Vec<_> = places.chunks_exact(merge * merge).collect();
        let patches = self.squares.iter().flat_map(|square| squares[*square as usize % squares.len()]);
        patches.map(|&(row, column)| [0, row as u32, column as u32]).collect()
    }
}

/// Runs of rows of equal length, of which `order` are the numbers.
fn pick(x: Tensor, order: &[u32]) -> Result<Tensor, NnError> {
    if order.is_sorted() {
        return Ok(x);
    }
    let (rows, width) = x.dims2()?;
    let runs = x.reshape((order.len(), ()))?.index_select(&Tensor::new(order, x.device())?, 0)?;
    Ok(runs.reshape((rows, width))?)
}

/// Squares of patches → rows.
struct Merger {
    norm: Norm,
    norm_width: usize, // of a patch, or of a square
    up: Linear,
    down: Linear, // [hidden, merged]
    merged: usize,
}

impl Merger {
    fn load(config: &TowerConfig, norm_width: usize, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (names, merged) = (config.merger, config.merged());
        Ok(Self {
            norm: w.norm(names.norm, norm_width, config.vit.norm)?,
            norm_width,
            up: w.linear(names.up, merged, merged, Bias::Present)?,
            down: w.linear(names.down, merged, hidden, Bias::Present)?,
            merged,
        })
    }

    /// [patches, width] → [squares, hidden]
    fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let x = self.norm.forward(&x.reshape(((), self.norm_width))?)?.reshape(((), self.merged))?;
        self.down.forward(&Activation::Gelu.forward(self.up.forward(&x)?)?)
    }
}

/// Learned places.
struct Table {
    places: Tensor, // [side * side, width]
    side: usize,
}

impl Table {
    fn load(side: usize, width: usize, w: &Weights) -> Result<Self, NnError> {
        Ok(Self { places: w.tensor("weight", &[side * side, width])?, side })
    }

    /// Adds to the patches of each step in time what the table says of their places, its corners being the picture's.
    fn add_to(&self, x: &Tensor, grid: Grid, places: &[(usize, usize)]) -> Result<Tensor, NnError> {
        let (device, width) = (x.device(), x.dim(1)?);
        let corner = |i: usize| -> Result<Tensor, NnError> {
            let near = places.iter().map(|&(row, column)| {
                let (row, column) = (self.near(row, grid.rows)[i / 2], self.near(column, grid.columns)[i % 2]);
                ((row.0 * self.side + column.0) as u32, row.1 * column.1)
            });
            let (numbers, weights): (Vec<u32>, Vec<f32>) = near.unzip();
            let weights = Tensor::from_vec(weights, (places.len(), 1), device)?;
            Ok(self.places.index_select(&Tensor::new(numbers, device)?, 0)?.broadcast_mul(&weights)?)
        };
        let mut sum = corner(0)?;
        for i in 1..4 {
            sum = (sum + corner(i)?)?;
        }
        let x = x.reshape((grid.times, places.len(), width))?.broadcast_add(&sum)?;
        Ok(x.reshape(((), width))?)
    }

    /// The two places of the table around that of a patch among `count`, and their shares.
    fn near(&self, patch: usize, count: usize) -> [(usize, f32); 2] {
        let last = self.side - 1;
        let at = (patch * last) as f32 / count.saturating_sub(1).max(1) as f32;
        let (below, share) = (at.floor() as usize, at.fract());
        [(below.min(last), 1.0 - share), ((below + 1).min(last), share)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_pass_window_by_window() {
        let grid = Grid { times: 2, rows: 2, columns: 3 };
        let order = Order::new(grid, Some(2));
        assert_eq!(order.squares, [0, 1, 3, 4, 2, 5, 6, 7, 9, 10, 8, 11]);
        assert_eq!(order.windows, [4, 2, 4, 2]);
        let whole = Order::new(grid, None);
        assert!(whole.squares.is_sorted() && whole.windows == [6, 6]);
        let rows = Tensor::arange(0u32, 12, &nn::Device::Cpu).unwrap().reshape((12, 1)).unwrap();
        let back = order.back(order.there(rows.clone()).unwrap()).unwrap();
        assert_eq!(back.to_vec2::<u32>().unwrap(), rows.to_vec2::<u32>().unwrap());
    }
}
