//! What a request says to a model, once words and media have become numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::NnError;

/// Numbers that are hashed together: enough for the hash's widest instructions.
const HASHED_AT_ONCE: usize = 1 << 16;

/// What a media item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A clip.
    Video,
}

impl MediaKind {
    /// Lower-case English noun, as in messages and content parts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers with a shape, on their way to an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each dimension; their product is the length of `data`.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

/// One media item as its encoder takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaInput {
    /// What it is.
    pub kind: MediaKind,
    /// By the names of the reference's processor (`pixel_values`, `image_grid_thw`, …).
    pub arrays: BTreeMap<&'static str, Array>,
    /// Rows that the encoder makes of it, which is the number of tokens that stand for it where rows take the places of tokens.
    pub rows: usize,
    /// Equal for items that encode equally: a BLAKE3 hash of kind, rows and arrays.
    pub hash: [u8; 32],
}

impl MediaInput {
    /// Collects and hashes the arrays of one item.
    pub fn new(kind: MediaKind, rows: usize, arrays: impl IntoIterator<Item = (&'static str, Array)>) -> Self {
        let arrays: BTreeMap<_, _> = arrays.into_iter().collect();
        let mut hash = blake3::Hasher::new();
        hash.update(kind.name().as_bytes());
        hash.update(&(rows as u64).to_le_bytes());
        for (name, array) in &arrays {
            hash.update(name.as_bytes());
            hash.update(&(array.shape.len() as u64).to_le_bytes());
            array.shape.iter().for_each(|n| {
                hash.update(&(*n as u64).to_le_bytes());
            });
            // A clip's numbers are large: they are not copied whole.
            for some in array.data.chunks(HASHED_AT_ONCE) {
                let bytes: Vec<u8> = some.iter().flat_map(|v| v.to_le_bytes()).collect();
                hash.update(&bytes);
            }
        }
        Self { kind, rows, hash: hash.finalize().into(), arrays }
    }

    /// The same item with a further array.
    pub fn with(&self, name: &'static str, array: Array) -> Self {
        Self::new(self.kind, self.rows, self.arrays.clone().into_iter().chain([(name, array)]))
    }

    /// An array on a device.
    ///
    /// # Errors
    /// [`NnError::Input`] when it is missing or shaped otherwise.
    pub fn tensor(&self, name: &'static str, shape: &[usize], device: &Device) -> Result<Tensor, NnError> {
        let array = self.arrays.get(name).filter(|array| array.shape == shape).ok_or(NnError::Input(name))?;
        Ok(Tensor::from_slice(&array.data, shape, device)?)
    }
}

/// Where a media item's rows stand in a prompt, or who looks at them from there: one of the two.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The item.
    pub input: Arc<MediaInput>,
    /// Token positions that its rows take, in order; the lengths add up to `input.rows`.
    pub at: Vec<Range<usize>>,
    /// Tokens that see its rows by cross attention.
    pub looks: Vec<Look>,
}

/// Tokens that see an item's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Numbers of the tokens. Those of the answer are behind the prompt's.
    pub tokens: Range<usize>,
    /// How many of the item's rows they see, from the first on.
    pub rows: usize,
    /// What a layer does with them afterwards.
    pub then: Then,
}

/// What a layer with cross attention does with tokens that have looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// As with all others.
    FeedForward,
    /// They pass its feed-forward part by.
    Nothing,
}

impl Placement {
    /// An item whose rows take the places of tokens.
    pub fn new(input: Arc<MediaInput>, at: Vec<Range<usize>>) -> Self {
        Self { input, at, looks: Vec::new() }
    }

    /// Tokens that cannot be computed without the item's rows.
    pub fn needed_by(&self) -> impl Iterator<Item = &Range<usize>> {
        self.at.iter().chain(self.looks.iter().map(|look| &look.tokens))
    }

