//! What a model takes in memory is known before it is loaded, and one that does not fit is refused with the numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use mistralrs::{Capacity, Error, Hub, LoadOptions, Model, ModelSource, Quant};

fn options(fixture: &str, capacity: Capacity) -> LoadOptions {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    let source = ModelSource::Folder(fixtures::model(fixture).unwrap());
    LoadOptions { capacity, ..LoadOptions::new(source, hub) }
}

async fn load(options: LoadOptions) -> Result<Model, Error> {
    Model::load(options, Arc::new(|_| ())).await
}

fn capacity(memory_bytes: usize) -> Capacity {
    Capacity { memory_bytes: Some(memory_bytes), encodings_bytes_max: 0, media_bytes_max: 0, ..Capacity::default() }
}

/// Bytes that the fixture takes with room for a conversation of so many tokens.
async fn needed(fixture: &str, context: usize) -> usize {
    let options = LoadOptions { context_max: Some(context), ..options(fixture, capacity(0)) };
    match load(options).await.err() {
        Some(Error::Memory { plan, .. }) => plan.total(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_refused_with_the_longest_context_that_would() {
    for fixture in ["qwen2_vl", "gemma3", "llama", "mllama", "qwen3_5_moe"] {
        let (less, more) = (needed(fixture, 256).await, needed(fixture, 512).await);
        assert!(less < more, "{fixture}: {less} and {more}");
        let model = load(LoadOptions { context_max: Some(256), ..options(fixture, capacity(less)) }).await.unwrap();
        assert!(model.memory_plan().fits() && model.context_max() == 256, "{fixture}");
        let refused = load(LoadOptions { context_max: Some(512), ..options(fixture, capacity(less)) }).await.err().unwrap();
        let Error::Memory { plan, .. } = &refused else { panic!("{refused}") };
        assert_eq!(plan.context_max, 256, "{fixture}");
        let message = refused.to_string();
        for part in ["the longest conversation that fits has 256 tokens", "weights of the language model", "may be taken"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[tokio::test]
async fn a_quantisation_that_would_fit_is_named() {
    // Too little for 32 bits; the tiny matrices are too narrow for the blocks of 256 numbers.
    let whole = needed("qwen2_vl", 64).await;
    let quantised = LoadOptions { quant: Some(Quant::Q8_0), context_max: Some(64), ..options("qwen2_vl", capacity(0)) };
    let Some(Error::Memory { plan, .. }) = load(quantised).await.err() else { panic!("no memory at all is too little") };
    assert!(plan.total() < whole);
    let tight = LoadOptions { context_max: Some(64), ..options("qwen2_vl", capacity(plan.total())) };
    let message = load(tight).await.err().unwrap().to_string();
    assert!(message.contains("q8_0"), "{message}");
}

#[tokio::test]
async fn what_is_left_is_for_keys_and_values() {
    let base = needed("llama", 64).await;
    let shared = load(options("llama", capacity(base + (64 << 20)))).await.unwrap();
    let plan = shared.memory_plan();
    assert!(plan.fits() && plan.kv_cache.tokens > 64, "{plan}");
    let fixed = Capacity { cache_bytes: Some(1 << 40), ..capacity(base) };
    assert!(matches!(
        load(LoadOptions { context_max: Some(1 << 20), ..options("llama", fixed) }).await.err(),
        Some(Error::Memory { .. })
    ));
}
