//! Quantised weights: products in GOP/s (and the share of the machine's peak; GB/s of weights for one row), from the caches and from
//! DRAM; loading in millions of weights per second. `cargo bench --bench quantised -- [formats] [--isa avx2] [--threads 1] [--only products|memory|loading]`

mod machine;

use std::time::Instant;

use kernels::blocks::BlockFormat;
use kernels::{Cpu, Isa, Out, Pool, QuantisedMatrix, Source};

/// Columns and rows of weights: an MLP's two and an attention's of a model of 2 G weights, and one of 0.25 G.
const SHAPES: [(usize, usize); 4] = [(1536, 8960), (8960, 1536), (1536, 1536), (576, 1536)];
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|i| words.get(i + 1)).map(String::as_str);
    let named = |format: &BlockFormat| words.iter().any(|word| format!("{format:?}").eq_ignore_ascii_case(word));
    let mut formats: Vec<BlockFormat> = BlockFormat::ALL.into_iter().filter(named).collect();
    if formats.is_empty() {
        formats = vec![BlockFormat::Q4K, BlockFormat::Q6K, BlockFormat::Q8_0];
    }
    let isa = |isa: &Isa| option("--isa").is_none_or(|name| format!("{isa:?}").eq_ignore_ascii_case(name));
    let isa = Isa::available().filter(isa).last().unwrap_or(Isa::best());
    let all = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = option("--threads").map_or(vec![1, all], |n| vec![n.parse().unwrap_or(1)]);
    for threads in threads {
        let cpu = Cpu { isa, pool: Pool::new(threads) };
        println!("{}", machine::peaks(&cpu));
        for &format in &formats {
            println!("{format:?}, {isa:?}, threads: {threads}");
            for (name, run) in [("products", products as fn(&Cpu, BlockFormat)), ("memory", memory), ("loading", loading)] {
                if option("--only").is_none_or(|only| only == name) {
                    run(&cpu, format);
                }
            }
        }
    }
}

/// Weights in cache, many times over.
fn products(cpu: &Cpu, format: BlockFormat) {
    let peak = machine::peak(cpu, machine::Numbers::Int8);
    for (inputs, outputs) in SHAPES.into_iter().filter(|(inputs, _)| inputs.is_multiple_of(format.block_size())) {
        let weight = packed(cpu, format, outputs, inputs);
        print!("  {inputs:4} x {outputs:4}, rows: GOP/s ");
        for rows in ROWS {
            let (x, mut y) = (numbers(rows * inputs), vec![0.0; rows * outputs]);
            let time = best(0.08, || weight.matmul(cpu, &x, None, Out::Write(&mut y)));
            let speed = 2e-9 * (rows * inputs * outputs) as f64 / time;
            print!("  {rows}: {speed:.0} {}", machine::share(speed, peak).trim());
            if rows == 1 {
                print!(" ({:.0} GB/s)", 1e-9 * weight.bytes() as f64 / time);
            }
        }
        println!();
    }
}

/// A few rows by more weights than any cache holds; beside it how fast memory is read alone.
fn memory(cpu: &Cpu, format: BlockFormat) {
    for (inputs, outputs) in SHAPES.into_iter().take(2).filter(|(inputs, _)| inputs.is_multiple_of(format.block_size())) {
        let one = packed(cpu, format, outputs, inputs);
        let count = 200_000_000 / one.bytes();
        let weights: Vec<QuantisedMatrix> = (0..count).map(|_| packed(cpu, format, outputs, inputs)).collect();
        let speed = |time: f64| 1e-9 * (count * one.bytes()) as f64 / time;
        let mut read = 0.0;
        print!("  {inputs:4} x {outputs:4} from DRAM, rows: GB/s ");
        for rows in [1, 2, 4, 8, 16] {
            let (x, mut y) = (numbers(rows * inputs), vec![0.0; rows * outputs]);
            let mut product = f64::MAX;
            // In turn, since others use the memory too.
            for _ in 0..4 {
                product = product.min(best(0.0, || weights.iter().for_each(|w| w.matmul(cpu, &x, None, Out::Write(&mut y)))));
                read = machine::reading(cpu).max(read);
            }
            let operations = 2e-9 * (rows * inputs * outputs * count) as f64 / product;
            print!("  {rows}: {:.1} ({operations:.0} GOP/s)", speed(product));
        }
        println!("  reading alone: {read:.1}");
    }
}

fn loading(cpu: &Cpu, format: BlockFormat) {
    let (inputs, outputs) = SHAPES[0];
    let mut weight = packed(cpu, format, outputs, inputs);
    let wide = numbers(inputs * outputs);
    let short: Vec<half::bf16> = wide.iter().map(|w| half::bf16::from_f32(*w)).collect();
    let blocks = random_blocks(format, outputs, inputs);
    let speed = |time: f64| 1e-6 * (inputs * outputs) as f64 / time;
    let quantised = best(0.3, || weight.quantise_rows(cpu, 0, Source::Bf16(&short), None));
    let packed = best(0.3, || weight.pack_rows(cpu, 0, &blocks));
    println!("  quantised from bf16: {:.0} M weights/s, packed: {:.0} M weights/s", speed(quantised), speed(packed));
}

fn packed(cpu: &Cpu, format: BlockFormat, outputs: usize, inputs: usize) -> QuantisedMatrix {
    let mut weight = QuantisedMatrix::new(format, outputs, inputs);
    weight.pack_rows(cpu, 0, &random_blocks(format, outputs, inputs));
    weight
}

fn random_blocks(format: BlockFormat, outputs: usize, inputs: usize) -> Vec<u8> {
    let mut blocks = vec![0; outputs * inputs / format.block_size() * format.block_bytes()];
    fastrand::Rng::with_seed(1).fill(&mut blocks);
    blocks
}

fn numbers(count: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(2);
    (0..count).map(|_| rng.f32() - 0.5).collect()
}

/// The best of at least two runs, and of as many as fit into the time.
fn best(seconds: f64, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let (mut best, mut runs) = (f64::MAX, 0);
    while runs < 2 || start.elapsed().as_secs_f64() < seconds {
        let run = Instant::now();
        work();
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}