    /// The looks of some tokens.
    pub fn looks_of(&self, tokens: Range<usize>) -> impl Iterator<Item = Look> {
        let within = move |look: &Look| {
            let both = look.tokens.start.max(tokens.start)..look.tokens.end.min(tokens.end);
            (!both.is_empty()).then_some(Look { tokens: both, ..*look })
        };
        self.looks.iter().filter_map(within)
    }
}

/// Rotary positions of a prompt and of what is generated after it: one number per axis (time, height, width). Models with
/// one axis read the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// Every token one further than the last, on all axes.
    Linear,
    /// Positions of the prompt's tokens, and the first one behind it; generation continues from there on all axes.
    Explicit {
        /// One per prompt token.
        rows: Vec<[u32; 3]>,
        /// Position of the first generated token.
        next: u32,
    },
}

impl Positions {
    /// The position of the sequence's token number `index`, which may lie behind the prompt.
    pub fn at(&self, index: usize) -> [u32; 3] {
        match self {
            Self::Linear => [index as u32; 3],
            Self::Explicit { rows, next } => {
                rows.get(index).copied().unwrap_or([next + (index - rows.len().min(index)) as u32; 3])
            }
        }
    }
}

/// What a prompt decides about how its whole sequence is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// Number of the adapters that linear layers take ([`crate::AdapterSet`]); none when absent.
    pub adapter: Option<usize>,
    /// Which frequencies a rotary embedding that has two kinds of them turns by.
    pub reach: Reach,
}

/// How far a sequence looks, as rotary embeddings see it ([`crate::RopeScaling::Long`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// No further than in the first training.
    #[default]
    Near,
    /// Further.
    Far,
}

/// All that the engine knows of a request's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Token ids, placeholders of media rows included.
    pub tokens: Vec<u32>,
    /// Media items in the order in which they appear.
    pub media: Vec<Placement>,
    /// Token ranges that attend to each other in both directions; ascending, disjoint. They must be computed in one step.
    pub islands: Vec<Range<usize>>,
    /// Rotary positions.
    pub positions: Positions,
    /// How all its tokens, and those that follow, are computed.
    pub mode: Mode,
}

impl Prompt {
    /// Tokens that stand for media.
    pub fn media_tokens(&self) -> usize {
        self.media.iter().flat_map(|item| &item.at).map(ExactSizeIterator::len).sum()
    }

    /// A prompt of text alone.
    pub fn text(tokens: Vec<u32>) -> Self {
        Self { tokens, media: Vec::new(), islands: Vec::new(), positions: Positions::Linear, mode: Mode::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_continue_behind_the_prompt() {
        let explicit = Positions::Explicit { rows: vec![[0, 0, 0], [1, 2, 3]], next: 4 };
        let cases = [(0, [0, 0, 0]), (1, [1, 2, 3]), (2, [4, 4, 4]), (5, [7, 7, 7])];
        for (index, expected) in cases {
            assert_eq!(explicit.at(index), expected);
            assert_eq!(Positions::Linear.at(index), [index as u32; 3]);
        }
    }

    #[test]
    fn hash_tells_items_apart() {
        let array = |shape: &[usize], data: &[f32]| Array { shape: shape.to_vec(), data: data.to_vec() };
        let hash = |kind, name, shape: &[usize], data: &[f32]| MediaInput::new(kind, 1, [(name, array(shape, data))]).hash;
        let base = hash(MediaKind::Image, "a", &[1, 2], &[0.0, 1.0]);
        assert_eq!(base, hash(MediaKind::Image, "a", &[1, 2], &[0.0, 1.0]));
        assert_ne!(base, hash(MediaKind::Video, "a", &[1, 2], &[0.0, 1.0]));
        assert_ne!(base, hash(MediaKind::Image, "b", &[1, 2], &[0.0, 1.0]));
        assert_ne!(base, hash(MediaKind::Image, "a", &[2, 1], &[0.0, 1.0]));
        assert_ne!(base, hash(MediaKind::Image, "a", &[1, 2], &[0.0, 1.5]));
    }
}
