//! Safetensors, one file or several, mapped into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use kernels::Source;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::{Files, NnError, Quant, host};

const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Key of a file's metadata: a JSON object with the format of each tensor that is in blocks of llama.cpp's, as bytes [.., bytes of a row].
pub(crate) const BLOCKS: &str = "blocks";

/// Named tensors, and which of them were taken.
pub struct Checkpoint {
    name: String,
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
}

struct Shard {
    file: String,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    /// Of numbers, where there are blocks of them.
    shape: Vec<usize>,
    /// The format of blocks.
    blocks: Option<Quant>,
    at: Range<usize>,
    taken: AtomicBool,
}

/// A tensor as it lies in its file.
pub(crate) struct Stored<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

impl Stored<'_> {
    /// Hands out its numbers; none, where they are no floats.
    pub fn floats<R: Default>(&self, work: impl FnOnce(Source<'_>) -> R) -> R {
        match dtype(self.dtype) {
            Some(dtype) => Source::with_bytes(self.bytes, host::dense_format(dtype), work),
            None => R::default(),
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps the model's safetensors files.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or is not safetensors; a tensor that the index promises is not in its shard.
    pub fn open(files: &Files) -> Result<Self, NnError> {
        let index: Option<Index> = files.json(INDEX)?;
        let names: BTreeSet<String> = match &index {
            Some(index) => index.weight_map.values().cloned().collect(),
            None => [SINGLE.to_string()].into(),
        };
        let mut checkpoint = Self { name: files.name(), shards: Vec::with_capacity(names.len()), entries: BTreeMap::new() };
        for name in &names {
            check_name(files, name)?;
            checkpoint.add(files, name)?;
        }
        let promised = index.map(|index| index.weight_map).unwrap_or_default();
        for (tensor, shard) in promised {
            let found = checkpoint.entries.get(&tensor).is_some_and(|e| checkpoint.shards[e.shard].file == files.label(&shard));
            if !found {
                return Err(NnError::Missing { checkpoint: files.label(&shard), name: tensor });
            }
        }
        Ok(checkpoint)
    }

    /// Maps one safetensors file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn of_file(files: &Files, name: &str) -> Result<Self, NnError> {
        let mut checkpoint = Self { name: files.label(name), shards: Vec::with_capacity(1), entries: BTreeMap::new() };
        checkpoint.add(files, name)?;
        Ok(checkpoint)
    }

    fn add(&mut self, files: &Files, name: &str) -> Result<(), NnError> {
        let file = files.label(name);
        let bytes = open(files, name)?;
        let data: &[u8] = bytes.as_ref();
        let damaged =
            |e: safetensors::SafeTensorError| NnError::File { file: file.clone(), reason: format!("not safetensors: {e}") };
        let (header, metadata) = SafeTensors::read_metadata(data).map_err(damaged)?;
        let first = header + 8;
        let blocks = blocks(&metadata, &file)?;
        for (tensor, info) in metadata.tensors() {
            let at = first + info.data_offsets.0..first + info.data_offsets.1;
            if at.end > data.len() {
                return Err(NnError::File {
                    file,
                    reason: format!("it ends within tensor {tensor:?}; the download is incomplete"),
                });
            }
            let (mut shape, blocks) = (info.shape.clone(), blocks.get(&tensor).copied());
            if let Some(quant) = blocks {
                let format = quant.block_format();
                let whole = shape.last_mut().filter(|bytes| info.dtype == Dtype::U8 && **bytes % format.block_bytes() == 0);
                let Some(last) = whole else {
                    return Err(NnError::File {
                        file,
                        reason: format!("tensor {tensor:?} does not hold whole blocks of {quant}"),
                    });
                };
                *last = *last / format.block_bytes() * format.block_size();
            }
            let entry = Entry { shard: self.shards.len(), dtype: info.dtype, shape, blocks, at, taken: false.into() };
            self.entries.insert(tensor, entry);
        }
        self.shards.push(Shard { file, bytes });
        Ok(())
    }

    /// Full names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this full name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor, if there is one of this full name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The format of a tensor that is in blocks.
    pub fn quant(&self, name: &str) -> Option<Quant> {
        self.entries.get(name)?.blocks
    }

    /// The format that some tensor is in, if some are in blocks.
    pub fn quantised(&self) -> Option<Quant> {
        self.entries.values().find_map(|entry| entry.blocks)
    }

    /// Whether there is any tensor below this prefix.
    pub fn has_below(&self, prefix: &str) -> bool {
        let below = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        self.entries.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }

    /// The number format that most weights are in; `None` when there are none.
    pub fn dtype(&self) -> Option<DType> {
        let mut bytes: BTreeMap<&str, (usize, DType)> = BTreeMap::new();
        for entry in self.entries.values() {
            if let Some(dtype) = dtype(entry.dtype) {
                bytes.entry(dtype.as_str()).or_insert((0, dtype)).0 += entry.at.len();
            }
        }
        bytes.into_values().max_by_key(|(bytes, _)| *bytes).map(|(_, dtype)| dtype)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.at.len()).sum()
    }

    /// Bytes of the tensors that were taken so far.
    pub fn bytes_taken(&self) -> usize {
        let taken = self.entries.values().filter(|entry| entry.taken.load(Ordering::Relaxed));
        taken.map(|entry| entry.at.len()).sum()
    }

    /// The tensor in the number format of its file, on a device.
    ///
    /// # Errors
    /// [`NnError::Missing`], [`NnError::Shape`], or a number format that is not a float.
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, NnError> {
        let entry = self.take(name, shape)?;
        let dtype = self.floats(name, entry)?;
        Ok(Tensor::from_raw_buffer(self.bytes_of(entry), dtype, shape, device)?)
    }

    /// Hands out a tensor's numbers where they lie in the mapped file.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn numbers<R>(&self, name: &str, shape: &[usize], work: impl FnOnce(Source<'_>) -> R) -> Result<R, NnError> {
        let entry = self.take(name, shape)?;
        let result = match entry.blocks {
            Some(quant) => work(Source::Blocks(quant.block_format(), self.bytes_of(entry))),
            None => Source::with_bytes(self.bytes_of(entry), host::dense_format(self.floats(name, entry)?), work),
        };
        self.shards[entry.shard].bytes.forget(&entry.at);
        Ok(result)
    }

    /// Marks a tensor as taken whose rows are asked for later.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn claim(&self, name: &str, shape: &[usize]) -> Result<(), NnError> {
        self.take(name, shape).map(drop)
    }

    /// Some rows of a table [.., width] as f32, [rows, width], read from the mapped file.
    ///
    /// # Errors
    /// There is no such tensor, or no such row.
    pub fn rows(&self, name: &str, rows: &[u32], width: usize) -> Result<Tensor, NnError> {
        let entry = self.entry(name)?;
        let (bytes, dtype) = (self.bytes_of(entry), dtype(entry.dtype).unwrap_or(DType::F32));
        let length = width * dtype.size_in_bytes();
        let mut numbers = vec![0.0; rows.len() * width];
        // Rows of no width are none, not chunks.
        for (into, &row) in numbers.chunks_exact_mut(width.max(1)).zip(rows) {
            let row =
                bytes.get(row as usize * length..(row as usize + 1) * length).ok_or(NnError::Input("a row of the table"))?;
            Source::with_bytes(row, host::dense_format(dtype), |row| row.widen(0..width, into));
        }
        Ok(Tensor::from_vec(numbers, (rows.len(), width), &Device::Cpu)?)
    }

    /// A tensor as it lies in its file.
    ///
    /// # Errors
    /// There is none of this name, or it is in blocks.
    pub(crate) fn stored(&self, name: &str) -> Result<Stored<'_>, NnError> {
        let entry = self.entry(name)?;
        if entry.blocks.is_some() {
            return Err(NnError::Blocks(format!("{} is quantised already", self.name)));
        }
        Ok(Stored { dtype: entry.dtype, shape: &entry.shape, bytes: self.bytes_of(entry) })
    }

    fn entry(&self, name: &str) -> Result<&Entry, NnError> {
        let missing = || NnError::Missing { checkpoint: self.name.clone(), name: name.to_string() };
        self.entries.get(name).ok_or_else(missing)
    }

    fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.shard].bytes.as_ref()[entry.at.clone()]
    }

    /// Marks a tensor as taken, and returns it if it has this shape and holds floats, or blocks of them.
    fn take(&self, name: &str, shape: &[usize]) -> Result<&Entry, NnError> {
        let entry = self.entry(name)?;
        entry.taken.store(true, Ordering::Relaxed);
        let file = || self.shards[entry.shard].file.clone();
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(NnError::Shape { file: file(), name: name.to_string(), found, expected });
        }
        if entry.blocks.is_none() {
            self.floats(name, entry)?;
        }
        Ok(entry)
    }

    /// The number format of a tensor that is not in blocks.
    fn floats(&self, name: &str, entry: &Entry) -> Result<DType, NnError> {
        let found = entry.blocks.map_or_else(|| format!("{:?}", entry.dtype), |quant| quant.to_string());
        let refused = || NnError::File {
            file: self.shards[entry.shard].file.clone(),
            reason: format!("tensor {name:?} has the number format {found}, which is not supported here (F32, F16 and BF16 are)"),
        };
        dtype(entry.dtype).filter(|_| entry.blocks.is_none()).ok_or_else(refused)
    }

    /// Marks every tensor whose name begins with `prefix` as known and not needed.
    pub fn skip(&self, prefix: &str) {
        let known = self.entries.range(prefix.to_string()..).take_while(|(name, _)| name.starts_with(prefix));
        known.for_each(|(_, entry)| entry.taken.store(true, Ordering::Relaxed));
    }

    /// Names of the tensors that nobody took.
    pub fn leftover(&self) -> Vec<&str> {
        let left = self.entries.iter().filter(|(_, entry)| !entry.taken.load(Ordering::Relaxed));
        left.map(|(name, _)| name.as_str()).collect()
    }
}

