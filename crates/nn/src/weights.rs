mod experts;
mod footprint;
mod outputs;
mod settings;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};

use kernels::{KvFormat, Source};

use crate::adapter::{Adapter, AdapterSet};
use crate::importance::{Coverage, Observer, Watch};
use crate::linear::{Embedding, Format, Linear, Packed};
use crate::norm::{Norm, NormConfig};
use crate::{Checkpoint, NnError, Organization, Quant, host};
pub use footprint::Footprint;
use footprint::Ledger;
pub use outputs::Outputs;
use outputs::Part;
pub use settings::{Bias, LoadSettings, OnProgress, OnQuantised, Quantised, Reading, Role, Slice};

/// A position in a checkpoint. What is loaded here is loaded as [`LoadSettings`] and [`Role`] say.
#[derive(Clone)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    settings: Arc<LoadSettings>,
    dtype: DType,
    prefix: String,
    role: Role,
    known: Arc<Known>,
    ledger: Arc<Ledger>,
    adapters: Arc<[AdapterSet]>,
}

/// Matrices that were quantised so far.
#[derive(Default)]
struct Known {
    all: AtomicUsize,
    with_importance: AtomicUsize,
}

impl Weights {
    /// The top of a checkpoint.
    pub fn new(checkpoint: Arc<Checkpoint>, settings: LoadSettings) -> Self {
        let dtype = settings.dtype.or(checkpoint.dtype()).unwrap_or(DType::F32);
        let (prefix, role, settings) = (String::new(), Role::Decoder, Arc::new(settings));
        let (known, ledger, adapters) = Default::default();
        Self { checkpoint, settings, dtype, prefix, role, known, ledger, adapters }
    }

    /// Tells that everything is loaded, and how much of it an importance was known for, if there is one.
    ///
    /// # Errors
    /// The importance has nothing to do with this model.
    pub fn finished(&self) -> Result<Option<Coverage>, NnError> {
        (self.settings.progress)(self.checkpoint.bytes(), self.checkpoint.bytes());
        let Some(importance) = &self.settings.importance else { return Ok(None) };
        let Known { all, with_importance } = &*self.known;
        let coverage = Coverage { known: with_importance.load(Ordering::Relaxed), quantised: all.load(Ordering::Relaxed) };
        importance.check(coverage)?;
        Ok(Some(coverage))
    }

    /// What all that was loaded so far takes.
    pub fn footprint(&self) -> Footprint {
        self.ledger.sum()
    }

    /// Notes that layers below look at keys and values of media rows, so many bytes for each.
    pub(crate) fn looks_at(&self, bytes: usize) {
        self.ledger.looked_at(bytes);
    }

    /// Number format of weights that are not quantised.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// One or several levels further down.
    pub fn at(&self, name: impl Display) -> Self {
        Self { prefix: self.full(&name.to_string()), ..self.clone() }
    }

    /// The first of several places that exists: the names of one thing in different releases. Without any, the first. An empty
    /// name is this place.
    pub fn at_any(&self, names: &[&str]) -> Self {
        let found = names.iter().find(|name| self.checkpoint.has_below(&self.full(name)));
        self.at(found.or(names.first()).copied().unwrap_or_default())
    }

    /// The top of another checkpoint that belongs to the same model. How far it is loaded is told nobody.
    pub(crate) fn of(&self, checkpoint: Arc<Checkpoint>) -> Self {
        let settings = LoadSettings { progress: Arc::new(|_, _| ()), ..(*self.settings).clone() };
        Self { checkpoint, settings: Arc::new(settings), prefix: String::new(), adapters: Arc::default(), ..self.clone() }
    }

    /// The same position, where linear layers that are stored as one have adapters: the sets by their numbers.
    pub fn with_adapters(&self, sets: Vec<AdapterSet>) -> Self {
        Self { adapters: sets.into(), ..self.clone() }
    }

    /// The same position for another use.
    pub fn role(&self, role: Role) -> Self {
        Self { role, ..self.clone() }
    }

    /// Where the model lives.
    pub fn device(&self) -> &Device {
        &self.settings.device
    }

    /// Which part of a nested model is wanted, if not the whole.
    pub fn slice(&self) -> Option<&Slice> {
        self.settings.slice.as_ref()
    }

