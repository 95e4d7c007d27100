//! Completions: a prompt is continued, without a chat template.

use mistralrs::{Answer, AnswerStream, ChatRequest, ControlTokens, Delta, Model, RawPrompt, Summary, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chat::{StreamOptions, includes_usage};
use crate::chunks::Chunks;
use crate::options::{self, Options};
use crate::read::read_as;
use crate::refusal::Refusal;
use crate::response::{Header, finish_reason, usage};

/// What a body asks for.
#[derive(Debug)]
pub struct Asked {
    /// Of whom.
    pub model: Option<String>,
    /// Whether the answers are wanted as they come.
    pub stream: bool,
    prompts: Vec<RawPrompt>,
    /// Answers to each prompt.
    n: usize,
    /// Whether answers begin with their prompts.
    echo: bool,
    include_usage: bool,
    timings: bool,
    logprobs: bool,
    /// What is asked of every prompt.
    request: ChatRequest,
}

/// Prompts of one request.
const PROMPTS_MAX: usize = 128;
/// Tokens of an answer whose length is not said, as OpenAI has it.
const TOKENS_USUAL: usize = 16;
const OBJECT: &str = "text_completion";

/// The body, besides its [`Options`].
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct CompletionBody {
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
    return_timings: Option<bool>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
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

/// Reads a body.
///
/// # Errors
/// A field is missing, malformed or out of range.
pub fn read(json: &Value) -> Result<Asked, Refusal> {
    let body: CompletionBody = read_as(json)?;
    let options: Options = read_as(json)?;
    let n = body.check()?;
    let request = ChatRequest {
        tokens_max: Some(options::tokens_max([("max_tokens", body.max_tokens)])?.unwrap_or(TOKENS_USUAL)),
        ..options.request(body.logprobs)?
    };
    let prompts = body.prompt.list();
    if prompts.is_empty() || prompts.len().saturating_mul(n) > PROMPTS_MAX {
        let message = format!("prompt must be 1 to {PROMPTS_MAX} prompts, times n");
        return Err(Refusal::invalid("prompt", message));
    }
    Ok(Asked {
        model: body.model,
        stream: body.stream == Some(true),
        prompts,
        n,
        echo: body.echo == Some(true),
        include_usage: includes_usage(body.stream_options.as_ref()),
        timings: body.return_timings == Some(true),
        logprobs: body.logprobs.is_some(),
        request,
    })
}

impl Asked {
    /// Starts all answers.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    pub async fn start(self, model: &Model) -> Result<(Vec<AnswerStream>, CompletionChunks), Refusal> {
        let Self { n, logprobs, include_usage, timings, .. } = self;
        let (mut answers, mut echoes) = (Vec::new(), Vec::new());
        for prompt in self.prompts {
            let echo = match &prompt {
                _ if !self.echo => String::new(),
                RawPrompt::Text(text) => text.clone(),
                RawPrompt::Tokens(ids) => model.detokenize(ids, ControlTokens::Included)?,
            };
            let request = ChatRequest { prompt: Some(prompt), ..self.request.clone() };
            answers.extend(model.choices(&request, n).await?);
            echoes.extend(std::iter::repeat_n(echo, n));
        }
        let header = Header::new("cmpl", model.id());
        Ok((answers, CompletionChunks { header, echoes, n, logprobs, include_usage, timings, summaries: Vec::new() }))
    }
}

impl CompletionBody {
    /// Refuses what cannot be done; answers wanted to each prompt.
    fn check(&self) -> Result<usize, Refusal> {
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Refusal::invalid("suffix", "suffix is not supported: text is continued, not filled in"));
        }
        if self.echo == Some(true) && self.logprobs.is_some() {
            return Err(Refusal::invalid(
                "logprobs",
                "logprobs of an echoed prompt are not computed; leave echo or logprobs out",
            ));
        }
        let n = options::choices(self.n)?;
        if self.best_of.is_some_and(|best_of| best_of as usize != n) {
            return Err(Refusal::invalid("best_of", "best_of is not supported; ask for n choices"));
        }
        Ok(n)
    }
}

/// Answers to prompts, whole or in chunks.
pub struct CompletionChunks {
    header: Header,
    /// What each choice says first.
    echoes: Vec<String>,
    /// Choices of each prompt.
    n: usize,
    logprobs: bool,
    include_usage: bool,
    timings: bool,
    /// Of the choices that are complete, with their indices.
    summaries: Vec<(usize, Summary)>,
}

impl CompletionChunks {
    fn object(&self, choices: Value) -> Value {
        self.header.object(OBJECT, choices)
    }

    fn choice(&self, index: usize, text: &str, tokens: &[Token], finish_reason: Option<&str>) -> Value {
        let logprobs = self.logprobs.then(|| logprobs(tokens));
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason})
    }

    /// The whole answers as one object.
    pub fn whole(&self, answers: &[Answer]) -> Value {
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
        let of_each = summaries.chunks(self.n).map(|some| usage(some.iter(), &[], self.timings));
        let add = |mut all: Value, one: Value| {
            for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
                all[field] = json!(all[field].as_u64().unwrap_or(0) + one[field].as_u64().unwrap_or(0));
            }
            all
        };
        of_each.reduce(add).unwrap_or_default()
    }
}

impl Chunks for CompletionChunks {
    fn opening(&mut self, _: &[AnswerStream]) -> Vec<Value> {
        let said = self.echoes.iter().enumerate().filter(|(_, echo)| !echo.is_empty());
        said.map(|(i, echo)| self.object(json!([self.choice(i, echo, &[], None)]))).collect()
    }

    fn delta(&mut self, choice: usize, delta: &Delta) -> Value {
        self.object(json!([self.choice(choice, &delta.text, delta.token.as_slice(), None)]))
    }

    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Value> {
        self.summaries.push((choice, *summary));
        let mut last = vec![self.object(json!([self.choice(choice, "", &[], Some(finish_reason(summary)))]))];
        if self.are_complete() && self.include_usage {
            self.summaries.sort_by_key(|(choice, _)| *choice);
            let mut body = self.object(json!([]));
            body["usage"] = self.usage(self.summaries.iter().map(|(_, summary)| *summary).collect());
            last.push(body);
        }
        last
    }

    fn are_complete(&self) -> bool {
        self.summaries.len() == self.echoes.len()
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
