use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use media::{Audio, Clip, Image, ImageOptions, VideoInfo, VideoOptions};
use nn::{MediaInput, MediaKind, Prompt};
use text::{NUMBER, OWN_LINE, Piece};

use crate::ModelError;

/// How a family's chat template marks the place of a media item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Kind of the item.
    pub kind: MediaKind,
    /// Exact text in the rendered prompt; [`NUMBER`] in it stands for any number. Where the template takes words alone, it is what
    /// is written for an item, and the number counts the items of its kind; [`OWN_LINE`] in front of it, which is no part of it,
    /// says that the item has a line of its own.
    pub text: &'static str,
}

impl Marker {
    /// What of it a user must not be able to write.
    pub fn protected(&self) -> &'static str {
        let text = self.in_prompt();
        text.split(NUMBER).next().unwrap_or(text)
    }

    fn in_prompt(&self) -> &'static str {
        self.text.strip_prefix(OWN_LINE).unwrap_or(self.text)
    }

    /// Where it first stands in a text.
    pub(crate) fn find(&self, text: &str) -> Option<Range<usize>> {
        let wanted = self.in_prompt();
        let Some((before, behind)) = wanted.split_once(NUMBER) else {
            return text.find(wanted).map(|at| at..at + wanted.len());
        };
        text.match_indices(before).find_map(|(at, _)| {
            let digits = at + before.len();
            let count = text[digits..].bytes().take_while(u8::is_ascii_digit).count();
            let end = digits + count;
            (count > 0 && text[end..].starts_with(behind)).then_some(at..end + behind.len())
        })
    }
}

/// What stands for media where the chat template takes words alone, by kind: its first marker.
pub fn media_in_words(processor: &dyn Processor) -> BTreeMap<&'static str, &'static str> {
    processor.markers().iter().rev().map(|marker| (marker.kind.name(), marker.text)).collect()
}

/// A media item, decoded or about to be.
pub enum Media<'a> {
    /// A picture, and what is wanted of it.
    Image(Image, ImageOptions),
    /// A sound, at the rate that it was recorded with.
    Audio(Audio),
    /// Sampled frames of a clip, which are decoded while they are processed.
    Video(Clip<'a>),
}

impl Media<'_> {
    /// What it is.
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Image(..) => MediaKind::Image,
            Self::Audio(_) => MediaKind::Audio,
            Self::Video(_) => MediaKind::Video,
        }
    }

    /// What a processor answers to a kind that it does not take.
    pub(crate) fn refused(&self) -> ModelError {
        ModelError::Unusable(format!("this model does not take {} input", self.kind()))
    }
}

/// A media item as model input, and what its marker in the prompt becomes. Clones share the input.
#[derive(Debug, Clone)]
pub struct Processed {
    /// For [`nn::Model::encode`].
    pub input: Arc<MediaInput>,
    /// Takes the place of the marker; the slots add up to `input.rows` where rows take the places of tokens.
    pub pieces: Vec<Piece>,
    /// The pictures, tiles or frames that the encoder looks at, before pixels become numbers.
    pub views: Vec<Image>,
}

impl Processed {
    /// An item that is heard.
    pub fn heard(input: MediaInput, pieces: Vec<Piece>) -> Self {
        Self { input: input.into(), pieces, views: Vec::new() }
    }

    /// An item that is seen as these pictures.
    pub fn seen(input: MediaInput, pieces: Vec<Piece>, views: impl Into<Vec<Image>>) -> Self {
        Self { input: input.into(), pieces, views: views.into() }
    }

    /// Tokens that stand for it.
    pub fn tokens(&self) -> usize {
        self.pieces.iter().map(|piece| if let Piece::Slots { count, .. } = piece { *count } else { 0 }).sum()
    }
}

/// Makes media into model input. Pure: the same item always gives the same arrays.
pub trait Processor: Send + Sync {
    /// The markers that chat templates write, at least one for each kind that is accepted.
    fn markers(&self) -> &'static [Marker];

    /// What the chat template is told that an item is, where it does not know the item's own kind.
    fn shown_as(&self, kind: MediaKind) -> MediaKind {
        kind
    }

    /// Which frames of a clip are looked at: numbers below `clip.frames`, each larger than the last, at least one. `clip` is what the
    /// options' start and end leave; their `fps` and `max_frames` take the places of the family's own numbers.
    fn sample(&self, clip: &VideoInfo, options: &VideoOptions) -> Vec<usize> {
        let _ = (clip, options);
        vec![0]
    }

    /// Resizes, cuts and normalises an item. Of a picture no more is shown than is wanted, where that can be; who takes any size does
    /// that by [`shown`](crate::shown::shown).
    ///
    /// # Errors
    /// [`ModelError::Unusable`] when this family cannot take the item, [`ModelError::Media`] when a frame cannot be decoded.
    fn process(&self, media: Media) -> Result<Processed, ModelError>;

    /// The chat template (Jinja) of checkpoints that ship none.
    fn chat_template(&self) -> Option<&'static str> {
        None
    }

    /// Sets positions and islands where they are not those of plain text.
    fn arrange(&self, prompt: &mut Prompt) {
        let _ = prompt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_may_hold_any_number() {
        let marker = |text| Marker { kind: MediaKind::Image, text };
        let cases = [
            ("<image>", "a<image><image>", Some(1..8)),
            ("<image>", "a<image", None),
            ("{line}<image>", "a<image>", Some(1..8)),
            ("<|image_{n}|>", "a<|image_12|>b", Some(1..13)),
            ("<|image_{n}|>", "<|image_|><|image_x|><|image_0|>", Some(21..32)),
            ("<|image_{n}|>", "<|image_1", None),
        ];
        for (text, prompt, expected) in cases {
            assert_eq!(marker(text).find(prompt), expected, "{text} in {prompt}");
        }
        assert_eq!(marker("<|image_{n}|>").protected(), "<|image_");
    }
}
