//! Quantised products on every instruction set against f64 and against each other.

use kernels::Cpu;
use kernels::blocks::{BlockFormat, dequantise, quantise};
use kernels::{Out, QuantisedMatrix, Source};

/// Random blocks whose half-precision factors are of moderate size, so that no weight is infinite.
fn blocks(format: BlockFormat, count: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    use BlockFormat::*;
    let halves: &[usize] = match format {
        Q4_0 | Q5_0 | Q8_0 => &[0],
        Q4_1 | Q5_1 | Q4K | Q5K => &[0, 2],
        Q2K => &[80, 82],
        Q3K => &[108],
        Q6K => &[208],
    };
    let mut bytes = vec![0; count * format.block_bytes()];
    rng.fill(&mut bytes);
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in halves {
            // Exponents from -4 to -1.
            block[at + 1] = block[at + 1] & 0x83 | (11 + rng.u8(..4)) << 2;
        }
    }
    bytes
}

struct Case {
    format: BlockFormat,
    rows: usize,
    outputs: usize,
    inputs: usize,
}

fn cases() -> impl Iterator<Item = Case> {
    BlockFormat::ALL.into_iter().flat_map(|format| {
        // Rows on both sides of a tile; outputs and inputs that are not multiples of panels and of eight units.
        let sizes = [(1, 1, 1), (2, 16, 2), (3, 17, 3), (4, 31, 1), (5, 33, 2), (7, 48, 1), (8, 5, 4), (9, 100, 1), (17, 40, 3)];
        sizes.into_iter().map(move |(rows, outputs, blocks)| Case { format, rows, outputs, inputs: blocks * format.block_size() })
    })
}

#[test]
fn products_are_those_of_the_weights() {
    let mut rng = fastrand::Rng::with_seed(3);
    for Case { format, rows, outputs, inputs } in cases() {
        let name = format!("{format:?} {rows} x {inputs} x {outputs}");
        let bytes = blocks(format, outputs * inputs / format.block_size(), &mut rng);
        let x: Vec<f32> = (0..rows * inputs).map(|_| rng.f32() - 0.5).collect();
        let bias: Vec<f32> = (0..outputs).map(|_| rng.f32()).collect();
        let mut scalar = None;
        for cpu in Cpu::each() {
            let mut weight = QuantisedMatrix::new(format, outputs, inputs);
            weight.pack_rows(&cpu, 0, &bytes);
            let mut w = vec![0.0; outputs * inputs];
            dequantise(format, &bytes, &mut w);
            let mut y = vec![1.0; rows * outputs];
            weight.matmul(&cpu, &x, Some(&bias), Out::Add(&mut y));
            // Rounding to 1/127 of the largest of 32 equally distributed values: 0.4 % of their size on average, which a few rows
            // tell less well.
            let (mut error, mut size) = (0.0, 0.0);
            for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
                for ((w, y), bias) in w.chunks_exact(inputs).zip(y).zip(&bias) {
                    let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    let squares: f64 = w.iter().zip(x).map(|(w, x)| (f64::from(*w) * f64::from(*x)).powi(2)).sum();
                    error += (f64::from(*y) - f64::from(*bias) - 1.0 - exact).powi(2);
                    size += squares;
                }
            }
            let error = (error / size).sqrt();
            assert!(error < 0.004 * (1.0 + 4.0 / (rows as f64).sqrt()), "{name} {:?}: {error}", cpu.isa);
            // Integers are exact; f32 sums of some hundred terms differ in the last bits.
            let scalar = scalar.get_or_insert_with(|| y.clone());
            let largest = scalar.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            let apart = y.iter().zip(scalar.iter()).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart <= largest * 1e-5, "{name} {:?}: {apart} of {largest}", cpu.isa);
        }
    }
}

#[test]
fn rows_come_back_as_they_were_packed() {
    let mut rng = fastrand::Rng::with_seed(4);
    for Case { format, outputs, inputs, .. } in cases() {
        let row_bytes = inputs / format.block_size() * format.block_bytes();
        let bytes = blocks(format, outputs * inputs / format.block_size(), &mut rng);
        for cpu in Cpu::each() {
            let mut weight = QuantisedMatrix::new(format, outputs, inputs);
            // In parts that do not end where panels do.
            for at in (0..outputs).step_by(7) {
                weight.pack_rows(&cpu, at, &bytes[at * row_bytes..(at + 7).min(outputs) * row_bytes]);
            }
            let (mut row, mut expected) = (vec![0.0; inputs], vec![0.0; inputs]);
            for (output, blocks) in bytes.chunks_exact(row_bytes).enumerate() {
                weight.row(output, &mut row);
                dequantise(format, blocks, &mut expected);
                assert!(row == expected, "{format:?} row {output} of {outputs} x {inputs}");
            }
        }
    }
}

