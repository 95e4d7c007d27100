//! Quantising by what the built-in model's matrices are given while it reads a text.

use std::sync::Arc;

use fixtures::root;
use mistralrs_models::{Loaded, load};
use nn::{Calibration, Coverage, DType, Files, Importance, LoadSettings, Prompt, Quant};
use serde_json::Value;
use text::{Piece, Tokenizer};

use crate::divergence::Figures;
use crate::run::prompt_logits;

/// Tokens that are read together.
const CHUNK: usize = 256;

fn files() -> Files {
    Files::Folder(root().join("../demo/model"))
}

/// Questions and answers that the model was not trained on: those to calibrate with, and others.
fn texts() -> [Vec<u32>; 2] {
    let json = files().read("tokenizer.json").unwrap().unwrap();
    let tokenizer = Tokenizer::new("tokenizer.json", &json, &[]).unwrap();
    let lines = std::fs::read_to_string(root().join("demo/heldout/questions.jsonl")).unwrap();
    let mut texts = [String::new(), String::new()];
    for (i, line) in lines.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let line = format!("{} {}\n", case["question"].as_str().unwrap(), case["answer"].as_str().unwrap());
        texts[i % 2].push_str(&line);
    }
    texts.map(|text| tokenizer.encode(&[Piece::Text(text)]).unwrap().ids)
}

fn calibrate(tokens: &[u32]) -> Importance {
    let (mut calibration, settings) = Calibration::new(&LoadSettings::default());
    let loaded = load(&files(), settings).unwrap();
    tokens.chunks(CHUNK).for_each(|chunk| calibration.read(loaded.model.as_ref(), DType::F32, chunk).unwrap());
    calibration.finish("text".into()).unwrap()
}

fn quantised(quant: Option<Quant>, importance: Option<&Importance>) -> Loaded {
    let importance = importance.cloned().map(Arc::new);
    load(&files(), LoadSettings { quant, importance, ..LoadSettings::default() }).unwrap()
}

/// Logits of a text's chunks.
fn logits(loaded: &Loaded, tokens: &[u32]) -> Vec<Vec<f32>> {
    let read = |chunk: &[u32]| prompt_logits(loaded.model.as_ref(), &Prompt::text(chunk.to_vec()), usize::MAX);
    tokens.chunks(CHUNK).flat_map(read).collect()
}

/// Mean square of the differences.
fn error(of: &[Vec<f32>], from: &[Vec<f32>]) -> f64 {
    let differences = of.iter().flatten().zip(from.iter().flatten()).map(|(a, b)| f64::from(a - b));
    differences.map(|difference| difference * difference).sum::<f64>() / of.iter().flatten().count() as f64
}

#[test]
fn calibration_brings_low_bits_nearer_to_the_dense_model() {
    let texts = texts().map(|mut text| {
        text.truncate(4 * CHUNK);
        text
    });
    let importance = calibrate(&texts[0]);
    let dense = quantised(None, None);
    let expected = texts.each_ref().map(|text| logits(&dense, text));
    for quant in [Quant::Q2K, Quant::Q3K, Quant::Q8_0] {
        let [(none, plain), (coverage, guided)] = [None, Some(&importance)].map(|importance| {
            let loaded = quantised(Some(quant), importance);
            let found = texts.each_ref().map(|text| logits(&loaded, text));
            let errors = [0, 1].map(|i| error(&expected[i], &found[i]));
            (loaded.importance, (errors, Figures::of(&expected[0], &found[0]).mean))
        });
        println!("{quant}: (errors of logits in its text and another, divergence) {plain:?} without importance, {guided:?} with");
        assert_eq!((none, coverage), (None, Some(Coverage { known: 29, quantised: 29 })));
        match quant {
            Quant::Q8_0 => assert_eq!(guided, plain),
            _ => {
                assert!((0..2).all(|i| guided.0[i] < plain.0[i]), "{quant}");
                assert!(guided.1 < plain.1, "{quant}");
            }
        }
    }
}

#[test]
fn calibration_is_the_same_every_time() {
    let [text, _] = texts();
    let text = &text[..2 * CHUNK + 7];
    let runs = [calibrate(text), calibrate(text)];
    assert_eq!(runs[0], runs[1]);
    let [first, second] = runs.map(|importance| logits(&quantised(Some(Quant::Q2K), Some(&importance)), &text[..64]));
    assert_eq!(first, second);
}
