//! Quantises f32 numbers from the standard input, whole blocks of them, to llama.cpp's blocks on the standard output.
//!
//!     cargo run --release -p mistralrs-kernels --example blocks -- Q4K < weights > blocks

use std::error::Error;
use std::io::{Read, Write};

use kernels::{BlockFormat, Isa, blocks};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let format = BlockFormat::ALL.into_iter().find(|format| format!("{format:?}") == name);
    let format = format.ok_or_else(|| format!("a format is one of {:?}", BlockFormat::ALL))?;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let weights: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut out = vec![0; weights.len() / format.block_size() * format.block_bytes()];
    blocks::quantise(Isa::best(), format, &weights, None, &mut out);
    Ok(std::io::stdout().write_all(&out)?)
}