    /// Whether there is a tensor of this name here.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(&self.full(name))
    }

    /// The shape of a tensor here, for configurations that leave sizes out.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint.shape(&self.full(name))
    }

    /// Marks tensors here whose names begin with `name` as known and not needed.
    pub fn skip(&self, name: &str) {
        self.checkpoint.skip(&self.full(name));
    }

    /// A tensor as f32.
    ///
    /// # Errors
    /// It is missing or shaped otherwise.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        let tensor = self.raw(name, shape)?.to_dtype(DType::F32)?;
        self.ledger.weights(self.role, tensor.elem_count() * size_of::<f32>());
        Ok(tensor)
    }

    /// A single number, in a tensor of one element.
    ///
    /// # Errors
    /// It is missing or shaped otherwise.
    pub fn number(&self, name: &str, shape: &[usize]) -> Result<f64, NnError> {
        let numbers = self.tensor(name, shape)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.first().copied().map_or(f64::NAN, f64::from))
    }

    /// A linear layer: `name.weight` [outputs, inputs] and, where present, `name.bias` [outputs].
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: Bias) -> Result<Linear, NnError> {
        self.stacked(&[(name, outputs)], inputs, bias)
    }

    /// A linear layer that takes the first `taken` of the `stored` inputs that `name.weight` [outputs, stored] has, without bias.
    ///
    /// # Errors
    /// The tensor is missing or shaped otherwise.
    pub fn linear_of_first(&self, name: &str, (taken, stored): (usize, usize), outputs: usize) -> Result<Linear, NnError> {
        /// Rows that are cut together.
        const ROWS: usize = 256;
        if taken == stored {
            return self.linear(name, stored, outputs, Bias::Absent);
        }
        let part = Part::weight(Outputs::all(name, outputs), &[stored]);
        let (full, format) = (self.full(&part.name), self.format(&[&part.name], taken)?);
        let importance = self.importance(&full, taken, format)?;
        let linear = if self.device().is_cpu() {
            let mut packed = self.matrix(1, (outputs, taken), format);
            self.numbers(&full, (&part.shape, format), |weight| {
                let mut cut = vec![0.0; ROWS.min(outputs) * taken];
                for first in (0..outputs).step_by(ROWS) {
                    let rows = first..outputs.min(first + ROWS);
                    let cut = &mut cut[..rows.len() * taken];
                    for (row, into) in rows.zip(cut.chunks_exact_mut(taken.max(1))) {
                        weight.widen(row * stored..row * stored + taken, into);
                    }
                    packed.fill(first, Source::F32(cut), importance.as_deref());
                }
            })?;
            Linear::packed(Arc::new(packed), None)
        } else {
            let weight = self.raw(&part.name, &part.shape)?.narrow(1, 0, taken)?.contiguous()?;
            Linear::elsewhere(weight, None, format, importance.as_deref())?
        };
        self.tell();
        Ok(linear.watched(self.watch(&[part])))
    }

    /// Several linear layers that read the same input, as one: the outputs of (name, outputs) follow each other.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn stacked(&self, parts: &[(&str, usize)], inputs: usize, bias: Bias) -> Result<Linear, NnError> {
        let parts: Vec<Outputs> = parts.iter().map(|(name, outputs)| Outputs::all(name, *outputs)).collect();
        self.stacked_outputs(&parts, inputs, bias)
    }

    /// The same for some of each layer's outputs.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn stacked_outputs(&self, parts: &[Outputs], inputs: usize, bias: Bias) -> Result<Linear, NnError> {
        let without: &[&str] = match bias {
            Bias::Except(names) => names,
            Bias::Absent | Bias::Present => &[],
        };
        let of_part = |part: &Outputs| match without.contains(&part.name) {
            true => part.of(Tensor::zeros(part.count, DType::F32, self.device())?),
            false => part.of(self.tensor(&format!("{}.bias", part.name), &[part.count])?),
        };
        let biases = match bias {
            Bias::Absent => None,
            Bias::Present | Bias::Except(_) => Some(join(parts.iter().map(of_part).collect::<Result<_, _>>()?)?),
        };
        let parts: Vec<Part> = parts.iter().map(|part| Part::weight(part.clone(), &[inputs])).collect();
        self.linear_from(&parts, biases)
    }

    /// The same, where the checkpoint may keep all of them as one layer of another name.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn fused_or(&self, fused: &str, parts: &[Outputs], inputs: usize, bias: Bias) -> Result<Linear, NnError> {
        let whole = Outputs::all(fused, parts.iter().map(Outputs::taken).sum());
        let found = self.checkpoint.has(&self.weight_of(&Part::weight(whole.clone(), &[inputs])));
        self.stacked_outputs(if found { std::slice::from_ref(&whole) } else { parts }, inputs, bias)
    }

    /// A convolution whose stride is its kernel, as a linear layer over flattened patches: `name.weight`
    /// [outputs, patch...] and `name.bias` where present.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn patch_linear(&self, name: &str, patch: &[usize], outputs: usize, bias: Bias) -> Result<Linear, NnError> {
        self.ledger.patch(self.role, patch, outputs);
        self.conv_linear(name, patch, outputs, bias)
    }

    /// The same for a convolution further up, whose kernel is no patch of a picture.
    pub(crate) fn conv_linear(&self, name: &str, patch: &[usize], outputs: usize, bias: Bias) -> Result<Linear, NnError> {
        let bias = if bias == Bias::Present { Some(self.tensor(&format!("{name}.bias"), &[outputs])?) } else { None };
        self.linear_from(&[Part::weight(Outputs::all(name, outputs), patch)], bias)
    }

    /// Convolutions of single pixels that read the same input, as one linear layer without bias: (name, outputs) of weights
    /// [outputs, inputs, 1, 1].
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn pointwise(&self, parts: &[(&str, usize)], inputs: usize) -> Result<Linear, NnError> {
        let parts = parts.iter().map(|(name, outputs)| Part::weight(Outputs::all(name, *outputs), &[inputs, 1, 1]));
        let parts: Vec<Part> = parts.collect();
        self.linear_from(&parts, None)
    }

    /// A linear layer of tensors that need work before they are one: weight [outputs, inputs], bias [outputs].
    ///
    /// # Errors
    /// The device failed.
    pub fn linear_of(&self, weight: Tensor, bias: Option<Tensor>) -> Result<Linear, NnError> {
        let shape = weight.dims2()?;
        let format = self.format::<&str>(&[], shape.1)?;
        if !host::here(&weight) {
            return Linear::elsewhere(weight, bias, format, None);
        }
        let mut packed = self.matrix(1, shape, format);
        host::read(&weight.to_dtype(DType::F32)?, |weight| packed.fill(0, Source::F32(weight), None))?;
        Ok(Linear::packed(Arc::new(packed), bias))
    }

    /// The parts one below the other. On the CPU they go straight from the mapped file into the kernels' layout.
    fn linear_from(&self, parts: &[Part], bias: Option<Tensor>) -> Result<Linear, NnError> {
        let inputs = parts.first().map_or(0, Part::inputs);
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let format = self.format(&names, inputs)?;
        let linear = if self.device().is_cpu() {
            Linear::packed(Arc::new(self.packed(parts, inputs, format)?), bias)
        } else {
            let weights = parts.iter().map(|part| {
                part.outputs.of(self.checkpoint.tensor(&self.weight_of(part), &part.shape, self.device())?.flatten_from(1)?)
            });
            // The parts have the same inputs.
            let importance = parts.first().map(|part| self.importance(&self.full(&part.name), inputs, format)).transpose()?;
            let weight = join(weights.collect::<Result<_, NnError>>()?)?;
            Linear::elsewhere(weight, bias, format, importance.flatten().as_deref())?
        };
        self.tell();
        Ok(linear.watched(self.watch(parts)).with_adapters(self.adapters(parts)?))
    }

    /// Tells how far loading is.
    fn tell(&self) {
        (self.settings.progress)(self.checkpoint.bytes_taken(), self.checkpoint.bytes());
    }

    fn packed(&self, parts: &[Part], inputs: usize, format: Format) -> Result<Packed, NnError> {
        let outputs = parts.iter().flat_map(|part| part.outputs.runs()).map(|run| run.len()).sum();
        let mut packed = self.matrix(1, (outputs, inputs), format);
        let mut done = 0;
        for part in parts {
            let importance = self.importance(&self.full(&part.name), inputs, format)?;
            self.numbers(&self.weight_of(part), (&part.shape, format), |weight| {
                for run in part.outputs.runs() {
                    packed.fill(done, weight.part(run.start * inputs..run.end * inputs), importance.as_deref());
                    done += run.len();
                }
            })?;
        }
        Ok(packed)
    }

    /// To be filled by what [`Self::numbers`] hands out.
    fn matrix(&self, experts: usize, (outputs, inputs): (usize, usize), format: Format) -> Packed {
        self.ledger.weights(self.role, Packed::bytes_of(experts, (outputs, inputs), format));
        self.ledger.layer(self.role, outputs + inputs);
        match self.settings.reading {
            Reading::Whole => Packed::of_experts(experts, (outputs, inputs), format),
            Reading::Shapes => Packed::Unread { outputs, inputs },
        }
    }

    /// Tells that a tensor is quantised, if it is.
    fn note(&self, name: &str, format: Format, turned: bool) {
        if let (Format::Blocks(quant), Some(tell)) = (format, &self.settings.on_quantised) {
            tell(Quantised { name: name.to_string(), quant, turned });
        }
    }

    /// Hands out a tensor's numbers, or checks its shape where only shapes are read.
    fn numbers(&self, name: &str, (shape, format): (&[usize], Format), work: impl FnOnce(Source<'_>)) -> Result<(), NnError> {
        self.note(name, format, false);
        self.unnoted(name, shape, work)
    }

    fn unnoted(&self, name: &str, shape: &[usize], work: impl FnOnce(Source<'_>)) -> Result<(), NnError> {
        match self.settings.reading {
            Reading::Whole => self.checkpoint.numbers(name, shape, work),
            Reading::Shapes => self.checkpoint.claim(name, shape),
        }
    }

    fn importance(&self, weight: &str, inputs: usize, format: Format) -> Result<Option<Vec<f32>>, NnError> {
        let (Format::Blocks(_), Some(importance)) = (format, &self.settings.importance) else { return Ok(None) };
        let found = importance.of(weight, inputs)?;
        self.known.all.fetch_add(1, Ordering::Relaxed);
        self.known.with_importance.fetch_add(usize::from(found.is_some()), Ordering::Relaxed);
        Ok(found)
    }

    fn watch(&self, parts: &[Part]) -> Option<Watch> {
        let observer = self.observer()?;
        Some(observer.watch(parts.iter().map(|part| self.full(&part.name)).collect()))
    }

    /// Towers and routers stay dense, so nobody asks what they are given.
    fn observer(&self) -> Option<&Observer> {
        self.settings.observer.as_ref().filter(|_| !matches!(self.role, Role::Encoder | Role::Router))
    }

    /// `name.weight` [vocab, width] as a token table, and as the output head that is tied to it.
    ///
    /// # Errors
    /// It is missing or shaped otherwise.
    pub fn tied_embedding(&self, name: &str, vocab: usize, width: usize) -> Result<(Embedding, Linear), NnError> {
        let parts = [Part::weight(Outputs::all(name, vocab), &[width])];
        let name = format!("{name}.weight");
        let format = self.format(&[&name], width)?;
        if !self.device().is_cpu() {
            let table = self.raw(&name, &[vocab, width])?;
            let importance = self.importance(&self.full(&name), width, format)?;
            let head = Linear::elsewhere(table.clone(), None, format, importance.as_deref())?;
            return Ok((Embedding::Table(table), head.watched(self.watch(&parts))));
        }
        let packed = Arc::new(self.packed(&parts, width, format)?);
        Ok((Embedding::Head(packed.clone()), Linear::packed(packed, None).watched(self.watch(&parts))))
    }

    /// `name.weight` as a token table [vocab, width].
    ///
    /// # Errors
    /// It is missing or shaped otherwise.
    pub fn embedding(&self, name: &str, vocab: usize, width: usize) -> Result<Embedding, NnError> {
        let name = format!("{name}.weight");
        if !self.device().is_cpu() {
            return Ok(Embedding::Table(self.raw(&name, &[vocab, width])?));
        }
        let full = self.full(&name);
        if let Some(quant) = self.checkpoint.quant(&full) {
            let part = Part { name: name.clone(), shape: vec![vocab, width], outputs: Outputs::all(&name, vocab) };
            return Ok(Embedding::Head(Arc::new(self.packed(&[part], width, Format::Blocks(quant))?)));
        }
        self.checkpoint.claim(&full, &[vocab, width])?;
        Ok(Embedding::File { checkpoint: self.checkpoint.clone(), name: full, shape: (vocab, width) })
    }

    /// How precise attention in a tower is.
    pub fn attention_format(&self) -> KvFormat {
        host::kv_format(self.dtype)
    }

    /// The format of a matrix that is made of the tensors with these names.
    fn format<T: AsRef<str>>(&self, names: &[T], inputs: usize) -> Result<Format, NnError> {
        let stored: BTreeSet<Option<Quant>> = names.iter().map(|name| self.checkpoint.quant(&self.full(name.as_ref()))).collect();
        match stored.iter().collect::<Vec<_>>()[..] {
            [] | [None] => {}
            [Some(quant)] => return Ok(Format::Blocks(*quant)),
            _ => {
                let names = names.iter().map(|name| self.full(name.as_ref())).collect::<Vec<_>>().join(", ");
                return Err(NnError::Blocks(format!("tensors that are one matrix here are stored in several formats: {names}")));
            }
        }
        let formats = names.iter().map(|name| self.topology(&self.full(name.as_ref())));
        let mut formats: Vec<Option<Quant>> = formats.collect();
        formats.dedup();
        let chosen = match formats[..] {
            [] | [None] => self.quant(),
            [chosen] => chosen,
            _ => {
                let reason = format!(
                    "they are one matrix here, so they have one format or none: {}",
                    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
                );
                return Err(NnError::Topology { rule: self.prefix.clone(), reason });
            }
        };
        Ok(chosen.and_then(|quant| quant.fitting(inputs)).map_or(Format::Dense(self.dtype), Format::Blocks))
    }

    /// What the topology says of a tensor. It is about the language model, and not about what chooses experts.
    fn topology(&self, name: &str) -> Option<Quant> {
        self.settings.topology.quant(name).filter(|_| !matches!(self.role, Role::Encoder | Role::Router))
    }

    /// A norm over `width` elements: `name.weight`, and `name.bias` where its kind has one.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn norm(&self, name: &str, width: usize, config: NormConfig) -> Result<Norm, NnError> {
        let weight = match config {
            NormConfig::RmsUnweighted { .. } => Tensor::ones(width, DType::F32, self.device())?,
            _ => self.tensor(&format!("{name}.weight"), &[width])?,
        };
        Ok(match config {
            NormConfig::Rms { eps } | NormConfig::RmsUnweighted { eps } => Norm::Rms { weight, eps },
            NormConfig::RmsPlusOne { eps } => Norm::Rms { weight: (weight + 1.0)?, eps },
            NormConfig::Layer { eps } => Norm::Layer { weight, bias: self.tensor(&format!("{name}.bias"), &[width])?, eps },
            NormConfig::LayerUnbiased { eps } => Norm::Layer { bias: weight.zeros_like()?, weight, eps },
        })
    }

    fn quant(&self) -> Option<Quant> {
        match (self.role, self.settings.organization) {
            (Role::Expert, _) | (Role::Decoder, Organization::Default) => self.settings.quant,
            (Role::Vocabulary, Organization::Default) => self.settings.quant.map(Quant::promoted),
            (Role::Decoder | Role::Vocabulary, Organization::Moqe) | (Role::Router | Role::Encoder, _) => None,
        }
    }

    /// # Errors
    /// Only experts are to be quantised, and there are none.
    pub(crate) fn check_organization(&self, has_experts: bool) -> Result<(), NnError> {
        match self.settings.organization {
            Organization::Moqe if !has_experts => Err(NnError::NoExperts),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// The topology speaks of what a language model with so many layers, which begins here, has not.
    pub(crate) fn check_topology(&self, layers: usize) -> Result<(), NnError> {
        let here = |name: &&str| name.starts_with(&self.prefix) || name.ends_with("lm_head.weight");
        let names: Vec<String> = self.checkpoint.names().filter(here).map(|name| name.replace(".base_layer.", ".")).collect();
        self.settings.topology.check(layers, names.iter().map(String::as_str))
    }

    /// The full name of a layer's weight. Once adapters were trained for the layer, it lies a level further down (PEFT).
    fn weight_of(&self, part: &Part) -> String {
        let below = self.full(&format!("{}.base_layer.weight", part.outputs.name));
        if self.checkpoint.has(&below) { below } else { self.full(&part.name) }
    }

    /// Of a linear layer, by number.
    fn adapters(&self, parts: &[Part]) -> Result<Box<[Option<Adapter>]>, NnError> {
        let ([part], Role::Decoder) = (parts, self.role) else { return Ok(Box::default()) };
        let (layer, shape) = (self.full(part.outputs.name), (part.outputs.taken(), part.inputs()));
        self.adapters.iter().map(|set| set.load(&layer, shape)).collect()
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        self.checkpoint.tensor(&self.full(name), shape, &self.settings.device)
    }

    fn full(&self, name: &str) -> String {
        match (self.prefix.as_str(), name) {
            ("", name) => name.to_string(),
            (prefix, "") => prefix.to_string(),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }
}

fn join(mut parts: Vec<Tensor>) -> Result<Tensor, NnError> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(Tensor::cat(&parts, 0)?),
    }
}
