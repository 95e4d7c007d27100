//! Functions that a model may call: what it is told of them, what its answer is held to, and how it is heard.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use text::{AnswerGrammar, Calls, Dialect, Grammar, Listener, Said, Thinking, Thoughts, Tokenizer, Tool};

use crate::agent::Past;
use crate::chat::{ChatRequest, ToolChoice};
use crate::load::Inner;
use crate::{Error, Fault};

/// A function that a model has called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Which call it is: results are given back under it. Nine letters and digits, which all chat templates accept.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: JSON, which is complete unless the answer was cut off.
    pub arguments: String,
}

/// More of a call. The first piece of each has its id and the function's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDelta {
    /// Which of the answer's calls, from 0.
    pub index: usize,
    /// In its first piece.
    pub begins: Option<Call>,
    /// More of its arguments.
    pub arguments: String,
}

/// What a request offers its model.
#[derive(Clone)]
pub(crate) struct Offer {
    tools: Vec<Tool>,
    choice: ToolChoice,
    calls_max: usize,
    dialect: Dialect,
    thinking: Option<Thinking>,
    takes_tools: bool,
    takes_system: bool,
    /// Whether the request has forbidden thoughts.
    thoughtless: bool,
}

impl Offer {
    /// # Errors
    /// A tool is none, or the one that has to be called is not there.
    pub fn read(inner: &Inner, request: &ChatRequest, past: &Past) -> Result<Self, Error> {
        let invalid = |param: String, reason: String| Error::request(param, Fault::Invalid, reason);
        let mut tools = match request.tool_choice {
            _ if request.prompt.is_some() => Vec::new(),
            ToolChoice::None => Vec::new(),
            _ => Tool::read(&request.tools).map_err(|e| match e {
                text::TextError::Tool { place, reason } => invalid(place, reason),
                e => invalid("tools".into(), e.to_string()),
            })?,
        };
        if request.prompt.is_none() && request.tool_choice != ToolChoice::None {
            tools.extend(request.tools_here().map(|tool| tool.described().clone()));
        }
        let choice = match &request.tool_choice {
            // What had to be called was called in the first round.
            ToolChoice::Required | ToolChoice::Named(_) if past.rounds > 0 => ToolChoice::Auto,
            choice => choice.clone(),
        };
        match &choice {
            ToolChoice::Required if tools.is_empty() => {
                return Err(invalid("tool_choice".into(), "there are no tools that could be called".into()));
            }
            ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
                return Err(invalid("tool_choice".into(), format!("there is no tool with the name {name:?}")));
            }
            _ => {}
        }
        Ok(Self {
            tools,
            choice,
            calls_max: request.calls_max.unwrap_or(usize::MAX),
            dialect: inner.dialect,
            thinking: inner.template.thinking().filter(|_| request.prompt.is_none()),
            takes_tools: inner.template.takes_tools(),
            takes_system: inner.template.takes_system(),
            thoughtless: request.template_kwargs.get("enable_thinking") == Some(&Value::Bool(false)),
        })
    }

    /// What the chat template is told of.
    pub fn definitions(&self) -> Vec<Value> {
        self.tools.iter().map(|tool| tool.definition.clone()).collect()
    }

    /// Tells of tools in the words of a system message, or of the first message where there can be none, and of calls and results in those of who called and who answered, where the
    /// chat template does not.
    pub fn explain(&self, messages: &mut Vec<Value>) {
        if self.takes_tools {
            return;
        }
        *messages = in_words(std::mem::take(messages), self.dialect);
        if self.tools.is_empty() {
            return;
        }
        let functions: Vec<String> = self.tools.iter().map(|tool| tool.definition["function"].to_string()).collect();
        let words = format!(
            "You can call these functions, which are described as JSON:\n{}\nTo call one, write exactly {} with its name and arguments.",
            functions.join("\n"),
            self.dialect.example()
        );
        match messages.first_mut().filter(|message| message["role"] == "system") {
            Some(system) => append(&mut system["content"], json!(format!("\n\n{words}"))),
            None if self.takes_system => messages.insert(0, json!({"role": "system", "content": words})),
            None => {
                if let Some(user) = messages.first_mut() {
                    let said = std::mem::replace(&mut user["content"], json!(format!("{words}\n\n")));
                    append(&mut user["content"], said);
                }
            }
        }
    }

    /// What the answer is held to.
    pub fn form(&self, grammar: Option<&Grammar>, thoughts: Thoughts) -> Option<Form> {
        let calls = match self.choice {
            ToolChoice::Required | ToolChoice::Named(_) => Calls::Required,
            ToolChoice::None | ToolChoice::Auto => Calls::Optional,
        };
        let bound = calls == Calls::Required || self.tools.iter().any(|tool| tool.strict);
        // A grammar in Lark's notation stands for the whole answer.
        let whole = self.tools.is_empty() && matches!(grammar, Some(Grammar::Lark(_) | Grammar::Llguidance(_)));
        let thinking = self.thinking.filter(|_| thoughts != Thoughts::Over);
        match (grammar, thinking) {
            (None, _) if !bound => None,
            (Some(grammar), _) if whole => Some(Form::Plain(grammar.clone())),
            (Some(grammar), None) if self.tools.is_empty() => Some(Form::Plain(grammar.clone())),
            _ => {
                let wanted = |tool: &&Tool| !matches!(&self.choice, ToolChoice::Named(name) if tool.name != *name);
                Some(Form::Answer(AnswerGrammar {
                    dialect: self.dialect,
                    tools: self.tools.iter().filter(wanted).cloned().collect(),
                    calls,
                    parallel: self.calls_max > 1,
                    thinking: thinking.map(|thinking| (thinking, thoughts)),
                    form: grammar.cloned(),
                }))
            }
        }
    }

    /// Where thoughts stand in the answer to a prompt.
    pub fn thoughts(&self, prompt: &str) -> Thoughts {
        match self.thinking.map_or(Thoughts::Over, |thinking| thinking.behind(prompt)) {
            Thoughts::Possible if self.thoughtless => Thoughts::Over,
            thoughts => thoughts,
        }
    }

    /// Marks that have to be heard, whether the model is offered anything or not.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let calls = Some(self.dialect).filter(|_| !self.tools.is_empty());
        let thoughts = self.thinking.into_iter().flat_map(Thinking::marks);
        thoughts.chain(calls.into_iter().flat_map(Dialect::marks))
    }

    /// Hears the answer of a model with this tokenizer.
    pub fn ear(&self, thoughts: Thoughts, tokenizer: &Tokenizer) -> Ear {
        let listener = Listener::new(self.thinking, self.dialect, self.tools.clone()).from(thoughts);
        let listener = listener.of_tokens(|mark| tokenizer.special_id(mark).is_some());
        Ear { listener, calls: 0, calls_max: self.calls_max }
    }
}

