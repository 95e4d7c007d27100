//! Special tokens by their content, for families whose config.json does not say their ids: tokenizer_config.json has them.

use std::collections::BTreeMap;

use nn::Files;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::read;

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

#[derive(Debug, Deserialize)]
struct Config {
    added_tokens_decoder: BTreeMap<String, AddedToken>, // by id
    bos_token: Value,
    add_bos_token: bool,
}

#[derive(Debug, Deserialize)]
struct AddedToken {
    content: String,
}

/// tokenizer_config.json, as far as it is about special tokens.
pub struct SpecialTokens {
    file: String,
    config: Config,
}

impl SpecialTokens {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({"added_tokens_decoder": {}, "add_bos_token": true});
        Ok(Self { file: files.label(TOKENIZER_CONFIG), config: read(files, TOKENIZER_CONFIG, defaults)? })
    }

    /// The id of a token.
    ///
    /// # Errors
    /// There is no such token.
    pub fn id(&self, content: &str) -> Result<u32, ModelError> {
        let found = self.config.added_tokens_decoder.iter().find(|(_, token)| token.content == content);
        found.and_then(|(id, _)| id.parse().ok()).ok_or_else(|| ModelError::Config {
            file: self.file.clone(),
            reason: format!("added_tokens_decoder has no token {content:?}"),
        })
    }

    /// What is put in front of a text, if anything.
    pub fn beginning(&self) -> String {
        let Config { bos_token, add_bos_token, .. } = &self.config;
        let token = bos_token["content"].as_str().or(bos_token.as_str()).unwrap_or_default();
        if *add_bos_token { token.to_string() } else { String::new() }
    }
}
