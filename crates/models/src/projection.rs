use nn::{Bias, Linear, NnError, Tensor, Weights, clamp};

/// How the linear layers of a tower are stored, and what else they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// A matrix `NAME.weight`.
    Plain,
    /// A matrix `NAME.linear.weight`.
    Wrapped,
    /// The same, with bounds on what the layer is given and makes: `NAME.input_min`, `input_max`, `output_min`, `output_max`.
    Clipped,
}

/// Linear layers without bias that read the same input, their outputs side by side.
#[derive(Debug)]
pub enum Projection {
    Whole(Linear),
    Clipped(Vec<Clipped>),
}

/// A linear layer with bounds.
#[derive(Debug)]
pub struct Clipped {
    linear: Linear,
    input: [f32; 2],
    output: [f32; 2],
}

impl Projection {
    /// Layers (name, outputs).
    pub fn load(parts: &[(&str, usize)], inputs: usize, stored: Stored, w: &Weights) -> Result<Self, NnError> {
        match stored {
            Stored::Plain => Ok(Self::Whole(w.stacked(parts, inputs, Bias::Absent)?)),
            Stored::Wrapped => {
                let names: Vec<String> = parts.iter().map(|(name, _)| format!("{name}.linear")).collect();
                let parts: Vec<_> = names.iter().zip(parts).map(|(name, (_, outputs))| (name.as_str(), *outputs)).collect();
                Ok(Self::Whole(w.stacked(&parts, inputs, Bias::Absent)?))
            }
            Stored::Clipped => {
                let load = |(name, outputs): &(&str, usize)| Clipped::load(&w.at(name), inputs, *outputs);
                Ok(Self::Clipped(parts.iter().map(load).collect::<Result<_, _>>()?))
            }
        }
    }

    /// [rows, inputs] → [rows, outputs of all]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        match self {
            Self::Whole(linear) => linear.forward(x),
            Self::Clipped(parts) => match parts.as_slice() {
                [one] => one.forward(x),
                parts => Ok(Tensor::cat(&parts.iter().map(|part| part.forward(x)).collect::<Result<Vec<_>, _>>()?, 1)?),
            },
        }
    }
}

impl Clipped {
    fn load(w: &Weights, inputs: usize, outputs: usize) -> Result<Self, NnError> {
        let bound = |name: &str| Ok::<_, NnError>(w.number(name, &[])? as f32);
        Ok(Self {
            linear: w.linear("linear", inputs, outputs, Bias::Absent)?,
            input: [bound("input_min")?, bound("input_max")?],
            output: [bound("output_min")?, bound("output_max")?],
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        clamp(self.linear.forward(&clamp(x.copy()?, self.input)?)?, self.output)
    }
}
