//! Input items → messages.

use mistralrs::{Content, MediaSource, Message, Part};
use serde_json::{Map, Value, json};
use wire::content::{content, gathered, role};

use crate::error::Failure;
use crate::places::Places;

/// The messages of a conversation, item by item.
#[derive(Default)]
pub struct Turns {
    messages: Vec<Message>,
    places: Places,
    /// Thoughts that belong to the next thing that the assistant says or calls.
    thoughts: String,
}

impl Turns {
    /// Begins behind these.
    pub fn continue_from(&mut self, messages: Vec<Message>) {
        messages.iter().for_each(|_| self.places.add(Vec::new()));
        self.messages = messages;
    }

    /// A text, or a list of items.
    pub fn read(&mut self, input: &Value) -> Result<(), Failure> {
        match input {
            Value::String(text) => {
                self.push("user", Content::Text(text.clone()), Vec::new());
                Ok(())
            }
            Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| self.item(item, &format!("input[{i}]"))),
            _ => Err(Failure::invalid("input", "input must be a text or a list of items")),
        }
    }

    pub fn finish(self) -> (Vec<Message>, Places) {
        (self.messages, self.places)
    }

    fn item(&mut self, item: &Value, at: &str) -> Result<(), Failure> {
        let kind = item["type"].as_str().unwrap_or("message");
        let text = |field: &str| {
            let missing = || Failure::invalid(format!("{at}.{field}"), format!("{at}.{field} is missing or not a text"));
            item[field].as_str().ok_or_else(missing)
        };
        match kind {
            "message" => self.said(text("role")?, &item["content"], &format!("{at}.content")),
            "reasoning" => {
                let texts = [&item["content"], &item["summary"]].into_iter().filter_map(Value::as_array).flatten();
                self.thoughts.extend(texts.filter_map(|part| part["text"].as_str()));
                Ok(())
            }
            "function_call" => {
                let function = json!({"name": text("name")?, "arguments": text("arguments")?});
                self.call(json!({"id": text("call_id")?, "type": "function", "function": function}));
                Ok(())
            }
            // What was found stands in the words behind it.
            "web_search_call" => Ok(()),
            "mcp_call" => {
                let (id, function) = (text("id")?, json!({"name": text("name")?, "arguments": text("arguments")?}));
                self.call(json!({"id": id, "type": "function", "function": function}));
                let result =
                    [&item["output"], &item["error"]].into_iter().find(|result| !result.is_null()).unwrap_or(&Value::Null);
                self.said("tool", result, &format!("{at}.output"))?;
                if let Some(message) = self.messages.last_mut() {
                    message.extra.insert("tool_call_id".into(), id.into());
                }
                Ok(())
            }
            "function_call_output" => {
                self.said("tool", &item["output"], &format!("{at}.output"))?;
                if let Some(message) = self.messages.last_mut() {
                    message.extra.insert("tool_call_id".into(), text("call_id")?.into());
                }
                Ok(())
            }
            _ => {
                let kinds = "message, reasoning, function_call, function_call_output, web_search_call or mcp_call";
                Err(Failure::invalid(format!("{at}.type"), format!("{at}.type must be {kinds}")))
            }
        }
    }

    fn said(&mut self, role: &str, said: &Value, at: &str) -> Result<(), Failure> {
        let (content, places) = match content(said, at)? {
            Content::Parts(parts) => {
                let places = (0..parts.len()).map(|j| format!("{at}[{j}]")).collect();
                (gathered(parts), places)
            }
            text => (text, Vec::new()),
        };
        self.push(&self::role(role), content, places);
        Ok(())
    }

    /// Calls belong to what the assistant has just said.
    fn call(&mut self, call: Value) {
        let is_assistant = self.messages.last().is_some_and(|message| message.role == "assistant");
        if !is_assistant || !self.thoughts.is_empty() {
            self.push("assistant", Content::default(), Vec::new());
        }
        let calls = self.messages.last_mut().map(|message| message.extra.entry("tool_calls").or_insert_with(|| json!([])));
        if let Some(Value::Array(calls)) = calls {
            calls.push(call);
        }
    }

    fn push(&mut self, role: &str, content: Content, places: Vec<String>) {
        let mut extra = Map::new();
        if role == "assistant" && !self.thoughts.is_empty() {
            extra.insert("reasoning_content".into(), std::mem::take(&mut self.thoughts).into());
        }
        self.places.add(places);
        self.messages.push(Message { role: role.into(), content, extra });
    }
}

/// About what a message takes in memory.
pub fn bytes(message: &Message) -> usize {
    fn of_source(source: &MediaSource) -> usize {
        match source {
            MediaSource::Url(url) => url.len(),
            MediaSource::Bytes(bytes) => bytes.len(),
            MediaSource::Frames { frames, .. } => frames.iter().map(of_source).sum(),
        }
    }
    let of_part = |part: &Part| match part {
        Part::Text(text) => text.len(),
        media => media.source().map_or(0, of_source),
    };
    let said = match &message.content {
        Content::Text(text) => text.len(),
        Content::Parts(parts) => parts.iter().map(of_part).sum(),
    };
    said + Value::Object(message.extra.clone()).to_string().len()
}
