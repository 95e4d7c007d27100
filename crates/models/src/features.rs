//! Which states of a tower a language model is shown: `vision_feature_layer`.

use nn::{D, Files, NnError, Tensor};
use serde::Deserialize;

use crate::ModelError;
use crate::config::{CONFIG, require};

/// `vision_feature_layer`: 0 is what the first block is given, 1 what it makes of it; -1 is what the last one makes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum FeatureLayers {
    One(i64),
    Several(Vec<i64>),
}

/// States behind blocks, as [`nn::VitConfig`] asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// Blocks that are needed.
    pub blocks: usize,
    /// Those of them, beside the last one, whose states are shown, by number.
    pub tapped: Vec<usize>,
    /// Which of these states, and of the last block's, each part of a row is.
    order: Vec<usize>,
}

impl FeatureLayers {
    /// For a tower of so many blocks.
    pub fn of(&self, layers: usize, files: &Files) -> Result<Features, ModelError> {
        let given = match self {
            Self::One(layer) => std::slice::from_ref(layer),
            Self::Several(layers) => layers,
        };
        let states = layers as i64 + 1;
        let wanted: Vec<usize> =
            given.iter().map(|layer| usize::try_from(if *layer < 0 { states + layer } else { *layer }).unwrap_or(0)).collect();
        let known = !wanted.is_empty() && wanted.iter().all(|state| (1..=layers).contains(state));
        require(known, files, CONFIG, "vision_feature_layer must name blocks of vision_config.num_hidden_layers")?;
        Ok(Features::behind(&wanted))
    }
}

impl Features {
    /// Blocks by number, the first is 1.
    fn behind(wanted: &[usize]) -> Self {
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let place = |state: &usize| sorted.partition_point(|other| other < state);
        let order = wanted.iter().map(place).collect();
        let blocks = sorted.pop().unwrap_or_default();
        Self { blocks, tapped: sorted.into_iter().map(|state| state - 1).collect(), order }
    }

    /// How many times wider than a state a row is.
    pub fn parts(&self) -> usize {
        self.order.len()
    }

    /// States [patches, width] of the tapped blocks and of the last one → [patches, width * parts].
    pub fn join(&self, states: &[Tensor]) -> Result<Tensor, NnError> {
        let parts: Vec<&Tensor> = self.order.iter().filter_map(|i| states.get(*i)).collect();
        match parts[..] {
            [one] => Ok(one.clone()),
            _ => Ok(Tensor::cat(&parts, D::Minus1)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_from_both_ends() {
        let files = Files::Embedded { name: "test", files: &[] };
        let features = |blocks, tapped: &[usize], order: &[usize]| Some((blocks, tapped.to_vec(), order.to_vec()));
        let cases = [
            (FeatureLayers::One(-2), features(23, &[], &[0])),
            (FeatureLayers::One(24), features(24, &[], &[0])),
            (FeatureLayers::Several(vec![-1, 7, -20, 7]), features(24, &[4, 6], &[2, 1, 0, 1])),
            (FeatureLayers::One(0), None),
            (FeatureLayers::One(25), None),
            (FeatureLayers::One(-25), None),
            (FeatureLayers::One(i64::MIN), None),
            (FeatureLayers::Several(vec![]), None),
        ];
        for (layers, expected) in cases {
            let found = layers.of(24, &files).ok().map(|found| (found.blocks, found.tapped, found.order));
            assert_eq!(found, expected, "{layers:?}");
        }
    }
}
