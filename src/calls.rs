//! Functions that a model may call: what it is told of them, what its answer is held to, and how it is heard.

use serde_json::{Map, Value, json};
use text::{AnswerGrammar, Calls, Dialect, Grammar, Listener, Said, Thinking, Thoughts, Tool};

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
    /// Whether the request has forbidden thoughts.
    thoughtless: bool,
}

impl Offer {
    /// # Errors
    /// A tool is none, or the one that has to be called is not there.
    pub fn read(inner: &Inner, request: &ChatRequest) -> Result<Self, Error> {
        let invalid = |param: String, reason: String| Error::request(param, Fault::Invalid, reason);
        let tools = match request.tool_choice {
            _ if request.prompt.is_some() => Vec::new(),
            ToolChoice::None => Vec::new(),
            _ => Tool::read(&request.tools).map_err(|e| match e {
                text::TextError::Tool { place, reason } => invalid(place, reason),
                e => invalid("tools".into(), e.to_string()),
            })?,
        };
        match &request.tool_choice {
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
            choice: request.tool_choice.clone(),
            calls_max: request.calls_max.unwrap_or(usize::MAX),
            dialect: inner.dialect,
            thinking: inner.template.thinking().filter(|_| request.prompt.is_none()),
            takes_tools: inner.template.takes_tools(),
            thoughtless: request.template_kwargs.get("enable_thinking") == Some(&Value::Bool(false)),
        })
    }

    /// What the chat template is told of.
    pub fn definitions(&self) -> Vec<Value> {
        self.tools.iter().map(|tool| tool.definition.clone()).collect()
    }

    /// Tells of tools in the words of a system message, where the chat template does not.
    pub fn explain(&self, messages: &mut Vec<Value>) {
        if self.takes_tools || self.tools.is_empty() {
            return;
        }
        let functions: Vec<String> = self.tools.iter().map(|tool| tool.definition["function"].to_string()).collect();
        let words = format!(
            "You can call these functions, which are described as JSON:\n{}\nTo call one, write exactly {} with its name and arguments.",
            functions.join("\n"),
            self.dialect.example()
        );
        match messages.first_mut().filter(|message| message["role"] == "system") {
            Some(system) => match &mut system["content"] {
                Value::Array(parts) => parts.push(json!({"type": "text", "text": format!("\n\n{words}")})),
                Value::String(text) => *text += &format!("\n\n{words}"),
                _ => {}
            },
            None => messages.insert(0, json!({"role": "system", "content": words})),
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

    /// Hears the answer.
    pub fn ear(&self, thoughts: Thoughts) -> Ear {
        let listener = Listener::new(self.thinking, self.dialect, self.tools.clone()).from(thoughts);
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
