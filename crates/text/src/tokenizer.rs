use std::ops::Range;
use std::sync::OnceLock;

use tokenizers::{Model, OffsetType, PreTokenizer};

use crate::{BREAK, Guard, TextError, tekken};

/// A stretch of a prompt on its way to the tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text; whatever the tokenizer calls a special token in it becomes one, unless a [`BREAK`] stands in the way.
    Text(String),
    /// Text that is left out where the same stands right before it: what separates neighbours and closes the last of them.
    Once(String),
    /// A number: how many such pieces stand before it in the prompt.
    Counter,
    /// `count` copies of one special token that stand for rows of an encoded picture, clip or frame.
    Slots {
        /// Id of the placeholder token.
        token: u32,
        /// How many.
        count: usize,
    },
}

/// A tokenized prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Where each [`Piece::Slots`] lies in `ids`, in order.
    pub slots: Vec<Range<usize>>,
}

/// A Hugging Face `tokenizer.json` or a Mistral `tekken.json`, with the guard for its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    guard: Guard,
    /// What the post-processor puts in front of every text (a begin-of-sequence token, usually).
    prefix: Vec<u32>,
    /// The text of every id by itself, once somebody has asked for one by its content.
    texts: OnceLock<Vec<String>>,
}

impl Tokenizer {
    /// Files in which a tokenizer may be, the one that wins first.
    pub const FILES: [&str; 2] = ["tokenizer.json", tekken::FILE];

    /// Reads a file, as `tekken.json` if that is the end of its name. `markers` are the strings by which the family's chat template
    /// marks media: together with the special tokens they are what a user's text must not be able to write.
    pub fn new(file: &str, json: &[u8], markers: &[&str]) -> Result<Self, TextError> {
        let refused = |reason: String| TextError::Tokenizer { file: file.to_string(), reason };
        let inner = if file.ends_with(tekken::FILE) {
            tokenizers::Tokenizer::from_bytes(tekken::tokenizer_json(json).map_err(refused)?)
        } else {
            tokenizers::Tokenizer::from_bytes(json)
        };
        let inner = inner.map_err(|e| refused(e.to_string()))?;
        let added = inner.get_added_vocabulary().get_added_tokens_decoder();
        let special = added.values().filter(|t| t.special).map(|t| t.content.clone());
        let guard = Guard::new(special.chain(markers.iter().map(|m| m.to_string())));
        let empty = inner.encode("", true).map_err(|e| refused(e.to_string()))?;
        Ok(Self { prefix: empty.get_ids().to_vec(), inner, guard, texts: OnceLock::new() })
    }

    /// Protects a user's words; see [`Guard`].
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token's exact spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of a token that no text becomes, unless the template writes it.
    pub fn special_id(&self, token: &str) -> Option<u32> {
        self.id(token).filter(|id| self.is_special(*id))
    }

    /// Whether a token is a control token, which is no text of an answer.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Ids whose text has one of these in it, ascending.
    pub fn holding(&self, needles: &[String]) -> Vec<u32> {
        let alone = |id: u32| self.inner.decode(&[id], false).unwrap_or_default();
        let texts = self.texts.get_or_init(|| (0..self.vocab_size() as u32).map(alone).collect());
        let found = |text: &String| needles.iter().any(|needle| text.contains(needle.as_str()));
        (0u32..).zip(texts).filter(|(_, text)| found(text)).map(|(id, _)| id).collect()
    }

