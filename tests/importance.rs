//! Quantising by an importance, as a program that uses the crate does it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mistralrs::{
    ChatRequest, Coverage, Error, Hub, ImportanceSource, LoadOptions, Model, ModelSource, Part, Progress, Quant, Task,
};

/// Matrices of the built-in model that are quantised.
const MATRICES: usize = 29;

type Made = (Result<Model, Error>, Vec<Progress>);

async fn load(quant: Option<Quant>, importance: ImportanceSource) -> Made {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    let options = LoadOptions { quant, importance: Some(importance), ..LoadOptions::new(ModelSource::Demo, hub) };
    let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let list = told.clone();
    let model = Model::load(options, Arc::new(move |progress| list.lock().unwrap().push(progress))).await;
    let told = told.lock().unwrap().clone();
    (model, told)
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A matrix in llama.cpp's binary form.
fn matrix(entries: &[(&str, Vec<f32>)]) -> Vec<u8> {
    let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, values) in entries {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.bytes());
        bytes.extend([1, values.len() as i32].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

#[tokio::test]
async fn a_text_or_a_matrix_guides_the_quantisation() {
    let folder = tempfile::tempdir().unwrap();
    let text = "What is in this picture? There is a red circle and two blue stars. <|im_end|> ".repeat(60);
    let text = written(folder.path(), "text.txt", text.as_bytes());
    let (model, told) = load(Some(Quant::Q2K), ImportanceSource::Text(text)).await;
    let model = model.unwrap();
    assert_eq!(model.importance(), Some(Coverage { known: MATRICES, quantised: MATRICES }));
    let calibrated: Vec<&Progress> = told.iter().filter(|progress| progress.task == Task::Calibrate).collect();
    let last = calibrated.last().unwrap();
    assert!(calibrated.len() > 2 && last.done == last.total && last.total > 512, "{calibrated:?}");
    assert!(calibrated.is_sorted_by_key(|progress| progress.done));
    let request = ChatRequest { tokens_max: Some(4), ..ChatRequest::user(vec![Part::Text("What is there?".into())]) };
    assert!(!model.answer(&request).await.unwrap().tokens.is_empty());

    let entries = [("blk.0.attn_q.weight", vec![1.0; 256]), ("blk.3.ffn_down.weight", vec![2.0; 512]), ("other", vec![1.0])];
    let file = written(folder.path(), "imatrix.dat", &matrix(&entries));
    let (model, _) = load(Some(Quant::Q4K), ImportanceSource::Matrix(file)).await;
    assert_eq!(model.unwrap().importance(), Some(Coverage { known: 2, quantised: MATRICES }));
}

#[tokio::test]
async fn one_line_says_what_is_wrong() {
    use ImportanceSource::{Matrix, Text};
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| written(folder.path(), name, bytes);
    let narrow = matrix(&[("blk.1.ffn_up.weight", vec![1.0; 128])]);
    let negative = matrix(&[("blk.1.ffn_up.weight", vec![-1.0; 256])]);
    let strange = matrix(&[("v.blk.1.ffn_up.weight", vec![1.0; 256])]);
    let quant = Some(Quant::Q2K);
    let cases = [
        (None, Text(file("a.txt", b"words")), "only together with a quantisation"),
        (quant, Text(folder.path().join("none.txt")), "cannot read"),
        (quant, Text(file("empty.txt", b"")), "empty.txt: a calibration file needs some text"),
        (quant, Matrix(folder.path().join("none.dat")), "none.dat: "),
        (quant, Matrix(file("a.gguf", b"GGUF")), "a.gguf: it is damaged"),
        (quant, Matrix(file("words.dat", b"words and words")), "words.dat: it is not an importance matrix"),
        (
            quant,
            Matrix(file("narrow.dat", &narrow)),
            "narrow.dat: \"blk.1.ffn_up.weight\" is for 128 inputs, but \"model.layers.1.mlp.up_proj.weight\" has 256",
        ),
        (quant, Matrix(file("negative.dat", &negative)), "\"blk.1.ffn_up.weight\" has a value that is negative"),
        (quant, Matrix(file("strange.dat", &strange)), "knows none of the 29 quantised matrices"),
    ];
    for (quant, importance, expected) in cases {
        let (model, _) = load(quant, importance).await;
        let message = model.err().expect(expected).to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{expected:?} in {message:?}");
    }
}
