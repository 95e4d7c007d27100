//! The gated delta rule on heads as those of a model of four billion weights: one thread / all threads.
//!
//! `cargo bench --bench delta [WORD…]` runs the cases whose line has all the words. Bytes are those of the states, read and
//! written; operations are the three products of a row with a state.

mod machine;

use std::time::{Duration, Instant};

use kernels::{Cpu, Delta, HeadRows, Isa, Pool, StateSpan, delta_state_len, gated_delta};

const KEY_HEADS: usize = 16;
const VALUE_HEADS: usize = 32;
const WIDTH: usize = 128;
/// Of the states that take turns like the layers of a model, where rows are few: more than the processor's caches hold.
const TURNS_BYTES: usize = 128 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let isa = Isa::available().find(|isa| words.contains(&format!("{isa:?}"))).unwrap_or(Isa::best());
    let cpus = [1, Cpu::host().pool.threads()].map(|threads| Cpu { isa, pool: Pool::new(threads) });
    println!("{isa:?}");
    cpus.iter().for_each(|cpu| println!("{}", machine::peaks(cpu)));
    for sequences in [1, 8] {
        for rows in [1, 2, 4, 8, 12, 16, 32, 64, 512] {
            let line = format!("{sequences} x {rows} rows");
            if words.iter().all(|word| line.contains(word.as_str()) || *word == format!("{isa:?}")) {
                let [one, all] = [0, 1].map(|i| measure(&cpus[i], sequences, rows));
                println!("{line:14} {one} {all}");
            }
        }
    }
}

fn random(count: usize, size: f32) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..count).map(|_| (rng.f32() * 2.0 - 1.0) * size).collect()
}

fn measure(cpu: &Cpu, sequences: usize, rows: usize) -> String {
    let length = delta_state_len(VALUE_HEADS, WIDTH, WIDTH);
    let turns = TURNS_BYTES.div_ceil(4 * length * sequences * rows);
    let mut states = vec![vec![0.0; length]; sequences * turns];
    let (all, stride) = (sequences * rows, (2 * KEY_HEADS + VALUE_HEADS) * WIDTH);
    let qkv = random(all * stride, (WIDTH as f32).powf(-0.5));
    let part = |first: usize, heads| HeadRows { data: &qkv[first * WIDTH..], stride, heads, head_dim: WIDTH };
    let (decay, beta) = (vec![-0.1; all * VALUE_HEADS], vec![0.5; all * VALUE_HEADS]);
    let (q, k, v) = (part(0, KEY_HEADS), part(KEY_HEADS, KEY_HEADS), part(2 * KEY_HEADS, VALUE_HEADS));
    let x = Delta { q, k, v, decay: &decay, beta: &beta, scale: 1.0 };
    let mut y = vec![0.0; all * VALUE_HEADS * WIDTH];
    let (end, mut seconds) = (Instant::now() + Duration::from_millis(500), f64::INFINITY);
    while Instant::now() < end {
        for states in states.chunks_mut(sequences) {
            let span = |(i, state)| StateSpan { rows: i * rows..(i + 1) * rows, state };
            let mut spans: Vec<StateSpan<'_>> = states.iter_mut().map(Vec::as_mut_slice).enumerate().map(span).collect();
            let begin = Instant::now();
            gated_delta(cpu, &x, &mut spans, &mut y);
            seconds = seconds.min(begin.elapsed().as_secs_f64());
        }
    }
    let bytes = 2 * 4 * length * sequences;
    let operations = 6 * all * VALUE_HEADS * WIDTH * WIDTH;
    let [bytes, operations] = [bytes, operations].map(|count| 1e-9 * count as f64 / seconds);
    format!("{:9.1} us {bytes:6.1} GB/s {operations:6.1} GFLOP/s", seconds * 1e6)
}
