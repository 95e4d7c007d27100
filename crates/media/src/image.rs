//! A decoded picture, and what is done to it before a model sees it.

mod decode;
mod jpeg;
mod options;
mod resize;

pub use decode::decode_image;
pub(crate) use decode::flatten;
pub use options::{Detail, ImageOptions};
pub use resize::Filter;

/// RGB pixels, 8 bits per channel, row by row without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    rgb: Vec<u8>, // [height, width, 3]
}

impl Image {
    /// Wraps pixels in the order [height, width, 3]; `None` if their number does not fit or the picture is empty.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let fits = width > 0 && height > 0 && width.checked_mul(height)?.checked_mul(3)? == rgb.len();
        fits.then_some(Self { width, height, rgb })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, [height, width, 3].
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The part that begins at (`left`, `top`) and is `width` by `height` pixels, cut off at the picture's edges.
    pub fn crop(&self, left: usize, top: usize, width: usize, height: usize) -> Self {
        let (left, top) = (left.min(self.width - 1), top.min(self.height - 1));
        let (width, height) = (width.clamp(1, self.width - left), height.clamp(1, self.height - top));
        let row = |y: usize| &self.rgb[(y * self.width + left) * 3..][..width * 3];
        let rgb = (top..top + height).flat_map(row).copied().collect();
        Self { width, height, rgb }
    }

    /// The tiles of `width` by `height` pixels that the picture is, row by row; what is left over at the right and below belongs to none.
    pub fn tiles(&self, width: usize, height: usize) -> impl Iterator<Item = Self> {
        let (rows, columns) = (self.height / height.max(1), self.width / width.max(1));
        let corners = (0..rows).flat_map(move |row| (0..columns).map(move |column| (column * width, row * height)));
        corners.map(move |(left, top)| self.crop(left, top, width, height))
    }

    /// Lines become columns, and columns lines.
    pub fn transposed(&self) -> Self {
        let pixel = |x: usize, y: usize| &self.rgb[(y * self.width + x) * 3..][..3];
        let rgb = (0..self.width).flat_map(|x| (0..self.height).flat_map(move |y| pixel(x, y))).copied().collect();
        Self { width: self.height, height: self.width, rgb }
    }

    /// The picture in the middle of a larger one of `width` by `height` pixels and one colour. An odd pixel of margin is on the
    /// right, or below. Where the picture is the larger one, it is cut off there.
    pub fn pad(&self, width: usize, height: usize, colour: [u8; 3]) -> Self {
        let corner = [width.saturating_sub(self.width) / 2, height.saturating_sub(self.height) / 2];
        self.placed([width, height], corner, colour)
    }

    /// The picture in the upper left corner of a larger one of `width` by `height` pixels and one colour. Where the picture is the
    /// larger one, it is cut off there.
    pub fn extend(&self, width: usize, height: usize, colour: [u8; 3]) -> Self {
        self.placed([width, height], [0; 2], colour)
    }

    fn placed(&self, [width, height]: [usize; 2], [left, top]: [usize; 2], colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let inside = self.crop(0, 0, width, height);
        let mut rgb = colour.repeat(width * height);
        for (y, row) in inside.rgb.chunks_exact(inside.width * 3).enumerate() {
            rgb[((top + y) * width + left) * 3..][..row.len()].copy_from_slice(row);
        }
        Self { width, height, rgb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_about_equal() {
        let image = Image { width: 1, height: 2, rgb: vec![1, 1, 1, 2, 2, 2] };
        let cases: [(usize, usize, &[&[u8]]); 4] = [
            (4, 3, &[&[0, 1, 0, 0], &[0, 2, 0, 0], &[0, 0, 0, 0]]),
            (1, 4, &[&[0], &[1], &[2], &[0]]),
            (1, 2, &[&[1], &[2]]),
            (2, 1, &[&[1, 0]]),
        ];
        for (width, height, expected) in cases {
            let padded = image.pad(width, height, [0; 3]);
            let red: Vec<u8> = padded.rgb().iter().step_by(3).copied().collect();
            assert_eq!((padded.width(), padded.height(), red), (width, height, expected.concat()));
        }
        let extended: Vec<u8> = image.extend(3, 3, [0; 3]).rgb().iter().step_by(3).copied().collect();
        assert_eq!(extended, [1, 0, 0, 2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn whole_tiles_are_cut_row_by_row() {
        let image = Image { width: 5, height: 4, rgb: (0..60).collect() };
        let firsts: Vec<u8> = image.tiles(2, 2).map(|tile| tile.rgb()[0]).collect();
        assert_eq!(firsts, [0, 6, 30, 36]);
        assert!(image.tiles(2, 2).all(|tile| (tile.width(), tile.height()) == (2, 2)));
        assert_eq!((image.tiles(6, 1).count(), image.tiles(5, 4).count()), (0, 1));
    }

    #[test]
    fn lines_become_columns() {
        let image = Image { width: 2, height: 3, rgb: (0..18).collect() };
        let turned = image.transposed();
        let red: Vec<u8> = turned.rgb().iter().step_by(3).copied().collect();
        assert_eq!((turned.width(), turned.height(), red), (3, 2, vec![0, 6, 12, 3, 9, 15]));
        assert_eq!(turned.transposed(), image);
    }
}
