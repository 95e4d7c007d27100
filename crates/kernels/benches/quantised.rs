//! Products with quantised matrices: GOP/s, and for one row the GB/s at which weights are read.
//!
//!     cargo bench -p mistralrs-kernels --bench quantised -- [FORMAT] [ISA]

use std::time::{Duration, Instant};

use kernels::{BlockFormat, Cpu, Isa, Out, Pool, QuantisedMatrix};

const SHAPES: [(usize, usize); 4] = [(1536, 8960), (8960, 1536), (1536, 1536), (576, 1536)]; // inputs, outputs
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];
/// So many bytes of weights are in no cache.
const COLD_BYTES: usize = 200_000_000;
const TIME: Duration = Duration::from_millis(50);

/// Seconds of the fastest of several runs.
fn best_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let (mut best, start, mut runs) = (f64::MAX, Instant::now(), 0);
    while runs < 3 || start.elapsed() < TIME {
        let began = Instant::now();
        work();
        best = best.min(began.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn matrix(cpu: &Cpu, format: BlockFormat, (inputs, outputs): (usize, usize)) -> QuantisedMatrix {
    let mut matrix = QuantisedMatrix::new(format, outputs, inputs);
    let mut bytes = vec![0; outputs * inputs / format.block_size() * format.block_bytes()];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    matrix.pack_rows(cpu, 0, &bytes);
    matrix
}

fn line(cpu: &Cpu, format: BlockFormat, shape: (usize, usize)) {
    let (inputs, outputs) = shape;
    let weight = matrix(cpu, format, shape);
    print!("  {inputs:5} x {outputs:5}:");
    for rows in ROWS {
        let x: Vec<f32> = (0..rows * inputs).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut y = vec![0.0; rows * outputs];
        let seconds = best_seconds(|| weight.matmul(cpu, &x, None, Out::Write(&mut y)));
        print!(" {rows}: {:4.0}", 2.0 * (rows * inputs * outputs) as f64 / seconds / 1e9);
        if rows == 1 {
            print!(" ({:3.0} GB/s)", weight.bytes() as f64 / seconds / 1e9);
        }
    }
    println!();
}

/// One row, weights that come from memory.
fn cold(cpu: &Cpu, format: BlockFormat) {
    let (inputs, outputs) = SHAPES[0];
    let first = matrix(cpu, format, SHAPES[0]);
    let count = COLD_BYTES / first.bytes();
    let weights: Vec<QuantisedMatrix> = (0..count).map(|_| matrix(cpu, format, SHAPES[0])).collect();
    let (x, mut y) = (vec![0.5; inputs], vec![0.0; outputs]);
    let seconds = best_seconds(|| weights.iter().for_each(|weight| weight.matmul(cpu, &x, None, Out::Write(&mut y))));
    println!("  one row from memory: {:.1} GB/s", (first.bytes() * count) as f64 / seconds / 1e9);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let names = |name: &dyn std::fmt::Debug| wanted.contains(&format!("{name:?}"));
    let formats: Vec<BlockFormat> = BlockFormat::ALL.into_iter().filter(|format| names(format)).collect();
    let formats = if formats.is_empty() { BlockFormat::ALL.to_vec() } else { formats };
    let isa = Isa::available().find(|isa| names(isa)).unwrap_or(Isa::best());
    for threads in [1, std::thread::available_parallelism().map_or(1, |n| n.get())] {
        let cpu = Cpu { isa, pool: Pool::new(threads) };
        for &format in &formats {
            println!("{format:?}, {isa:?}, {threads} threads, GOP/s by rows");
            SHAPES
                .into_iter()
                .filter(|(inputs, _)| inputs % format.block_size() == 0)
                .for_each(|shape| line(&cpu, format, shape));
            cold(&cpu, format);
        }
    }
}
