//! Importance by watching: linear layers send what they see to the one who made the model read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use candle_core::{DType, Device, Tensor};

use super::{Entries, Importance};
use crate::{Batch, Cache, LoadSettings, Model, NnError, Prompt, host};

/// Logits are asked for of one row in so many: the output head is known well enough by these, and logits of all rows would take
/// more memory than the layers.
const HEAD_EVERY: usize = 8;

/// Watches a model while it reads.
pub struct Calibration {
    seen: Receiver<Seen>,
    sums: BTreeMap<Arc<[String]>, Sums>,
    device: Device,
}

/// What was seen of one layer so far.
struct Sums {
    rows: usize,
    squares: Vec<f64>,
}

/// What a layer was given once.
struct Seen {
    weights: Arc<[String]>,
    rows: usize,
    /// The sum of squares of each input.
    squares: Vec<f32>,
}

/// Makes a watch for each layer.
#[derive(Debug, Clone)]
pub struct Observer(Sender<Seen>);

/// A layer's side of a [`Calibration`].
#[derive(Debug, Clone)]
pub struct Watch {
    /// Full names of the weights that share the layer's inputs.
    weights: Arc<[String]>,
    to: Sender<Seen>,
}

impl Calibration {
    /// Also returns the settings to load the model with that is to be watched: as given, but not quantised.
    pub fn new(settings: &LoadSettings) -> (Self, LoadSettings) {
        let (to, seen) = channel();
        let device = settings.device.clone();
        let watched = LoadSettings { quant: None, importance: None, observer: Some(Observer(to)), ..settings.clone() };
        (Self { seen, sums: BTreeMap::new(), device }, watched)
    }

    /// Lets the model read a text that has nothing to do with those before; `dtype` is that of its cache.
    ///
    /// # Errors
    /// A token is unknown, or the device failed.
    pub fn read(&mut self, model: &dyn Model, dtype: DType, tokens: &[u32]) -> Result<(), NnError> {
        let wanted = (0..tokens.len()).step_by(HEAD_EVERY).collect();
        let mut cache = Cache::alone(model.cache_spec(), tokens.len(), host::kv_format(dtype), &self.device)?;
        let batch = Batch::alone(&Prompt::text(tokens.to_vec()), &cache, wanted);
        model.forward(&batch, &mut cache)?;
        self.gather();
        Ok(())
    }

    /// Adds what layers have sent.
    pub(crate) fn gather(&mut self) {
        for Seen { weights, rows, squares } in self.seen.try_iter() {
            let nothing = || Sums { rows: 0, squares: vec![0.0; squares.len()] };
            let sums = self.sums.entry(weights).or_insert_with(nothing);
            sums.rows += rows;
            sums.squares.iter_mut().zip(&squares).for_each(|(sum, square)| *sum += f64::from(*square));
        }
    }

    /// What was seen; messages call it `source`.
    ///
    /// # Errors
    /// The model computed numbers that are not finite.
    pub fn finish(self, source: String) -> Result<Importance, NnError> {
        let mut entries = Entries::new();
        for (weights, Sums { rows, squares }) in self.sums {
            let means: Vec<f32> = squares.iter().map(|square| (square / rows as f64) as f32).collect();
            entries.extend(weights.iter().map(|weight| (weight.clone(), means.clone())));
        }
        Importance::new(source, entries)
    }
}

impl Observer {
    /// For the layer of these weights.
    pub(crate) fn watch(&self, weights: Arc<[String]>) -> Watch {
        Watch { weights, to: self.0.clone() }
    }
}

impl Watch {
    /// Sees x [rows, inputs].
    pub fn see(&self, x: &Tensor) -> Result<(), NnError> {
        let (rows, inputs) = x.dims2()?;
        let squares = host::read(&x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?, |x| {
            let mut squares = vec![0.0; inputs];
            for row in x.chunks_exact(inputs) {
                squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
            }
            squares
        })?;
        // Nobody listens any more once the calibration is finished.
        let _ = self.to.send(Seen { weights: self.weights.clone(), rows, squares });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Format, Linear, Packed};
    use crate::{CacheSpec, Encoded, MediaInput, Pause};

    /// Gives its layer two rows twice.
    struct Toy {
        linear: Linear,
        x: [[f32; 2]; 2],
        spec: CacheSpec,
    }

    impl Model for Toy {
        fn cache_spec(&self) -> &CacheSpec {
            &self.spec
        }

        fn vocab_size(&self) -> usize {
            self.linear.outputs()
        }

        fn encode(&self, _: &MediaInput, _: &mut Pause) -> Result<Encoded, NnError> {
            Err(NnError::Input("media"))
        }

        fn forward(&self, _: &Batch, _: &mut Cache) -> Result<Tensor, NnError> {
            let x = Tensor::new(&self.x, &Device::Cpu)?;
            self.linear.add_to(self.linear.forward(&x)?, &x)
        }
    }

    fn read(x: [[f32; 2]; 2], times: usize) -> Result<Importance, NnError> {
        let (mut calibration, settings) = Calibration::new(&LoadSettings::default());
        let watch = settings.observer.unwrap().watch(["a".to_string(), "b".to_string()].into());
        let packed = Packed::new((3, 2), Format::Dense(DType::F32));
        let toy = Toy { linear: Linear::packed(packed.into(), None).watched(Some(watch)), x, spec: CacheSpec::default() };
        (0..times).try_for_each(|_| calibration.read(&toy, DType::F32, &[1, 2, 3]))?;
        calibration.finish("text.txt".into())
    }

    #[test]
    fn every_weight_of_a_layer_has_the_mean_squares_of_its_inputs() {
        for times in [1, 3] {
            let expected = ["a", "b"].map(|name| (name.to_string(), vec![5.0, 10.0]));
            let expected = Importance { source: "text.txt".into(), entries: expected.into() };
            assert_eq!(read([[1.0, 2.0], [3.0, 4.0]], times).unwrap(), expected);
        }
        let message = read([[1.0, f32::NAN], [1.0, 1.0]], 1).unwrap_err().to_string();
        assert_eq!(message, "text.txt: \"a\" has a value that is negative or not finite");
    }
}
