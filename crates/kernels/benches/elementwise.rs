//! Elementwise operations and operations over rows: time, and bytes read and written per second. What a machine can do at most
//! is the speed of the memory that the shape fits into; large shapes do not fit the third cache.

mod machine;

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use kernels::activation::{Activation, Gate, Gated, activate, activate_into, gated, soft_cap};
use kernels::conv::{Causal, Depthwise, Windows, causal, depthwise, im2col};
use kernels::norm::{Norm, Residual, add_norm, norm, norm_gated, norm_heads};
use kernels::reduce::{Candidate, argmax, dot, sum, top_k};
use kernels::rope::{Pairing, Rotation, rope};
use kernels::softmax::{log_sum_exp, softmax};
use kernels::{Cpu, HeadLayout, HeadRows, Isa, Pool, StateSpan, convert, elementwise};

struct Bench {
    cpus: [Cpu; 2],
    /// Only operations with this in their name.
    filter: String,
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let threads = Cpu::host().pool.threads();
    let bench = Bench { cpus: [1, threads].map(|n| Cpu { isa: Isa::best(), pool: Pool::new(n) }), filter };
    println!("{:?}; one thread, then {threads}", Isa::best());
    bench.cpus.iter().for_each(|cpu| println!("{}", machine::peaks(cpu)));
    bench.line("handing work over", 0, |cpu| cpu.pool.run(cpu.pool.threads(), |_| ()));
    bench.norms();
    bench.gated_norms();
    bench.ropes();
    bench.activations();
    bench.softmaxes();
    bench.sums();
    bench.rows();
    bench.conversions();
    bench.convolutions();
}

fn numbers(count: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(count as u64);
    (0..count).map(|_| 6.0 * rng.f32() - 3.0).collect()
}

impl Bench {
    /// `bytes` are read or written by a call.
    fn line<T>(&self, name: &str, bytes: usize, mut call: impl FnMut(&Cpu) -> T) {
        if !name.contains(&self.filter) {
            return;
        }
        let seconds = [0, 1].map(|i| best(|| call(&self.cpus[i])));
        let time = |s: f64| if s < 1e-5 { format!("{:7.0} ns", s * 1e9) } else { format!("{:7.1} us", s * 1e6) };
        let columns = seconds.map(|s| format!("{} {:6.1} GB/s", time(s), bytes as f64 / s / 1e9));
        println!("{name:40} {}   {}", columns[0], columns[1]);
    }

    fn norms(&self) {
        for (rows, width) in [(1, 576), (1, 1536), (8, 1536), (512, 576), (512, 1536), (1024, 1280)] {
            let (x, w, mut y, size) = (numbers(rows * width), numbers(width), numbers(rows * width), rows * width * 4);
            let rms = Norm::rms(Some(&w), 1e-6);
            let layer = Norm::layer(Some(&w), Some(&w), 1e-6);
            self.line(&format!("rms norm {rows}x{width}"), 2 * size, |cpu| norm(cpu, rms, &x, &mut y, width));
            self.line(&format!("layer norm {rows}x{width}"), 2 * size, |cpu| norm(cpu, layer, &x, &mut y, width));
            let mut stream = x.clone();
            let delta = vec![1e-6; x.len()];
            self.line(&format!("add, rms norm {rows}x{width}"), 4 * size, |cpu| {
                add_norm(cpu, rms, Residual { x: &mut stream, delta: &delta, width }, &mut y);
            });
        }
    }

    fn gated_norms(&self) {
        for rows in [1, 512] {
            let (z, w, mut x) = (numbers(rows * 4096), numbers(128), numbers(rows * 4096));
            let gates = HeadRows { data: &z, stride: 4096, heads: 32, head_dim: 128 };
            let rms = Norm::rms(Some(&w), 1e-6);
            self.line(&format!("gated rms norm {rows}x32x128"), 12 * x.len(), |cpu| norm_gated(cpu, rms, gates, &mut x));
        }
    }

