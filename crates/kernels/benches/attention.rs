//! Attention of towers, prompts and decode steps: one thread / all threads.
//!
//! `cargo bench --bench attention [WORD…]` runs the cases whose line has all the words; a word may also name a format (Bf16) or
//! an instruction set (Avx2), the best one otherwise.

mod machine;

use std::time::{Duration, Instant};

use kernels::{
    Cpu, HeadRows, Isa, KvCache, KvFormat, KvShape, KvSpan, Past, Pool, Scores, Seen, Segments, attention, attention_within,
};

/// What is done with `rows` rows of each sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Attention among themselves, keys and values stored on the way.
    Tower,
    /// Attention to themselves and to `start` tokens before them.
    Prompt,
    /// The same, one row each, with caches that take turns like the layers of a model: more than the processor's caches hold.
    Decode,
    /// The same with one cache.
    Cached,
    /// Storing keys and values.
    Append,
}

struct Case(Kind, Batch, Sizes);

struct Batch {
    sequences: usize,
    start: usize,
    rows: usize,
}

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

const fn case(
    kind: Kind,
    (sequences, start, rows): (usize, usize, usize),
    (heads, kv_heads, head_dim): (usize, usize, usize),
) -> Case {
    Case(kind, Batch { sequences, start, rows }, Sizes { heads, kv_heads, head_dim })
}

const CASES: &[Case] = &[
    case(Kind::Tower, (1, 0, 4096), (16, 16, 80)),
    case(Kind::Tower, (1, 0, 1024), (16, 16, 80)),
    case(Kind::Tower, (1, 0, 1024), (12, 12, 64)),
    case(Kind::Tower, (1, 0, 729), (16, 16, 72)),
    case(Kind::Tower, (64, 0, 64), (16, 16, 80)),
    case(Kind::Prompt, (1, 0, 512), (12, 2, 128)),
    case(Kind::Prompt, (1, 0, 512), (9, 3, 64)),
    case(Kind::Prompt, (1, 0, 512), (8, 4, 256)),
    case(Kind::Prompt, (1, 1536, 512), (12, 2, 128)),
    case(Kind::Decode, (1, 2047, 1), (12, 2, 128)),
    case(Kind::Decode, (1, 2047, 1), (9, 3, 64)),
    case(Kind::Decode, (1, 2047, 1), (8, 4, 256)),
    case(Kind::Decode, (1, 2047, 1), (16, 16, 72)),
    case(Kind::Decode, (8, 1023, 1), (12, 2, 128)),
    case(Kind::Cached, (1, 2047, 1), (12, 2, 128)),
    case(Kind::Cached, (1, 2047, 1), (9, 3, 64)),
    case(Kind::Cached, (1, 127, 1), (9, 3, 64)),
    case(Kind::Append, (1, 2047, 1), (12, 2, 128)),
    case(Kind::Append, (1, 0, 512), (12, 2, 128)),
];
const FORMATS: [KvFormat; 4] = [KvFormat::F32, KvFormat::Bf16, KvFormat::F16, KvFormat::Q8];
const BLOCK_SIZE: usize = 32;
/// Of the caches that take turns.
const TURNS_BYTES: usize = 128 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let isa = Isa::available().find(|isa| words.contains(&format!("{isa:?}"))).unwrap_or(Isa::best());
    let all = Cpu { isa, pool: Pool::new(Cpu::host().pool.threads()) };
    let one = Cpu { isa, pool: Pool::new(1) };
    println!("{isa:?}; only what is seen counts\n{}\n{}", machine::peaks(&one), machine::peaks(&all));
    for Case(kind, batch, sizes) in CASES {
        for format in FORMATS {
            let Sizes { heads, kv_heads, head_dim } = sizes;
            let rows = format!("{}x({}+{})", batch.sequences, batch.start, batch.rows);
            let line = format!("{kind:?} {rows:11} {heads:2}/{kv_heads:2}x{head_dim:3} {format:?}");
            let known = |word: &String| line.contains(word.as_str()) || *word == format!("{isa:?}");
            if words.iter().all(known) {
                let figures = [&one, &all].map(|cpu| measure(cpu, *kind, batch, sizes, format));
                println!("{line:34} {} {}", figures[0], figures[1]);
            }
        }
    }
}

fn random(count: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..count).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// The best of some runs, seconds.
fn best(mut work: impl FnMut()) -> f64 {
    let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 3 || begin.elapsed() < Duration::from_millis(100) {
        let begin = Instant::now();
        work();
        best = best.min(begin.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn measure(cpu: &Cpu, kind: Kind, batch: &Batch, sizes: &Sizes, format: KvFormat) -> String {
    let (&Batch { sequences, start, rows }, &Sizes { heads, kv_heads, head_dim }) = (batch, sizes);
    let shape = KvShape { kv_heads, head_dim, block_size: BLOCK_SIZE };
    let (tokens, count) = (start + rows, (start + rows).div_ceil(BLOCK_SIZE));
    let bytes = sequences * count * shape.block_bytes(format);
    let turns = if kind == Kind::Decode { TURNS_BYTES.div_ceil(bytes) } else { 1 };

    let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let fused = random((sequences * rows).max(tokens) * (q_width + 2 * kv_width));
    let part = |first: usize, heads| HeadRows { data: &fused[first..], stride: q_width + 2 * kv_width, heads, head_dim };
    let (q, k, v) = (part(0, heads), part(q_width, kv_heads), part(q_width + kv_width, kv_heads));
    let scores = Scores { scale: 1.0 / (head_dim as f32).sqrt(), ..Scores::default() };
    let mut out = vec![0.0; sequences * rows * q_width];

    let tables: Vec<Vec<u32>> = (0..sequences).map(|i| (0..count).map(|j| (j * sequences + i) as u32).collect()).collect();
    let mut caches: Vec<KvCache> = vec![];
    if kind != Kind::Tower {
        caches.extend((0..turns).map(|_| KvCache::new(shape, sequences * count, format)));
        for cache in &mut caches {
            for blocks in &tables {
                cache.append(cpu, k, v, &[KvSpan { rows: 0..tokens, start: 0, blocks, islands: &[] }]);
            }
        }
    }
    let spans =
        tables.iter().enumerate().map(|(i, blocks)| KvSpan { rows: i * rows..(i + 1) * rows, start, blocks, islands: &[] });
    let spans: Vec<KvSpan> = spans.collect();
    let lengths = vec![rows; sequences];
    let seconds = best(|| match kind {
        Kind::Tower => attention_within(cpu, Segments { q, k, v, lengths: &lengths, seen: Seen::All }, &scores, format, &mut out),
        Kind::Append => caches[0].append(cpu, k, v, &spans),
        _ => caches.iter().for_each(|kv| attention(cpu, q, Past { kv, spans: &spans }, &scores, &mut out)),
    });
    let seen = if kind == Kind::Tower { rows * rows } else { rows * (start + 1 + tokens) / 2 };
    let rate = match kind {
        Kind::Tower | Kind::Prompt => {
            format!("{:6.1} GFLOP/s", 4e-9 * (sequences * seen * q_width) as f64 * turns as f64 / seconds)
        }
        Kind::Decode | Kind::Cached => format!("{:6.1} GB/s", 1e-9 * (bytes * turns) as f64 / seconds),
        Kind::Append => String::new(),
    };
    format!("{:9.1} us {rate:14}", seconds * 1e6 / turns as f64)
}
