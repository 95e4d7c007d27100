//! Large pictures as a tower of a fixed size sees them: the whole reduced to one tile, and tiles of an enlarged copy.

use nn::{Array, NnError, Tensor};

/// Planes [1, 3, height, width] that are a whole number of tiles → [1 + tiles, 3, side, side]: all of the picture reduced to one tile,
/// and the tiles row by row.
pub fn views(planes: &Array, side: usize) -> Array {
    let (height, width) = (planes.shape[2], planes.shape[3]);
    let (rows, columns) = (height / side, width / side);
    let mut data = Vec::with_capacity((1 + rows * columns) * 3 * side * side);
    for plane in planes.data.chunks_exact(height * width) {
        reduce(plane, [height, width], side, &mut data);
    }
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        for plane in planes.data.chunks_exact(height * width) {
            let lines = plane[row * side * width..].chunks_exact(width).take(side);
            lines.for_each(|line| data.extend(&line[column * side..][..side]));
        }
    }
    Array { shape: vec![1 + rows * columns, 3, side, side], data }
}

/// Tiles [rows * columns, side * side, width] → the picture that they are, [rows * side, columns * side, width].
pub fn joined(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor, NnError> {
    let (_, patches, width) = x.dims3()?;
    let side = patches.isqrt();
    let lines = x.reshape((rows, columns, side, side, width))?.permute((0, 2, 1, 3, 4))?;
    Ok(lines.reshape((rows * side, columns * side, width))?)
}

/// Lines [count, length, width], each with an end [1, 1, width] behind it → [count * (length + 1), width].
pub fn with_ends(lines: &Tensor, end: &Tensor) -> Result<Tensor, NnError> {
    let (count, _, width) = lines.dims3()?;
    Ok(Tensor::cat(&[lines, &end.expand((count, 1, width))?], 1)?.flatten_to(1)?)
}

/// A plane resized to a square, each pixel from sixteen (cubic with a = -0.75, without regard to how much smaller the square is), as
/// PyTorch's `interpolate` does it.
fn reduce(plane: &[f32], [height, width]: [usize; 2], side: usize, out: &mut Vec<f32>) {
    let [down, across] = [height, width].map(|length| (0..side).map(|i| taps(i, length, side)).collect::<Vec<_>>());
    for line in &down {
        for pixel in &across {
            let of_line = |y: usize| pixel.iter().map(|&(x, weight)| weight * plane[y * width + x]).sum::<f32>();
            out.push(line.iter().map(|&(y, weight)| weight * of_line(y)).sum());
        }
    }
}

/// The four places among `length` that make place `i` among `side`, and their weights.
fn taps(i: usize, length: usize, side: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let at = length as f32 / side as f32 * (i as f32 + 0.5) - 0.5;
    let (first, t) = (at.floor(), at - at.floor());
    let place = |offset: f32| ((first + offset).max(0.0) as usize).min(length - 1);
    [(place(-1.0), far(t + 1.0)), (place(0.0), near(t)), (place(1.0), near(1.0 - t)), (place(2.0), far(2.0 - t))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::Device;

    /// Numbers of torch.nn.functional.interpolate.
    #[test]
    fn the_whole_is_reduced_and_tiles_follow() {
        let plane: Vec<f32> = (0..32).map(|i| (i * i % 11) as f32).collect();
        let planes = Array { shape: vec![1, 3, 4, 8], data: plane.repeat(3) };
        let views = views(&planes, 4);
        assert_eq!((views.shape, views.data.len()), (vec![3, 3, 4, 4], 3 * 48));
        let expected = [
            0.21875, 7.15625, 3.625, 4.0, 6.78125, 0.125, 2.125, 7.46875, 2.8125, 7.65625, 2.125, 0.40625, 6.875, 3.625, 3.625,
            6.875,
        ];
        let differences = views.data[..16].iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f32::max) < 1e-5, "{:?}", &views.data[..16]);
        let tile = |column: usize| (0..4).flat_map(|y| plane[y * 8 + column * 4..][..4].to_vec()).collect::<Vec<_>>();
        assert_eq!((&views.data[48..64], &views.data[96..112]), (tile(0).as_slice(), tile(1).as_slice()));
    }

    #[test]
    fn tiles_become_lines_with_ends() {
        let tiles = Tensor::arange(0f32, 8.0, &Device::Cpu).unwrap().reshape((2, 4, 1)).unwrap();
        let lines = joined(&tiles, 1, 2).unwrap();
        let ends = Tensor::full(9f32, (1, 1, 1), &Device::Cpu).unwrap();
        let found: Vec<f32> = with_ends(&lines, &ends).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(found, [0.0, 1.0, 4.0, 5.0, 9.0, 2.0, 3.0, 6.0, 7.0, 9.0]);
    }
}
