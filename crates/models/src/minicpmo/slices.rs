//! How a picture is cut.

use media::{Filter, Image};

use crate::pixels::round_half_even;

/// Sizes of slices.
#[derive(Debug, Clone, Copy)]
pub struct Slicing {
    /// Side of a square of as many pixels as a slice is brought to, about.
    pub resolution: usize,
    /// Sides of slices are multiples of this.
    pub patch: usize,
    /// Slices at most.
    pub slices_max: usize,
}

/// Slices of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub columns: usize,
    pub rows: usize,
}

impl Slicing {
    /// The whole picture, then its slices row by row, if it has any.
    pub fn views(&self, image: &Image, filter: Filter) -> (Vec<Image>, Option<Grid>) {
        let (width, height) = (image.width(), image.height());
        let grid = self.grid(width, height);
        let whole = self.fit(width as f64, height as f64, grid.is_none());
        let mut views = vec![image.resize(whole.0, whole.1, filter)];
        if let Some(Grid { columns, rows }) = grid {
            let share = |length: usize, parts: usize| near(length as f64, parts) as f64 / parts as f64;
            let (width, height) = self.fit(share(width, columns), share(height, rows), true);
            let large = image.resize(width * columns, height * rows, filter);
            views.extend(large.tiles(width, height));
        }
        (views, grid)
    }

    /// Columns and rows that come closest to the picture's proportions; none where it fits into one slice.
    fn grid(&self, width: usize, height: usize) -> Option<Grid> {
        let area = width as f64 * height as f64;
        let wanted = (area / self.resolution.pow(2) as f64).ceil().min(self.slices_max as f64) as usize;
        if wanted <= 1 {
            return None;
        }
        let aspect = (width as f64 / height as f64).ln();
        let (mut best, mut least) = (Grid { columns: 1, rows: 1 }, f64::INFINITY);
        for count in (wanted - 1..=wanted + 1).filter(|count| (2..=self.slices_max).contains(count)) {
            for columns in (1..=count).filter(|columns| count.is_multiple_of(*columns)) {
                let rows = count / columns;
                let error = (aspect - (columns as f64 / rows as f64).ln()).abs();
                if error < least {
                    (best, least) = (Grid { columns, rows }, error);
                }
            }
        }
        Some(best)
    }

    /// (width, height) in whole patches: as many pixels as a slice has, about, unless there are fewer and they may stay so.
    fn fit(&self, width: f64, height: f64, upscale: bool) -> (usize, usize) {
        let (mut width, mut height) = (width, height);
        if upscale || width * height > self.resolution.pow(2) as f64 {
            let aspect = width / height;
            height = (self.resolution as f64 / aspect.sqrt()).trunc();
            width = (height * aspect).trunc();
        }
        (near(width, self.patch), near(height, self.patch))
    }
}

/// The nearest multiple of a unit, and no less than one.
fn near(length: f64, unit: usize) -> usize {
    round_half_even(length / unit as f64).max(1) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_come_close_to_the_picture() {
        let slicing = Slicing { resolution: 448, patch: 14, slices_max: 9 };
        let cases = [
            ((448, 448), None, (448, 448)),
            ((100, 50), None, (630, 322)),
            ((449, 448), Some((2, 1)), (448, 448)),
            ((1000, 500), Some((2, 1)), (630, 322)),
            ((4000, 3000), Some((3, 3)), (518, 392)),
            ((200, 3000), Some((1, 4)), (112, 1736)),
            ((10, 300_000), Some((1, 9)), (14, 77_588)),
            ((1, 100_000), None, (14, 141_666)),
        ];
        for ((width, height), grid, whole) in cases {
            let found = slicing.grid(width, height).map(|grid| (grid.columns, grid.rows));
            assert_eq!(found, grid, "{width} x {height}");
            assert_eq!(slicing.fit(width as f64, height as f64, grid.is_none()), whole, "{width} x {height}");
        }
    }
}