/// What an answer is held to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// All of it.
    Plain(Grammar),
    /// What it says, thinks and calls.
    Answer(AnswerGrammar),
}

/// Hears calls, thoughts and words.
pub(crate) struct Ear {
    listener: Listener,
    /// Calls so far, those that are too many included.
    calls: usize,
    calls_max: usize,
}

/// What was heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<CallDelta>,
}

impl Ear {
    pub fn push(&mut self, text: &str) -> Heard {
        let said = self.listener.push(text);
        self.sort(said)
    }

    pub fn finish(&mut self, text: &str) -> Heard {
        let mut said = self.listener.push(text);
        said.extend(self.listener.finish());
        self.sort(said)
    }

    /// Calls that were heard.
    pub fn calls(&self) -> usize {
        self.calls.min(self.calls_max)
    }

    fn sort(&mut self, said: Vec<Said>) -> Heard {
        let mut heard = Heard::default();
        for said in said {
            match said {
                Said::Text(text) => heard.text += &text,
                Said::Reasoning(text) => heard.reasoning += &text,
                Said::Call { name } => {
                    self.calls += 1;
                    if self.calls <= self.calls_max {
                        let id = std::iter::repeat_with(fastrand::alphanumeric).take(9).collect();
                        let begins = Some(Call { id, name, arguments: String::new() });
                        heard.calls.push(CallDelta { index: self.calls - 1, begins, arguments: String::new() });
                    }
                }
                Said::Arguments(_) if self.calls > self.calls_max => {}
                Said::Arguments(json) => match heard.calls.last_mut() {
                    Some(call) => call.arguments += &json,
                    None => heard.calls.push(CallDelta { index: self.calls - 1, begins: None, arguments: json }),
                },
            }
        }
        heard
    }
}

