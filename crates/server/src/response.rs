//! Answers → the JSON that clients expect.

use std::time::{SystemTime, UNIX_EPOCH};

use mistralrs::{Answer, Delta, Finish, Summary, Token, Usage};
use serde_json::{Value, json};

use crate::request::Shape;

/// What all chunks of an answer share.
#[derive(Debug, Clone)]
pub struct Header {
    id: String,
    created: u64,
    model: String,
}

impl Header {
    pub fn new(model: &str) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { id: format!("chatcmpl-{:032x}", fastrand::u128(..)), created, model: model.to_string() }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices})
    }

    /// The whole answers.
    pub fn completion(&self, answers: &[Answer], shape: Shape) -> Value {
        let choices = answers.iter().enumerate().map(|(index, answer)| choice(index, answer, shape)).collect();
        let mut body = self.object("chat.completion", choices);
        body["usage"] = usage(answers.iter().map(|answer| &answer.summary.usage));
        if let Some(first) = answers.first().filter(|_| shape.token_ids) {
            body["prompt_token_ids"] = json!(first.prompt_token_ids);
        }
        body
    }

    /// The first chunk of a choice: who speaks.
    pub fn opening(&self, index: usize, prompt_token_ids: &[u32], shape: Shape) -> Value {
        let mut body = self.chunk(index, json!({"role": "assistant", "content": ""}), None);
        if shape.token_ids {
            body["prompt_token_ids"] = json!(prompt_token_ids);
        }
        body
    }

    /// A chunk of text.
    pub fn delta(&self, index: usize, delta: &Delta, shape: Shape) -> Value {
        let mut body = self.chunk(index, json!({"content": delta.text}), None);
        if let Some(token) = &delta.token {
            if shape.logprobs {
                body["choices"][0]["logprobs"] = json!({"content": [logprob(token)]});
            }
            if shape.token_ids {
                body["choices"][0]["token_ids"] = json!([token.id]);
            }
        }
        body
    }

    /// The last chunk of a choice: why it ended.
    pub fn closing(&self, index: usize, summary: &Summary, shape: Shape) -> Value {
        let mut body = self.chunk(index, json!({}), Some(finish_reason(summary)));
        if shape.token_ids {
            body["choices"][0]["token_ids"] = json!(end_token(summary).into_iter().collect::<Vec<_>>());
        }
        body
    }

    /// The chunk behind the last one, when it was asked for.
    pub fn usage(&self, summaries: &[Summary]) -> Value {
        let mut body = self.object("chat.completion.chunk", json!([]));
        body["usage"] = usage(summaries.iter().map(|summary| &summary.usage));
        body
    }

    fn chunk(&self, index: usize, delta: Value, finish_reason: Option<&str>) -> Value {
        let choice = json!({"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": null});
        self.object("chat.completion.chunk", json!([choice]))
    }
}

fn choice(index: usize, answer: &Answer, shape: Shape) -> Value {
    let logprobs = shape.logprobs.then(|| json!({"content": answer.tokens.iter().map(logprob).collect::<Vec<_>>()}));
    let mut choice = json!({
        "index": index,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": finish_reason(&answer.summary),
        "logprobs": logprobs,
    });
    if shape.token_ids {
        let mut ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        ids.extend(end_token(&answer.summary));
        choice["token_ids"] = json!(ids);
    }
    choice
}

fn finish_reason(summary: &Summary) -> &'static str {
    match summary.finish {
        Finish::EndToken(_) | Finish::StopText | Finish::Complete => "stop",
        Finish::Length => "length",
    }
}

fn end_token(summary: &Summary) -> Option<u32> {
    match summary.finish {
        Finish::EndToken(id) => Some(id),
        Finish::StopText | Finish::Complete | Finish::Length => None,
    }
}

fn logprob(token: &Token) -> Value {
    let entry = |text: &str, logprob: Option<f32>| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let mut out = entry(&token.text, token.logprob);
    out["top_logprobs"] = token.top.iter().map(|(_, text, logprob)| entry(text, Some(*logprob))).collect();
    out
}

/// What all choices took; their prompt is one, and what was remembered of it is what the first found.
fn usage<'a>(choices: impl Iterator<Item = &'a Usage> + Clone) -> Value {
    let completion: usize = choices.clone().map(|usage| usage.completion_tokens).sum();
    let prompt = choices.clone().map(|usage| usage.prompt_tokens).max().unwrap_or(0);
    let cached = choices.map(|usage| usage.cached_tokens).min().unwrap_or(0);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}
