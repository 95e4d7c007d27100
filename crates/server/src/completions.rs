//! POST /v1/completions: a prompt is continued, without a chat template.

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use mistralrs::{Answer, AnswerStream, ChatRequest, Delta, RawPrompt, Summary, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answers::{Wire, event};
use crate::app::App;
use crate::chat::{StreamOptions, includes_usage};
use crate::error::Failure;
use crate::options::{self, Options};
use crate::payload::{Json, read_as};
use crate::response::{Header, finish_reason, usage};

/// Prompts of one request.
const PROMPTS_MAX: usize = 128;
/// Tokens of an answer whose length is not said, as OpenAI has it.
const TOKENS_USUAL: usize = 16;
const OBJECT: &str = "text_completion";

/// The body, besides its [`Options`].
#[derive(Debug, Deserialize)]
struct CompletionBody {
    model: Option<String>,
    prompt: Prompts,
    max_tokens: Option<u32>,
    n: Option<u32>,
    best_of: Option<u32>,
    echo: Option<bool>,
    suffix: Option<String>,
    logprobs: Option<usize>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

impl Prompts {
    fn list(self) -> Vec<RawPrompt> {
        match self {
            Self::Text(text) => vec![RawPrompt::Text(text)],
            Self::Tokens(ids) => vec![RawPrompt::Tokens(ids)],
            Self::Texts(texts) => texts.into_iter().map(RawPrompt::Text).collect(),
            Self::TokenLists(lists) => lists.into_iter().map(RawPrompt::Tokens).collect(),
        }
    }
}

pub async fn completions(State(app): State<App>, Json(json): Json) -> Result<Response, Failure> {
    let body: CompletionBody = read_as(&json)?;
    app.check_model(body.model.as_deref())?;
    let options: Options = read_as(&json)?;
    let n = body.check()?;
    let request = ChatRequest {
        tokens_max: Some(options::tokens_max([("max_tokens", body.max_tokens)])?.unwrap_or(TOKENS_USUAL)),
        ..options.request(body.logprobs)?
    };
    let prompts = body.prompt.list();
    if prompts.is_empty() || prompts.len().saturating_mul(n) > PROMPTS_MAX {
        let message = format!("prompt must be 1 to {PROMPTS_MAX} prompts, times n");
        return Err(Failure::invalid("prompt", message));
    }
    let (mut answers, mut echoes) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let echo = match &prompt {
            _ if body.echo != Some(true) => String::new(),
            RawPrompt::Text(text) => text.clone(),
            RawPrompt::Tokens(ids) => app.model.detokenize(ids)?,
        };
        let request = ChatRequest { prompt: Some(prompt), ..request.clone() };
        answers.extend(app.start(&request, n).await?);
        echoes.extend(std::iter::repeat_n(echo, n));
    }
    let include_usage = includes_usage(body.stream_options.as_ref());
    let header = Header::new("cmpl", app.model.id());
    let wire = CompletionWire { header, echoes, n, logprobs: body.logprobs.is_some(), include_usage, summaries: Vec::new() };
    if body.stream == Some(true) {
        return Ok(app.streamed(answers, wire));
    }
    let answers = app.whole(answers).await?;
    Ok(axum::Json(wire.whole(&answers)).into_response())
}

impl CompletionBody {
    /// Refuses what cannot be done; answers wanted to each prompt.
    fn check(&self) -> Result<usize, Failure> {
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Failure::invalid("suffix", "suffix is not supported: text is continued, not filled in"));
        }
        if self.echo == Some(true) && self.logprobs.is_some() {
            return Err(Failure::invalid(
                "logprobs",
                "logprobs of an echoed prompt are not computed; leave echo or logprobs out",
            ));
        }
        let n = options::choices(self.n)?;
        if self.best_of.is_some_and(|best_of| best_of as usize != n) {
            return Err(Failure::invalid("best_of", "best_of is not supported; ask for n choices"));
        }
        Ok(n)
    }
}

struct CompletionWire {
    header: Header,
    /// What each choice says first.
    echoes: Vec<String>,
    /// Choices of each prompt.
    n: usize,
    logprobs: bool,
    include_usage: bool,
    /// Of the choices that are complete, with their indices.
    summaries: Vec<(usize, Summary)>,
}

impl CompletionWire {
    fn object(&self, choices: Value) -> Value {
        self.header.object(OBJECT, choices)
    }

    fn choice(&self, index: usize, text: &str, tokens: &[Token], finish_reason: Option<&str>) -> Value {
        let logprobs = self.logprobs.then(|| logprobs(tokens));
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason})
    }

    fn whole(&self, answers: &[Answer]) -> Value {
        let choice = |(i, answer): (usize, &Answer)| {
            let text = format!("{}{}", self.echoes[i], answer.text);
            self.choice(i, &text, &answer.tokens, Some(finish_reason(&answer.summary)))
        };
        let mut body = self.object(answers.iter().enumerate().map(choice).collect());
        body["usage"] = self.usage(answers.iter().map(|answer| answer.summary).collect());
        body
    }

    /// Choices of one prompt share it; those of several add up.
    fn usage(&self, summaries: Vec<Summary>) -> Value {
        let of_each = summaries.chunks(self.n).map(|some| usage(some.iter(), &[]));
        let add = |mut all: Value, one: Value| {
            for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
                all[field] = json!(all[field].as_u64().unwrap_or(0) + one[field].as_u64().unwrap_or(0));
            }
            all
        };
        of_each.reduce(add).unwrap_or_default()
    }
}

impl Wire for CompletionWire {
    fn opening(&mut self, _: &[AnswerStream]) -> Vec<Event> {
        let said = self.echoes.iter().enumerate().filter(|(_, echo)| !echo.is_empty());
        said.map(|(i, echo)| event(&self.object(json!([self.choice(i, echo, &[], None)])))).collect()
    }

    fn delta(&mut self, choice: usize, delta: &Delta) -> Vec<Event> {
        let tokens = delta.token.as_slice();
        vec![event(&self.object(json!([self.choice(choice, &delta.text, tokens, None)])))]
    }

    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Event> {
        self.summaries.push((choice, *summary));
        let mut events = vec![event(&self.object(json!([self.choice(choice, "", &[], Some(finish_reason(summary)))])))];
        if self.summaries.len() == self.echoes.len() {
            self.summaries.sort_by_key(|(choice, _)| *choice);
            if self.include_usage {
                let mut body = self.object(json!([]));
                body["usage"] = self.usage(self.summaries.iter().map(|(_, summary)| *summary).collect());
                events.push(event(&body));
            }
            events.push(Event::default().data("[DONE]"));
        }
        events
    }

    fn failed(&mut self, failure: &Failure) -> Vec<Event> {
        vec![event(&failure.body())]
    }
}

fn logprobs(tokens: &[Token]) -> Value {
    let top = |token: &Token| -> Value {
        let entries = token.top.iter().map(|(_, text, logprob)| (text.clone(), json!(logprob)));
        Value::Object(entries.collect())
    };
    let mut offset = 0;
    let offsets = tokens.iter().map(|token| {
        let at = offset;
        offset += token.text.chars().count();
        at
    });
    json!({
        "text_offset": offsets.collect::<Vec<_>>(),
        "tokens": tokens.iter().map(|token| &token.text).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
    })
}
