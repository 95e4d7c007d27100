use nn::{Bias, Linear, NnError, Tensor, Weights, clamp};

/// How the linear layers of a tower are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clipping {
    /// As matrices.
    Absent,
    /// With bounds on what each is given and makes: `input_min`, `input_max`, `output_min`, `output_max`.
    Present,
}

impl Clipping {
    /// For configs that say it with a boolean.
    pub fn when(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }
}

/// Linear layers that read the same input, their outputs side by side.
#[derive(Debug)]
pub enum Projection {
    Plain(Linear),
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
    /// Layers (name, outputs), of which each has its weight in `NAME.linear`.
    pub fn load(parts: &[(&str, usize)], inputs: usize, clipping: Clipping, w: &Weights) -> Result<Self, NnError> {
        let names: Vec<String> = parts.iter().map(|(name, _)| format!("{name}.linear")).collect();
        let named: Vec<(&str, usize)> = names.iter().zip(parts).map(|(name, (_, outputs))| (name.as_str(), *outputs)).collect();
        match clipping {
            Clipping::Absent => Ok(Self::Plain(w.stacked(&named, inputs, Bias::Absent)?)),
            Clipping::Present => {
                let load = |(name, outputs): &(&str, usize)| Clipped::load(&w.at(name), inputs, *outputs);
                Ok(Self::Clipped(parts.iter().map(load).collect::<Result<_, _>>()?))
            }
        }
    }

    /// [rows, inputs] → [rows, outputs of all]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        match self {
            Self::Plain(linear) => linear.forward(x),
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
