//! Formats of the language model's matrices, by the layer or by name.

use std::ops::Range;

use regex::Regex;

use crate::{NnError, Quant};

/// What stands in front of a layer's number in the name of its tensors.
const LAYERS: &str = ".layers.";

/// Which matrices are kept in which format. What it says of a matrix comes before what is said of all.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// In the order in which they are applied: the last one that speaks of a matrix counts.
    rules: Vec<TopologyRule>,
}

/// What is said of some matrices.
#[derive(Debug, Clone)]
pub struct TopologyRule {
    /// As it was written.
    pub label: String,
    /// Of which.
    pub which: Selection,
    /// Their format.
    pub quant: Quant,
}

/// Some of the language model's matrices.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Those of these layers.
    Layers(Range<usize>),
    /// Those whose tensor's whole name has a match.
    Name(Regex),
}

impl Topology {
    /// Layers come first, those that end first before others; then patterns, in their order.
    pub fn new(mut rules: Vec<TopologyRule>) -> Self {
        rules.sort_by_key(|rule| match &rule.which {
            Selection::Layers(layers) => (false, layers.end),
            Selection::Name(_) => (true, 0),
        });
        Self { rules }
    }

    /// The format of a matrix, by the full name of its tensor.
    pub fn quant(&self, name: &str) -> Option<Quant> {
        self.rules.iter().rev().find(|rule| rule.which.has(name)).map(|rule| rule.quant)
    }

    /// Two ranges of layers that overlap, as they were written: the second one counts there.
    pub fn overlap(&self) -> Option<(&str, &str)> {
        let overlap = |pair: &&[TopologyRule]| match (&pair[0].which, &pair[1].which) {
            (Selection::Layers(first), Selection::Layers(second)) => second.start < first.end,
            _ => false,
        };
        self.rules.windows(2).find(overlap).map(|pair| (pair[0].label.as_str(), pair[1].label.as_str()))
    }

    /// Refuses rules that speak of no tensor of the language model, and layers that it has not.
    pub(crate) fn check<'a>(&self, layers: usize, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), NnError> {
        for rule in &self.rules {
            let refused = |reason: String| Err(NnError::Topology { rule: rule.label.clone(), reason });
            match &rule.which {
                Selection::Layers(range) if range.end > layers => {
                    return refused(format!("the model has layers 0 to {}", layers.saturating_sub(1)));
                }
                which if !names.clone().any(|name| which.has(name)) => {
                    return refused("no tensor of the language model has such a name".into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Selection {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Layers(range) => layer(name).is_some_and(|layer| range.contains(&layer)),
            Self::Name(pattern) => pattern.is_match(name),
        }
    }
}

/// The number of the layer that a tensor is of.
fn layer(name: &str) -> Option<usize> {
    let (_, behind) = name.split_once(LAYERS)?;
    behind.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(label: &str, quant: Quant) -> TopologyRule {
        let which = match label.split_once('-') {
            Some((start, end)) => Selection::Layers(start.parse().unwrap()..end.parse().unwrap()),
            None => Selection::Name(Regex::new(label).unwrap()),
        };
        TopologyRule { label: label.into(), which, quant }
    }

    #[test]
    fn the_last_that_speaks_of_a_matrix_counts() {
        let rules = [("down", Quant::Q8_0), ("2-4", Quant::Q4K), ("0-3", Quant::Q2K), (r"\.3\.mlp", Quant::Q6K)];
        let topology = Topology::new(rules.map(|(label, quant)| rule(label, quant)).to_vec());
        let cases = [
            ("model.layers.0.self_attn.q_proj.weight", Some(Quant::Q2K)),
            ("model.layers.2.self_attn.q_proj.weight", Some(Quant::Q4K)),
            ("model.layers.3.mlp.up_proj.weight", Some(Quant::Q6K)),
            ("model.layers.1.mlp.down_proj.weight", Some(Quant::Q8_0)),
            ("model.layers.4.mlp.up_proj.weight", None),
            ("lm_head.weight", None),
        ];
        for (name, expected) in cases {
            assert_eq!(topology.quant(name), expected, "{name}");
        }
        assert_eq!(topology.overlap(), Some(("0-3", "2-4")));
    }

    #[test]
    fn rules_about_nothing_are_refused() {
        let names = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"];
        let cases = [
            ("0-2", None),
            ("1-3", Some("layers 0 to 1")),
            ("up_proj", None),
            ("q_proj", Some("no tensor")),
            ("1-1", Some("no tensor")),
        ];
        for (label, expected) in cases {
            let found = Topology::new(vec![rule(label, Quant::Q4K)]).check(2, names.into_iter());
            let found = found.err().map(|e| e.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{label}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{label}");
        }
    }
}
