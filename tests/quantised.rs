//! A checkpoint that was quantised before is the same model as one that is quantised while it is loaded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use mistralrs::{ChatRequest, Error, Hub, ImageOptions, LoadOptions, Model, ModelSource, Part, Quant};

fn options(folder: &Path, quant: Option<Quant>) -> LoadOptions {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    LoadOptions { quant, ..LoadOptions::new(ModelSource::Folder(folder.into()), hub) }
}

async fn load(options: LoadOptions) -> Result<Model, Error> {
    Model::load(options, Arc::new(|_| ())).await
}

/// Ids that the model answers with, and the natural logarithms of their probabilities.
async fn answer(model: &Model) -> Vec<(u32, Option<f32>)> {
    let mut parts = vec![Part::Text("Say something long about red and blue things.".into())];
    if !model.family().modalities.is_empty() {
        let picture = fixtures::root().join("media/photo_64x64.png").display().to_string();
        parts.insert(0, Part::Image(picture.as_str().into(), ImageOptions::default()));
    }
    let mut request = ChatRequest { tokens_max: Some(12), ignore_eos: true, ..ChatRequest::user(parts) };
    request.sampling.logprobs = Some(0);
    model.answer(&request).await.unwrap().tokens.iter().map(|token| (token.id, token.logprob)).collect()
}

#[tokio::test]
async fn it_answers_with_the_same_words_bit_by_bit() {
    // Experts apart, fused, and fused the other way round; heads that are tied and not; bytes smaller than they were.
    for (fixture, quant) in [
        ("qwen2_vl", Quant::Q8_0),
        ("qwen3_moe", Quant::Q4_0),
        ("qwen3_vl_moe", Quant::Q4K),
        ("llama4", Quant::Q5_1),
        ("qwen3_5", Quant::Q8_0),
        ("llava", Quant::Q4_1),
    ] {
        let source = fixtures::model(fixture).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let written = folder.path().join("written");
        Model::quantise(options(&source, Some(quant)), &written, Arc::new(|_| ())).await.unwrap();
        let whole = load(options(&source, None)).await.unwrap();
        let [fresh, stored] = [options(&source, Some(quant)), options(&written, None)].map(load);
        let (fresh, stored) = (fresh.await.unwrap(), stored.await.unwrap());
        let expected = answer(&fresh).await;
        assert_eq!(answer(&stored).await, expected, "{fixture}");
        assert_ne!(answer(&whole).await, expected, "{fixture}: nothing was quantised");
        assert_eq!(stored.memory_plan().language, fresh.memory_plan().language, "{fixture}");
        assert_eq!(stored.leftover(), [""; 0], "{fixture}");
        let refused = load(options(&written, Some(Quant::Q4_0))).await.err().unwrap().to_string();
        assert!(refused.contains("is quantised already"), "{refused}");
        let again = Model::quantise(options(&source, Some(quant)), &written, Arc::new(|_| ())).await.err().unwrap();
        assert!(again.to_string().contains("is not empty"), "{again}");
    }
}
