use half::{bf16, f16};

use super::*;
use crate::isa::Level;

const FORMATS: [DenseFormat; 3] = [DenseFormat::F32, DenseFormat::Bf16, DenseFormat::F16];

fn noise(random: &mut fastrand::Rng, length: usize) -> Vec<f32> {
    (0..length).map(|_| random.f32() * 2.0 - 1.0).collect()
}

/// A value as it is kept.
fn kept(format: DenseFormat, value: f32) -> f32 {
    match format {
        DenseFormat::F32 => value,
        DenseFormat::Bf16 => bf16::from_f32(value).to_f32(),
        DenseFormat::F16 => f16::from_f32(value).to_f32(),
    }
}

/// x as the processor multiplies it with weights of this format.
fn seen(cpu: &Cpu, format: DenseFormat, x: &[f32]) -> Vec<f32> {
    let rounds = cpu.isa.level() == Level::Avx512Bf16 && format == DenseFormat::Bf16;
    x.iter().map(|x| if rounds { kept(DenseFormat::Bf16, *x) } else { *x }).collect()
}

/// Holds `y` against x Wᵀ + `start` in f64. Each of n additions is off by half a unit in the last place of the sum so far, at most
/// of the sum of the magnitudes. Errors of both signs make that the root of n, and sums of blocks keep n below a thousand.
fn check(what: &str, y: &[f32], x: &[f32], w: &[f32], (inputs, start): (usize, impl Fn(usize, usize) -> f32)) {
    let outputs = w.len() / inputs;
    for (row, (x, y)) in x.chunks(inputs).zip(y.chunks(outputs)).enumerate() {
        for (output, (w, y)) in w.chunks(inputs).zip(y).enumerate() {
            let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let start = f64::from(start(row, output));
            let magnitude = start.abs() + products().map(f64::abs).sum::<f64>();
            let error = (f64::from(*y) - start - products().sum::<f64>()).abs();
            let bound = 24.0 * f64::from(f32::EPSILON) * magnitude;
            assert!(error <= bound, "{what}: row {row}, output {output}: {y}, off by {error:e}, allowed {bound:e}");
        }
    }
}

#[test]
fn products_agree_with_f64() {
    let mut random = fastrand::Rng::with_seed(1);
    let shapes = [(1, 1), (3, 2), (16, 4), (17, 5), (48, 64), (61, 255), (97, 1030), (400, 130)];
    for cpu in Cpu::each() {
        for format in FORMATS {
            for (outputs, inputs) in shapes {
                let w = noise(&mut random, outputs * inputs);
                let matrix = DenseMatrix::pack(&cpu, Source::F32(&w), (outputs, inputs), format);
                let w: Vec<f32> = w.iter().map(|w| kept(format, *w)).collect();
                let bias = noise(&mut random, outputs);
                for rows in (0..=17).chain([25, 38]) {
                    let what = format!("{:?} {format:?} {rows} x {inputs} x {outputs}", cpu.isa);
                    let x = noise(&mut random, rows * inputs);
                    let before = noise(&mut random, rows * outputs);
                    let seen = seen(&cpu, format, &x);
                    let mut y = before.clone();
                    matrix.matmul(&cpu, &x, None, Out::Write(&mut y));
                    check(&what, &y, &seen, &w, (inputs, |_, _| 0.0));
                    matrix.matmul(&cpu, &x, Some(&bias), Out::Write(&mut y));
                    check(&what, &y, &seen, &w, (inputs, |_, output| bias[output]));
                    y.clone_from(&before);
                    matrix.matmul(&cpu, &x, None, Out::Add(&mut y));
                    check(&what, &y, &seen, &w, (inputs, |row, output| before[row * outputs + output]));
                    y.clone_from(&before);
                    matrix.matmul(&cpu, &x, Some(&bias), Out::Add(&mut y));
                    check(&what, &y, &seen, &w, (inputs, |row, output| before[row * outputs + output] + bias[output]));
                }
            }
        }
    }
}

