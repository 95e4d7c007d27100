//! Pictures on a canvas of square tiles, as Llama 3.2 and Llama 4 cut them.

use media::{Filter, Image};

/// Tiles along the sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    pub rows: usize,
    pub columns: usize,
}

impl Canvas {
    /// All canvases of at most so many tiles: those of one row first.
    pub fn all(tiles_max: usize) -> impl Iterator<Item = Self> {
        (1..=tiles_max).flat_map(move |rows| (1..=tiles_max / rows).map(move |columns| Self { rows, columns }))
    }

    /// The canvas of at most `tiles_max` tiles that a picture fills when it is enlarged least, or, where it has to be reduced,
    /// reduced least; of several the smallest.
    pub fn best(image: &Image, tile: usize, tiles_max: usize) -> Self {
        let scale = |canvas: &Self| {
            let along = |tiles: usize, pixels: usize| (tiles * tile) as f64 / pixels as f64;
            along(canvas.rows, image.height()).min(along(canvas.columns, image.width()))
        };
        let (enlarged, reduced): (Vec<f64>, Vec<f64>) =
            Self::all(tiles_max).map(|canvas| scale(&canvas)).partition(|s| *s >= 1.0);
        let least = enlarged.into_iter().reduce(f64::min).or(reduced.into_iter().reduce(f64::max));
        let fitting = Self::all(tiles_max).filter(|canvas| Some(scale(canvas)) == least);
        fitting.min_by_key(|canvas| canvas.tiles()).unwrap_or(Self { rows: 1, columns: 1 })
    }

    /// How many tiles.
    pub fn tiles(self) -> usize {
        self.rows * self.columns
    }

    /// The tiles, row by row: the picture in the canvas's upper left corner, as large as it fits without changing its shape, but
    /// enlarged to no more than a tile; the rest is black.
    pub fn cut(self, image: &Image, tile: usize, filter: Filter) -> Vec<Image> {
        let (down, across) = (self.rows * tile, self.columns * tile);
        let (width, height) = fitted(image, image.width().clamp(tile, across), image.height().clamp(tile, down));
        image.resize(width, height, filter).extend(across, down, [0; 3]).tiles(tile, tile).collect()
    }
}

/// Width and height of a picture that touches two sides of this rectangle.
fn fitted(image: &Image, width: usize, height: usize) -> (usize, usize) {
    let (across, down) = (width as f64 / image.width() as f64, height as f64 / image.height() as f64);
    let scaled = |side: usize, scale: f64, most: usize| ((side as f64 * scale) as usize).clamp(1, most);
    match across < down {
        true => (width, scaled(image.height(), across, height)),
        false => (scaled(image.width(), down, width), height),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_take_the_canvas_that_changes_them_least() {
        // Width, height, most tiles: rows, columns, and the picture on the canvas in tiles of 56 pixels.
        let cases = [
            ((64, 64, 4), (2, 2), (64, 64)),
            ((56, 56, 4), (1, 1), (56, 56)),
            ((40, 40, 4), (1, 1), (56, 56)),
            ((640, 336, 4), (2, 2), (112, 58)),
            ((30, 300, 4), (4, 1), (22, 224)),
            ((30, 300, 16), (6, 1), (30, 300)),
            ((1, 5000, 4), (4, 1), (1, 224)),
            ((100, 100, 16), (2, 2), (100, 100)),
        ];
        for ((width, height, most), (rows, columns), (across, down)) in cases {
            let image = Image::new(width, height, vec![255; width * height * 3]).unwrap();
            let canvas = Canvas::best(&image, 56, most);
            assert_eq!(canvas, Canvas { rows, columns }, "{width} x {height}");
            let tiles = canvas.cut(&image, 56, Filter::Bilinear);
            let white: usize = tiles.iter().map(|tile| tile.rgb().iter().filter(|level| **level == 255).count()).sum();
            assert_eq!((tiles.len(), white), (rows * columns, 3 * across * down), "{width} x {height}");
        }
    }
}
