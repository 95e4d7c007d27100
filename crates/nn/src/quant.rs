use std::fmt;
use std::str::FromStr;

use candle_core::quantized::GgmlDType;
use kernels::BlockFormat;

/// A block format of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the formats' own
pub enum Quant {
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
}

/// Which of the language model's matrices are quantised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Organization {
    /// All but routers.
    #[default]
    Default,
    /// Those of routed experts alone (Kim et al. 2023, "Mixture of Quantized Experts"): they are most of a model, and each errs in a
    /// part of the result.
    Moqe,
}

const NAMES: [(&str, Quant); 16] = [
    ("2", Quant::Q2K),
    ("3", Quant::Q3K),
    ("4", Quant::Q4K),
    ("5", Quant::Q5K),
    ("6", Quant::Q6K),
    ("8", Quant::Q8_0),
    ("q2k", Quant::Q2K),
    ("q3k", Quant::Q3K),
    ("q4k", Quant::Q4K),
    ("q5k", Quant::Q5K),
    ("q6k", Quant::Q6K),
    ("q8_0", Quant::Q8_0),
    ("q4_0", Quant::Q4_0),
    ("q4_1", Quant::Q4_1),
    ("q5_0", Quant::Q5_0),
    ("q5_1", Quant::Q5_1),
];

/// What is asked for elsewhere and made for other hardware, or no better than what is here; and what to take instead.
const ELSEWHERE: [(&str, Quant); 12] = [
    ("q8_1", Quant::Q8_0),
    ("q8k", Quant::Q8_0),
    ("hqq4", Quant::Q4K),
    ("hqq8", Quant::Q8_0),
    ("fp8", Quant::Q8_0),
    ("f8q8", Quant::Q8_0),
    ("mxfp4", Quant::Q4K),
    ("afq2", Quant::Q2K),
    ("afq3", Quant::Q3K),
    ("afq4", Quant::Q4K),
    ("afq6", Quant::Q6K),
    ("afq8", Quant::Q8_0),
];

impl Quant {
    /// All of them, by their bits.
    pub const ALL: [Self; 10] =
        [Self::Q2K, Self::Q3K, Self::Q4_0, Self::Q4K, Self::Q4_1, Self::Q5_0, Self::Q5K, Self::Q5_1, Self::Q6K, Self::Q8_0];

    /// Bits that a weight takes, its share of the scales included.
    pub fn bits(self) -> f64 {
        let format = self.block_format();
        8.0 * format.block_bytes() as f64 / format.block_size() as f64
    }

    /// The format for a token table or output head when the rest has this one: these matter more than their size.
    pub fn promoted(self) -> Self {
        match self {
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q4_0 | Self::Q4_1 => Self::Q6K,
            Self::Q5K | Self::Q5_0 | Self::Q5_1 | Self::Q6K | Self::Q8_0 => Self::Q8_0,
        }
    }

    /// This format, or the nearest one whose blocks divide rows of `columns` weights; `None` when none does.
    pub fn fitting(self, columns: usize) -> Option<Self> {
        let smaller = match self {
            Self::Q2K | Self::Q3K => Self::Q4_0,
            Self::Q4K => Self::Q5_0,
            Self::Q5K => Self::Q5_1,
            Self::Q6K => Self::Q8_0,
            other => other,
        };
        [self, smaller].into_iter().find(|q| columns.is_multiple_of(q.block_format().block_size()))
    }

    /// Whether its blocks are of 256 weights.
    pub(crate) fn is_k_quant(self) -> bool {
        self.block_format().block_size() == 256
    }

    pub(crate) fn block_format(self) -> BlockFormat {
        match self {
            Self::Q2K => BlockFormat::Q2K,
            Self::Q3K => BlockFormat::Q3K,
            Self::Q4K => BlockFormat::Q4K,
            Self::Q5K => BlockFormat::Q5K,
            Self::Q6K => BlockFormat::Q6K,
            Self::Q8_0 => BlockFormat::Q8_0,
            Self::Q4_0 => BlockFormat::Q4_0,
            Self::Q4_1 => BlockFormat::Q4_1,
            Self::Q5_0 => BlockFormat::Q5_0,
            Self::Q5_1 => BlockFormat::Q5_1,
        }
    }

    /// The same format as candle calls it.
    pub(crate) fn ggml(self) -> GgmlDType {
        match self {
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
        }
    }
}

impl FromStr for Quant {
    type Err = String;

    /// A level (`4`) or a name (`q4k`), in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = text.to_ascii_lowercase();
        let named = |names: &[(&str, Self)]| names.iter().find(|(name, _)| *name == wanted).map(|(_, quant)| *quant);
        named(&NAMES).ok_or_else(|| match named(&ELSEWHERE) {
            Some(instead) => format!("{text:?} cannot be made here; {instead} is what comes nearest"),
            None => {
                let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                format!("{text:?} is not a quantisation; known are {}", known.join(", "))
            }
        })
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().rev().find(|(_, quant)| quant == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels() {
        for (text, expected) in [("4", "q4k"), ("Q8_0", "q8_0"), ("8", "q8_0"), ("q5_1", "q5_1")] {
            assert_eq!(text.parse::<Quant>().unwrap().to_string(), expected);
        }
        for (text, expected) in [("7", "known are 2, 3"), ("AFQ4", "\"AFQ4\" cannot be made here; q4k is"), ("fp8", "q8_0 is")] {
            assert!(text.parse::<Quant>().unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn rows_that_blocks_do_not_divide_take_smaller_blocks() {
        let cases = [(Quant::Q4K, 512, Some(Quant::Q4K)), (Quant::Q4K, 96, Some(Quant::Q5_0)), (Quant::Q6K, 48, None)];
        for (quant, columns, expected) in cases {
            assert_eq!(quant.fitting(columns), expected);
        }
    }
}
