//! What an answer has to be like, thoughts and calls included, as a grammar in llguidance's variant of Lark's notation.

use serde_json::Value;

use super::schema::{Rules, Style, either, terminal};
use super::{Dialect, Thinking, Thoughts, Tool};
use crate::grammar::tidy;
use crate::{Grammar, TextError, Tokenizer};

/// Items that a list may be made to have.
const ITEMS_MAX: usize = 1000;

/// Whether an answer consists of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// It may say something instead, or before.
    Optional,
    /// There is at least one, and nothing but thoughts in front of it.
    Required,
}

/// The form of an answer that may think and call functions.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerGrammar {
    /// How calls are written.
    pub dialect: Dialect,
    /// What can be called; possibly nothing.
    pub tools: Vec<Tool>,
    /// Whether something must be.
    pub calls: Calls,
    /// Whether there may be several calls.
    pub parallel: bool,
    /// What stands around thoughts, and whether there are any.
    pub thinking: Option<(Thinking, Thoughts)>,
    /// The form of what is said where nothing is called.
    pub form: Option<Grammar>,
}

/// A grammar that is being written.
struct Writer<'a> {
    answer: &'a AnswerGrammar,
    tokenizer: &'a Tokenizer,
    lines: Vec<String>,
}

impl AnswerGrammar {
    /// The grammar, for a tokenizer: marks can be tokens of their own, which no text spells.
    ///
    /// # Errors
    /// [`TextError::Grammar`] where a schema asks for what cannot be held to.
    pub fn lark(&self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let mut writer = Writer { answer: self, tokenizer, lines: Vec::new() };
        let thoughts = self.thinking.map(|(thinking, thoughts)| writer.thoughts(thinking, thoughts)).unwrap_or_default();
        let said = writer.said()?;
        let calls = if self.tools.is_empty() { None } else { Some(writer.calls()?) };
        let body = match (calls, self.calls) {
            (None, _) => said,
            (Some(calls), Calls::Required) => calls,
            (Some(calls), Calls::Optional) => writer.said_or_called(&said, &calls),
        };
        writer.lines.insert(0, format!("start: {thoughts} {body}"));
        Ok(writer.lines.join("\n"))
    }
}

