//! What errors of a weight cost, input by input, so that quantising errs where it costs little: llama.cpp's importance matrices,
//! and the same made by watching a model read.

mod calibration;
mod file;
mod names;

use std::collections::BTreeMap;
use std::path::Path;

pub(crate) use calibration::Watch;
pub use calibration::{Calibration, Observer};

use crate::NnError;

/// The mean square of each input of a model's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// The file it comes from.
    source: String,
    entries: Entries,
}

/// By name, in a GGUF file or in the checkpoint; experts' inputs follow each other.
type Entries = BTreeMap<String, Vec<f32>>;

/// How many of a model's quantised matrices had an importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// Those that had one.
    pub known: usize,
    /// All that were quantised.
    pub quantised: usize,
}

/// No input counts for less than this part of the mean: what a text did not touch still has to be kept roughly.
const LEAST: f32 = 1e-6;

impl Importance {
    /// Reads an importance matrix of llama.cpp, in either form.
    ///
    /// # Errors
    /// The file cannot be read or is something else; a value is negative or not finite.
    pub fn read(path: &Path) -> Result<Self, NnError> {
        let source = path.display().to_string();
        let bytes = file::read(path).map_err(|reason| NnError::File { file: source.clone(), reason })?;
        let entries = file::parse(&bytes).map_err(|reason| NnError::Importance { file: source.clone(), reason })?;
        Self::new(source, entries)
    }

    fn new(source: String, entries: Entries) -> Result<Self, NnError> {
        let usable = |value: &f32| value.is_finite() && *value >= 0.0;
        if let Some((name, _)) = entries.iter().find(|(_, values)| !values.iter().all(usable)) {
            let reason = format!("{name:?} has a value that is negative or not finite");
            return Err(NnError::Importance { file: source, reason });
        }
        Ok(Self { source, entries })
    }

    /// What is known of a weight with so many inputs, relative to their mean: only ratios count, and sums of products of these stay
    /// within f32.
    pub(crate) fn of(&self, weight: &str, inputs: usize) -> Result<Option<Vec<f32>>, NnError> {
        let found = names::of(weight, |name| self.entries.get_key_value(name));
        let Some(((name, values), expert)) = found else { return Ok(None) };
        let own = match expert {
            None => Some(values.as_slice()).filter(|values| values.len() == inputs),
            Some(expert) if values.len().is_multiple_of(inputs) => values.chunks(inputs).nth(expert),
            Some(_) => None,
        };
        let other_model = || {
            let width = values.len();
            self.unusable(format!("{name:?} is for {width} inputs, but {weight:?} has {inputs}; it was made for another model"))
        };
        own.map(|values| Some(relative(values))).ok_or_else(other_model)
    }

    /// # Errors
    /// Nothing was known of any matrix.
    pub(crate) fn check(&self, coverage: Coverage) -> Result<(), NnError> {
        let Coverage { known, quantised } = coverage;
        match (known, quantised) {
            (_, 0) => Err(self.unusable("this model has no matrix that is quantised".into())),
            (0, _) => Err(self.unusable(format!("it knows none of the {quantised} quantised matrices of this model"))),
            _ => Ok(()),
        }
    }

    fn unusable(&self, reason: String) -> NnError {
        NnError::Importance { file: self.source.clone(), reason }
    }
}

fn relative(values: &[f32]) -> Vec<f32> {
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
    if mean == 0.0 {
        return vec![1.0; values.len()];
    }
    values.iter().map(|value| ((f64::from(*value) / mean) as f32).max(LEAST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn importance(entries: &[(&str, &[f32])]) -> Result<Importance, NnError> {
        Importance::new("x.dat".into(), entries.iter().map(|(name, values)| (name.to_string(), values.to_vec())).collect())
    }

    #[test]
    fn weights_are_known_by_their_own_name_or_that_of_gguf() {
        let known = importance(&[
            ("blk.1.attn_q.weight", &[1.0, 3.0]),
            ("blk.1.ffn_up_exps.weight", &[1.0, 1.0, 3.0, 1.0]),
            ("model.layers.1.mlp.odd.weight", &[5.0, 5.0]),
            ("token_embd.weight", &[0.0, 0.0]),
            ("output.weight", &[0.0, f32::MAX]),
        ]);
        let known = known.unwrap();
        let cases: [(&str, Option<[f32; 2]>); 7] = [
            ("model.layers.1.self_attn.q_proj.weight", Some([0.5, 1.5])),
            ("model.layers.1.mlp.odd.weight", Some([1.0, 1.0])),
            ("model.layers.1.mlp.experts.1.up_proj.weight", Some([1.5, 0.5])),
            ("model.embed_tokens.weight", Some([1.0, 1.0])),
            ("lm_head.weight", Some([LEAST, 2.0])),
            ("model.layers.2.self_attn.q_proj.weight", None),
            ("model.layers.1.self_attn.strange.weight", None),
        ];
        for (weight, expected) in cases {
            assert_eq!(known.of(weight, 2).unwrap(), expected.map(Vec::from), "{weight}");
        }
        let cases = [
            ("a.layers.1.self_attn.q_proj.weight", 3, "\"blk.1.attn_q.weight\" is for 2 inputs, but \"a.layers.1."),
            ("a.layers.1.mlp.experts.2.up_proj.weight", 2, "\"blk.1.ffn_up_exps.weight\" is for 4 inputs"),
            ("a.layers.1.mlp.experts.0.up_proj.weight", 3, "q_proj.weight\" has 3"),
        ];
        for (weight, inputs, expected) in &cases[..2] {
            let message = known.of(weight, *inputs).unwrap_err().to_string();
            assert!(message.starts_with("x.dat: ") && message.contains(expected), "{message}");
        }
        assert!(known.of(cases[2].0, cases[2].1).is_err());
    }

    #[test]
    fn what_is_no_mean_square_is_refused() {
        for value in [-1.0, f32::NAN, f32::INFINITY] {
            let message = importance(&[("a", &[1.0]), ("b", &[0.0, value])]).unwrap_err().to_string();
            assert_eq!(message, "x.dat: \"b\" has a value that is negative or not finite");
        }
    }

    #[test]
    fn an_importance_of_nothing_is_an_error() {
        let known = importance(&[("a", &[1.0])]).unwrap();
        let cases = [((1, 2), None), ((0, 2), Some("none of the 2 quantised")), ((0, 0), Some("no matrix that is quantised"))];
        for ((with, quantised), expected) in cases {
            let message = known.check(Coverage { known: with, quantised }).err().map(|e| e.to_string());
            assert_eq!(message.is_some(), expected.is_some());
            assert!(message.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
