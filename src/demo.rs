//! The built-in model: a tiny trained checkpoint that answers about drawn shapes, so that everything can be tried offline.

use nn::Files;

macro_rules! embedded {
    ($($file:literal),* $(,)?) => { &[$(($file, include_bytes!(concat!("../demo/model/", $file)))),*] };
}

/// The demo checkpoint, in the layout of a Hugging Face repository.
pub fn files() -> Files {
    const FILES: &[(&str, &[u8])] = embedded![
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
    ];
    Files::Embedded { name: "demo", files: FILES }
}
