//! Low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685): what linear layers add for the sequences whose prompts ask for it.
//!
//! An adapter belongs to a linear layer and has a number. A sequence takes the adapters of one number, or none
//! ([`crate::Mode::adapter`]); the rows of a step may take different ones.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use crate::linear::Linear;
use crate::weights::{Bias, Weights};
use crate::{Checkpoint, NnError, Span, host};

/// Where the adapters of one number are stored.
#[derive(Clone)]
pub struct AdapterSet {
    weights: Weights,
    /// What stands behind a layer's name.
    names: [String; 2],
    scale: f64,
}

/// scale * B A x
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    down: Linear, // A: [rank, inputs]
    up: Linear,   // B: [outputs, rank]
    scale: f64,
}

/// Which rows of a step take which adapters: runs of neighbours, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapted(Vec<(Range<usize>, usize)>);

impl AdapterSet {
    /// Those beside the layers that they belong to: `LAYER.lora_A.NAME` and `LAYER.lora_B.NAME`. `scale` is `lora_alpha / r`.
    pub fn within(w: &Weights, name: &str, scale: f64) -> Self {
        Self { weights: w.clone(), names: ["lora_A", "lora_B"].map(|part| format!("{part}.{name}")), scale }
    }

    /// Those of a checkpoint of their own, as PEFT writes it: `LAYER.lora_A` and `LAYER.lora_B`. All else is as `w` says.
    pub fn apart(checkpoint: Arc<Checkpoint>, w: &Weights, scale: f64) -> Self {
        let weights = w.of(checkpoint).at_any(&["base_model.model", ""]);
        Self { weights, names: ["lora_A", "lora_B"].map(String::from), scale }
    }

    /// The adapter of a layer, by its full name; not every layer has one.
    pub(crate) fn load(&self, layer: &str, shape: (usize, usize)) -> Result<Option<Adapter>, NnError> {
        let (outputs, inputs) = shape;
        let [down, up] = self.names.each_ref().map(|name| format!("{layer}.{name}"));
        let Some(&[rank, _]) = self.weights.shape(&format!("{down}.weight")) else { return Ok(None) };
        let down = self.weights.linear(&down, inputs, rank, Bias::Absent)?;
        Ok(Some(Adapter { down, up: self.weights.linear(&up, rank, outputs, Bias::Absent)?, scale: self.scale }))
    }
}

impl Adapter {
    /// Adds what it makes of rows of x to the same rows of y, in its place.
    pub(crate) fn add_to(&self, y: &Tensor, x: &Tensor, runs: &[Range<usize>]) -> Result<(), NnError> {
        let rows = |x: &Tensor, run: &Range<usize>| x.narrow(0, run.start, run.len());
        let taken = match runs {
            [run] => rows(x, run)?,
            _ => Tensor::cat(&runs.iter().map(|run| rows(x, run)).collect::<Result<Vec<_>, _>>()?, 0)?,
        };
        let inner = host::scale(self.down.forward(&taken)?, self.scale)?;
        match runs {
            [run] if host::here(y) => self.up.add_to(rows(y, run)?, &inner).map(drop),
            _ => {
                // The matrix is read once for all runs.
                let made = self.up.forward(&inner)?;
                let mut done = 0;
                for run in runs {
                    host::add_rows(y, run.start, &made.narrow(0, done, run.len())?)?;
                    done += run.len();
                }
                Ok(())
            }
        }
    }
}

impl Adapted {
    /// What the spans of a step take.
    pub fn of(spans: &[Span]) -> Self {
        let mut runs: Vec<(Range<usize>, usize)> = Vec::new();
        for span in spans.iter().filter(|span| !span.rows.is_empty()) {
            let Some(adapter) = span.mode.adapter else { continue };
            match runs.last_mut() {
                Some((rows, last)) if *last == adapter && rows.end == span.rows.start => rows.end = span.rows.end,
                _ => runs.push((span.rows.clone(), adapter)),
            }
        }
        Self(runs)
    }

    /// The same for some neighbouring rows, of which the first becomes row 0.
    pub fn part(&self, part: Range<usize>) -> Self {
        let inside = |rows: &Range<usize>| rows.start.max(part.start)..rows.end.min(part.end);
        let runs = self.0.iter().map(|(rows, adapter)| (inside(rows), *adapter)).filter(|(rows, _)| !rows.is_empty());
        Self(runs.map(|(rows, adapter)| (rows.start - part.start..rows.end - part.start, adapter)).collect())
    }

