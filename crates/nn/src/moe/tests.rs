use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device};
use safetensors::tensor::TensorView;

use super::*;
use crate::{Calibration, Checkpoint, Files, LoadSettings, Organization, Quant};

/// Numbers that repeat nowhere.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((seed * 7919 + i * 31) as f32 * 0.618_034).sin()).collect()
}

/// Sizes of a mixture.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    experts: usize,
    hidden: usize,
    inner: usize,
}

/// How a file has experts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stored {
    Apart,
    Fused,
    Turned,
}

/// Gates, values and outputs of an expert, by rows.
struct Expert([Vec<f32>; 3]);

impl Expert {
    fn new(seed: usize, Sizes { hidden, inner, .. }: Sizes) -> Self {
        Self([1, 2, 3].map(|part| numbers(seed * 10 + part, hidden * inner)))
    }
}

const SHARED: usize = 100;

fn turned(w: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| w.iter().skip(column).step_by(columns).copied()).collect()
}

/// The tensors of a mixture as a file has them.
fn tensors(sizes: Sizes, stored: Stored) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let Sizes { experts, hidden, inner } = sizes;
    let mut all = vec![
        ("gate.weight".to_string(), vec![experts, hidden], numbers(1, experts * hidden)),
        ("gate.e_score_correction_bias".to_string(), vec![experts], numbers(2, experts)),
        ("shared_expert_gate.weight".to_string(), vec![1, hidden], numbers(3, hidden)),
    ];
    let mut apart = |name: &str, Expert([gate, up, down]): Expert| {
        all.push((format!("{name}.gate_proj.weight"), vec![inner, hidden], gate));
        all.push((format!("{name}.up_proj.weight"), vec![inner, hidden], up));
        all.push((format!("{name}.down_proj.weight"), vec![hidden, inner], down));
    };
    apart("shared_expert", Expert::new(SHARED, sizes));
    if stored == Stored::Apart {
        (0..experts).for_each(|e| apart(&format!("experts.{e}"), Expert::new(e, sizes)));
        return all;
    }
    let (mut gate_up, mut down) = (Vec::new(), Vec::new());
    for Expert([gate, up, out]) in (0..experts).map(|e| Expert::new(e, sizes)) {
        let both = [gate, up].concat();
        gate_up.extend(if stored == Stored::Turned { turned(&both, hidden) } else { both });
        down.extend(if stored == Stored::Turned { turned(&out, inner) } else { out });
    }
    let shapes = match stored {
        Stored::Turned => [[experts, hidden, 2 * inner], [experts, inner, hidden]],
        _ => [[experts, 2 * inner, hidden], [experts, hidden, inner]],
    };
    all.push(("experts.gate_up_proj".to_string(), shapes[0].to_vec(), gate_up));
    all.push(("experts.down_proj".to_string(), shapes[1].to_vec(), down));
    all
}

fn weights(sizes: Sizes, stored: Stored, settings: LoadSettings) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let tensors = tensors(sizes, stored);
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, numbers)| (format!("layers.0.mlp.{name}"), shape.clone(), bytes(numbers))).collect();
    let views: HashMap<&str, TensorView> = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap()))
        .collect();
    std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&Files::Folder(folder.path().into())).unwrap();
    Weights::new(Arc::new(checkpoint), settings).at("layers.0.mlp")
}

