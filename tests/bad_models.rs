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

/// A copy of a small fixture that a case may spoil.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fixtures::copy("qwen2_vl", folder.path()).unwrap();
    folder
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
        let folder = copy();
        spoil(folder.path());
        let options = LoadOptions::new(ModelSource::Folder(folder.path().into()), hub());
        let message = match Model::load(options, Arc::new(|_| ())).await {
            Err(e) => e.to_string(),
            Ok(_) => "no complaint".into(),
        };
        if !message.contains(expected) || message.contains('\n') {
            wrong.push(format!("expected {expected:?} in {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
