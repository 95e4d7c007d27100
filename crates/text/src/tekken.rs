//! Mistral's `tekken.json`: tokens as bytes, in the order in which they are merged.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::TextError;

/// The file's name in a checkpoint.
pub const TEKKEN: &str = "tekken.json";

const BEGIN: &str = "<s>";

#[derive(Debug, Deserialize)]
struct Tekken {
    config: Config,
    vocab: Vec<Token>,
    special_tokens: Vec<Special>,
}

#[derive(Debug, Deserialize)]
struct Config {
    /// What words are, as a regular expression.
    pattern: String,
    /// Ids in all; the file lists more tokens than are used.
    default_vocab_size: usize,
    /// Ids that come before those of the other tokens.
    default_num_special_tokens: usize,
}

#[derive(Debug, Deserialize)]
struct Token {
    token_bytes: String,
}

#[derive(Debug, Deserialize)]
struct Special {
    rank: usize,
    token_str: String,
}

/// The same tokenizer as a Hugging Face `tokenizer.json`: byte pair encoding, where every way to cut a token into two others is a merge.
///
/// # Errors
/// [`TextError::Tokenizer`], naming `file`.
pub fn from_tekken(file: &str, json: &[u8]) -> Result<Vec<u8>, TextError> {
    let refused = |reason: String| TextError::Tokenizer { file: file.to_string(), reason };
    let Tekken { config, vocab, special_tokens } = serde_json::from_slice(json).map_err(|e| refused(e.to_string()))?;
    let first = config.default_num_special_tokens;
    let count = config.default_vocab_size.checked_sub(first).filter(|count| (256..=vocab.len()).contains(count));
    let count = count.ok_or_else(|| refused("default_vocab_size does not fit the tokens that are listed".into()))?;
    if first > 1 << 16 {
        return Err(refused(format!("{first} special tokens are too many")));
    }
    let bytes = |token: &Token| STANDARD.decode(&token.token_bytes).map_err(|e| refused(format!("token_bytes: {e}")));
    let tokens: Vec<Vec<u8>> = vocab[..count].iter().map(bytes).collect::<Result<_, _>>()?;
    let names = byte_names();
    let spell = |token: &[u8]| -> String { token.iter().map(|byte| names[usize::from(*byte)]).collect() };
    let given: HashMap<usize, String> = special_tokens.into_iter().map(|token| (token.rank, token.token_str)).collect();
    let special: Vec<String> =
        (0..first).map(|rank| given.get(&rank).cloned().unwrap_or_else(|| format!("<SPECIAL_{rank}>"))).collect();
    let ids = (first..).zip(&tokens).map(|(id, token)| (spell(token), Value::from(id)));
    let vocab: Map<String, Value> = special.iter().cloned().zip((0..).map(Value::from)).chain(ids).collect();
    let merges: Vec<[String; 2]> = merges(&tokens).into_iter().map(|pair| pair.map(spell)).collect();
    let added: Vec<Value> = special.iter().enumerate().map(|(id, content)| added(id, content)).collect();
    let begin = special.iter().position(|token| token == BEGIN).ok_or_else(|| refused(format!("no special token {BEGIN}")))?;
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let words = json!({"type": "Split", "pattern": {"Regex": config.pattern}, "behavior": "Isolated", "invert": false});
    let [before, text] = [json!({"SpecialToken": {"id": BEGIN, "type_id": 0}}), json!({"Sequence": {"id": "A", "type_id": 0}})];
    let whole = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, level]},
        "post_processor": {
            "type": "TemplateProcessing", "single": [before, text], "pair": [before, text],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [begin], "tokens": [BEGIN]}},
        },
        "decoder": level,
        "model": {"type": "BPE", "ignore_merges": true, "vocab": vocab, "merges": merges},
    });
    Ok(whole.to_string().into_bytes())
}

fn added(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

/// For each token in its order, all pairs of others that it is made of, those first that are themselves made first.
fn merges(tokens: &[Vec<u8>]) -> Vec<[&[u8]; 2]> {
    let ranks: HashMap<&[u8], usize> = (0..).zip(tokens).map(|(rank, token)| (token.as_slice(), rank)).collect();
    let pairs = tokens.iter().flat_map(|token| {
        let cuts = (1..token.len()).map(|at| token.split_at(at));
        let found: BTreeMap<[usize; 2], [&[u8]; 2]> =
            cuts.filter_map(|(a, b)| Some(([*ranks.get(a)?, *ranks.get(b)?], [a, b]))).collect();
        found.into_values()
    });
    pairs.collect()
}

/// The characters that byte-level tokenizers write bytes as: printable ones as themselves, the others as those from 256 on.
fn byte_names() -> [char; 256] {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match is_printable(byte as u8) {
        true => char::from(byte as u8),
        false => others.next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_is_refused() {
        let config = |size: usize| json!({"pattern": "a", "default_vocab_size": size, "default_num_special_tokens": 3});
        let cases = [
            (json!({}), "missing field"),
            (json!({"config": config(2), "vocab": [], "special_tokens": []}), "default_vocab_size"),
            (json!({"config": config(300), "vocab": [], "special_tokens": []}), "default_vocab_size"),
            (
                json!({"config": config(259), "vocab": vec![json!({"token_bytes": "?"}); 256], "special_tokens": []}),
                "token_bytes",
            ),
            (
                json!({"config": config(259), "vocab": vec![json!({"token_bytes": "AA=="}); 256], "special_tokens": []}),
                "no special token <s>",
            ),
        ];
        for (json, expected) in cases {
            let message = from_tekken(TEKKEN, json.to_string().as_bytes()).expect_err(expected).to_string();
            assert!(message.starts_with(TEKKEN) && message.contains(expected), "{message}");
        }
    }
}
