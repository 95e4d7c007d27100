//! Bytes of pictures → numbers.

use crate::{Cpu, share};

/// What every byte of each channel becomes: normalising is a table's work.
pub type PixelTable = [[f32; 256]; 3];

/// rgb [height, width, 3] → planes [3, height, width].
pub fn planes(cpu: &Cpu, table: &PixelTable, rgb: &[u8], width: usize, planes: &mut [f32]) {
    assert!(rgb.len() == planes.len() && width > 0 && rgb.len().is_multiple_of(3 * width), "{} bytes", rgb.len());
    let height = rgb.len() / (3 * width);
    let (pixels, _) = rgb.as_chunks::<3>();
    share::rows(cpu, planes, width, 8 * width, |first, planes| {
        for (i, line) in planes.chunks_exact_mut(width).enumerate() {
            let (channel, v) = ((first + i) / height, (first + i) % height);
            let from = &pixels[v * width..][..width];
            line.iter_mut().zip(from).for_each(|(to, pixel)| *to = table[channel][usize::from(pixel[channel])]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_taken_apart() {
        let table: PixelTable = std::array::from_fn(|c| std::array::from_fn(|byte| byte as f32 + 1000.0 * c as f32));
        let mut rng = fastrand::Rng::with_seed(12);
        for cpu in Cpu::each() {
            for (height, width) in [(1, 1), (3, 5), (100, 101)] {
                let rgb: Vec<u8> = (0..height * width * 3).map(|_| rng.u8(..)).collect();
                let mut y = vec![f32::NAN; rgb.len()];
                planes(&cpu, &table, &rgb, width, &mut y);
                for (i, byte) in rgb.into_iter().enumerate() {
                    assert_eq!(y[i % 3 * height * width + i / 3], f32::from(byte) + 1000.0 * (i % 3) as f32, "{cpu:?}");
                }
            }
        }
    }
}
