//! Products by experts: held against f64, and against products with one expert's weight alone.

use kernels::blocks::BlockFormat;
use kernels::{Cpu, DenseFormat, DenseMatrix, Out, Pool, QuantisedMatrix, Routes, Source};

/// Weights of either kind.
enum Weights {
    Dense(DenseMatrix),
    Quantised(QuantisedMatrix),
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Dense(DenseFormat),
    Quantised(BlockFormat),
}

impl Weights {
    /// `w` is `[experts, outputs, inputs]`.
    fn new(cpu: &Cpu, format: Format, w: &[f32], (experts, outputs, inputs): (usize, usize, usize)) -> Self {
        match format {
            Format::Dense(format) => {
                let mut weights = DenseMatrix::of_experts(experts, (outputs, inputs), format);
                each_expert(w, outputs * inputs, |e, w| weights.pack_rows(cpu, e * outputs, w));
                Self::Dense(weights)
            }
            Format::Quantised(format) => {
                let mut weights = QuantisedMatrix::of_experts(experts, format, outputs, inputs);
                each_expert(w, outputs * inputs, |e, w| weights.quantise_rows(cpu, e * outputs, w, None));
                Self::Quantised(weights)
            }
        }
    }

    fn matmul(&self, cpu: &Cpu, x: &[f32], y: &mut [f32]) {
        match self {
            Self::Dense(weights) => weights.matmul(cpu, x, None, Out::Write(y)),
            Self::Quantised(weights) => weights.matmul(cpu, x, None, Out::Write(y)),
        }
    }

    fn dispatch(&self, cpu: &Cpu, x: &[f32], routes: Routes, y: &mut [f32]) {
        match self {
            Self::Dense(weights) => weights.dispatch(cpu, x, routes, y),
            Self::Quantised(weights) => weights.dispatch(cpu, x, routes, y),
        }
    }

    fn combine(&self, cpu: &Cpu, x: &[f32], routes: Routes, y: &mut [f32]) {
        match self {
            Self::Dense(weights) => weights.combine(cpu, x, routes, y),
            Self::Quantised(weights) => weights.combine(cpu, x, routes, y),
        }
    }

    fn row(&self, output: usize, inputs: usize) -> Vec<f32> {
        let mut row = vec![0.0; inputs];
        match self {
            Self::Dense(weights) => weights.row(output, &mut row),
            Self::Quantised(weights) => weights.row(output, &mut row),
        }
        row
    }
}

fn each_expert(w: &[f32], size: usize, mut work: impl FnMut(usize, Source)) {
    w.chunks_exact(size).enumerate().for_each(|(e, w)| work(e, Source::F32(w)));
}

fn formats() -> impl Iterator<Item = Format> {
    let dense = [DenseFormat::F32, DenseFormat::Bf16, DenseFormat::F16].map(Format::Dense);
    dense.into_iter().chain(BlockFormat::ALL.map(Format::Quantised))
}

fn inputs_of(format: Format, units: usize) -> usize {
    match format {
        Format::Dense(_) => units * 237,
        Format::Quantised(format) => units * format.block_size(),
    }
}

/// The pairs of rows and experts, sorted by expert.
struct Routed {
    starts: Vec<usize>,
    rows: Vec<u32>,
    shares: Vec<f32>,
}

impl Routed {
    /// `chosen` are the experts of each row.
    fn new(experts: usize, chosen: &[Vec<usize>], share: impl Fn(usize, usize) -> f32) -> Self {
        let mut routed = Self { starts: vec![0], rows: vec![], shares: vec![] };
        for expert in 0..experts {
            for row in (0..chosen.len()).filter(|row| chosen[*row].contains(&expert)) {
                routed.rows.push(row as u32);
                routed.shares.push(share(row, expert));
            }
            routed.starts.push(routed.rows.len());
        }
        routed
    }

    fn routes(&self) -> Routes<'_> {
        Routes { starts: &self.starts, rows: &self.rows, shares: &self.shares }
    }

    /// The expert of each pair.
    fn experts(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).enumerate().flat_map(|(expert, range)| (range[0]..range[1]).map(move |_| expert))
    }
}

/// Experts of each row: some for each, one of them alone, one row, nobody, many rows.
fn choices(experts: usize, rng: &mut fastrand::Rng) -> Vec<Vec<Vec<usize>>> {
    let mut some =
        |rows: usize, count: usize| -> Vec<Vec<usize>> { (0..rows).map(|_| rng.choose_multiple(0..experts, count)).collect() };
    vec![some(1, 1), some(1, 2), some(7, 2), some(40, 3), vec![vec![1]; 23], vec![vec![]; 3], vec![]]
}