impl Writer<'_> {
    /// A mark: the token, where it is one that no text spells; otherwise its text.
    fn mark(&self, text: &str) -> String {
        match self.tokenizer.special_id(text) {
            Some(id) => format!("<[{id}]>"),
            None => literal(text),
        }
    }

    fn rule(&mut self, name: &str, body: &str) -> String {
        self.lines.push(format!("{name}: {body}"));
        name.split('[').next().unwrap_or(name).to_string()
    }

    /// Any text up to a mark, and the mark.
    fn up_to(&mut self, name: &str, mark: &str) -> String {
        match self.tokenizer.special_id(mark) {
            Some(id) => format!("/(?s:.*)/ <[{id}]>"),
            None => self.rule(&format!("{name}[suffix={}]", literal(mark)), "/(?s:.*)/"),
        }
    }

    fn thoughts(&mut self, thinking: Thinking, thoughts: Thoughts) -> String {
        if thoughts == Thoughts::Over {
            return String::new();
        }
        let rest = self.up_to("thoughts", thinking.close);
        if thoughts == Thoughts::Begun {
            return rest;
        }
        let (mark, word) = thinking.open_parts();
        let word = if word.is_empty() { String::new() } else { literal(word) };
        format!("({} {word} {rest})?", self.mark(mark))
    }

    /// What is said where nothing is called.
    fn said(&mut self) -> Result<String, TextError> {
        let body = match &self.answer.form {
            None => "/(?s:.*)/".into(),
            Some(Grammar::JsonObject) => format!("%json {}", tidy(serde_json::json!({"type": "object"}))),
            Some(Grammar::JsonSchema(schema)) => format!("%json {}", tidy(schema.clone())),
            Some(Grammar::Regex(regex)) => format!("/{}/", regex.replace('/', "\\/")),
            Some(Grammar::Choice(texts)) => choice(texts)?,
            Some(Grammar::Lark(_) | Grammar::Llguidance(_)) => {
                return Err(TextError::Grammar("a grammar in this notation cannot be combined with tools".into()));
            }
        };
        Ok(self.rule("said", &body))
    }

    /// Words, or calls, or calls behind words. Words cannot have in them what a call begins with: whatever begins like a call is one.
    fn said_or_called(&mut self, said: &str, calls: &str) -> String {
        if self.answer.form.is_some() {
            return format!("({said} | {calls})");
        }
        let [open] = self.answer.dialect.opens() else { return self.bare_or_said(calls) };
        if self.answer.dialect.may_be_bare() {
            return self.bare_or_said(calls);
        }
        let mark = self.mark(open);
        let behind = calls.strip_prefix(&mark).unwrap_or(calls).trim_start();
        let before = self.up_to("before", open);
        let words = match self.tokenizer.special_id(open) {
            Some(_) => said.to_string(),
            None => {
                let found = regex_escaped(open);
                self.lines.push(format!("WORDS: /(?s:.*)/ & ~/(?s:.*){found}(?s:.*)/"));
                "WORDS".into()
            }
        };
        format!("({words} | {before} {behind})")
    }

    fn bare_or_said(&self, calls: &str) -> String {
        const NO_CALL: &str = r"/([^\s{\[](?s:.*))?/";
        format!("({NO_CALL} | {calls})")
    }

    /// One call or several. It begins with the mark in front of the first, where there is one.
    fn calls(&mut self) -> Result<String, TextError> {
        let answer = self.answer;
        let mut ways = Vec::with_capacity(answer.tools.len());
        for (i, tool) in answer.tools.iter().enumerate() {
            ways.push(self.call(i, tool)?);
        }
        let call = self.rule("call", &either(ways.into_iter()));
        let open = answer.dialect.opens().first().map(|mark| self.mark(mark)).unwrap_or_default();
        let close = answer.dialect.closes().first().map(|mark| self.mark(mark)).unwrap_or_default();
        let most = if answer.parallel { None } else { Some(1) };
        Ok(match answer.dialect {
            Dialect::Hermes | Dialect::Xml => {
                let more = if answer.parallel { format!("(\"\\n\" {open} {call} {close})*") } else { String::new() };
                format!("{open} {call} {close} {more}")
            }
            Dialect::Quoted if answer.parallel => format!("{open} {call} {close} ({open} {call} {close})*"),
            Dialect::Quoted => format!("{open} {call} {close}"),
            Dialect::Bracketed | Dialect::Listed => format!("{open} \"[\" {} \"]\" {close}", repeated(&call, ", ", 1, most)?),
            Dialect::Fenced => {
                let lines = repeated(&call, "\n", 1, most)?;
                format!("{open} {} {lines} {} {close}", literal("\n```python\n"), literal("\n```\n"))
            }
            Dialect::Pythonic => format!("\"[\" {} \"]\"", repeated(&call, ", ", 1, most)?),
            Dialect::Json if answer.parallel => format!("({call} | \"[\" {} \"]\")", repeated(&call, ", ", 1, most)?),
            Dialect::Json | Dialect::PythonTag => call,
        })
    }

    /// A call of one function, without the marks around it.
    fn call(&mut self, i: usize, tool: &Tool) -> Result<String, TextError> {
        let name = &tool.name;
        let free = serde_json::json!({"type": "object"});
        let bound = tool.strict || self.answer.calls == Calls::Required;
        let schema = if bound { &tool.parameters } else { &free };
        let prefix = format!("f{i}");
        let object = |writer: &mut Self, key: &str| {
            let arguments = writer.rule(&format!("{prefix}_json"), &format!("%json {}", tidy(closed(schema))));
            let head = literal(&format!("{{\"name\": {}, \"{key}\": ", Value::from(name.as_str())));
            format!("{head} {arguments} \"}}\"")
        };
        Ok(match self.answer.dialect {
            Dialect::Hermes => format!("\"\\n\" {} \"\\n\"", object(self, "arguments")),
            Dialect::Bracketed | Dialect::Listed | Dialect::Json => object(self, "arguments"),
            Dialect::PythonTag => object(self, "parameters"),
            Dialect::Xml => {
                let parameters = self.tags(&prefix, tool, schema)?;
                format!("{} {parameters} \"</function>\\n\"", literal(&format!("\n<function={name}>\n")))
            }
            Dialect::Quoted => {
                let style = Style::Quoted(self.mark("<|\"|>"));
                let mut rules = Rules::new(&style, &tool.parameters, prefix);
                let arguments = rules.value(schema)?;
                self.lines.extend(rules.lines());
                format!("{} {arguments}", literal(&format!("call:{name}")))
            }
            Dialect::Pythonic | Dialect::Fenced => {
                let mut rules = Rules::new(&Style::Python, &tool.parameters, prefix);
                let arguments = rules.members(&tool.parameters, ", ", |name| literal(&format!("{name}=")))?;
                self.lines.extend(rules.lines());
                format!("{} {} \")\"", literal(&format!("{name}(")), arguments.unwrap_or_default())
            }
        })
    }

    /// The parameters of a function, each between tags: texts as they are, everything else as JSON.
    fn tags(&mut self, prefix: &str, tool: &Tool, schema: &Value) -> Result<String, TextError> {
        const END: &str = "\n</parameter>\n";
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let empty = serde_json::Map::new();
        let properties = if tool.parameters["properties"].is_object() { &tool.parameters["properties"] } else { &Value::Null };
        let mut out = String::new();
        for (i, (name, property)) in properties.as_object().unwrap_or(&empty).iter().enumerate() {
            let rule = format!("{prefix}_p{i}");
            let property = if schema["properties"].is_object() { property } else { &Value::Null };
            let value = match property["enum"].as_array() {
                _ if !tool.takes_text(name) => {
                    let value = self.rule(&rule, &format!("%json {}", tidy(with_definitions(property, &tool.parameters))));
                    format!("{value} {}", literal(END))
                }
                Some(texts) => {
                    let texts = texts.iter().filter_map(Value::as_str).map(literal);
                    format!("{} {}", either(texts), literal(END))
                }
                None => {
                    let name = format!("{}_P{i}", prefix.to_uppercase());
                    self.lines.push(format!("{name}: {}", terminal(property)));
                    self.rule(&format!("{rule}[suffix={}]", literal(END)), &name)
                }
            };
            let member = format!("{} {value}", literal(&format!("<parameter={name}>\n")));
            let must = required.iter().any(|required| required == name.as_str());
            out += &if must { format!(" {member}") } else { format!(" ({member})?") };
        }
        Ok(out)
    }
}

