//! llama.cpp's importance matrices: GGUF, and the plain binary form that was before it.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::catch_unwind;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;

use super::Entries;

/// The largest models with hundreds of experts have matrices of about one GiB.
const BYTES_MAX: u64 = 4 << 30;

pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let about = file.metadata().map_err(|e| e.to_string())?;
    if !about.is_file() {
        return Err("it is not a regular file".into());
    }
    if about.len() > BYTES_MAX {
        return Err(format!("an importance matrix has at most {} GiB", BYTES_MAX >> 30));
    }
    let mut bytes = Vec::with_capacity(about.len() as usize);
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

pub fn parse(bytes: &[u8]) -> Result<Entries, String> {
    let entries = if bytes.starts_with(b"GGUF") { gguf(bytes)? } else { binary(bytes)? };
    if entries.is_empty() { Err("it has no entries".into()) } else { Ok(entries) }
}

/// Entries behind their number; what follows them (the chunks read, the name of the text) is of no use.
fn binary(bytes: &[u8]) -> Result<Entries, String> {
    let mut rest = bytes;
    let count = number(&mut rest).ok_or("it is not an importance matrix of llama.cpp")?;
    let damaged = |i| format!("it is not an importance matrix of llama.cpp, or a damaged one (entry {i} of {count})");
    (1..=count).map(|i| entry(&mut rest).ok_or_else(|| damaged(i))).collect()
}

/// A name, and the sum over a number of calls of the mean squares in each.
fn entry(rest: &mut &[u8]) -> Option<(String, Vec<f32>)> {
    let length = number(rest)?;
    let name = str::from_utf8(rest.split_off(..length)?).ok()?;
    let calls = number(rest)?.max(1) as f32;
    let width = number(rest)?;
    let sums = rest.split_off(..width.checked_mul(4)?)?;
    Some((name.to_string(), floats(sums).map(|sum| sum / calls).collect()))
}

/// The next i32, if it counts something.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let bytes = rest.split_off(..4)?.try_into().ok()?;
    usize::try_from(i32::from_le_bytes(bytes)).ok()
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// Two tensors per weight: sums of squares, [experts, inputs], and how many were added, [experts, 1].
fn gguf(bytes: &[u8]) -> Result<Entries, String> {
    // candle divides by the alignment that a file gives: a file that makes it panic is a damaged one.
    let content = catch_unwind(|| Content::read(&mut Cursor::new(bytes))).map_err(|_| "it is damaged")?;
    let content = content.map_err(|e| format!("it is damaged: {e}"))?;
    let kind = content.metadata.get("general.type").and_then(|kind| kind.to_string().ok());
    if kind.is_none_or(|kind| kind != "imatrix") {
        let kind = kind.map_or("nothing", String::as_str);
        return Err(format!("it is no importance matrix: general.type is {kind:?} where \"imatrix\" is expected"));
    }
    let mut tensors = Tensors { content: &content, bytes, numbers_left: bytes.len() / 4 };
    let weights = content.tensor_infos.keys().filter_map(|name| name.strip_suffix(".in_sum2"));
    let entry = |weight: &str| {
        let (sums, counts) = (tensors.numbers(&format!("{weight}.in_sum2"))?, tensors.numbers(&format!("{weight}.counts"))?);
        let means = means(&sums, &counts);
        let means = means.ok_or_else(|| format!("{weight:?} has {} sums for {} counts", sums.len(), counts.len()))?;
        Ok((weight.to_string(), means))
    };
    weights.map(entry).collect()
}

fn means(sums: &[f32], counts: &[f32]) -> Option<Vec<f32>> {
    let width = sums.len().checked_div(counts.len())?;
    if width == 0 || width * counts.len() != sums.len() {
        return None;
    }
    // All inputs of an expert that no token came to are alike.
    let mean = |sum: &f32, count: f32| if count == 0.0 { 1.0 } else { sum / count };
    let of_expert = |(sums, count): (&[f32], &f32)| sums.iter().map(|sum| mean(sum, *count)).collect::<Vec<_>>();
    Some(sums.chunks(width).zip(counts).flat_map(of_expert).collect())
}

struct Tensors<'a> {
    content: &'a Content,
    bytes: &'a [u8],
    /// Tensors that lie on top of each other would be larger than their file.
    numbers_left: usize,
}

