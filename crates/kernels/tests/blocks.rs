//! Blocks are read as the `gguf` Python package reads them (golden/blocks.py wrote the file), and written at least as well as
//! llama.cpp writes them.

use kernels::Isa;
use kernels::blocks::{BlockFormat, dequantise, quantise};

const BLOCKS: usize = 3;

#[test]
fn blocks_are_read_as_llama_cpp_reads_them() {
    let mut golden = include_bytes!("golden/blocks.bin").as_slice();
    for format in BlockFormat::ALL {
        let blocks = golden.split_off(..BLOCKS * format.block_bytes()).expect("blocks");
        let weights = golden.split_off(..BLOCKS * format.block_size() * 4).expect("weights");
        let expected: Vec<f32> = weights.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut read = vec![0.0; expected.len()];
        dequantise(format, blocks, &mut read);
        assert!(read == expected, "{format:?}");
    }
    assert!(golden.is_empty());
}

/// About normally distributed, with tails.
fn weights() -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut weight = || {
        let normal = (0..4).map(|_| uniform()).sum::<f32>();
        0.05 * normal * (1.0 + normal * normal)
    };
    (0..64 * 1024).map(|_| weight()).collect()
}

fn written_and_read(isa: Isa, format: BlockFormat, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let mut blocks = vec![0; x.len() / format.block_size() * format.block_bytes()];
    quantise(isa, format, x, importance, &mut blocks);
    let mut read = vec![0.0; x.len()];
    dequantise(format, &blocks, &mut read);
    read
}

#[test]
fn errors_are_not_larger_than_those_of_llama_cpp() {
    // Relative errors of the same weights in llama.cpp's quantisers (ggml-quants.c of August 2025): all columns alike, and with the
    // importance below.
    use BlockFormat::*;
    let theirs = [
        (Q4_0, [0.11677, 0.11218]),
        (Q4_1, [0.09705, 0.08582]),
        (Q5_0, [0.05854, 0.05638]),
        (Q5_1, [0.04714, 0.04166]),
        (Q8_0, [0.00734, 0.00733]),
        (Q2K, [0.36248, 0.29743]),
        (Q3K, [0.18637, 0.17668]),
        (Q4K, [0.09025, 0.08724]),
        (Q5K, [0.04550, 0.04400]),
        (Q6K, [0.02346, 0.02274]),
    ];
    let x = weights();
    let importance: Vec<f32> = (0..1024_u16).map(|i| f32::from(1 + i % 7)).collect();
    for (format, theirs) in theirs {
        for (importance, theirs) in [None, Some(importance.as_slice())].into_iter().zip(theirs) {
            for isa in Isa::available() {
                let read = written_and_read(isa, format, &x, importance);
                let (mut error, mut size) = (0.0, 0.0);
                for (i, (x, read)) in x.iter().zip(&read).enumerate() {
                    let importance = importance.map_or(1.0, |importance| f64::from(importance[i % importance.len()]));
                    error += importance * f64::from(x - read).powi(2);
                    size += importance * f64::from(*x).powi(2);
                }
                let ours = f64::sqrt(error / size);
                assert!(ours < theirs * 1.001, "{format:?} {isa:?}: {ours} instead of {theirs}");
            }
        }
    }
}

#[test]
fn groups_of_one_value_keep_it() {
    for format in BlockFormat::ALL {
        for value in [0.0, 1.0, -1.0, 0.37, -123.0, 0.08] {
            // Runs of 32 equal values, some of them zero.
            let x: Vec<f32> = (0..1024).map(|i| if i / 32 % 3 == 1 { 0.0 } else { value }).collect();
            for isa in Isa::available() {
                let read = written_and_read(isa, format, &x, None);
                let error = x.iter().zip(&read).fold(0.0_f32, |most, (x, read)| most.max((x - read).abs()));
                // Half-precision factors; below 0.06 those of a 256-block become subnormal and coarser.
                assert!(error <= value.abs() * 2e-3, "{format:?} {isa:?}: {value} with error {error}");
            }
        }
    }
}

#[test]
fn strange_weights_do_not_panic() {
    let strange = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, f32::MIN, 1e-45, -1e-38, 0.0];
    let mut rng = fastrand::Rng::with_seed(1);
    let x: Vec<f32> = (0..4096).map(|_| strange[rng.usize(..strange.len())]).collect();
    for format in BlockFormat::ALL {
        for isa in Isa::available() {
            written_and_read(isa, format, &x, None);
            written_and_read(isa, format, &x, Some(&x[..1024]));
        }
    }
}
