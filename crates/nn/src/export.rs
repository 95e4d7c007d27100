//! A checkpoint, some of whose tensors are in blocks: what [`Checkpoint`] reads again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::Source;
use kernels::blocks::quantise_weight;
use safetensors::{Dtype, View};
use serde_json::json;

use crate::checkpoint::{BLOCKS, Checkpoint, INDEX, Stored};
use crate::{NnError, OnProgress, Quantised, host};

/// Bytes of a file, unless one tensor has more.
const SHARD: usize = 4 << 30;

/// A tensor on its way into a file. It is quantised when its turn comes.
struct Exported<'a> {
    name: String,
    stored: Stored<'a>,
    quantised: Option<Quantised>,
    shape: Vec<usize>,
    /// Bytes of the checkpoint that were read, of all of them.
    progress: &'a dyn Fn(usize),
}

/// Writes all tensors of a checkpoint to a folder, those of `quantised` in blocks, and an index where there are several files.
///
/// # Errors
/// A tensor cannot be quantised, or a file cannot be written.
pub fn export(checkpoint: &Checkpoint, quantised: &[Quantised], folder: &Path, progress: &OnProgress) -> Result<(), NnError> {
    let chosen: BTreeMap<&str, &Quantised> = quantised.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let (done, all) = (AtomicUsize::new(0), checkpoint.bytes());
    let tell = |bytes: usize| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, all);
    let mut shards: Vec<Vec<Exported>> = Vec::new();
    let mut shard = Vec::new();
    let mut bytes = 0;
    for name in checkpoint.names() {
        let tensor = Exported::new(checkpoint.stored(name)?, name, chosen.get(name).copied(), &tell)?;
        if bytes > 0 && bytes + tensor.data_len() > SHARD {
            shards.push(std::mem::take(&mut shard));
            bytes = 0;
        }
        bytes += tensor.data_len();
        shard.push(tensor);
    }
    shards.push(shard);
    let count = shards.len();
    let name = |i: usize| match count {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    let mut weight_map: BTreeMap<String, String> = BTreeMap::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let formats = shard.iter().filter_map(|tensor| Some((&tensor.name, tensor.quantised.as_ref()?.quant.to_string())));
        let formats: BTreeMap<_, _> = formats.collect();
        let metadata =
            HashMap::from([("format".to_string(), "pt".to_string()), (BLOCKS.to_string(), json!(formats).to_string())]);
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), name(i))));
        let path = folder.join(name(i));
        let tensors = shard.into_iter().map(|tensor| (tensor.name.clone(), tensor));
        let refused = |e: safetensors::SafeTensorError| NnError::File { file: path.display().to_string(), reason: e.to_string() };
        safetensors::serialize_to_file(tensors, Some(metadata), &path).map_err(refused)?;
    }
    if count > 1 {
        let path = folder.join(INDEX);
        let refused = |e: std::io::Error| NnError::File { file: path.display().to_string(), reason: e.to_string() };
        std::fs::write(&path, json!({"metadata": {}, "weight_map": weight_map}).to_string()).map_err(refused)?;
    }
    Ok(())
}

impl<'a> Exported<'a> {
    fn new(stored: Stored<'a>, name: &str, quantised: Option<&Quantised>, progress: &'a dyn Fn(usize)) -> Result<Self, NnError> {
        let mut shape = stored.shape.to_vec();
        if let Some(Quantised { quant, turned, .. }) = quantised {
            if *turned {
                let last = shape.len();
                shape.swap(last - 2, last - 1);
            }
            let format = quant.block_format();
            let whole = shape.last_mut().filter(|columns| **columns % format.block_size() == 0);
            let Some(columns) = whole else {
                return Err(NnError::Blocks(format!("{name} has rows that are no whole blocks of {quant}")));
            };
            *columns = *columns / format.block_size() * format.block_bytes();
        }
        Ok(Self { name: name.to_string(), stored, quantised: quantised.cloned(), shape, progress })
    }

    fn blocks(&self, Quantised { quant, turned, .. }: &Quantised, weight: Source) -> Vec<u8> {
        let (cpu, format) = (host::cpu(), quant.block_format());
        let [.., rows, columns] = self.stored.shape[..] else { return Vec::new() };
        if !turned {
            return quantise_weight(cpu, format, weight, columns, None);
        }
        let (size, mut turned) = (rows * columns, vec![0.0; rows * columns]);
        let mut blocks = Vec::with_capacity(self.data_len());
        for matrix in 0..weight.len() / size.max(1) {
            weight.part(matrix * size..(matrix + 1) * size).turned(cpu, (rows, columns), &mut turned);
            blocks.extend(quantise_weight(cpu, format, Source::F32(&turned), rows, None));
        }
        blocks
    }
}

impl View for Exported<'_> {
    fn dtype(&self) -> Dtype {
        if self.quantised.is_some() { Dtype::U8 } else { self.stored.dtype }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = match &self.quantised {
            None => Cow::Borrowed(self.stored.bytes),
            Some(quantised) => Cow::Owned(self.stored.floats(|weight| self.blocks(quantised, weight))),
        };
        (self.progress)(self.stored.bytes.len());
        data
    }

    fn data_len(&self) -> usize {
        if self.quantised.is_some() { self.shape.iter().product() } else { self.stored.bytes.len() }
    }
}