/// A schema of arguments, which takes no others than it names.
fn closed(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("type".into(), "object".into());
        if fields.contains_key("properties") {
            fields.entry("additionalProperties").or_insert(false.into());
        }
    }
    schema
}

/// A part of a schema, with what references in it are to.
fn with_definitions(part: &Value, root: &Value) -> Value {
    let mut part = if part.is_object() { part.clone() } else { serde_json::json!({}) };
    for key in ["$defs", "definitions"] {
        if let Some(definitions) = root.get(key) {
            part[key] = definitions.clone();
        }
    }
    part
}

/// A text as it stands in a regular expression of a grammar.
fn regex_escaped(text: &str) -> String {
    // A backslash would make `<` and `>` ends of words.
    let escaped = |c: char| if "\\/.+*?()|[]{}^$&~".contains(c) { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// One of these texts.
pub(crate) fn choice(texts: &[String]) -> Result<String, TextError> {
    if texts.is_empty() {
        return Err(TextError::Grammar("there is no choice".into()));
    }
    Ok(either(texts.iter().map(|text| literal(text))))
}

/// Exactly this text.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// An item as often as is wanted, with a text between.
pub(super) fn repeated(item: &str, between: &str, least: usize, most: Option<usize>) -> Result<String, TextError> {
    if least > ITEMS_MAX || most.is_some_and(|most| most < least) {
        return Err(TextError::Grammar(format!(
            "a list cannot have {least} items at least and {} at most",
            most.unwrap_or(ITEMS_MAX)
        )));
    }
    let between = literal(between);
    let more = match most {
        Some(0) => return Ok(String::new()),
        Some(1) => String::new(),
        Some(most) => format!("({between} {item}){{{},{}}}", least.saturating_sub(1), most - 1),
        None => format!("({between} {item}){{{},}}", least.saturating_sub(1)),
    };
    Ok(if least == 0 { format!("({item} {more})?") } else { format!("{item} {more}") })
}
