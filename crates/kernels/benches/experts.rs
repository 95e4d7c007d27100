//! The experts of a layer (128 of them, 8 for each row, 2048 x 768, as in a model of 30 G weights with 3 G in use): both products,
//! beside one product after the other for each expert that has rows. `cargo bench --bench experts -- [bf16|Q4K|...] [--rounds 15]`

mod machine;

use std::time::Instant;

use kernels::blocks::BlockFormat;
use kernels::{Cpu, DenseFormat, DenseMatrix, Out, QuantisedMatrix, Routes, Source, elementwise};

const EXPERTS: usize = 128;
const CHOSEN: usize = 8;
const HIDDEN: usize = 2048;
const INNER: usize = 768;
const ROWS: [usize; 3] = [1, 8, 512];
/// Steps with other choices, so that a few rows find no expert in a cache.
const STEPS: usize = 12;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let rounds = words.iter().position(|word| word == "--rounds").and_then(|i| words.get(i + 1)?.parse().ok()).unwrap_or(15);
    let wanted = |name: &str| words.iter().any(|word| word.eq_ignore_ascii_case(name));
    let mut formats: Vec<BlockFormat> = BlockFormat::ALL.into_iter().filter(|format| wanted(&format!("{format:?}"))).collect();
    if formats.is_empty() && !wanted("bf16") {
        formats = vec![BlockFormat::Q4K, BlockFormat::Q8_0];
    }
    println!("{}", machine::peaks(Cpu::host()));
    if words.is_empty() || wanted("bf16") {
        let layer = Layer::new(|outputs, inputs| dense(1, outputs, inputs), |outputs, inputs| dense(EXPERTS, outputs, inputs));
        compare("bf16", rounds, &layer);
    }
    for format in formats {
        let of = |experts| move |outputs, inputs| quantised(experts, format, outputs, inputs);
        compare(&format!("{format:?}"), rounds, &Layer::new(of(1), of(EXPERTS)));
    }
}

trait Weights {
    fn bytes(&self) -> usize;
    fn matmul(&self, x: &[f32], y: &mut [f32]);
    fn dispatch(&self, x: &[f32], routes: Routes, y: &mut [f32]);
    fn combine(&self, x: &[f32], routes: Routes, y: &mut [f32]);
}

macro_rules! weights {
    ($type:ty) => {
        impl Weights for $type {
            fn bytes(&self) -> usize {
                self.bytes()
            }
            fn matmul(&self, x: &[f32], y: &mut [f32]) {
                self.matmul(Cpu::host(), x, None, Out::Write(y));
            }
            fn dispatch(&self, x: &[f32], routes: Routes, y: &mut [f32]) {
                self.dispatch(Cpu::host(), x, routes, y);
            }
            fn combine(&self, x: &[f32], routes: Routes, y: &mut [f32]) {
                self.combine(Cpu::host(), x, routes, y);
            }
        }
    };
}

weights!(DenseMatrix);
weights!(QuantisedMatrix);

struct Layer<W> {
    /// One matrix per expert.
    apart: [Vec<W>; 2],
    /// All of them in one.
    together: [W; 2],
}

impl<W> Layer<W> {
    fn new(one: impl Fn(usize, usize) -> W, all: impl Fn(usize, usize) -> W) -> Self {
        let shapes = [(INNER, HIDDEN), (HIDDEN, INNER)];
        Self {
            apart: shapes.map(|(outputs, inputs)| (0..EXPERTS).map(|_| one(outputs, inputs)).collect()),
            together: shapes.map(|(outputs, inputs)| all(outputs, inputs)),
        }
    }
}

fn dense(experts: usize, outputs: usize, inputs: usize) -> DenseMatrix {
    let mut weights = DenseMatrix::of_experts(experts, (outputs, inputs), DenseFormat::Bf16);
    let one = numbers(outputs * inputs);
    (0..experts).for_each(|e| weights.pack_rows(Cpu::host(), e * outputs, Source::F32(&one)));
    weights
}

fn quantised(experts: usize, format: BlockFormat, outputs: usize, inputs: usize) -> QuantisedMatrix {
    let mut weights = QuantisedMatrix::of_experts(experts, format, outputs, inputs);
    let mut blocks = vec![0; outputs * inputs / format.block_size() * format.block_bytes()];
    fastrand::Rng::with_seed(1).fill(&mut blocks);
    (0..experts).for_each(|e| weights.pack_rows(Cpu::host(), e * outputs, &blocks));
    weights
}

