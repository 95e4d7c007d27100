use std::ops::Range;

use candle_core::Tensor;

use super::join;
use crate::NnError;

/// Some of a layer's outputs: of every group of neighbours the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs<'a> {
    /// Of the layer.
    pub(super) name: &'a str,
    /// All that it has.
    pub(super) count: usize,
    group: usize,
    taken: Range<usize>,
}

/// A tensor [outputs, inputs...], and what is taken of it.
pub(super) struct Part<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub outputs: Outputs<'a>,
}

impl<'a> Outputs<'a> {
    /// All of them.
    pub fn all(name: &'a str, count: usize) -> Self {
        Self { name, count, group: count, taken: 0..count }
    }

    /// Neighbours.
    pub fn some(name: &'a str, count: usize, taken: Range<usize>) -> Self {
        Self { name, count, group: count, taken }
    }

    /// The outputs of a layer that makes two things by turns, `width` outputs of each: the first thing, and the second.
    pub fn halves(name: &'a str, count: usize, width: usize) -> [Self; 2] {
        [0..width, width..2 * width].map(|taken| Self { name, count, group: 2 * width, taken })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.runs().map(|run| run.len()).sum()
    }

    /// The places of those that are taken.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).step_by(self.group.max(1)).map(|group| group + self.taken.start..group + self.taken.end)
    }

    /// Those rows of a tensor with a row for each output.
    pub(super) fn of(&self, tensor: Tensor) -> Result<Tensor, NnError> {
        if self.taken.len() == self.count {
            return Ok(tensor);
        }
        join(self.runs().map(|run| Ok(tensor.narrow(0, run.start, run.len())?)).collect::<Result<_, NnError>>()?)
    }
}

impl<'a> Part<'a> {
    /// A layer's weight.
    pub fn weight(outputs: Outputs<'a>, inputs: &[usize]) -> Self {
        let shape = [&[outputs.count], inputs].concat();
        Self { name: format!("{}.weight", outputs.name), shape, outputs }
    }

    pub fn inputs(&self) -> usize {
        self.shape[1..].iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn heads_by_turns_come_apart() {
        let tensor = Tensor::arange(0u32, 12, &Device::Cpu).unwrap();
        let taken = |outputs: &Outputs| {
            let rows = outputs.of(tensor.clone()).unwrap().to_vec1::<u32>().unwrap();
            assert_eq!(outputs.runs().flatten().map(|row| row as u32).collect::<Vec<_>>(), rows);
            rows
        };
        let [first, second] = Outputs::halves("q_proj", 12, 3);
        assert_eq!(taken(&first), [0, 1, 2, 6, 7, 8]);
        assert_eq!(taken(&second), [3, 4, 5, 9, 10, 11]);
        assert_eq!(taken(&Outputs::all("q_proj", 12)), (0..12).collect::<Vec<_>>());
        assert_eq!(taken(&Outputs::some("q_proj", 12, 2..5)), [2, 3, 4]);
    }
}