    /// The spelling of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Tokenizes a prompt as one text, so that merges reach across pieces. The begin-of-sequence token is added when the
    /// text does not start with it.
    pub fn encode(&self, pieces: &[Piece]) -> Result<Encoded, TextError> {
        let mut text = String::new();
        let mut wanted: Vec<(usize, u32, usize)> = Vec::new(); // byte where the placeholder stands, id, count
        let mut counted = 0;
        for piece in pieces {
            match piece {
                Piece::Text(words) => text.push_str(words),
                Piece::Once(words) if text.ends_with(words.as_str()) => {}
                Piece::Once(words) => text.push_str(words),
                Piece::Counter => {
                    text.push_str(&counted.to_string());
                    counted += 1;
                }
                Piece::Slots { token, count } => {
                    wanted.push((text.len(), *token, *count));
                    let spelled = self.token(*token);
                    text.push_str(&spelled.ok_or_else(|| TextError::Encode(format!("no token has the id {token}")))?);
                }
            }
        }
        let (ids, starts) = self.tokenize(&text).map_err(|e| TextError::Encode(e.to_string()))?;
        let mut out = Encoded { ids: Vec::with_capacity(ids.len() + 1), slots: Vec::with_capacity(wanted.len()) };
        if !ids.starts_with(&self.prefix) {
            out.ids.extend(&self.prefix);
        }
        let mut wanted = wanted.into_iter().peekable();
        for (id, start) in ids.into_iter().zip(starts) {
            match wanted.next_if(|&(at, token, _)| at == start && token == id) {
                Some((_, token, count)) => {
                    let from = out.ids.len();
                    out.ids.resize(from + count, token);
                    out.slots.push(from..from + count);
                }
                None => out.ids.push(id),
            }
        }
        match wanted.next() {
            Some((_, token, _)) => Err(TextError::Encode(format!("the placeholder with id {token} is not a special token"))),
            None => Ok(out),
        }
    }

    /// Ids of a text that stands in the midst of others.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, TextError> {
        Ok(self.tokenize(text).map_err(|e| TextError::Encode(e.to_string()))?.0)
    }

    /// `tokenizer.json`, as it was understood.
    pub(crate) fn json(&self) -> Result<String, TextError> {
        self.inner.to_string(false).map_err(|e| TextError::Encode(e.to_string()))
    }

    /// Ids and the byte where each begins in `text`.
    fn tokenize(&self, text: &str) -> tokenizers::Result<(Vec<u32>, Vec<usize>)> {
        let added = self.inner.get_added_vocabulary();
        let mut split = added.extract_and_normalize(self.inner.get_normalizer(), text);
        split.normalize(|piece| {
            if piece.get().contains(BREAK) {
                piece.filter(|c| c != BREAK);
            }
            Ok(())
        })?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut split)?;
        }
        split.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
        let encoding = split.into_encoding(None, 0, OffsetType::Byte)?;
        let starts = encoding.get_offsets().iter().map(|&(start, _)| start).collect();
        Ok((encoding.get_ids().to_vec(), starts))
    }

    /// The text of `ids`; special tokens are left out unless `keep_special`.
    pub fn decode(&self, ids: &[u32], keep_special: bool) -> Result<String, TextError> {
        self.inner.decode(ids, !keep_special).map_err(|e| TextError::Decode(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pieces_know_what_stands_before_them() {
        let special = |id: u32, content: &str| {
            let plain = json!({"single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
            let mut token = plain.as_object().cloned().unwrap_or_default();
            token.extend([("id".to_string(), json!(id)), ("content".to_string(), json!(content))]);
            token
        };
        let json = json!({
            "version": "1.0", "added_tokens": [special(0, "<i>"), special(1, "|")],
            "model": {"type": "WordLevel", "vocab": {"<i>": 0, "|": 1, "0": 2, "1": 3, "a": 4, "?": 5}, "unk_token": "?"},
        });
        let tokenizer = Tokenizer::new("test", json.to_string().as_bytes(), &[]).unwrap_or_else(|e| panic!("{e}"));
        let (once, text) = (|| Piece::Once("|".into()), |words: &str| Piece::Text(words.into()));
        let slots = Piece::Slots { token: 0, count: 2 };
        let cases = [
            (vec![once(), slots.clone(), once(), once(), slots, once()], vec![1, 0, 0, 1, 0, 0, 1], vec![1..3, 4..6]),
            (vec![text("a|"), once(), text("a"), once()], vec![4, 1, 4, 1], vec![]),
            (vec![Piece::Counter, text("|"), Piece::Counter, text("|a")], vec![2, 1, 3, 1, 4], vec![]),
        ];
        for (pieces, ids, slots) in cases {
            let found = tokenizer.encode(&pieces).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(found, Encoded { ids, slots }, "{pieces:?}");
        }
    }
}