#[test]
fn a_row_depends_neither_on_its_neighbours_nor_on_threads() {
    let mut random = fastrand::Rng::with_seed(2);
    let (rows, outputs, inputs) = (ROWS_AT_A_TIME + 40, 250, 700);
    let w = noise(&mut random, outputs * inputs);
    let x = noise(&mut random, rows * inputs);
    for isa in crate::Isa::available() {
        for format in FORMATS {
            let product = |threads: usize, x: &[f32]| {
                let cpu = Cpu { isa, pool: crate::Pool::new(threads) };
                let mut y = vec![0.0; x.len() / inputs * outputs];
                DenseMatrix::pack(&cpu, Source::F32(&w), (outputs, inputs), format).matmul(&cpu, x, None, Out::Write(&mut y));
                y
            };
            let all = product(1, &x);
            assert!(all == product(3, &x), "{isa:?} {format:?}");
            for (first, count) in [(0, 1), (5, 1), (13, 7), (300, 40), (ROWS_AT_A_TIME - 1, 12)] {
                let some = product(2, &x[first * inputs..(first + count) * inputs]);
                assert!(all[first * outputs..(first + count) * outputs] == some, "{isa:?} {format:?}: {count} rows from {first}");
            }
        }
    }
}

#[test]
fn weights_of_every_format_are_kept_in_every_other() {
    let mut random = fastrand::Rng::with_seed(3);
    let (outputs, inputs) = (37, 131);
    let f32s = noise(&mut random, outputs * inputs);
    let bf16s: Vec<bf16> = f32s.iter().map(|w| bf16::from_f32(*w)).collect();
    let f16s: Vec<f16> = f32s.iter().map(|w| f16::from_f32(*w)).collect();
    let sources = [
        (Source::F32(&f32s), f32s.clone()),
        (Source::Bf16(&bf16s), bf16s.iter().map(|w| w.to_f32()).collect()),
        (Source::F16(&f16s), f16s.iter().map(|w| w.to_f32()).collect()),
    ];
    for cpu in Cpu::each() {
        for (source, values) in &sources {
            for format in FORMATS {
                let matrix = DenseMatrix::pack(&cpu, *source, (outputs, inputs), format);
                let mut row = vec![0.0; inputs];
                for output in 0..outputs {
                    matrix.row(output, &mut row);
                    let expected: Vec<f32> = values[output * inputs..][..inputs].iter().map(|w| kept(format, *w)).collect();
                    assert_eq!(row, expected, "{:?} {source:.0?} {format:?} row {output}", cpu.isa);
                }
            }
        }
    }
}

#[test]
fn stacked_weights_are_one_weight() {
    let mut random = fastrand::Rng::with_seed(4);
    let (parts, inputs) = ([40, 7, 1, 16, 33], 75);
    let outputs = parts.iter().sum();
    let w = noise(&mut random, outputs * inputs);
    let x = noise(&mut random, 5 * inputs);
    for cpu in Cpu::each() {
        for format in FORMATS {
            let whole = DenseMatrix::pack(&cpu, Source::F32(&w), (outputs, inputs), format);
            let mut stacked = DenseMatrix::new((outputs, inputs), format);
            let mut at = 0;
            for rows in parts {
                stacked.pack_rows(&cpu, at, Source::F32(&w[at * inputs..(at + rows) * inputs]));
                at += rows;
            }
            let [mut y, mut expected] = [vec![0.0; 5 * outputs], vec![1.0; 5 * outputs]];
            stacked.matmul(&cpu, &x, None, Out::Write(&mut y));
            whole.matmul(&cpu, &x, None, Out::Write(&mut expected));
            assert_eq!(y, expected, "{:?} {format:?}", cpu.isa);
        }
    }
}

#[test]
fn outputs_never_packed_are_zero() {
    for cpu in Cpu::each() {
        let mut y = [1.0; 20];
        DenseMatrix::new((20, 3), DenseFormat::Bf16).matmul(&cpu, &[1.0; 3], None, Out::Write(&mut y));
        assert_eq!(y, [0.0; 20]);
    }
}
