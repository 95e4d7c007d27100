//! Answers → the JSON that clients expect.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mistralrs::{
    Answer, Call, CallDelta, Citation, Delta, Extent, Finish, MediaKind, Preview, Received, Summary, Token, ToolProgress,
};
use serde_json::{Value, json};

use crate::chat::Shape;
use crate::tooling;

/// What all chunks of an answer share.
#[derive(Debug, Clone)]
pub struct Header {
    id: String,
    created: u64,
    model: String,
    /// What became of the prompt's media.
    pub received: Arc<[Received]>,
}

impl Header {
    /// `kind` is what the id begins with.
    pub fn new(kind: &str, model: &str) -> Self {
        let id = format!("{kind}-{:032x}", fastrand::u128(..));
        Self { id, created: now(), model: model.to_string(), received: Arc::default() }
    }

    /// What every object of an answer has.
    pub fn object(&self, kind: &str, choices: Value) -> Value {
        json!({"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices})
    }

    /// The whole answers.
    pub fn completion(&self, answers: &[Answer], shape: Shape) -> Value {
        let choices = answers.iter().enumerate().map(|(index, answer)| choice(index, answer, shape)).collect();
        let mut body = self.object("chat.completion", choices);
        let received = answers.first().map(|answer| answer.received.clone()).unwrap_or_default();
        body["usage"] = usage(answers.iter().map(|answer| &answer.summary), &received, shape.timings);
        if shape.media {
            body["media"] = media(&received);
        }
        let ran: Vec<Value> = answers.iter().flat_map(|answer| &answer.tool_runs).map(|run| tooling::record(run)).collect();
        if !ran.is_empty() {
            body["agentic_tool_calls"] = json!(ran);
        }
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
        let mut body = self.chunk(index, said(delta), None);
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

    /// What a function does that runs here, as a chunk without choices: clients that know nothing of it pass over it.
    pub fn progress(&self, index: usize, progress: &ToolProgress) -> Value {
        let mut body = self.object("chat.completion.chunk", json!([]));
        body["index"] = json!(index);
        if let (Some(body), Value::Object(progress)) = (body.as_object_mut(), tooling::progress(progress)) {
            body.extend(progress);
        }
        body
    }

    /// The last chunk of a choice: why it ended.
    pub fn closing(&self, index: usize, summary: &Summary, shape: Shape) -> Value {
        let mut body = self.chunk(index, json!({}), Some(finish_reason(summary)));
        say_limit(&mut body["choices"][0], summary);
        if shape.token_ids {
            body["choices"][0]["token_ids"] = json!(end_token(summary).into_iter().collect::<Vec<_>>());
        }
        body
    }

    /// The chunk behind the last one, when it was asked for.
    pub fn usage(&self, summaries: &[Summary], shape: Shape) -> Value {
        let mut body = self.object("chat.completion.chunk", json!([]));
        body["usage"] = usage(summaries.iter(), &self.received, shape.timings);
        if shape.media {
            body["media"] = media(&self.received);
        }
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
        "message": message(answer),
        "finish_reason": finish_reason(&answer.summary),
        "logprobs": logprobs,
    });
    say_limit(&mut choice, &answer.summary);
    if shape.token_ids {
        let mut ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        ids.extend(end_token(&answer.summary));
        choice["token_ids"] = json!(ids);
    }
    choice
}

/// What was said, thought and called. Words are null where there are only calls.
fn message(answer: &Answer) -> Value {
    let content = if answer.text.is_empty() && !answer.calls.is_empty() { Value::Null } else { json!(answer.text) };
    let mut message = json!({"role": "assistant", "content": content});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning);
    }
    if !answer.citations.is_empty() {
        message["annotations"] = annotations(&answer.citations);
    }
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer.calls.iter().map(|made| call(made, &made.arguments)).collect();
    }
    message
}

/// The same of a piece of an answer.
fn said(delta: &Delta) -> Value {
    let mut said = json!({});
    if !delta.reasoning.is_empty() {
        said["reasoning_content"] = json!(delta.reasoning);
    }
    if !delta.calls.is_empty() {
        said["tool_calls"] = delta.calls.iter().map(call_delta).collect();
    }
    if !delta.citations.is_empty() {
        said["annotations"] = annotations(&delta.citations);
    }
    // A token that says nothing yet is told of as an empty text.
    if !delta.text.is_empty() || said == json!({}) {
        said["content"] = json!(delta.text);
    }
    said
}

fn annotations(citations: &[Citation]) -> Value {
    citations.iter().map(|citation| json!({"type": "url_citation", "url_citation": tooling::citation(citation)})).collect()
}

/// Which limit an answer has come to, where clients know no word for it.
fn say_limit(choice: &mut Value, summary: &Summary) {
    if summary.finish == Finish::ToolRounds {
        choice["stop_reason"] = json!("max_tool_rounds");
    }
}

fn call(call: &Call, arguments: &str) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

