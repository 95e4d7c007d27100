use super::Image;

/// How pixels are weighted. All are antialiased: the support grows with the reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5 (Keys 1981).
    Bicubic,
    /// Windowed sinc with three lobes.
    Lanczos,
}

/// Bits of a weight, its sign included.
const WEIGHT_BITS: u32 = 16;
/// Most bits behind its point: 8 are the pixel's, two are room for sums that overshoot.
const PRECISION_MAX: u32 = 32 - 8 - 2;

/// How many bits weights have.
#[derive(Debug, Clone, Copy)]
enum Weights {
    /// [`WEIGHT_BITS`].
    Short,
    /// [`PRECISION_MAX`] behind the point.
    Long,
}

/// What goes into the pixels of a line.
struct Windows {
    /// Bits behind the point of a weight.
    precision: u32,
    windows: Vec<Window>,
}

/// What goes into one pixel: a window of the source, and its weights.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

impl Filter {
    /// The filter of a `resample` code in a preprocessor_config.json (Pillow's numbering).
    pub fn from_pil(code: usize) -> Option<Self> {
        match code {
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    /// Source pixels on each side, at equal size.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        let x = x.abs();
        match self {
            _ if x >= self.support() => 0.0,
            Self::Bilinear => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Lanczos => sinc(x) * sinc(x / 3.0),
        }
    }

    /// Windows for a line of `from` pixels that becomes one of `to`.
    fn windows(self, from: usize, to: usize, weights: Weights) -> Windows {
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let support = self.support() * spread;
        let window = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(from);
            let plain: Vec<f64> = (first..last).map(|x| self.weight((x as f64 - centre + 0.5) / spread)).collect();
            let sum: f64 = plain.iter().sum();
            (first, plain.iter().map(|weight| weight / sum).collect::<Vec<f64>>())
        };
        let windows: Vec<(usize, Vec<f64>)> = (0..to).map(window).collect();
        let precision = match weights {
            Weights::Short => precision(windows.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max)),
            Weights::Long => PRECISION_MAX,
        };
        let fixed = |weights: Vec<f64>| weights.iter().map(|w| (w * f64::from(1 << precision)).round() as i32).collect();
        Windows {
            precision,
            windows: windows.into_iter().map(|(first, weights)| Window { first, weights: fixed(weights) }).collect(),
        }
    }
}

/// Bits behind the point, where this is the largest weight.
fn precision(largest: f64) -> u32 {
    let fits = |bits: &u32| (largest * f64::from(1 << bits)).round() < f64::from(1 << (WEIGHT_BITS - 1));
    (1..=PRECISION_MAX).take_while(fits).last().unwrap_or(1)
}

impl Image {
    /// The picture at another size, in fixed point, bit by bit as torchvision computes it: along rows first, then along columns.
    /// (Pillow differs in the bits of its weights, and so by a level or two here and there.)
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Self {
        self.resize_with(width, height, filter, Weights::Short)
    }

    /// The same, bit by bit as Pillow computes it along each side.
    pub fn resize_finely(&self, width: usize, height: usize, filter: Filter) -> Self {
        self.resize_with(width, height, filter, Weights::Long)
    }

    fn resize_with(&self, width: usize, height: usize, filter: Filter, weights: Weights) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let rows = if width == self.width { self.clone() } else { self.resize_rows(filter.windows(self.width, width, weights)) };
        if height == self.height { rows } else { rows.resize_columns(filter.windows(self.height, height, weights)) }
    }

    fn resize_rows(&self, Windows { precision, windows }: Windows) -> Self {
        let width = windows.len();
        let mut rgb = Vec::with_capacity(width * self.height * 3);
        for line in self.rgb.chunks_exact(self.width * 3) {
            for window in &windows {
                let mut sums = [1i32 << (precision - 1); 3];
                let pixels = line[window.first * 3..].chunks_exact(3);
                for (pixel, weight) in pixels.zip(&window.weights) {
                    for (sum, &level) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(level) * weight;
                    }
                }
                rgb.extend(sums.map(|sum| to_level(sum, precision)));
            }
        }
        Self { width, height: self.height, rgb }
    }

    fn resize_columns(&self, Windows { precision, windows }: Windows) -> Self {
        let height = windows.len();
        let line = self.width * 3;
        let mut rgb = Vec::with_capacity(line * height);
        let mut sums = vec![0i32; line];
        for window in windows {
            sums.fill(1 << (precision - 1));
            for (pixels, weight) in self.rgb[window.first * line..].chunks_exact(line).zip(&window.weights) {
                for (sum, &level) in sums.iter_mut().zip(pixels) {
                    *sum += i32::from(level) * weight;
                }
            }
            rgb.extend(sums.iter().map(|&sum| to_level(sum, precision)));
        }
        Self { width: self.width, height, rgb }
    }
}

fn to_level(sum: i32, precision: u32) -> u8 {
    (sum >> precision).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What torchvision makes of it, and Pillow; of both sides, Pillow's releases differ in which they begin with.
    #[test]
    fn levels_are_those_of_torchvision_and_pillow() {
        let level = |x: usize, y: usize, channel: usize| ((37 * x + 101 * y + 59 * channel + 7 * x * y) % 256) as u8;
        let places = (0..2).flat_map(|y| (0..5).flat_map(move |x| (0..3).map(move |channel| level(x, y, channel))));
        let image = Image { width: 5, height: 2, rgb: places.collect() };
        for (filter, expected) in [
            (Filter::Bilinear, [51, 110, 169, 81, 140, 103, 115, 174, 105, 148, 154, 138, 150, 113, 140, 85, 144, 75]),
            (Filter::Bicubic, [50, 108, 172, 79, 138, 98, 115, 183, 99, 155, 157, 145, 156, 106, 146, 81, 145, 72]),
            (Filter::Lanczos, [50, 109, 174, 78, 133, 101, 114, 188, 88, 161, 156, 155, 153, 104, 143, 80, 147, 70]),
        ] {
            assert_eq!(image.resize(6, 1, filter).rgb, expected, "{filter:?}");
        }
        for (filter, expected) in [
            (Filter::Bilinear, [16, 75, 134, 74, 133, 192, 132, 191, 104, 120, 179, 128, 189, 191, 51, 112, 61, 120]),
            (Filter::Bicubic, [13, 72, 131, 74, 133, 202, 135, 194, 103, 117, 183, 128, 199, 194, 41, 112, 57, 123]),
            (Filter::Lanczos, [12, 71, 125, 74, 133, 210, 136, 195, 104, 111, 188, 128, 207, 195, 33, 112, 52, 129]),
        ] {
            assert_eq!(image.resize_finely(3, 2, filter).rgb, expected, "{filter:?}");
        }
    }
}
