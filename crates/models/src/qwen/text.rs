use nn::{DecoderConfig, Ffn, Files, GatedConfig, LayerConfig, NormConfig};
use serde::Deserialize;
use serde_json::{Value, json};

use super::experts::Experts;
use super::hybrid;
use crate::ModelError;
use crate::config::{CONFIG, TextConfig, head, read_text, require};

/// What a family's language model is, and what its class says where config.json is silent.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    pub line: Line,
    pub feed: Feed,
    pub axes: Axes,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
}

/// How tokens are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// With biases.
    Qwen2,
    /// Without, each head normed; heads need not share the hidden width among them.
    Qwen3,
    /// The same with a gate on the result, where it is not a gated delta net that mixes tokens. All norms hold what differs from one.
    Qwen35,
}

/// What works on each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// One part for all.
    Gated,
    /// Experts in some layers or all.
    Experts(Experts),
}

/// Which axes of a position turn the pairs of a head. Numbers are pairs for time, height and width, where config.json does not
/// say (`mrope_section`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// Time alone: words have no others.
    Time,
    /// Those of time, then height, then width.
    Sections([usize; 3]),
    /// Time, height and width by turns; time alone where the other two have run out.
    Interleaved([usize; 3]),
}

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Extra {
    tie_word_embeddings: bool,
    attention_bias: bool,
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    max_window_layers: usize,
}

impl Text {
    /// Reads the language model's keys. They stand at the top of config.json, or in `text_config` since transformers 4.52.
    pub fn decoder(&self, files: &Files) -> Result<DecoderConfig, ModelError> {
        let mut defaults = json!({"hidden_act": "silu", "rms_norm_eps": self.rms_norm_eps, "rope_theta": self.rope_theta});
        match self.line {
            // With experts, the class has none.
            Line::Qwen3 if self.feed == Feed::Gated => defaults["head_dim"] = 128.into(),
            Line::Qwen2 | Line::Qwen3 => {}
            Line::Qwen35 => {
                defaults["head_dim"] = 256.into();
                defaults["partial_rotary_factor"] = 0.25.into();
            }
        }
        // A class with experts in all layers has no such key.
        if self.line == Line::Qwen35 && self.feed != Feed::Gated {
            defaults["intermediate_size"] = 0.into();
        }
        let text: TextConfig = read_text(files, defaults)?;
        let extra: Extra = read_text(
            files,
            json!({
                "tie_word_embeddings": false, "attention_bias": false, "use_sliding_window": false, "sliding_window": 4096,
                "max_window_layers": 28,
            }),
        )?;
        let whole: Value = files.required_json(CONFIG)?;
        let tied = extra.tie_word_embeddings || whole["tie_word_embeddings"] == true;
        let mut decoder = text.decoder(files, head(tied))?;
        let eps = text.rms_norm_eps;
        let norm = if self.line == Line::Qwen35 { NormConfig::RmsPlusOne { eps } } else { NormConfig::Rms { eps } };
        decoder.norm = norm;
        require(!extra.attention_bias, files, CONFIG, "attention_bias is not supported")?;
        let window = extra.sliding_window.filter(|_| extra.use_sliding_window);
        require(window != Some(0), files, CONFIG, "sliding_window must be positive")?;
        for (i, layer) in decoder.layers.iter_mut().enumerate() {
            let Some(attention) = layer.mixer.attention_mut() else { continue };
            match self.line {
                Line::Qwen2 => attention.qkv_bias = true,
                Line::Qwen3 | Line::Qwen35 => attention.qk_norm = Some(norm),
            }
            attention.scores.back = window.filter(|_| i >= extra.max_window_layers || self.feed != Feed::Gated).into();
        }
        if self.line == Line::Qwen35 {
            hybrid::put_in(files, &mut decoder.layers, eps)?;
        }
        if let Feed::Experts(experts) = self.feed {
            experts.put_in(files, &mut decoder.layers, text.activation())?;
        }
        let dense = |layer: &LayerConfig| matches!(layer.ffn, Ffn::Gated(GatedConfig { inner: 0, .. }));
        require(!decoder.layers.iter().any(dense), files, CONFIG, "intermediate_size must be positive")?;
        let sections = self.axes.sections(text.rope().mrope_section, decoder.ropes[0].width / 2);
        let refused = || ModelError::Config {
            file: files.label(CONFIG),
            reason: "rope_scaling.mrope_section must add up to half of head_dim".into(),
        };
        decoder.ropes[0].sections = sections.ok_or_else(refused)?;
        Ok(decoder)
    }
}

impl Axes {
    /// The axes of a head's pairs as [`nn::RopeConfig`] takes them; none where there are more or fewer of them.
    fn sections(self, given: Option<[usize; 3]>, pairs: usize) -> Option<Vec<(usize, usize)>> {
        let (Self::Sections(default) | Self::Interleaved(default)) = self else { return Some(Vec::new()) };
        let lengths = given.unwrap_or(default);
        let all = lengths.iter().try_fold(0usize, |sum, length| sum.checked_add(*length));
        let axis = |pair: usize| if pair / 3 < lengths[pair % 3] { pair % 3 } else { 0 };
        (all == Some(pairs)).then(|| match self {
            Self::Interleaved(_) => (0..pairs).map(|pair| (axis(pair), 1)).collect(),
            _ => lengths.into_iter().enumerate().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_axes() {
        let given = Some([3, 2, 1]);
        let runs = |axes: &[usize]| Some(axes.iter().map(|axis| (*axis, 1)).collect::<Vec<_>>());
        let cases = [
            (Axes::Time, given, 9, Some(Vec::new())),
            (Axes::Sections([9, 9, 9]), given, 6, Some(vec![(0, 3), (1, 2), (2, 1)])),
            (Axes::Sections([3, 2, 1]), None, 6, Some(vec![(0, 3), (1, 2), (2, 1)])),
            (Axes::Interleaved([9, 9, 9]), given, 6, runs(&[0, 1, 2, 0, 1, 0])),
            (Axes::Sections([9, 9, 9]), given, 7, None),
            (Axes::Interleaved([9, 9, 9]), Some([usize::MAX, 2, 1]), 2, None),
        ];
        for (axes, given, pairs, expected) in cases {
            assert_eq!(axes.sections(given, pairs), expected, "{axes:?} {given:?} {pairs}");
        }
    }
}