#[test]
fn rows_are_quantised_as_blocks_are() {
    let mut rng = fastrand::Rng::with_seed(5);
    for Case { format, outputs, inputs, .. } in cases() {
        // Half precision holds these exactly, so that all sources give the same blocks.
        let w: Vec<f32> = (0..outputs * inputs).map(|_| f32::from(rng.i8(..)) / 256.0).collect();
        let halves: Vec<half::f16> = w.iter().map(|w| half::f16::from_f32(*w)).collect();
        let uppers: Vec<half::bf16> = w.iter().map(|w| half::bf16::from_f32(*w)).collect();
        let importance: Vec<f32> = (0..inputs).map(|_| rng.f32()).collect();
        for importance in [None, Some(importance.as_slice())] {
            for cpu in Cpu::each() {
                let mut bytes = vec![0; outputs * inputs / format.block_size() * format.block_bytes()];
                quantise(cpu.isa, format, &w, importance, &mut bytes);
                let mut expected = vec![0.0; w.len()];
                dequantise(format, &bytes, &mut expected);
                for source in [Source::F32(&w), Source::F16(&halves), Source::Bf16(&uppers)] {
                    let mut weight = QuantisedMatrix::new(format, outputs, inputs);
                    weight.quantise_rows(&cpu, 0, source, importance);
                    let mut row = vec![0.0; inputs];
                    for (output, expected) in expected.chunks_exact(inputs).enumerate() {
                        weight.row(output, &mut row);
                        assert!(row == expected, "{format:?} row {output} of {outputs} x {inputs} {:?}", cpu.isa);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_out_of_bounds_or_panics() {
    let mut rng = fastrand::Rng::with_seed(6);
    for format in BlockFormat::ALL {
        let (outputs, inputs) = (33, 256);
        let mut bytes = vec![0; outputs * inputs / format.block_size() * format.block_bytes()];
        rng.fill(&mut bytes);
        for cpu in Cpu::each() {
            let mut weight = QuantisedMatrix::new(format, outputs, inputs);
            // Any bytes: infinite and undefined factors too.
            weight.pack_rows(&cpu, 0, &bytes);
            let strange = [0.0, f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, -1.0];
            let x: Vec<f32> = (0..3 * inputs).map(|_| strange[rng.usize(..strange.len())]).collect();
            let mut y = vec![0.0; 3 * outputs];
            weight.matmul(&cpu, &x, None, Out::Write(&mut y));
            weight.quantise_rows(&cpu, 1, Source::F32(&x), None);
            // Undefined activations make undefined results, and only in their row.
            let mut x = vec![1.0; 2 * inputs];
            x[7] = f32::NAN;
            let mut weight = QuantisedMatrix::new(format, outputs, inputs);
            weight.quantise_rows(&cpu, 0, Source::F32(&vec![1.0; outputs * inputs]), None);
            weight.matmul(&cpu, &x, None, Out::Write(&mut y[..2 * outputs]));
            assert!(y[..outputs].iter().all(|y| y.is_nan()), "{format:?} {:?}", cpu.isa);
            assert!(y[outputs..2 * outputs].iter().all(|y| (y - 256.0).abs() < 4.0), "{format:?} {:?} {:?}", cpu.isa, y);
            // No rows, no outputs, no inputs.
            weight.matmul(&cpu, &[], None, Out::Write(&mut []));
            QuantisedMatrix::new(format, 0, inputs).matmul(&cpu, &x, None, Out::Write(&mut []));
            QuantisedMatrix::new(format, 3, 0).matmul(&cpu, &[], None, Out::Write(&mut []));
        }
    }
}

#[test]
fn a_row_depends_on_nothing_but_the_row() {
    let mut rng = fastrand::Rng::with_seed(7);
    for format in BlockFormat::ALL {
        let (rows, outputs, inputs) = (21, 70, 512);
        let bytes = blocks(format, outputs * inputs / format.block_size(), &mut rng);
        let x: Vec<f32> = (0..rows * inputs).map(|_| rng.f32() - 0.5).collect();
        for cpu in Cpu::each() {
            let mut weight = QuantisedMatrix::new(format, outputs, inputs);
            weight.pack_rows(&cpu, 0, &bytes);
            let mut together = vec![0.0; rows * outputs];
            weight.matmul(&cpu, &x, None, Out::Write(&mut together));
            let mut alone = vec![0.0; outputs];
            for (x, together) in x.chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
                weight.matmul(&cpu, x, None, Out::Write(&mut alone));
                assert!(alone == together, "{format:?} {:?}", cpu.isa);
            }
        }
    }
}
