//! Mistral's `tekken.json`: byte strings in the order in which they are merged, behind the special tokens. Made into what a
//! tokenizer.json says. Reference: mistral-common, tokens/tokenizers/tekken.py; transformers, convert_slow_tokenizer.py.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The file's name.
pub const FILE: &str = "tekken.json";

/// The special tokens of files that do not list them, by id.
const SPECIAL: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];
const BEGIN: &str = "<s>";

#[derive(Deserialize)]
struct Tekken {
    config: Config,
    vocab: Vec<Entry>,
    special_tokens: Option<Vec<Special>>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
}

#[derive(Deserialize)]
struct Entry {
    rank: usize,
    token_bytes: String, // in base64
}

#[derive(Deserialize)]
struct Special {
    rank: usize,
    token_str: String,
}

/// The same tokenizer as a tokenizer.json.
pub fn tokenizer_json(tekken: &[u8]) -> Result<String, String> {
    let tekken: Tekken = serde_json::from_slice(tekken).map_err(|e| e.to_string())?;
    let special = tekken.special()?;
    let tokens = tekken.tokens()?;
    let begin = special.iter().position(|token| token == BEGIN).ok_or_else(|| format!("there is no special token {BEGIN}"))?;
    let spelled: Vec<String> = tokens.iter().map(|bytes| spelled(bytes)).collect();
    let vocab: Map<String, Value> = special.iter().chain(&spelled).cloned().zip((0..).map(Value::from)).collect();
    let added = special.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let split = json!({"type": "Split", "pattern": {"Regex": tekken.config.pattern}, "behavior": "Isolated", "invert": false});
    let (text, before) = (json!({"Sequence": {"id": "A", "type_id": 0}}), json!({"SpecialToken": {"id": BEGIN, "type_id": 0}}));
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {
            "type": "TemplateProcessing", "single": [before, text], "pair": [],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [begin], "tokens": [BEGIN]}},
        },
        "decoder": level,
        "model": {"type": "BPE", "ignore_merges": true, "vocab": vocab, "merges": merges(&tokens, &spelled)},
    });
    Ok(tokenizer.to_string())
}

impl Tekken {
    /// All special tokens by id; numbers that have no name get one.
    fn special(&self) -> Result<Vec<String>, String> {
        let count = self.config.default_num_special_tokens;
        if count > self.config.default_vocab_size || self.config.default_vocab_size > count + self.vocab.len() {
            return Err("config: default_num_special_tokens and default_vocab_size do not fit the vocabulary".into());
        }
        let mut names: Vec<String> = (0..count).map(|id| format!("<SPECIAL_{id}>")).collect();
        let mut name = |id: usize, spelling: &str| {
            let refused = || format!("special_tokens: {spelling} has the rank {id}, but there are {count} special tokens");
            *names.get_mut(id).ok_or_else(refused)? = spelling.to_string();
            Ok::<_, String>(())
        };
        match &self.special_tokens {
            Some(listed) => listed.iter().try_for_each(|token| name(token.rank, &token.token_str))?,
            None => SPECIAL.iter().enumerate().try_for_each(|(id, token)| name(id, token))?,
        }
        Ok(names)
    }

    /// The bytes of all others, by rank.
    fn tokens(&self) -> Result<Vec<Vec<u8>>, String> {
        let used = self.vocab.iter().take(self.config.default_vocab_size - self.config.default_num_special_tokens);
        let bytes = used.enumerate().map(|(i, entry)| match BASE64_STANDARD.decode(&entry.token_bytes) {
            Ok(bytes) if entry.rank == i && !bytes.is_empty() => Ok(bytes),
            Ok(_) => Err(format!("vocab[{i}]: ranks must count up from 0, and tokens have bytes")),
            Err(e) => Err(format!("vocab[{i}].token_bytes: {e}")),
        });
        bytes.collect()
    }
}