fn numbers(count: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(2);
    (0..count).map(|_| rng.f32() - 0.5).collect()
}

/// Pairs of one step, sorted by expert.
struct Step {
    starts: Vec<usize>,
    rows: Vec<u32>,
    shares: Vec<f32>,
}

impl Step {
    fn new(rows: usize, rng: &mut fastrand::Rng) -> Self {
        let chosen: Vec<Vec<usize>> = (0..rows).map(|_| rng.choose_multiple(0..EXPERTS, CHOSEN)).collect();
        let (mut starts, mut of_pairs) = (vec![0], vec![]);
        for expert in 0..EXPERTS {
            of_pairs.extend((0..rows).filter(|row| chosen[*row].contains(&expert)).map(|row| row as u32));
            starts.push(of_pairs.len());
        }
        Self { starts, shares: vec![1.0 / CHOSEN as f32; of_pairs.len()], rows: of_pairs }
    }

    fn routes(&self) -> Routes<'_> {
        Routes { starts: &self.starts, rows: &self.rows, shares: &self.shares }
    }

    /// Experts that have any, and which.
    fn each(&self) -> impl Iterator<Item = (usize, &[u32])> {
        let all = self.starts.windows(2).enumerate().map(|(e, at)| (e, &self.rows[at[0]..at[1]]));
        all.filter(|(_, rows)| !rows.is_empty())
    }
}

/// Prints medians of both ways, measured in turn.
fn compare<W: Weights>(name: &str, rounds: usize, layer: &Layer<W>) {
    for rows in ROWS {
        let mut rng = fastrand::Rng::with_seed(rows as u64);
        let steps: Vec<Step> = (0..STEPS).map(|_| Step::new(rows, &mut rng)).collect();
        let (x, mut y) = (numbers(rows * HIDDEN), vec![0.0; rows * HIDDEN]);
        let mut inner = vec![0.0; rows * CHOSEN * INNER];
        let mut times = [vec![], vec![]];
        for round in 0..rounds * 2 {
            let start = Instant::now();
            for step in &steps {
                if round % 2 == 0 {
                    layer.together[0].dispatch(&x, step.routes(), &mut inner);
                    layer.together[1].combine(&inner, step.routes(), &mut y);
                } else {
                    one_by_one(&layer.apart, step, &x, &mut y);
                }
            }
            times[round % 2].push(start.elapsed().as_secs_f64() / STEPS as f64);
        }
        let [together, apart] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let experts = steps.iter().map(|step| step.each().count()).sum::<usize>() as f64 / STEPS as f64;
        let bytes = experts * layer.apart.iter().map(|weights| weights[0].bytes() as f64).sum::<f64>();
        let operations = 4.0 * (rows * CHOSEN * HIDDEN * INNER) as f64;
        let figures =
            |time: f64| format!("{:8.0} us {:5.1} GB/s {:5.0} GOP/s", 1e6 * time, 1e-9 * bytes / time, 1e-9 * operations / time);
        println!(
            "{name:>5} {rows:>4} rows: together {}, one by one {}, {:.2} times as fast",
            figures(together),
            figures(apart),
            apart / together
        );
    }
}

fn one_by_one<W: Weights>(weights: &[Vec<W>; 2], step: &Step, x: &[f32], y: &mut [f32]) {
    for (expert, rows) in step.each() {
        let own: Vec<f32> = rows.iter().flat_map(|row| &x[*row as usize * HIDDEN..][..HIDDEN]).copied().collect();
        let (mut inner, mut out) = (vec![0.0; rows.len() * INNER], vec![0.0; rows.len() * HIDDEN]);
        weights[0][expert].matmul(&own, &mut inner);
        weights[1][expert].matmul(&inner, &mut out);
        for (row, out) in rows.iter().zip(out.chunks_exact(HIDDEN)) {
            elementwise::add_scaled(Cpu::host(), 1.0 / CHOSEN as f32, out, &mut y[*row as usize * HIDDEN..][..HIDDEN]);
        }
    }
}
