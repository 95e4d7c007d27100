//! Fields that bodies of several routes share: how tokens are drawn, where an answer ends, what form it has.

use std::collections::BTreeMap;

use mistralrs::{ChatRequest, Dry, Grammar, Sampling, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::refusal::Refusal;

const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
const CHOICES_MAX: u32 = 128;
const BREAKERS_MAX: usize = 64;

/// How an answer is generated. All of it may be left out.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
pub struct Options {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<usize>,
    dry_sequence_breakers: Option<Vec<String>>,
    logit_bias: Option<BTreeMap<String, f32>>,
    min_tokens: Option<u32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    stop_token_ids: Option<Vec<u32>>,
    ignore_eos: Option<bool>,
    cache_salt: Option<String>,
    response_format: Option<ResponseFormat>,
    grammar: Option<GrammarBody>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: SchemaBody },
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct SchemaBody {
    schema: Value,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
enum GrammarBody {
    JsonSchema(Value),
    Regex(String),
    Lark(String),
    Llguidance(Value),
    Choice(Vec<String>),
}

impl Options {
    /// A request that says nothing yet. `logprobs` is how many alternatives of each token are wanted, if any are.
    pub fn request(self, logprobs: Option<usize>) -> Result<ChatRequest, Refusal> {
        let sampling = self.sampling(logprobs)?;
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        };
        check_stops("stop", &stop)?;
        if self.dry_sequence_breakers.as_ref().is_some_and(|all| all.len() > BREAKERS_MAX) {
            let message = format!("dry_sequence_breakers takes at most {BREAKERS_MAX} texts");
            return Err(Refusal::invalid("dry_sequence_breakers", message));
        }
        Ok(ChatRequest {
            sampling,
            dry_sequence_breakers: self.dry_sequence_breakers,
            tokens_min: self.min_tokens.unwrap_or(0) as usize,
            stop,
            stop_token_ids: self.stop_token_ids.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            cache_salt: self.cache_salt,
            grammar: grammar(self.response_format, self.grammar)?,
            ..ChatRequest::default()
        })
    }

    fn sampling(&self, logprobs: Option<usize>) -> Result<Sampling, Refusal> {
        let top_k = match self.top_k {
            None | Some(-1 | 0) => 0,
            Some(k) => usize::try_from(k).map_err(|_| Refusal::invalid("top_k", "top_k must be positive, or 0 or -1 for all"))?,
        };
        let usual = Dry::default();
        let dry = self.dry_multiplier.filter(|multiplier| *multiplier != 0.0).map(|multiplier| Dry {
            multiplier,
            base: self.dry_base.unwrap_or(usual.base),
            allowed_length: self.dry_allowed_length.unwrap_or(usual.allowed_length),
            ..usual
        });
        let usual = Sampling::default();
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k,
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            dry,
            logit_bias: self.logit_bias.iter().flatten().map(bias).collect::<Result<_, _>>()?,
            seed: self.seed.map(i64::cast_unsigned),
            logprobs,
        })
    }
}

/// How many choices are wanted.
pub fn choices(n: Option<u32>) -> Result<usize, Refusal> {
    let n = n.unwrap_or(1);
    if !(1..=CHOICES_MAX).contains(&n) {
        return Err(Refusal::invalid("n", format!("n must be between 1 and {CHOICES_MAX}")));
    }
    Ok(n as usize)
}

/// The most tokens that are wanted: the first of these fields that is there.
pub fn tokens_max<const N: usize>(fields: [(&'static str, Option<u32>); N]) -> Result<Option<usize>, Refusal> {
    let given = fields.into_iter().find_map(|(field, value)| Some((field, value?)));
    match given {
        Some((field, 0)) => Err(Refusal::invalid(field, format!("{field} must be at least 1"))),
        given => Ok(given.map(|(_, tokens)| tokens as usize)),
    }
}

/// Refuses stop texts that are too many or too long.
pub fn check_stops(field: &str, stop: &[String]) -> Result<(), Refusal> {
    if stop.len() > STOPS_MAX || stop.iter().any(|text| text.len() > STOP_BYTES_MAX) {
        return Err(Refusal::invalid(field, format!("{field} takes at most {STOPS_MAX} texts of {STOP_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// Variables of the chat template that say how much is thought: nothing, and with how much effort.
pub fn thinking(
    kwargs: &mut Map<String, Value>,
    enabled: Option<bool>,
    effort: Option<&str>,
    field: &str,
) -> Result<(), Refusal> {
    let effort = effort.map(str::to_lowercase);
    let off = effort.as_deref().is_some_and(|effort| matches!(effort, "none" | "off"));
    if enabled == Some(true) && off {
        return Err(Refusal::invalid(field, format!("enable_thinking and {field} contradict each other")));
    }
    if let Some(thinking) = enabled.or(off.then_some(false)) {
        kwargs.insert("enable_thinking".into(), thinking.into());
    }
    if let Some(effort) = effort.filter(|_| !off) {
        kwargs.insert("reasoning_effort".into(), effort.into());
    }
    Ok(())
}

/// `"none"`, `"auto"`, `"required"`, or `{"type": "function", "function": {"name": …}}`, also without the inner object.
pub fn tool_choice(choice: Option<&Value>) -> Result<ToolChoice, Refusal> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(ToolChoice::Auto) };
    match choice.as_str() {
        Some("none") => return Ok(ToolChoice::None),
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("required") => return Ok(ToolChoice::Required),
        _ => {}
    }
    let web = choice["type"].as_str().filter(|kind| kind.starts_with("web_search")).map(|_| "web_search");
    let name = choice["function"]["name"].as_str().or_else(|| choice["name"].as_str()).or(web);
    name.map(|name| ToolChoice::Named(name.into())).ok_or_else(|| {
        Refusal::invalid(
            "tool_choice",
            "tool_choice must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ...}}",
        )
    })
}

fn grammar(format: Option<ResponseFormat>, grammar: Option<GrammarBody>) -> Result<Option<Grammar>, Refusal> {
    let format = match format {
        None | Some(ResponseFormat::Text) => None,
        Some(ResponseFormat::JsonObject) => Some(Grammar::JsonObject),
        Some(ResponseFormat::JsonSchema { json_schema }) => Some(Grammar::JsonSchema(json_schema.schema)),
    };
    let grammar = grammar.map(|grammar| match grammar {
        GrammarBody::JsonSchema(schema) => Grammar::JsonSchema(schema),
        GrammarBody::Regex(regex) => Grammar::Regex(regex),
        GrammarBody::Lark(lark) => Grammar::Lark(lark),
        GrammarBody::Llguidance(Value::String(text)) => Grammar::Llguidance(text),
        GrammarBody::Llguidance(json) => Grammar::Llguidance(json.to_string()),
        GrammarBody::Choice(texts) => Grammar::Choice(texts),
    });
    match (format, grammar) {
        (Some(_), Some(_)) => Err(Refusal::invalid("grammar", "response_format and grammar exclude each other")),
        (format, grammar) => Ok(format.or(grammar)),
    }
}

fn bias((id, bias): (&String, &f32)) -> Result<(u32, f32), Refusal> {
    let id = id.parse().map_err(|_| Refusal::invalid("logit_bias", format!("logit_bias: {id:?} is not a token id")))?;
    Ok((id, *bias))
}
