//! Dense products at the shapes of real models, beside what the machine can do in arithmetic and in bandwidth.
//!
//! `cargo bench -p mistralrs-kernels --bench dense -- [Avx2] [pack|f32|bf16|f16] [8x1536x8960] [512]`: an instruction set other
//! than the best; a format; a shape; a number of rows.

mod machine;

use std::hint::black_box;
use std::time::Instant;

use half::{bf16, f16};
use kernels::{Cpu, Isa, Pool};
use kernels::{DenseFormat, DenseMatrix, Out, Source};

/// `(copies, inputs, outputs, rows)`: a 2B decoder's gate or up, down, and attention; a tower's attention; a small decoder's gate
/// or up; and gates that come from memory, since all copies together do not fit any cache.
const SHAPES: [(usize, usize, usize, &[usize]); 10] = [
    (1, 1536, 8960, &[1, 4, 8, 16, 64, 512]),
    (1, 8960, 1536, &[1, 4, 8, 16, 64, 512]),
    (1, 1536, 1536, &[1, 4, 8, 16, 64, 512]),
    (1, 1280, 3840, &[1024]),
    (1, 768, 2304, &[1024]),
    (1, 768, 768, &[1024]),
    (1, 768, 3072, &[1024]),
    (1, 3072, 768, &[1024]),
    (1, 576, 1536, &[1, 4, 8, 16, 64, 512]),
    (8, 1536, 8960, &[1, 4, 8, 16]),
];
const FORMATS: [(&str, DenseFormat); 3] = [("f32", DenseFormat::F32), ("bf16", DenseFormat::Bf16), ("f16", DenseFormat::F16)];
/// Seconds for one figure.
const PATIENCE: f64 = 0.07;

fn main() {
    let mut chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let isa = Isa::available().find(|isa| chosen.contains(&format!("{isa:?}"))).unwrap_or(Isa::best());
    chosen.retain(|arg| *arg != format!("{isa:?}"));
    let wanted = |labels: [&str; 3]| chosen.iter().all(|arg| labels.contains(&arg.as_str()));
    let cpus = [1, Cpu::host().pool.threads()].map(|threads| Cpu { isa, pool: Pool::new(threads) });
    if wanted(["pack"; 3]) {
        packing(&cpus);
    }
    println!("{isa:?}\n{}\n{}", machine::peaks(&cpus[0]), machine::peaks(&cpus[1]));
    println!("{:>5} {:>12} {:>5}  {:^27}  {:^27}", "kept", "shape", "rows", "one thread", "all threads");
    for (name, keep) in FORMATS {
        let numbers = if keep == DenseFormat::Bf16 { machine::Numbers::Bf16 } else { machine::Numbers::F32 };
        let peaks = cpus.each_ref().map(|cpu| machine::peak(cpu, numbers));
        for (copies, inputs, outputs, all_rows) in SHAPES {
            let shape = format!("{copies}x{inputs}x{outputs}");
            let rows: Vec<usize> = all_rows.iter().copied().filter(|m| wanted([name, &shape, &m.to_string()])).collect();
            if rows.is_empty() {
                continue;
            }
            let mut random = fastrand::Rng::with_seed(1);
            let weights: Vec<f32> = (0..inputs * outputs).map(|_| random.f32() - 0.5).collect();
            let pack = |_| DenseMatrix::pack(Cpu::host(), Source::F32(&weights), (outputs, inputs), keep);
            let matrices: Vec<DenseMatrix> = (0..copies).map(pack).collect();
            for m in rows {
                let figures = [0, 1].map(|i| {
                    let seconds = best(&cpus[i], &matrices, m);
                    let gflops = 2e-9 * (m * inputs * outputs) as f64 / seconds;
                    let bandwidth = 1e-9 * matrices[0].bytes() as f64 / seconds;
                    format!("{gflops:6.1} GF/s {} {bandwidth:5.1} GB/s", machine::share(gflops, peaks[i]))
                });
                println!("{name:>5} {shape:>12} {m:>5}  {}  {}", figures[0], figures[1]);
            }
        }
    }
}

/// Prints how fast weights of a 2B decoder's gate are packed.
fn packing(cpus: &[Cpu; 2]) {
    let shape = (8960, 1536);
    let f32s = vec![0.5; shape.0 * shape.1];
    let bf16s = vec![bf16::ONE; f32s.len()];
    let f16s = vec![f16::ONE; f32s.len()];
    for (from, source) in [("f32", Source::F32(&f32s)), ("bf16", Source::Bf16(&bf16s)), ("f16", Source::F16(&f16s))] {
        for (to, keep) in FORMATS {
            let speeds = cpus.each_ref().map(|cpu| {
                let seconds = (0..4).map(|_| {
                    let start = Instant::now();
                    black_box(DenseMatrix::pack(cpu, source, shape, keep));
                    start.elapsed().as_secs_f64()
                });
                1e-9 * f32s.len() as f64 / seconds.fold(f64::MAX, f64::min)
            });
            println!("packing {from:>4} as {to:>4}: {:.2}, {:.2} G weights/s", speeds[0], speeds[1]);
        }
    }
}

/// Seconds of a product with one of the matrices, in the fastest of several rounds.
fn best(cpu: &Cpu, matrices: &[DenseMatrix], rows: usize) -> f64 {
    let x = vec![0.5; rows * matrices[0].inputs()];
    let mut y = vec![0.0; rows * matrices[0].outputs()];
    let begin = Instant::now();
    let mut best = f64::MAX;
    while begin.elapsed().as_secs_f64() < PATIENCE {
        let start = Instant::now();
        for matrix in matrices {
            matrix.matmul(cpu, black_box(&x), None, Out::Write(black_box(&mut y)));
        }
        best = best.min(start.elapsed().as_secs_f64() / matrices.len() as f64);
    }
    best
}
