//! What is wrong with a checkpoint is said in one line that names the file and the key or tensor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mistralrs::{Hub, LoadOptions, Model, ModelSource};
use serde_json::{Value, json};

fn hub() -> Hub {
    Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true }
}

/// A copy of a fixture that a case may spoil.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fixtures::copy(name, folder.path()).unwrap();
    folder
}

/// What is said while a folder is loaded.
async fn complaint(folder: &Path) -> String {
    match Model::load(LoadOptions::new(ModelSource::Folder(folder.into()), hub()), Arc::new(|_| ())).await {
        Err(e) => e.to_string(),
        Ok(_) => "no complaint".into(),
    }
}

/// Changes a JSON file; null removes a key.
fn edit(folder: &Path, file: &str, change: Value) {
    let path = folder.join(file);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
            value => json[key] = value.clone(),
        }
    }
    fs::write(path, json.to_string()).unwrap();
}

#[tokio::test]
async fn one_line_names_the_file_and_the_key() {
    type Spoil = fn(&Path);
    let cases: Vec<(&str, Spoil)> = vec![
        ("config.json: there is no such file", |f| fs::remove_file(f.join("config.json")).unwrap()),
        ("config.json: not JSON: expected", |f| fs::write(f.join("config.json"), "nonsense").unwrap()),
        ("architecture \"MambaForCausalLM\" is not supported", |f| {
            edit(f, "config.json", json!({"architectures": ["MambaForCausalLM"]}))
        }),
        ("architecture \"\" is not supported", |f| edit(f, "config.json", json!({"architectures": null}))),
        ("hidden_size", |f| edit(f, "config.json", json!({"hidden_size": null}))),
        ("hidden_size: invalid type: string", |f| edit(f, "config.json", json!({"hidden_size": "big"}))),
        ("num_attention_heads", |f| edit(f, "config.json", json!({"num_attention_heads": 0}))),
        ("hidden_act", |f| edit(f, "config.json", json!({"hidden_act": "swoosh"}))),
        ("mrope_section", |f| edit(f, "config.json", json!({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]}}))),
        ("\"model.embed_tokens.weight\" is [448, 128]; config.json calls for [449, 128]", |f| {
            edit(f, "config.json", json!({"vocab_size": 449}))
        }),
        ("has no tensor \"model.layers.3.", |f| edit(f, "config.json", json!({"num_hidden_layers": 4}))),
        ("model.safetensors: there is no such file", |f| fs::remove_file(f.join("model.safetensors")).unwrap()),
        ("model.safetensors: not safetensors", |f| fs::write(f.join("model.safetensors"), b"garbage").unwrap()),
        ("model.safetensors", |f| {
            let bytes = fs::read(f.join("model.safetensors")).unwrap();
            fs::write(f.join("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("shard-2.safetensors: there is no such file; the checkpoint is incomplete", |f| {
            let index = json!({"weight_map": {"lm_head.weight": "shard-2.safetensors"}});
            fs::write(f.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }),
        ("tokenizer.json: there is no such file", |f| fs::remove_file(f.join("tokenizer.json")).unwrap()),
        ("tokenizer.json", |f| fs::write(f.join("tokenizer.json"), "{}").unwrap()),
        ("no chat template", |f| fs::remove_file(f.join("chat_template.jinja")).unwrap()),
        ("chat_template.jinja", |f| fs::write(f.join("chat_template.jinja"), "{% if %}").unwrap()),
        ("preprocessor_config.json: there is no such file", |f| fs::remove_file(f.join("preprocessor_config.json")).unwrap()),
        ("image_std must be positive", |f| edit(f, "preprocessor_config.json", json!({"image_std": [0.0, 1.0, 1.0]}))),
        ("image_mean", |f| edit(f, "preprocessor_config.json", json!({"image_mean": [0.5]}))),
        ("patch_size", |f| edit(f, "preprocessor_config.json", json!({"patch_size": 0}))),
        ("min_pixels is larger than max_pixels", |f| edit(f, "preprocessor_config.json", json!({"min_pixels": 9999999}))),
        ("eos_token_id is not a token id", |f| edit(f, "generation_config.json", json!({"eos_token_id": "</s>"}))),
    ];
    let mut wrong = Vec::new();
    for (expected, spoil) in cases {
        let folder = copy("qwen2_vl");
        spoil(folder.path());
        let message = complaint(folder.path()).await;
        if !message.contains(expected) || message.contains('\n') {
            wrong.push(format!("expected {expected:?} in {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn families_check_what_they_alone_have() {
    let (config, picture, video) = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json");
    let processor = "processor_config.json";
    let cases = [
        ("gemma", config, "/attention_bias", json!(true)),
        ("gemma2", config, "/attn_logit_softcapping", json!(0)),
        ("gemma2", config, "/sliding_window", json!(0)),
        ("gemma3_text", config, "/query_pre_attn_scalar", json!(-1)),
        ("gemma4", config, "/text_config/num_kv_shared_layers", json!(6)),
        ("gemma4", config, "/text_config/layer_types", json!(["full_attention"])),
        ("gemma4", config, "/text_config/global_head_dim", json!(0)),
        ("gemma4", config, "/text_config/pad_token_id", json!(704)),
        ("gemma4", config, "/vision_config/head_dim", json!(6)),
        ("gemma4", config, "/audio_config/num_attention_heads", json!(0)),
        ("gemma4", config, "/audio_config/attention_context_right", json!(1)),
        ("gemma4", processor, "/image_processor/max_soft_tokens", json!(10_000)),
        ("gemma4", processor, "/image_processor/patch_size", json!(5)),
        ("gemma4", processor, "/video_processor/num_frames", json!(0)),
        ("gemma4", processor, "/feature_extractor/hop_length", json!(0)),
        ("gemma4_31b", config, "/text_config/num_global_key_value_heads", json!(3)),
        ("gemma4_31b", config, "/text_config/use_bidirectional_attention", json!("all")),
        ("gemma4_moe", config, "/text_config/top_k_experts", json!(9)),
        ("idefics2", config, "/perceiver_config/num_key_value_heads", json!(3)),
        ("idefics2", config, "/perceiver_config/hidden_size", json!(64)),
        ("idefics2", config, "/perceiver_config/resampler_n_latents", json!(0)),
        ("idefics2", config, "/text_config/num_hidden_layers", json!(0)),
        ("idefics2", picture, "/size/shortest_edge", json!(13)),
        ("idefics2", picture, "/size/longest_edge", json!(41)),
        ("llama", config, "/mlp_bias", json!(true)),
        ("llama", config, "/rope_scaling/rope_type", json!("longer")),
        ("llama", config, "/rope_scaling/factor", json!(0)),
        ("llava", config, "/vision_feature_layer", json!(9)),
        ("llava", config, "/text_config/model_type", json!("mamba")),
        ("llava", config, "/vision_config/model_type", json!("siglip_vision_model")),
        ("llava", picture, "/crop_size", json!({"height": 56, "width": 70})),
        ("llava_next", config, "/image_grid_pinpoints", json!([[56, 100]])),
        ("llava_next", config, "/vision_feature_select_strategy", json!("full")),
        ("llava_next", picture, "/image_grid_pinpoints", json!([[56, 56]])),
        ("minicpmo", config, "/hidden_size", json!(96)),
        ("minicpmo", config, "/audio_chunk_length", json!(0.001)),
        ("minicpmo", config, "/audio_pool_step", json!(51)),
        ("minicpmo", config, "/vision_config/num_hidden_layers", json!(0)),
        ("minicpmo", picture, "/image_feature_size", json!(8)),
        ("minicpmo", picture, "/scale_resolution", json!(13)),
        ("minicpmo", picture, "/max_slice_nums", json!(0)),
        ("minicpmo", picture, "/norm_std", json!([0, 1, 1])),
        ("minicpmo", picture, "/feature_size", json!(128)),
        ("minicpmo", "tokenizer_config.json", "/added_tokens_decoder", json!({})),
        ("mistral", config, "/sliding_window", json!(0)),
        ("mistral3", config, "/spatial_merge_size", json!(0)),
        ("phi3", config, "/attention_bias", json!(true)),
        ("phi3", config, "/rope_scaling/long_factor", json!([1.5])),
        ("phi3", config, "/rope_scaling/short_factor", json!([0])),
        ("phi3v", config, "/embd_layer/projection_cls", json!("linear")),
        ("phi3v", picture, "/num_crops", json!(0)),
        ("phi4_multimodal", config, "/audio_config/chunk_size", json!(18)),
        ("phi4_multimodal", config, "/vision_config/feature_layer", json!(-1)),
        ("phi4_multimodal", picture, "/patch_size", json!(3)),
        ("phi4_multimodal", "vision-lora/adapter_config.json", "/lora_alpha", json!("much")),
        ("phi4mm", config, "/audio_processor/config/time_reduction", json!(4)),
        ("phi4mm", config, "/speech_lora/r", json!(0)),
        ("phi4mm", picture, "/dynamic_hd", json!(0)),
        ("mistral3", config, "/vision_feature_layer", json!([-1, 1])),
        ("mistral3", config, "/vision_config/num_attention_heads", json!(3)),
        ("mistral3", picture, "/size", json!({"longest_edge": 0})),
        ("qwen2", config, "/sliding_window", json!(0)),
        ("qwen2_5_vl", config, "/vision_config/window_size", json!(27)),
        ("qwen2_5_vl", config, "/vision_config/tokens_per_second", json!(-1)),
        ("qwen2_5_vl", config, "/vision_config/num_heads", json!(5)),
        ("qwen3", config, "/attention_bias", json!(true)),
        ("qwen3_5", config, "/text_config/layer_types", json!(["full_attention"])),
        ("qwen3_5", config, "/text_config/layer_types", json!(["attention"])),
        ("qwen3_5", config, "/text_config/linear_num_value_heads", json!(3)),
        ("qwen3_5", config, "/text_config/linear_key_head_dim", json!(0)),
        ("qwen3_5", config, "/text_config/linear_conv_kernel_dim", json!(0)),
        ("qwen3_5", config, "/text_config/rope_parameters/partial_rotary_factor", json!(0.01)),
        ("qwen3_5", config, "/text_config/intermediate_size", json!(0)),
        ("qwen3_5_moe", config, "/text_config/shared_expert_intermediate_size", json!(0)),
        ("qwen3_5_text", config, "/full_attention_interval", json!(0)),
        ("qwen3_moe", config, "/num_experts_per_tok", json!(7)),
        ("qwen3_moe", config, "/moe_intermediate_size", json!(0)),
        ("qwen3_vl_moe", config, "/text_config/decoder_sparse_step", json!(0)),
        ("qwen3_vl", config, "/vision_config/num_position_embeddings", json!(63)),
        ("qwen3_vl", config, "/vision_config/deepstack_visual_indexes", json!([2, 0])),
        ("qwen3_vl", config, "/text_config/rope_scaling/mrope_section", json!([1, 1, 1])),
        ("qwen3_vl", video, "/patch_size", json!(14)),
        ("qwen3_vl", video, "/size/shortest_edge", json!(40000)),
    ];
    for (name, file, key, value) in cases {
        let folder = copy(name);
        let path = folder.path().join(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        *json.pointer_mut(key).unwrap() = value;
        fs::write(path, json.to_string()).unwrap();
        let (message, key) = (complaint(folder.path()).await, key.rsplit('/').next().unwrap());
        let named = message.contains(file) && message.contains(key) && !message.contains('\n');
        assert!(named, "{name}: expected {file} and {key} in {message:?}");
    }
}

#[test]
fn sources_are_folders_or_hub_ids() {
    let here = env!("CARGO_MANIFEST_DIR");
    for (text, expected) in
        [(here, Ok(())), ("org/name-1.5", Ok(())), ("org/a/b", Err("looks like")), ("nope", Err("no folder nope"))]
    {
        match (text.parse::<ModelSource>(), expected) {
            (Ok(_), Ok(())) => {}
            (Err(e), Err(part)) if e.to_string().contains(part) => {}
            (other, _) => panic!("{text}: {other:?}"),
        }
    }
    let file = format!("{here}/Cargo.toml").parse::<ModelSource>().unwrap_err().to_string();
    assert!(file.contains("is not a folder"), "{file}");
}