    /// The same for some runs of rows, one behind the other.
    pub(crate) fn parts(&self, parts: &[Range<usize>]) -> Self {
        let (mut runs, mut before) = (Vec::new(), 0);
        for part in parts {
            let own = self.part(part.clone()).0.into_iter();
            runs.extend(own.map(|(rows, adapter)| (rows.start + before..rows.end + before, adapter)));
            before += part.len();
        }
        Self(runs)
    }

    /// Rows that take the adapters of this number.
    pub(crate) fn runs(&self, adapter: usize) -> Vec<Range<usize>> {
        self.0.iter().filter(|(_, number)| *number == adapter).map(|(rows, _)| rows.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadSettings, Mode};
    use candle_core::Device;
    use std::collections::HashMap;

    fn spans(adapters: &[(usize, Option<usize>)]) -> Vec<Span> {
        let mut row = 0;
        let span = |&(rows, adapter): &(usize, Option<usize>)| {
            row += rows;
            Span { rows: row - rows..row, mode: Mode { adapter, ..Mode::default() }, ..Span::default() }
        };
        adapters.iter().map(span).collect()
    }

    #[test]
    fn neighbours_that_take_the_same_are_one_run() {
        let adapted = Adapted::of(&spans(&[(2, Some(1)), (1, Some(1)), (3, None), (0, Some(0)), (1, Some(0)), (2, Some(1))]));
        assert_eq!(adapted.0, [(0..3, 1), (6..7, 0), (7..9, 1)]);
        assert_eq!(adapted.runs(1), [0..3, 7..9]);
        assert_eq!(adapted.part(2..8).0, [(0..1, 1), (4..5, 0), (5..6, 1)]);
        assert_eq!(adapted.part(3..6), Adapted::default());
        assert_eq!(adapted.parts(&[1..4, 5..8]).0, [(0..2, 1), (4..5, 0), (5..6, 1)]);
    }

    /// A layer that doubles, and adapters that add a multiple of the first input, or of the second.
    #[test]
    fn each_row_takes_the_adapter_of_its_sequence() {
        let folder = tempfile::tempdir().unwrap();
        let tensor = |numbers: &[f32], shape: (usize, usize)| Tensor::from_slice(numbers, shape, &Device::Cpu).unwrap();
        let tensors = HashMap::from([
            ("l.base_layer.weight", tensor(&[2.0, 0.0, 0.0, 2.0], (2, 2))),
            ("l.lora_A.a.weight", tensor(&[1.0, 0.0], (1, 2))),
            ("l.lora_B.a.weight", tensor(&[10.0, 20.0], (2, 1))),
            ("l.lora_A.b.weight", tensor(&[0.0, 1.0, 0.0, 1.0], (2, 2))),
            ("l.lora_B.b.weight", tensor(&[100.0, 0.0, 0.0, 100.0], (2, 2))),
        ]);
        candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
        let checkpoint = Arc::new(Checkpoint::open(&crate::Files::Folder(folder.path().into())).unwrap());
        let w = Weights::new(checkpoint.clone(), LoadSettings::default());
        let sets = [("a", 0.5), ("b", 1.0), ("none", 1.0)].map(|(name, scale)| AdapterSet::within(&w, name, scale));
        let linear = w.with_adapters(sets.into()).linear("l", 2, 2, Bias::Absent).unwrap();
        assert_eq!(checkpoint.leftover(), [""; 0]);
        let adapted = Adapted::of(&spans(&[(1, Some(0)), (1, None), (1, Some(1)), (1, Some(0)), (1, Some(2))]));
        let x = tensor(&[1.0, 3.0].repeat(5), (5, 2));
        let expected = [[7.0f32, 16.0], [2.0, 6.0], [302.0, 306.0], [7.0, 16.0], [2.0, 6.0]];
        assert_eq!(linear.forward_adapted(&x, &adapted).unwrap().to_vec2::<f32>().unwrap(), expected);
        let y = linear.add_to_adapted(tensor(&[1.0; 10], (5, 2)), &x, &adapted).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), expected.map(|row| row.map(|x| x + 1.0)));
    }
}
