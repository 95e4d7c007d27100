use media::{Image, VideoInfo};
use nn::{MediaInput, MediaKind, Prompt};
use text::Piece;

use crate::ModelError;

/// How a family's chat template marks the place of a media item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Kind of the item.
    pub kind: MediaKind,
    /// Exact text in the rendered prompt.
    pub text: &'static str,
}

/// A decoded media item.
#[derive(Debug, Clone)]
pub enum Media {
    /// A picture.
    Image(Image),
    /// Sampled frames of a clip.
    Video {
        /// The frames, in display order.
        frames: Vec<Image>,
        /// Their numbers in the clip.
        indices: Vec<usize>,
        /// The clip they were taken from.
        info: VideoInfo,
    },
}

impl Media {
    /// What it is.
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Image(_) => MediaKind::Image,
            Self::Video { .. } => MediaKind::Video,
        }
    }
}

/// A media item as model input, and what its marker in the prompt becomes.
#[derive(Debug, Clone)]
pub struct Processed {
    /// For [`nn::Model::encode`].
    pub input: MediaInput,
    /// Takes the place of the marker; the slots add up to `input.rows`.
    pub pieces: Vec<Piece>,
}

/// Makes media into model input. Pure: the same item always gives the same arrays.
pub trait Processor: Send + Sync {
    /// The markers that the chat template writes, one for each kind that is accepted.
    fn markers(&self) -> &'static [Marker];

    /// Which frames of a clip are looked at: ascending numbers below `clip.frames`, at least one.
    fn sample(&self, clip: &VideoInfo) -> Vec<usize> {
        let _ = clip;
        vec![0]
    }

    /// Resizes, cuts and normalises an item.
    ///
    /// # Errors
    /// [`ModelError::Unusable`] when this family cannot take the item.
    fn process(&self, media: &Media) -> Result<Processed, ModelError>;

    /// Sets positions and islands where they are not those of plain text.
    fn arrange(&self, prompt: &mut Prompt) {
        let _ = prompt;
    }
}