/// All pairs of tokens that make another one, in the order of what they make.
fn merges<'a>(tokens: &[Vec<u8>], spelled: &'a [String]) -> Vec<[&'a str; 2]> {
    let ranks: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(rank, bytes)| (bytes.as_slice(), rank)).collect();
    let parts = |bytes: &Vec<u8>| {
        let halves = (1..bytes.len()).map(|at| bytes.split_at(at));
        let mut known: Vec<_> = halves.filter_map(|(left, right)| Some((*ranks.get(left)?, *ranks.get(right)?))).collect();
        known.sort_unstable();
        known
    };
    tokens.iter().flat_map(parts).map(|(left, right)| [spelled[left].as_str(), spelled[right].as_str()]).collect()
}

/// Bytes as printable characters (Radford et al. 2019): those that are printable in Latin-1 stand for themselves, the others for
/// the characters from 256 on.
fn spelled(bytes: &[u8]) -> String {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let other = |byte: u8| 256 + (0..byte).filter(|lower| !printable(*lower)).count() as u32;
    let stand_in = |&byte: &u8| if printable(byte) { char::from(byte) } else { char::from_u32(other(byte)).unwrap_or_default() };
    bytes.iter().map(stand_in).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    fn tekken(vocab: &[&[u8]], special_tokens: Value, special: usize) -> Vec<u8> {
        let entry = |(rank, bytes): (usize, &&[u8])| json!({"rank": rank, "token_bytes": BASE64_STANDARD.encode(bytes)});
        json!({
            "config": {"pattern": r"\s?\S+|\s+", "default_vocab_size": special + 259, "default_num_special_tokens": special},
            "vocab": vocab.iter().enumerate().map(entry).collect::<Vec<_>>(), "special_tokens": special_tokens,
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn bytes_are_merged_by_rank_and_special_tokens_come_first() {
        let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let mut vocab: Vec<&[u8]> = bytes.iter().map(|byte| byte.as_slice()).collect();
        vocab.extend([&b"ab"[..], b"bc", "é".as_bytes(), b"beyond default_vocab_size"]);
        let named = json!([{"rank": 0, "token_str": "<unk>"}, {"rank": 1, "token_str": "<s>"}, {"rank": 3, "token_str": "[X]"}]);
        let (a, b, c) = (97, 98, 99);
        let cases = [
            (named.clone(), 5, "abc", vec![1, 5 + 256, 5 + c]),
            (named.clone(), 5, "bcab[X]", vec![1, 5 + 257, 5 + 256, 3]),
            (named, 5, "<s>é<SPECIAL_4>", vec![1, 5 + 258, 4]),
            (Value::Null, 25, "[IMG]a[IMG_END] b\0", vec![1, 10, 25 + a, 13, 25 + 32, 25 + b, 25]),
        ];
        for (special_tokens, special, text, expected) in cases {
            let tokenizer = Tokenizer::new("tekken.json", &tekken(&vocab, special_tokens, special), &[]).unwrap();
            let ids = tokenizer.encode(&[crate::Piece::Text(text.into())]).unwrap().ids;
            assert_eq!(ids, expected, "{text}");
            let without_begin = tokenizer.decode(&ids[1..], true).unwrap();
            assert_eq!(without_begin, text.trim_start_matches("<s>"));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let vocab: Vec<&[u8]> = vec![b"a"; 259];
        let cases = [
            (b"{}".to_vec(), "missing field `config`"),
            (tekken(&vocab[..258], Value::Null, 20), "do not fit the vocabulary"),
            (tekken(&vocab, Value::Null, 19), "[TOOL_CONTENT] has the rank 19, but there are 19 special tokens"),
            (tekken(&vocab, json!([]), 20), "there is no special token <s>"),
        ];
        for (file, expected) in cases {
            let message = Tokenizer::new("a/tekken.json", &file, &[]).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.starts_with("a/tekken.json: ") && message.contains(expected), "{expected:?} in {message:?}");
        }
    }
}