/// Which tensors of a file are in blocks: an object in its metadata, of names and formats.
fn blocks(metadata: &Metadata, file: &str) -> Result<BTreeMap<String, Quant>, NnError> {
    let Some(json) = metadata.metadata().as_ref().and_then(|metadata| metadata.get(BLOCKS)) else { return Ok(BTreeMap::new()) };
    let refused = |reason: String| NnError::File { file: file.into(), reason: format!("{BLOCKS} in its metadata: {reason}") };
    let named: BTreeMap<String, String> = serde_json::from_str(json).map_err(|e| refused(e.to_string()))?;
    let parsed = named.into_iter().map(|(name, format)| Ok((name, format.parse().map_err(refused)?)));
    parsed.collect()
}

/// Floats, as candle calls them.
fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Shards lie beside their index and nowhere else.
fn check_name(files: &Files, shard: &str) -> Result<(), NnError> {
    if shard.ends_with(".safetensors") && !shard.contains(['/', '\\']) {
        return Ok(());
    }
    let reason = format!("weight_map names {shard:?}, which is not a .safetensors file in the same folder");
    Err(NnError::Config { file: files.label(INDEX), reason })
}

fn open(files: &Files, name: &str) -> Result<Bytes, NnError> {
    let refused = |reason: String| NnError::File { file: files.label(name), reason };
    let Some(path) = files.path(name) else {
        return match files.read(name)? {
            Some(std::borrow::Cow::Borrowed(bytes)) => Ok(Bytes::Embedded(bytes)),
            _ => Err(refused("there is no such file".into())),
        };
    };
    let is_file = std::fs::metadata(&path).map(|m| m.is_file());
    match is_file {
        Ok(true) => {}
        Ok(false) => return Err(refused("it is not a regular file".into())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let advice =
                if name == SINGLE { "; only safetensors checkpoints are loaded" } else { "; the checkpoint is incomplete" };
            return Err(refused(format!("there is no such file{advice}")));
        }
        Err(e) => return Err(refused(e.to_string())),
    }
    let file = File::open(&path).map_err(|e| refused(e.to_string()))?;
    // SAFETY: the map is read-only and private. A file that another process truncates meanwhile ends this process with
    // SIGBUS, as in every program that maps weights; it cannot change our memory in other ways.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) };
    map.map(Bytes::Mapped).map_err(|e| refused(e.to_string()))
}

