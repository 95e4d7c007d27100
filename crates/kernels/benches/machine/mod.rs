//! What the machine can do at most, measured in the same run as what kernels reach of it.

#![allow(unsafe_code)] // each with a SAFETY line
#![allow(dead_code)] // every benchmark needs some of it

use std::hint::black_box;
use std::time::Instant;

use kernels::Cpu;
use kernels::isa::Level;

/// What the fastest instruction for products takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    F32,
    Bf16,
    Int8,
}

/// Independent sums: enough to hide the latency of products, few enough for 16 registers.
const SUMS: usize = 12;
const ROUNDS: usize = 100_000;

/// Multiplications and additions per second of all threads, in units of 10^9; nothing where no such instruction is known.
pub fn peak(cpu: &Cpu, numbers: Numbers) -> Option<f64> {
    let (run, lanes) = chains(cpu.isa.level(), numbers)?;
    let operations = (2 * lanes * SUMS * ROUNDS * cpu.pool.threads()) as f64;
    let seconds = (0..20).map(|_| {
        let begin = Instant::now();
        // SAFETY: the instruction set is there.
        cpu.pool.run(cpu.pool.threads(), |_| unsafe { run() });
        begin.elapsed().as_secs_f64()
    });
    Some(1e-9 * operations / seconds.fold(f64::MAX, f64::min))
}

/// A line of what is known.
pub fn peaks(cpu: &Cpu) -> String {
    let known = [Numbers::F32, Numbers::Bf16, Numbers::Int8].map(|n| peak(cpu, n).map(|peak| format!("{n:?} {peak:.0} GOP/s")));
    let known: Vec<String> = known.into_iter().flatten().chain([format!("reading {:.1} GB/s", reading(cpu))]).collect();
    format!("at most, {} threads: {}", cpu.pool.threads(), known.join(", "))
}

/// Memory read by all threads, in GB/s.
pub fn reading(cpu: &Cpu) -> f64 {
    let plain = vec![1_u64; 32 << 20];
    let seconds = (0..8).map(|_| {
        let begin = Instant::now();
        cpu.pool.split(plain.len(), 1024, |part| {
            black_box(plain[part].iter().fold(0, |sum, v| sum | v));
        });
        begin.elapsed().as_secs_f64()
    });
    1e-9 * (plain.len() * 8) as f64 / seconds.fold(f64::MAX, f64::min)
}

/// A share of what is possible, if that is known.
pub fn share(speed: f64, peak: Option<f64>) -> String {
    peak.map_or(String::new(), |peak| format!("{:3.0} %", 100.0 * speed / peak))
}

/// What runs [`ROUNDS`] times [`SUMS`] instructions, and how many products one of them makes.
#[cfg(target_arch = "x86_64")]
fn chains(level: Level, numbers: Numbers) -> Option<(unsafe fn(), usize)> {
    use std::arch::x86_64::*;
    macro_rules! chains {
        ($features:literal, $zero:expr, $one:expr, $step:expr) => {{
            #[target_feature(enable = $features)]
            fn run() {
                let (mut sums, a) = ([$zero; SUMS], black_box($one));
                for _ in 0..ROUNDS {
                    for sum in &mut sums {
                        *sum = $step(*sum, a);
                    }
                }
                black_box(sums);
            }
            run
        }};
    }
    Some(match (level, numbers) {
        (Level::Avx2, Numbers::F32) => {
            (chains!("avx2,fma", _mm256_setzero_ps(), _mm256_set1_ps(1.0), |s, a| _mm256_fmadd_ps(a, a, s)), 8)
        }
        (Level::Avx512 | Level::Avx512Bf16, Numbers::F32) => {
            (chains!("avx512f", _mm512_setzero_ps(), _mm512_set1_ps(1.0), |s, a| _mm512_fmadd_ps(a, a, s)), 16)
        }
        (Level::Avx512Bf16, Numbers::Bf16) => {
            let run = chains!("avx512f,avx512bf16", _mm512_setzero_ps(), _mm512_set1_ps(1.0), |s, a: __m512| {
                // SAFETY: the same 512 bits.
                let a = unsafe { std::mem::transmute::<__m512, __m512bh>(a) };
                _mm512_dpbf16_ps(s, a, a)
            });
            (run, 32)
        }
        (Level::Avx512 | Level::Avx512Bf16, Numbers::Int8) => (
            chains!("avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_set1_epi8(1), |s, a| { _mm512_dpbusd_epi32(s, a, a) }),
            64,
        ),
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn chains(_: Level, _: Numbers) -> Option<(unsafe fn(), usize)> {
    None
}