fn config(sizes: Sizes, chosen: usize, scoring: Scoring) -> MoeConfig {
    let router =
        RouterConfig { chosen, scoring, shares: Shares::Scores, scale: 1.0, correction: Bias::Absent, gate: RouterGate::Plain };
    let activation = Activation::Silu;
    MoeConfig { experts: sizes.experts, inner: sizes.inner, activation, router, weighed: Weighed::Results, shared: None }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn dot(w: &[f32], x: &[f64]) -> f64 {
    w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
}

fn expert(seed: usize, sizes: Sizes, x: &[f64]) -> Vec<f64> {
    let Expert([gate, up, down]) = Expert::new(seed, sizes);
    let gates = gate.chunks(sizes.hidden).map(|w| dot(w, x));
    let values = up.chunks(sizes.hidden).map(|w| dot(w, x));
    let inner: Vec<f64> = gates.zip(values).map(|(gate, value)| gate * sigmoid(gate) * value).collect();
    down.chunks(sizes.inner).map(|w| dot(w, &inner)).collect()
}

/// What a mixture makes of one row, word by word.
fn reference(config: &MoeConfig, sizes: Sizes, x: &[f32]) -> Vec<f64> {
    let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let router = &config.router;
    let outputs: Vec<f64> = numbers(1, sizes.experts * sizes.hidden).chunks(sizes.hidden).map(|w| dot(w, &x)).collect();
    let sum: f64 = outputs.iter().map(|output| output.exp()).sum();
    let scores: Vec<f64> = match router.scoring {
        Scoring::Softmax => outputs.iter().map(|output| output.exp() / sum).collect(),
        Scoring::SoftmaxOfChosen => outputs.iter().map(|output| output.exp()).collect(),
        Scoring::Sigmoid => outputs.iter().copied().map(sigmoid).collect(),
    };
    let correction = numbers(2, sizes.experts);
    let rank = |e: usize| scores[e] + if router.correction == Bias::Present { f64::from(correction[e]) } else { 0.0 };
    let mut order: Vec<usize> = (0..sizes.experts).collect();
    order.sort_by(|a, b| rank(*b).total_cmp(&rank(*a)));
    order.truncate(router.chosen);
    let sum: f64 = order.iter().map(|e| scores[*e]).sum();
    let normalised = router.shares == Shares::Normalised || router.scoring == Scoring::SoftmaxOfChosen;
    let mut y = vec![0.0; sizes.hidden];
    let mut add = |factor: f64, made: Vec<f64>| y.iter_mut().zip(made).for_each(|(y, made)| *y += factor * made);
    for e in order {
        let share = scores[e] / if normalised { sum } else { 1.0 } * router.scale;
        match config.weighed {
            Weighed::Results => add(share, expert(e, sizes, &x)),
            Weighed::Inputs => add(1.0, expert(e, sizes, &x.iter().map(|x| x * share).collect::<Vec<_>>())),
        }
    }
    match config.shared {
        None => {}
        Some(SharedExpert::Plain(_)) => add(1.0, expert(SHARED, sizes, &x)),
        Some(SharedExpert::Gated(_)) => add(sigmoid(dot(&numbers(3, sizes.hidden), &x)), expert(SHARED, sizes, &x)),
    }
    y
}

fn run(moe: &Moe, x: &[f32], hidden: usize) -> Vec<f32> {
    let x = Tensor::from_slice(x, (x.len() / hidden, hidden), &Device::Cpu).unwrap();
    moe.add_to(x.zeros_like().unwrap(), &x).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_kind_of_mixture_is_that_of_a_plain_reference() {
    let sizes = [
        Sizes { experts: 5, hidden: 24, inner: 7 },
        Sizes { experts: 8, hidden: 16, inner: 8 },
        Sizes { experts: 3, hidden: 17, inner: 17 },
        Sizes { experts: 1, hidden: 8, inner: 20 },
    ];
    for sizes in sizes {
        let plain = |scoring| config(sizes, 3.min(sizes.experts), scoring);
        let router = |config: MoeConfig, shares, scale, correction| {
            let router = RouterConfig { shares, scale, correction, ..config.router };
            MoeConfig { router, ..config }
        };
        let configs = [
            plain(Scoring::Softmax),
            plain(Scoring::SoftmaxOfChosen),
            config(sizes, 1, Scoring::Softmax),
            router(plain(Scoring::Softmax), Shares::Normalised, 1.0, Bias::Absent),
            router(plain(Scoring::Sigmoid), Shares::Normalised, 2.5, Bias::Present),
            router(plain(Scoring::Softmax), Shares::Scores, 1.0, Bias::Present),
            MoeConfig { weighed: Weighed::Inputs, shared: Some(SharedExpert::Plain(sizes.inner)), ..plain(Scoring::Sigmoid) },
            MoeConfig { shared: Some(SharedExpert::Gated(sizes.inner)), ..plain(Scoring::Softmax) },
        ];
        for config in configs {
            let load = |stored| Moe::load(&config, sizes.hidden, &weights(sizes, stored, LoadSettings::default())).unwrap();
            let moe = [Stored::Apart, Stored::Fused, Stored::Turned].map(load);
            for rows in [0, 1, 2, 19] {
                let x = numbers(77 + rows, rows * sizes.hidden);
                let found = moe.each_ref().map(|moe| run(moe, &x, sizes.hidden));
                assert!(found[0] == found[1] && found[0] == found[2], "{sizes:?} {config:?}");
                for (x, found) in x.chunks(sizes.hidden).zip(found[0].chunks(sizes.hidden)) {
                    for (found, expected) in found.iter().zip(reference(&config, sizes, x)) {
                        let apart = (f64::from(*found) - expected).abs();
                        assert!(apart < 5e-5 * (1.0 + expected.abs()), "{found} for {expected}: {sizes:?} {config:?}");
                    }
                    assert_eq!(run(&moe[0], x, sizes.hidden), found, "a row alone: {sizes:?} {config:?}");
                }
            }
        }
    }
}

#[test]
fn among_equals_the_first_experts_are_chosen() {
    let sizes = Sizes { experts: 6, hidden: 8, inner: 4 };
    let moe = Moe::load(&config(sizes, 2, Scoring::Softmax), 8, &weights(sizes, Stored::Fused, LoadSettings::default())).unwrap();
    // The router's output for zeros is zero for all.
    let routes = moe.router.route(&Tensor::zeros((3, 8), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(routes.by_expert().collect::<Vec<_>>(), [(0, 0..3), (1, 3..6)]);
    assert_eq!(routes.rows(), [0, 1, 2, 0, 1, 2]);
    assert_eq!(routes.shares(), [1.0 / 6.0; 6]);
    // Numbers that are none choose somebody too.
    let undefined = Tensor::full(f32::NAN, (2, 8), &Device::Cpu).unwrap();
    assert_eq!(moe.router.route(&undefined).unwrap().len(), 4);
}

#[test]
fn pairs_may_be_computed_in_parts() {
    let sizes = Sizes { experts: 5, hidden: 24, inner: 7 };
    let moe =
        Moe::load(&config(sizes, 3, Scoring::Softmax), 24, &weights(sizes, Stored::Fused, LoadSettings::default())).unwrap();
    let x = Tensor::from_vec(numbers(5, 11 * 24), (11, 24), &Device::Cpu).unwrap();
    let routes = moe.router.route(&x).unwrap();
    let whole: Vec<f32> = run(&moe, &numbers(5, 11 * 24), 24);
    for pairs in [1, 4, 32, 33, 1000] {
        let mut y = x.zeros_like().unwrap();
        for part in routes.parts(pairs) {
            let inner = moe.activation.gate(moe.gate_up.dispatch(&x, &part).unwrap()).unwrap();
            y = moe.down.combine(y, &inner, &part).unwrap();
        }
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), whole, "{pairs} at a time");
    }
}

#[test]
fn quantised_experts_are_near_dense_ones() {
    let sizes = Sizes { experts: 4, hidden: 256, inner: 64 };
    let config = config(sizes, 2, Scoring::Softmax);
    let load = |quant, stored| {
        let settings = LoadSettings { quant, organization: Organization::Moqe, ..LoadSettings::default() };
        Moe::load(&config, sizes.hidden, &weights(sizes, stored, settings)).unwrap()
    };
    let x = numbers(9, 6 * sizes.hidden);
    let dense = run(&load(None, Stored::Apart), &x, sizes.hidden);
    let size: f32 = dense.iter().map(|y| y * y).sum();
    for quant in Quant::ALL {
        let found =
            [Stored::Apart, Stored::Fused, Stored::Turned].map(|stored| run(&load(Some(quant), stored), &x, sizes.hidden));
        assert!(found[0] == found[1] && found[0] == found[2], "{quant}");
        let error = found[0].iter().zip(&dense).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / size;
        // Gates, values and outputs, each off by a step of some 2^-bits of their range, which scales take a part of; and what they
        // are multiplied by, rounded to 8 bits.
        let allowed = 0.01 + 8.0 * 0.5_f32.powf(quant.bits() as f32);
        assert!(error > 0.0 && error.sqrt() < allowed, "{quant}: {}", error.sqrt());
    }
}

#[test]
fn another_device_computes_the_same() {
    let sizes = Sizes { experts: 5, hidden: 24, inner: 7 };
    for stored in [Stored::Apart, Stored::Fused, Stored::Turned] {
        let w = weights(sizes, stored, LoadSettings::default());
        let mut moe = Moe::load(&config(sizes, 3, Scoring::Softmax), 24, &w).unwrap();
        let x = numbers(5, 11 * 24);
        let here = run(&moe, &x, 24);
        (moe.gate_up, moe.down) = w.at("experts").experts_elsewhere(5, 24, 7).unwrap();
        for (here, elsewhere) in here.iter().zip(run(&moe, &x, 24)) {
            assert!((here - elsewhere).abs() < 5e-5 * (1.0 + here.abs()), "{stored:?}: {here} and {elsewhere}");
        }
    }
}

#[test]
fn each_expert_is_watched_by_itself() {
    let sizes = Sizes { experts: 3, hidden: 8, inner: 4 };
    for stored in [Stored::Apart, Stored::Fused] {
        let (mut calibration, settings) = Calibration::new(&LoadSettings::default());
        let moe = Moe::load(&config(sizes, 1, Scoring::Softmax), 8, &weights(sizes, stored, settings)).unwrap();
        let x = numbers(4, 5 * 8);
        run(&moe, &x, 8);
        let routes = moe.router.route(&Tensor::from_slice(&x, (5, 8), &Device::Cpu).unwrap()).unwrap();
        calibration.gather();
        let importance = calibration.finish("text".into()).unwrap();
        for (expert, pairs) in routes.by_expert() {
            let rows = &routes.rows()[pairs];
            let square = |i: usize| rows.iter().map(|row| x[*row as usize * 8 + i].powi(2)).sum::<f32>();
            let sum: f32 = (0..8).map(square).sum();
            for part in ["gate_proj", "up_proj"] {
                let name = format!("layers.0.mlp.experts.{expert}.{part}.weight");
                let found = importance.of(&name, 8).unwrap().unwrap();
                for (i, found) in found.iter().enumerate() {
                    assert!((found - 8.0 * square(i) / sum).abs() < 1e-5, "{stored:?} {name}");
                }
            }
            let down = format!("layers.0.mlp.experts.{expert}.down_proj.weight");
            assert!(importance.of(&down, 4).unwrap().is_some(), "{stored:?}");
        }
        assert_eq!(importance.of("layers.0.mlp.gate.weight", 8).unwrap(), None);
    }
}