/// Puts calls together from their pieces.
pub(crate) fn join(calls: &mut Vec<Call>, pieces: Vec<CallDelta>) {
    for piece in pieces {
        calls.extend(piece.begins);
        if let Some(call) = calls.get_mut(piece.index) {
            call.arguments += &piece.arguments;
        }
    }
}

/// The calls of an earlier answer as a chat template takes them: on the wire, arguments are JSON in a text.
pub(crate) fn for_template(message: &mut Map<String, Value>) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
    for arguments in calls.filter_map(|call| call.get_mut("function")?.get_mut("arguments")) {
        if let Some(inner) = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok()) {
            *arguments = Value::Object(inner);
        }
    }
}

/// Calls as the assistant's words, and results as the user's: turns alternate then as every template expects.
fn in_words(messages: Vec<Value>, dialect: Dialect) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let mut names: HashMap<String, Value> = HashMap::new();
    let mut behind_result = false;
    for mut message in messages {
        let is_result = message["role"] == "tool";
        if is_result {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let name = names.get(id).and_then(Value::as_str).unwrap_or("the function");
            let mut content = json!(format!("Result of {name}:\n"));
            append(&mut content, message["content"].take());
            message = json!({"role": "user", "content": content});
        } else if let Some(Value::Array(calls)) = message.as_object_mut().and_then(|fields| fields.remove("tool_calls")) {
            for call in calls.iter().filter(|call| call["function"]["name"].is_string()) {
                names.insert(call["id"].as_str().unwrap_or_default().into(), call["function"]["name"].clone());
                let written = json!({"name": call["function"]["name"], "arguments": call["function"]["arguments"]});
                let [open, close] = [dialect.opens(), dialect.closes()].map(|marks| marks.first().copied().unwrap_or_default());
                append(&mut message["content"], json!(format!("{open}{written}{close}")));
            }
        }
        match out.last_mut() {
            Some(last) if (is_result || behind_result) && last["role"] == "user" && message["role"] == "user" => {
                append(&mut last["content"], json!("\n\n"));
                append(&mut last["content"], message["content"].take());
            }
            _ => out.push(message),
        }
        behind_result = is_result;
    }
    out
}

/// Says more in a message: words, or parts.
fn append(content: &mut Value, more: Value) {
    let parts = |content: Value| match content {
        Value::Array(parts) => parts,
        Value::Null => Vec::new(),
        text => vec![json!({"type": "text", "text": text})],
    };
    *content = match (content.take(), more) {
        (Value::String(text), Value::String(more)) => json!(text + &more),
        (Value::Null, more) | (more, Value::Null) => more,
        (content, more) => parts(content).into_iter().chain(parts(more)).collect(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_results_can_be_told_in_words() {
        let call = |id: &str, name: &str| json!({"id": id, "function": {"name": name, "arguments": {"a": 1}}});
        let messages = json!([
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": "", "tool_calls": [call("x", "f"), call("y", "g"), "neither"]},
            {"role": "tool", "tool_call_id": "x", "content": "one"},
            {"role": "tool", "tool_call_id": "y", "content": [{"type": "text", "text": "two"}, {"type": "image"}]},
            {"role": "user", "content": "And?"},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": "So."},
            {"role": "tool", "content": "late"},
        ]);
        let text = |text: &str| json!({"type": "text", "text": text});
        let results = [
            text("Result of f:\none\n\n"),
            text("Result of g:\n"),
            text("two"),
            json!({"type": "image"}),
            text("\n\n"),
            text("And?"),
        ];
        let called = r#"{"name":"f","arguments":{"a":1}}{"name":"g","arguments":{"a":1}}"#;
        let expected = json!([
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": called},
            {"role": "user", "content": results},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": "So."},
            {"role": "user", "content": "Result of the function:\nlate"},
        ]);
        assert_eq!(json!(in_words(messages.as_array().cloned().unwrap_or_default(), Dialect::Json)), expected);
    }
}