    fn ropes(&self) {
        for (rows, count, width) in [(1, 9, 64), (1, 14, 128), (512, 14, 128), (1024, 32, 80)] {
            let heads = HeadLayout { rows, count, width, row_stride: count * width + 512 };
            let half = width / 2;
            let (mut x, w) = (numbers(rows * heads.row_stride), vec![1.0; width]);
            let angles = numbers(rows * half);
            let [cos, sin] = [f32::cos, f32::sin].map(|f| angles.iter().map(|a| f(*a)).collect::<Vec<_>>());
            let (size, shape) = (rows * count * width * 4, format!("{rows} rows {count} heads {width}"));
            for pairing in [Pairing::Halves, Pairing::Neighbours] {
                let rotation = Rotation { cos: &cos, sin: &sin, half, pairing };
                self.line(&format!("rope {pairing:?} {shape}"), 2 * size, |cpu| rope(cpu, &mut x, heads, rotation, None));
            }
            let rotation = Rotation { cos: &cos, sin: &sin, half, pairing: Pairing::Halves };
            let rms = Norm::rms(Some(&w), 1e-6);
            self.line(&format!("norm, rope {shape}"), 2 * size, |cpu| rope(cpu, &mut x, heads, rotation, Some(rms)));
            self.line(&format!("norm heads {shape}"), 2 * size, |cpu| norm_heads(cpu, rms, &mut x, heads));
        }
    }

