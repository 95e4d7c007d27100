//! How LLaVA-NeXT cuts a picture of any shape into tiles.

use nn::Files;

use crate::ModelError;
use crate::config::{CONFIG, require};

/// `image_grid_pinpoints`: the sizes, [height, width] in pixels, that a picture may be enlarged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinpoints {
    sizes: Vec<[usize; 2]>,
    tile: usize,
    patches: usize,
}

/// What becomes of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Of the enlarged picture with its margins, in pixels.
    pub height: usize,
    pub width: usize,
    /// Rows and columns of tiles.
    pub rows: usize,
    pub columns: usize,
    /// Rows and columns of patches that are no margin.
    pub down: Kept,
    pub across: Kept,
}

/// Patches that are kept along a side: `count` from number `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub first: usize,
    pub count: usize,
}

impl Pinpoints {
    /// Sizes for tiles of `tile` pixels and `patches` patches along a side.
    pub fn new(sizes: Vec<[usize; 2]>, tile: usize, patches: usize, files: &Files) -> Result<Self, ModelError> {
        let whole = |side: &usize| *side > 0 && side.is_multiple_of(tile);
        let usable = !sizes.is_empty() && sizes.iter().flatten().all(whole);
        require(usable, files, CONFIG, "image_grid_pinpoints must be multiples of vision_config.image_size")?;
        Ok(Self { sizes, tile, patches })
    }

    /// The grid of a picture of this height and width in pixels, both positive: of the sizes, the one that shows most of its
    /// pixels, and of these the smallest.
    pub fn grid(&self, height: usize, width: usize) -> Grid {
        let shown = |[h, w]: [usize; 2]| {
            let scale = (w as f64 / width as f64).min(h as f64 / height as f64);
            let scaled = |side: usize| (side as f64 * scale) as usize;
            (scaled(width) * scaled(height)).min(width * height)
        };
        let mut best = self.sizes[0];
        for &size in &self.sizes[1..] {
            let wasted = |size: [usize; 2]| size[0] * size[1] - shown(size);
            if shown(size) > shown(best) || shown(size) == shown(best) && wasted(size) < wasted(best) {
                best = size;
            }
        }
        let (rows, columns) = (best[0] / self.tile, best[1] / self.tile);
        let (tall, wide) = (rows * self.patches, columns * self.patches);
        let whole = |count| Kept { first: 0, count };
        let (down, across) = if width as f64 / height as f64 > wide as f64 / tall as f64 {
            (Kept::middle(tall, height as f64 * (wide as f64 / width as f64)), whole(wide))
        } else {
            (whole(tall), Kept::middle(wide, width as f64 * (tall as f64 / height as f64)))
        };
        Grid { height: best[0], width: best[1], rows, columns, down, across }
    }
}

impl Kept {
    /// About `length` of `all`.
    fn middle(all: usize, length: f64) -> Self {
        // Rounded first, for a whole number that arithmetic missed by a hair.
        let length = ((length * 1e7).round_ties_even() / 1e7) as usize;
        let first = all.saturating_sub(length) / 2;
        Self { first, count: all - 2 * first }
    }
}

impl Grid {
    /// Rows that it becomes behind those of the whole picture.
    pub fn rows_made(&self) -> usize {
        self.down.count * (self.across.count + 1)
    }

    /// Height and width, in pixels, of a picture that fills the grid as far as its shape allows.
    pub fn fitted(&self, height: usize, width: usize) -> (usize, usize) {
        let (down, across) = (self.height as f64 / height as f64, self.width as f64 / width as f64);
        match across < down {
            true => (((height as f64 * across).ceil() as usize).min(self.height), self.width),
            false => (self.height, ((width as f64 * down).ceil() as usize).min(self.width)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_take_the_smallest_grid_that_shows_them() {
        let files = Files::Embedded { name: "test", files: &[] };
        let sizes = vec![[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];
        let pinpoints = Pinpoints::new(sizes, 336, 24, &files).unwrap();
        let kept = |first, count| Kept { first, count };
        let cases = [
            ((300, 300), (336, 672), kept(0, 24), kept(12, 24)),
            ((336, 640), (336, 672), kept(0, 24), kept(1, 46)),
            ((100, 300), (336, 672), kept(4, 16), kept(0, 48)),
            ((700, 500), (672, 672), kept(0, 48), kept(7, 34)),
            ((1, 5000), (336, 672), kept(12, 0), kept(0, 48)),
        ];
        for ((height, width), size, down, across) in cases {
            let grid = pinpoints.grid(height, width);
            assert_eq!(((grid.height, grid.width), grid.down, grid.across), (size, down, across), "{height} x {width}");
        }
        assert_eq!(pinpoints.grid(336, 640).fitted(336, 640), (336, 640));
        assert_eq!(pinpoints.grid(100, 300).fitted(100, 300), (225, 672));
        for sizes in [vec![], vec![[0, 336]], vec![[336, 500]]] {
            assert!(Pinpoints::new(sizes, 336, 24, &files).is_err());
        }
    }
}
