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

/// Bits behind the point of a weight: 8 are the pixel's, two are room for sums that overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// What goes into each pixel of a line: a window of the source, and its weights.
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
    fn windows(self, from: usize, to: usize) -> Vec<Window> {
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let support = self.support() * spread;
        let window = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(from);
            let plain: Vec<f64> = (first..last).map(|x| self.weight((x as f64 - centre + 0.5) / spread)).collect();
            let sum: f64 = plain.iter().sum();
            let fixed = |w: &f64| (w / sum * f64::from(1 << PRECISION)).round() as i32;
            Window { first, weights: plain.iter().map(fixed).collect() }
        };
        (0..to).map(window).collect()
    }
}

impl Image {
    /// The picture at another size, in 8-bit fixed point as Pillow computes it: along rows first, then along columns.
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let rows = if width == self.width { self.clone() } else { self.resize_rows(width, filter) };
        if height == self.height { rows } else { rows.resize_columns(height, filter) }
    }

    fn resize_rows(&self, width: usize, filter: Filter) -> Self {
        let windows = filter.windows(self.width, width);
        let mut rgb = Vec::with_capacity(width * self.height * 3);
        for line in self.rgb.chunks_exact(self.width * 3) {
            for window in &windows {
                let mut sums = [1i32 << (PRECISION - 1); 3];
                let pixels = line[window.first * 3..].chunks_exact(3);
                for (pixel, weight) in pixels.zip(&window.weights) {
                    for (sum, &level) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(level) * weight;
                    }
                }
                rgb.extend(sums.map(to_level));
            }
        }
        Self { width, height: self.height, rgb }
    }

    fn resize_columns(&self, height: usize, filter: Filter) -> Self {
        let line = self.width * 3;
        let mut rgb = Vec::with_capacity(line * height);
        let mut sums = vec![0i32; line];
        for window in filter.windows(self.height, height) {
            sums.fill(1 << (PRECISION - 1));
            for (pixels, weight) in self.rgb[window.first * line..].chunks_exact(line).zip(&window.weights) {
                for (sum, &level) in sums.iter_mut().zip(pixels) {
                    *sum += i32::from(level) * weight;
                }
            }
            rgb.extend(sums.iter().copied().map(to_level));
        }
        Self { width: self.width, height, rgb }
    }
}

fn to_level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
