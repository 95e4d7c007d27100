use fast_image_resize::images::{Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Image;

/// How pixels are weighted. All are antialiased: the support grows with the reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Three lobes.
    Lanczos,
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
}

impl Image {
    /// The picture at another size, in 8-bit fixed point as Pillow and torchvision compute it: along rows first.
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let (width, height) = (width.max(1), height.max(1));
        let kind = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kind));
        let mut out = Buffer::new(width as u32, height as u32, PixelType::U8x3);
        let source = ImageRef::new(self.width as u32, self.height as u32, &self.rgb, PixelType::U8x3);
        // Both buffers have the size and type that they claim, which is all that can be wrong here.
        let resized = source.ok().and_then(|source| Resizer::new().resize(&source, &mut out, &options).ok());
        debug_assert!(resized.is_some());
        Self { width, height, rgb: out.into_vec() }
    }
}