impl Bytes {
    /// Pages that were read need not stay in this process; they are read again if they are asked for.
    fn forget(&self, range: &Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is read-only and backed by a file, so what is given up comes back as it was.
            #[allow(unsafe_code)]
            let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // Advice that is not taken costs memory and nothing else.
            let _ = advised;
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tensors of {}", self.entries.len(), self.name)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::path::Path;

    fn write(folder: &Path, name: &str, tensors: &[(&str, &[usize])]) {
        let zeros = vec![0u8; 4096];
        let views: HashMap<String, safetensors::tensor::TensorView> = tensors
            .iter()
            .map(|(name, shape)| {
                let bytes = &zeros[..shape.iter().product::<usize>() * 4];
                (name.to_string(), safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
            })
            .collect();
        std::fs::write(folder.join(name), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn reads_shards_and_reports_what_nobody_took() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.safetensors", &[("x.weight", &[2, 3]), ("x.bias", &[2])]);
        write(folder.path(), "b.safetensors", &[("y.weight", &[4])]);
        let index = r#"{"weight_map": {"x.weight": "a.safetensors", "x.bias": "a.safetensors", "y.weight": "b.safetensors"}}"#;
        std::fs::write(folder.path().join(INDEX), index).unwrap();
        let checkpoint = Checkpoint::open(&Files::Folder(folder.path().into())).unwrap();
        assert!(checkpoint.has_below("x") && checkpoint.has("y.weight") && !checkpoint.has_below("z"));
        assert_eq!(checkpoint.tensor("y.weight", &[4], &Device::Cpu).unwrap().dims(), &[4]);
        assert_eq!(checkpoint.leftover(), ["x.bias", "x.weight"]);
        checkpoint.skip("x.b");
        assert_eq!(checkpoint.leftover(), ["x.weight"]);
    }

    /// F5, F6 of docs/reliability.md.
    #[test]
    fn says_what_is_wrong_and_where() {
        type Setup = fn(&Path);
        let cases: [(&str, Setup); 8] = [
            ("model.safetensors: there is no such file; only safetensors", |_| {}),
            ("not safetensors", |f| std::fs::write(f.join(SINGLE), "garbage").unwrap()),
            ("not safetensors", |f| std::fs::write(f.join(SINGLE), "").unwrap()),
            ("not a regular file", |f| std::fs::create_dir(f.join(SINGLE)).unwrap()),
            ("lost.safetensors: there is no such file; the checkpoint is incomplete", |f| {
                std::fs::write(f.join(INDEX), r#"{"weight_map": {"x": "lost.safetensors"}}"#).unwrap()
            }),
            ("is not a .safetensors file in the same folder", |f| {
                std::fs::write(f.join(INDEX), r#"{"weight_map": {"x": "../a.safetensors"}}"#).unwrap()
            }),
            ("a.safetensors has no tensor \"y\"", |f| {
                write(f, "a.safetensors", &[("x", &[1])]);
                std::fs::write(f.join(INDEX), r#"{"weight_map": {"y": "a.safetensors"}}"#).unwrap()
            }),
            ("weight_map: invalid type", |f| std::fs::write(f.join(INDEX), r#"{"weight_map": 3}"#).unwrap()),
        ];
        for (expected, setup) in cases {
            let folder = tempfile::tempdir().unwrap();
            setup(folder.path());
            let message = Checkpoint::open(&Files::Folder(folder.path().into())).expect_err(expected).to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn refuses_a_wrong_shape() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), SINGLE, &[("x", &[2, 3])]);
        let checkpoint = Checkpoint::open(&Files::Folder(folder.path().into())).unwrap();
        let message = checkpoint.tensor("x", &[3, 2], &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("\"x\" is [2, 3]; config.json calls for [3, 2]"), "{message}");
    }
}