impl Tensors<'_> {
    fn numbers(&mut self, name: &str) -> Result<Vec<f32>, String> {
        let info = self.content.tensor_infos.get(name).ok_or_else(|| format!("it has no tensor {name:?}"))?;
        if info.ggml_dtype != GgmlDType::F32 {
            return Err(format!("tensor {name:?} is not in f32"));
        }
        let count = info.shape.dims().iter().try_fold(1_usize, |count, side| count.checked_mul(*side));
        let left = count.and_then(|count| Some((count, self.numbers_left.checked_sub(count)?)));
        let start = self.content.tensor_data_offset.checked_add(info.offset).and_then(|start| usize::try_from(start).ok());
        let (Some((count, left)), Some(start)) = (left, start) else { return Err(outside(name)) };
        let bytes = self.bytes.get(start..).and_then(|bytes| bytes.get(..count * 4)).ok_or_else(|| outside(name))?;
        self.numbers_left = left;
        Ok(floats(bytes).collect())
    }
}

fn outside(name: &str) -> String {
    format!("tensor {name:?} reaches beyond its end; it is damaged or incomplete")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GGUF: &[u8] = include_bytes!("../../tests/golden/imatrix.gguf");
    const BINARY: &[u8] = include_bytes!("../../tests/golden/imatrix.dat");

    fn put(golden: &[u8], change: &[u8], with: &[u8]) -> Vec<u8> {
        let at = golden.windows(change.len()).position(|window| window == change).expect("something to change");
        let mut bytes = golden.to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    }

    #[test]
    fn both_forms_say_the_same() {
        let expected = [
            ("blk.0.attn_q.weight", vec![0.5, 1.0, 1.5, 2.0]),
            ("blk.0.ffn_gate_exps.weight", vec![1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.0, 0.75, 8.0]),
        ];
        let expected: Entries = expected.into_iter().map(|(name, values)| (name.to_string(), values)).collect();
        assert_eq!(parse(BINARY).unwrap(), expected);
        assert_eq!(parse(GGUF).unwrap(), expected);
    }

    #[test]
    fn what_is_cut_off_or_spoiled_is_an_error_or_other_numbers() {
        // Behind the entries: padding; the number of chunks and the text's name.
        for (golden, behind) in [(GGUF, 4), (BINARY, 8 + "calibration.txt".len())] {
            let entries = golden.len() - behind;
            assert_eq!(parse(&golden[..entries]), parse(golden));
            for end in 0..entries {
                assert!(parse(&golden[..end]).is_err(), "{end}");
            }
            for at in 0..golden.len() {
                for byte in [0, 0x7f, 0x80, 0xff] {
                    let mut bytes = golden.to_vec();
                    bytes[at] = byte;
                    // Must end, in whatever way.
                    let _ = parse(&bytes);
                }
            }
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let huge = [0xff; 8];
        let alignment = [4, 0, 0, 0, 16, 0, 0, 0];
        let cases: [(Vec<u8>, &str); 9] = [
            (Vec::new(), "not an importance matrix of llama.cpp"),
            (b"words of some text file".to_vec(), "entry 1 of"),
            (i32::MAX.to_le_bytes().to_vec(), "entry 1 of 2147483647"),
            (vec![0; 12], "it has no entries"),
            (put(GGUF, b"imatrix", b"adapter"), "general.type is \"adapter\" where \"imatrix\" is expected"),
            (put(GGUF, b"attn_q.weight.counts", b"attn_q.weight.countz"), "it has no tensor \"blk.0.attn_q.weight.counts\""),
            (put(GGUF, &alignment, &[4, 0, 0, 0, 0]), "it is damaged"),
            (put(GGUF, &4_u64.to_le_bytes(), &huge), "it is damaged"),
            (GGUF[..GGUF.len() - 40].to_vec(), "reaches beyond its end"),
        ];
        for (bytes, expected) in cases {
            let message = parse(&bytes).unwrap_err();
            assert!(message.contains(expected), "{expected:?} in {message:?}");
        }
        for (sums, counts) in [(4, 3), (0, 1), (4, 0), (2, 4)] {
            assert_eq!(means(&vec![1.0; sums], &vec![1.0; counts]), None);
        }
    }

    #[test]
    fn sizes_are_checked_before_anything_is_read() {
        // The widths of the experts' sums: 4 of 3 experts.
        let shape: Vec<u8> = [4_u64, 3].iter().flat_map(|side| side.to_le_bytes()).collect();
        for side in [1 << 20, 1 << 61, u64::MAX] {
            let message = parse(&put(GGUF, &shape, &side.to_le_bytes())).unwrap_err();
            assert!(message.contains("reaches beyond its end"), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap_err(), "it is not a regular file");
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert_eq!(read(&large).unwrap_err(), "an importance matrix has at most 4 GiB");
    }
}
