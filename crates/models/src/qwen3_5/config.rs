use crate::qwen::{Axes, Experts, Feed, Line, MediaTokens, Normalising, Text};

/// Ids in whose places media go.
pub const TOKENS: MediaTokens = MediaTokens { image: 248_056, video: 248_057 };

/// No block of the tower hands over.
pub const TAPPED: &[usize] = &[];

/// The language model, with a tower and without.
pub const TEXT: Text =
    Text { line: Line::Qwen35, feed: Feed::Gated, axes: Axes::Interleaved([11, 11, 10]), rms_norm_eps: 1e-6, rope_theta: 1e4 };

/// The same with experts.
pub const TEXT_MOE: Text = Text {
    feed: Feed::Experts(Experts { experts: 256, chosen: 8, inner: 512, normalising: Normalising::Always, shared: Some(512) }),
    ..TEXT
};