    fn activations(&self) {
        for (rows, inner) in [(1, 1536), (1, 8960), (512, 1536), (512, 8960)] {
            let (x, mut y, size) = (numbers(rows * 2 * inner), numbers(rows * inner), rows * inner * 4);
            for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
                let (gate, both) = (Gate::new(activation), Gated::gate_first(&x, inner));
                self.line(&format!("gated {activation:?} {rows}x{inner}"), 3 * size, |cpu| gated(cpu, gate, both, &mut y));
            }
            let x = &x[..y.len()];
            for activation in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
                let name = format!("{activation:?} {rows}x{inner}");
                self.line(&name, 2 * size, |cpu| activate_into(cpu, activation, x, &mut y));
            }
            self.line(&format!("relu in place {rows}x{inner}"), 2 * size, |cpu| activate(cpu, Activation::Relu, &mut y));
        }
        let mut x = numbers(150_000);
        self.line("soft cap 150000", 1_200_000, |cpu| soft_cap(cpu, &mut x, 30.0));
    }

    fn softmaxes(&self) {
        for (rows, width) in [(12, 100), (12 * 512, 512), (64, 128), (1, 150_000)] {
            let (mut x, mut sums) = (numbers(rows * width), vec![0.0; rows]);
            self.line(&format!("softmax {rows}x{width}"), 8 * x.len(), |cpu| softmax(cpu, &mut x, width, 0.1));
            self.line(&format!("log sum exp {rows}x{width}"), 4 * x.len(), |cpu| log_sum_exp(cpu, &x, width, &mut sums));
        }
    }

    fn sums(&self) {
        for count in [576, 1536, 512 * 1536] {
            let (x, mut y) = (numbers(count), numbers(count));
            self.line(&format!("add {count}"), 12 * count, |cpu| elementwise::add(cpu, &x, &mut y));
            self.line(&format!("add scaled {count}"), 12 * count, |cpu| elementwise::add_scaled(cpu, 1e-6, &x, &mut y));
            self.line(&format!("scale {count}"), 8 * count, |cpu| elementwise::scale(cpu, 0.99999, &mut y));
            self.line(&format!("add row {count}"), 8 * count, |cpu| elementwise::add_row(cpu, &x[..count.min(1536)], &mut y));
        }
    }

    fn rows(&self) {
        let (x, y, bytes) = (numbers(150_000), numbers(150_000), 600_000);
        self.line("sum 150000", bytes, |cpu| sum(cpu, black_box(&x)));
        self.line("dot 150000", 2 * bytes, |cpu| dot(cpu, black_box(&x), &y));
        self.line("argmax 150000", bytes, |cpu| argmax(cpu, black_box(&x)));
        for (rows, width, k) in [(1, 150_000, 1), (1, 150_000, 64), (1, 128, 8), (512, 128, 8)] {
            let mut best = vec![Candidate::default(); rows * k];
            let x = numbers(rows * width);
            self.line(&format!("top {k} of {rows}x{width}"), 4 * x.len(), |cpu| top_k(cpu, &x, width, k, &mut best));
        }
    }

    fn conversions(&self) {
        for count in [1536, 512 * 1536, 50_000_000] {
            let (mut x, mut brain, mut half) = (numbers(count), vec![bf16::ONE; count], vec![f16::ONE; count]);
            self.line(&format!("bf16 to f32 {count}"), 6 * count, |cpu| convert::bf16_to_f32(cpu, &brain, &mut x));
            self.line(&format!("f32 to bf16 {count}"), 6 * count, |cpu| convert::f32_to_bf16(cpu, &x, &mut brain));
            self.line(&format!("f16 to f32 {count}"), 6 * count, |cpu| convert::f16_to_f32(cpu, &half, &mut x));
            self.line(&format!("f32 to f16 {count}"), 6 * count, |cpu| convert::f32_to_f16(cpu, &x, &mut half));
        }
    }

    fn convolutions(&self) {
        for (side, patch) in [(448, 14), (512, 16)] {
            let windows = Windows::patches([side; 2], [patch; 2]);
            let x = numbers(3 * side * side);
            let mut y = x.clone();
            self.line(&format!("patches {side} by {patch}"), 8 * x.len(), |cpu| im2col(cpu, windows, &x, 3, &mut y));
        }
        let same = Windows { size: [1, 3000], kernel: [1, 3], stride: [1, 1], dilation: [1, 1], padding: [[0; 2], [1; 2]] };
        let (x, mut y) = (numbers(128 * 3000), numbers(128 * 3 * 3000));
        self.line("im2col 128x3000 by 3", 16 * x.len(), |cpu| im2col(cpu, same, &x, 128, &mut y));
        for (rows, channels) in [(1, 8192), (512, 8192)] {
            let (x, w, mut y) = (numbers(rows * channels), numbers(4 * channels), numbers(rows * channels));
            let filter = Depthwise { weight: &w, bias: None, channels };
            let conv = Causal { filter, activation: Some(Activation::Silu) };
            let mut state = numbers(conv.state_len());
            let heads = HeadRows { data: &x, stride: channels, heads: 1, head_dim: channels };
            self.line(&format!("causal {rows}x{channels} by 4, silu"), 8 * x.len(), |cpu| {
                causal(cpu, &conv, heads, &mut [StateSpan { rows: 0..rows, state: &mut state }], &mut y);
            });
        }
        let windows = Windows { size: [56; 2], kernel: [3; 2], stride: [1; 2], dilation: [1; 2], padding: [[1; 2]; 2] };
        let (x, w, mut y) = (numbers(56 * 56 * 192), numbers(9 * 192), numbers(56 * 56 * 192));
        let filter = Depthwise { weight: &w, bias: None, channels: 192 };
        self.line("depthwise 56x56x192 by 3x3", 8 * x.len(), |cpu| depthwise(cpu, windows, filter, &x, &mut y));
    }
}

/// Seconds of a call: the best of some runs, of as many calls as fill a good part of a millisecond.
fn best<T>(mut call: impl FnMut() -> T) -> f64 {
    let once = run(&mut call, 1).min(run(&mut call, 1)).max(1e-9);
    let calls = (5e-4 / once).clamp(1.0, 10_000.0) as u32;
    let end = Instant::now() + Duration::from_millis(40);
    let mut best = once;
    while Instant::now() < end {
        best = best.min(run(&mut call, calls));
    }
    best
}

fn run<T>(call: &mut impl FnMut() -> T, calls: u32) -> f64 {
    let begin = Instant::now();
    (0..calls).for_each(|_| drop(black_box(call())));
    begin.elapsed().as_secs_f64() / f64::from(calls)
}