fn call_delta(delta: &CallDelta) -> Value {
    let mut body = match &delta.begins {
        Some(begun) => call(begun, &delta.arguments),
        None => json!({"function": {"arguments": delta.arguments}}),
    };
    body["index"] = json!(delta.index);
    body
}

/// `stop`, `length` or `tool_calls`.
pub fn finish_reason(summary: &Summary) -> &'static str {
    match summary.finish {
        Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete if summary.calls > 0 => "tool_calls",
        Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete => "stop",
        Finish::Length | Finish::ToolRounds => "length",
    }
}

fn end_token(summary: &Summary) -> Option<u32> {
    match summary.finish {
        Finish::EndToken(id) => Some(id),
        Finish::StopText(_) | Finish::Complete | Finish::Length | Finish::ToolRounds => None,
    }
}

fn logprob(token: &Token) -> Value {
    let entry = |text: &str, logprob: Option<f32>| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let mut out = entry(&token.text, token.logprob);
    out["top_logprobs"] = token.top.iter().map(|(_, text, logprob)| entry(text, Some(*logprob))).collect();
    out
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What all choices took, with times if they are wanted; their prompt is one, and what was remembered of it is what the first found.
pub fn usage<'a>(choices: impl Iterator<Item = &'a Summary> + Clone, received: &[Received], timed: bool) -> Value {
    let completion: usize = choices.clone().map(|choice| choice.usage.completion_tokens).sum();
    let reasoning: usize = choices.clone().map(|choice| choice.reasoning_tokens).sum();
    let prompt = choices.clone().map(|choice| choice.usage.prompt_tokens).max().unwrap_or(0);
    let cached = choices.clone().map(|choice| choice.usage.cached_tokens).min().unwrap_or(0);
    let mut details = by_kind(received);
    details["cached_tokens"] = json!(cached);
    let mut usage = json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    });
    if let (Some(usage), Value::Object(times)) = (usage.as_object_mut().filter(|_| timed), times(choices, completion)) {
        usage.extend(times);
    }
    usage
}

/// How long the slowest choice took, in seconds, and how fast tokens were read and written.
fn times<'a>(choices: impl Iterator<Item = &'a Summary> + Clone, written: usize) -> Value {
    let longest = |time: fn(&Summary) -> Duration| choices.clone().map(time).max().unwrap_or_default().as_secs_f64();
    let total = longest(|choice| choice.prepared + choice.usage.timings.first_token + choice.usage.timings.decode);
    let (prompt, answer) =
        (longest(|choice| choice.prepared + choice.usage.timings.first_token), longest(|choice| choice.usage.timings.decode));
    let prefill = longest(|choice| choice.usage.timings.prefill);
    let read = choices.clone().map(|choice| choice.usage.prompt_tokens - choice.usage.cached_tokens).max().unwrap_or(0);
    let speed = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    json!({
        "total_time_sec": total,
        "total_prompt_time_sec": prompt,
        "total_completion_time_sec": answer,
        "avg_tok_per_sec": speed(read + written, total),
        "avg_prompt_tok_per_sec": speed(read, prefill),
        "avg_compl_tok_per_sec": speed(written.saturating_sub(choices.count()), answer),
    })
}

/// What a prompt has, and whether there is room for an answer.
pub fn counted(preview: &Preview, context: usize) -> Value {
    let tokens = preview.token_ids.len();
    json!({
        "object": "response.input_tokens",
        "input_tokens": tokens,
        "input_tokens_details": by_kind(&preview.media),
        "max_model_len": context,
        "fits": tokens < context,
        "media": media(&preview.media),
    })
}

/// Tokens that stand for media of each kind.
pub fn by_kind(received: &[Received]) -> Value {
    let tokens = |kind: MediaKind| -> usize { received.iter().filter(|item| item.kind == kind).map(|item| item.tokens).sum() };
    json!({
        "image_tokens": tokens(MediaKind::Image),
        "audio_tokens": tokens(MediaKind::Audio),
        "video_tokens": tokens(MediaKind::Video),
    })
}

/// What became of each media item.
pub fn media(received: &[Received]) -> Value {
    let millis = |time: Duration| time.as_micros() as f64 / 1e3;
    let item = |item: &Received| {
        let spent = &item.spent;
        let mut receipt = json!({
            "param": item.param,
            "type": item.kind.name(),
            "bytes": item.bytes,
            "tokens": item.tokens,
            "cached": spent.remembered > 0,
            "decode_ms": millis(spent.decode),
            "process_ms": millis(spent.process),
        });
        match &item.extent {
            Extent::Picture { width, height } => {
                receipt["size"] = json!([width, height]);
                receipt["views"] = json!(item.views);
            }
            Extent::Sound { seconds } => receipt["seconds"] = json!(seconds),
            Extent::Clip { times } => {
                receipt["frames"] = json!(times.len());
                receipt["timestamps"] = json!(times);
                receipt["frame_size"] = json!(item.views.first());
            }
        }
        receipt
    };
    received.iter().map(item).collect()
}
