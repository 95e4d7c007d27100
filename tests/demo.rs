//! The built-in model: what the reference says of its pictures, and how often it is right about pictures it never saw.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mistralrs::{
    Capacity, ChatRequest, Dtype, Finish, Hub, ImageOptions, KvFormat, LoadOptions, MediaSource, Model, ModelSource, Part, Quant,
};
use serde_json::Value;

/// Right answers in a hundred, by kind of question, that the checkpoint reaches in f32.
const FLOORS: [(&str, usize); 5] = [("colour", 65), ("count", 68), ("place", 75), ("shape", 93), ("where", 60)];
/// By how many in a hundred a quantised model may be worse, all kinds together.
const LOST_MAX: usize = 3;

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo")
}

async fn demo(quant: Option<Quant>, cache_format: Option<KvFormat>) -> Model {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    let capacity = Capacity { cache_format, ..Capacity::default() };
    let options = LoadOptions { quant, dtype: Dtype::F32, capacity, ..LoadOptions::new(ModelSource::Demo, hub) };
    Model::load(options, Arc::new(|_| ())).await.unwrap()
}

fn request(pictures: &[PathBuf], question: &str) -> ChatRequest {
    let picture = |path: &PathBuf| Part::Image(MediaSource::Url(path.display().to_string()), ImageOptions::default());
    let mut parts: Vec<Part> = pictures.iter().map(picture).collect();
    parts.push(Part::Text(question.into()));
    ChatRequest { tokens_max: Some(64), ..ChatRequest::user(parts) }
}

#[tokio::test]
async fn answers_are_those_of_the_reference_token_by_token() {
    let expected: Value = serde_json::from_slice(&std::fs::read(pictures().join("expected.json")).unwrap()).unwrap();
    let model = demo(None, None).await;
    let mut compared = 0;
    for case in expected["cases"].as_array().unwrap() {
        let Some(images) = case["images"].as_array() else { continue };
        let images: Vec<PathBuf> = images.iter().map(|name| pictures().join(name.as_str().unwrap())).collect();
        let answer = model.answer(&request(&images, case["question"].as_str().unwrap())).await.unwrap();
        let mut ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        if let Finish::EndToken(id) = answer.summary.finish {
            ids.push(id);
        }
        assert_eq!(serde_json::json!(ids), case["token_ids"], "{case}");
        assert_eq!(serde_json::json!(answer.summary.usage.prompt_tokens), case["prompt_tokens"]);
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

/// (right, asked) by kind.
async fn score(model: &Model) -> BTreeMap<String, (usize, usize)> {
    let folder = pictures().join("heldout");
    let mut scores: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("questions.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| case[key].as_str().unwrap();
        let answer = model.answer(&request(&[folder.join(text("picture"))], text("question"))).await.unwrap();
        let (right, asked) = scores.entry(text("kind").into()).or_default();
        *right += usize::from(answer.text == text("answer"));
        *asked += 1;
    }
    scores
}

fn percent(scores: &BTreeMap<String, (usize, usize)>) -> usize {
    let (right, asked) = scores.values().fold((0, 0), |sum, score| (sum.0 + score.0, sum.1 + score.1));
    100 * right / asked
}

#[tokio::test]
async fn it_is_right_about_pictures_it_never_saw_quantised_or_not() {
    let plain = score(&demo(None, None).await).await;
    println!("f32: {} of 100 right, {plain:?}", percent(&plain));
    for (kind, floor) in FLOORS {
        let (right, asked) = plain[kind];
        assert!(100 * right >= floor * asked, "{kind}: {right} of {asked} right");
    }
    for (quant, cache) in [(Some(Quant::Q8_0), None), (Some(Quant::Q4K), None), (None, Some(KvFormat::Q8))] {
        let scores = score(&demo(quant, cache).await).await;
        println!("{quant:?} {cache:?}: {} of 100 right, {scores:?}", percent(&scores));
        assert!(
            percent(&scores) + LOST_MAX >= percent(&plain),
            "{quant:?} {cache:?}: {} of 100 right, {} in f32",
            percent(&scores),
            percent(&plain)
        );
    }
}