#[test]
fn results_are_those_of_each_expert_alone_and_near_f64() {
    let mut rng = fastrand::Rng::with_seed(1);
    for format in formats() {
        let (experts, outputs, inputs) = (5, 37, inputs_of(format, 2));
        let w: Vec<f32> = (0..experts * outputs * inputs).map(|_| rng.f32() - 0.5).collect();
        for chosen in choices(experts, &mut rng) {
            let routed = Routed::new(experts, &chosen, |row, expert| 0.1 + (row * 3 + expert) as f32 / 64.0);
            let (rows, pairs) = (chosen.len(), routed.rows.len());
            let x: Vec<f32> = (0..rows * inputs).map(|_| rng.f32() - 0.5).collect();
            let before: Vec<f32> = (0..rows * outputs).map(|_| rng.f32()).collect();
            let gathered: Vec<f32> = routed.rows.iter().flat_map(|row| &x[*row as usize * inputs..][..inputs]).copied().collect();
            for cpu in Cpu::each() {
                let name = format!("{format:?} {:?} {rows} rows", cpu.isa);
                let all = Weights::new(&cpu, format, &w, (experts, outputs, inputs));
                let single =
                    |e: usize| Weights::new(&cpu, format, &w[e * outputs * inputs..][..outputs * inputs], (1, outputs, inputs));
                let singles: Vec<Weights> = (0..experts).map(single).collect();
                let mut dispatched = vec![7.0; pairs * outputs];
                all.dispatch(&cpu, &x, routed.routes(), &mut dispatched);
                let mut combined = before.clone();
                all.combine(&cpu, &gathered, routed.routes(), &mut combined);
                let mut expected: Vec<f64> = before.iter().copied().map(f64::from).collect();
                for (pair, expert) in routed.experts().enumerate() {
                    let mut alone = vec![0.0; outputs];
                    singles[expert].matmul(&cpu, &gathered[pair * inputs..][..inputs], &mut alone);
                    assert!(dispatched[pair * outputs..][..outputs] == alone, "{name}: pair {pair}");
                    let row = &mut expected[routed.rows[pair] as usize * outputs..][..outputs];
                    row.iter_mut().zip(&alone).for_each(|(y, sum)| *y += f64::from(routed.shares[pair]) * f64::from(*sum));
                }
                for (found, expected) in combined.iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{name}: {found} for {expected}");
                }
            }
        }
    }
}

#[test]
fn a_row_depends_neither_on_its_neighbours_nor_on_threads() {
    let mut rng = fastrand::Rng::with_seed(2);
    for format in [Format::Dense(DenseFormat::F32), Format::Dense(DenseFormat::Bf16), Format::Quantised(BlockFormat::Q4K)] {
        // More pairs than are multiplied at a time; sums over several blocks of words.
        let (experts, outputs, inputs, rows) = (6, 70, inputs_of(format, 4).next_multiple_of(256) * 2, 300);
        let w: Vec<f32> = (0..experts * outputs * inputs).map(|_| rng.f32() - 0.5).collect();
        let chosen: Vec<Vec<usize>> = (0..rows).map(|_| rng.choose_multiple(0..experts, 3)).collect();
        let x: Vec<f32> = (0..rows * inputs).map(|_| rng.f32() - 0.5).collect();
        let run = |threads: usize, from: usize, rows: usize| {
            let cpu = Cpu { isa: kernels::Isa::best(), pool: Pool::new(threads) };
            let weights = Weights::new(&cpu, format, &w, (experts, outputs, inputs));
            let share = |row: usize, expert: usize| ((from + row) * 7 + expert) as f32 / 1000.0;
            let routed = Routed::new(experts, &chosen[from..from + rows], share);
            let x = &x[from * inputs..(from + rows) * inputs];
            let gathered: Vec<f32> = routed.rows.iter().flat_map(|row| &x[*row as usize * inputs..][..inputs]).copied().collect();
            let mut y = vec![1.0; rows * outputs];
            weights.combine(&cpu, &gathered, routed.routes(), &mut y);
            y
        };
        let all = run(1, 0, rows);
        assert!(all == run(3, 0, rows), "{format:?}");
        for (from, rows) in [(0, 1), (17, 1), (40, 9), (100, 200)] {
            assert!(all[from * outputs..(from + rows) * outputs] == run(2, from, rows), "{format:?}: {rows} rows from {from}");
        }
    }
}

#[test]
fn weights_come_back_as_they_were_packed() {
    let mut rng = fastrand::Rng::with_seed(3);
    let cpu = Cpu::host();
    for format in formats() {
        let (experts, outputs, inputs) = (3, 21, inputs_of(format, 1));
        let w: Vec<f32> = (0..experts * outputs * inputs).map(|_| rng.f32() - 0.5).collect();
        let all = Weights::new(cpu, format, &w, (experts, outputs, inputs));
        for e in 0..experts {
            let alone = Weights::new(cpu, format, &w[e * outputs * inputs..][..outputs * inputs], (1, outputs, inputs));
            for output in 0..outputs {
                assert_eq!(all.row(e * outputs + output, inputs), alone.row(output, inputs), "{format:?}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "one of 2 rows")]
fn a_row_that_is_not_there_is_refused() {
    let weights = DenseMatrix::of_experts(1, (4, 4), DenseFormat::F32);
    let routes = Routes { starts: &[0, 1], rows: &[2], shares: &[1.0] };
    weights.combine(Cpu::host(), &[0.0; 4], routes, &mut [0.0; 8]);
}
