//! Deltas → output items, and the events that tell of them. A whole answer is one delta whose events nobody hears.

use std::sync::Arc;

use axum::response::sse::Event;
use mistralrs::{Answer, Call, CallDelta, Citation, Delta, Finish, Outcome, Received, Summary, ToolKind, ToolRun};
use serde_json::{Value, json};
use wire::response::{by_kind, now};
use wire::tooling::argument;

use crate::answers::named;
use crate::error::Failure;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Reasoning,
    Message,
    Call(usize),
}

/// A response on its way.
pub struct Output {
    body: Value,
    /// The last one may still be open.
    items: Vec<Value>,
    open: Option<Kind>,
    /// What the open item has said.
    text: String,
    /// To what the open item refers.
    annotations: Vec<Value>,
    /// Characters of the answer's text before the open item.
    said_before: usize,
    /// Items of functions that run, by the ids of their calls.
    running: Vec<(String, usize)>,
    /// The next event's.
    sequence_number: usize,
    /// What became of the prompt's media.
    pub received: Arc<[Received]>,
}

/// An answer as one delta.
pub fn at_once(answer: &Answer) -> Delta {
    let call = |(index, call): (usize, &mistralrs::Call)| CallDelta {
        index,
        begins: Some(call.clone()),
        arguments: call.arguments.clone(),
    };
    let calls = answer.calls.iter().enumerate().map(call).collect();
    let (text, reasoning, citations) = (answer.text.clone(), answer.reasoning.clone(), answer.citations.clone());
    Delta { text, reasoning, calls, citations, token: None }
}

/// The item of a call that runs here: what its id begins with, the stages that it begins with, and what it says.
fn called(call: &Call, kind: &ToolKind) -> ((&'static str, &'static [&'static str]), Value) {
    let server = match kind {
        ToolKind::WebSearch | ToolKind::WebPage => {
            let (action, field) = if *kind == ToolKind::WebSearch { ("search", "query") } else { ("open_page", "url") };
            let action = json!({"type": action, field: argument(&call.arguments, field)});
            let stages = &["web_search_call.in_progress", "web_search_call.searching"];
            return (("ws", stages), json!({"type": "web_search_call", "action": action}));
        }
        ToolKind::Mcp(server) => server,
        ToolKind::Custom => "server",
    };
    let item = json!({
        "type": "mcp_call", "server_label": server, "name": call.name, "arguments": call.arguments, "output": null, "error": null,
    });
    (("mcp", &["mcp_call.in_progress"]), item)
}

fn new_id(kind: &str) -> String {
    format!("{kind}_{:032x}", fastrand::u128(..))
}

impl Output {
    /// `echo` is what it repeats of the request.
    pub fn new(model: &str, echo: Value) -> Self {
        let mut body = json!({
            "id": new_id("resp"), "object": "response", "created_at": now(), "status": "in_progress", "model": model,
            "error": null, "incomplete_details": null, "output": [], "usage": null,
        });
        if let (Some(body), Value::Object(echo)) = (body.as_object_mut(), echo) {
            body.extend(echo);
        }
        Self {
            body,
            items: Vec::new(),
            open: None,
            text: String::new(),
            annotations: Vec::new(),
            said_before: 0,
            running: Vec::new(),
            sequence_number: 0,
            received: Arc::default(),
        }
    }

    pub fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_default()
    }

    pub fn body(&self) -> Value {
        self.body.clone()
    }

    /// The items of a response that is complete.
    pub fn items(&self) -> &Value {
        &self.body["output"]
    }

    pub fn opening(&mut self) -> Vec<Event> {
        let body = self.body.clone();
        ["response.created", "response.in_progress"].map(|kind| self.event(json!({"type": kind, "response": body}))).into()
    }

    pub fn delta(&mut self, delta: &Delta) -> Vec<Event> {
        let mut events = Vec::new();
        if !delta.reasoning.is_empty() {
            let item = || json!({"id": new_id("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"});
            self.go_to(Kind::Reasoning, item, &mut events);
            self.more("response.reasoning_text.delta", &delta.reasoning, &mut events);
        }
        if !delta.text.is_empty() {
            let item =
                || json!({"id": new_id("msg"), "type": "message", "role": "assistant", "content": [], "status": "in_progress"});
            self.go_to(Kind::Message, item, &mut events);
            // What parts the words of two rounds is between two items here.
            let text = if self.text.is_empty() { delta.text.trim_start() } else { &delta.text };
            self.said_before += delta.text.chars().count() - text.chars().count();
            self.more("response.output_text.delta", text, &mut events);
        }
        delta.citations.iter().for_each(|citation| self.annotate(citation, &mut events));
        for call in &delta.calls {
            if let Some(begun) = &call.begins {
                let (id, call_id, name) = (new_id("fc"), &begun.id, &begun.name);
                let item = || {
                    json!({
                        "id": id, "type": "function_call", "call_id": call_id, "name": name, "arguments": "",
                        "status": "in_progress",
                    })
                };
                self.go_to(Kind::Call(call.index), item, &mut events);
            }
            if !call.arguments.is_empty() {
                self.more("response.function_call_arguments.delta", &call.arguments, &mut events);
            }
        }
        events
    }

    /// A function runs here.
    pub fn calling(&mut self, call: &Call, kind: &ToolKind) -> Vec<Event> {
        let mut events = Vec::new();
        self.close("completed", &mut events);
        let (prefix, mut item) = called(call, kind);
        item["id"] = json!(new_id(prefix.0));
        item["status"] = json!("in_progress");
        let index = self.items.len();
        self.running.push((call.id.clone(), index));
        events.push(self.event(json!({"type": "response.output_item.added", "output_index": index, "item": item})));
        self.items.push(item);
        events.extend(prefix.1.iter().map(|stage| self.of_call(index, stage)));
        events
    }

    /// It has ended, or will not run.
    pub fn ran(&mut self, run: &ToolRun) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.running.iter().any(|(id, _)| *id == run.call.id) {
            events = self.calling(&run.call, &run.kind);
        }
        let Some(at) = self.running.iter().position(|(id, _)| *id == run.call.id) else { return events };
        let (_, index) = self.running.swap_remove(at);
        let returned = run.outcome == Outcome::Returned;
        let item = &mut self.items[index];
        let is_search = item["type"] == "web_search_call";
        item["status"] = json!(if returned { "completed" } else { "failed" });
        if !is_search {
            item[if returned { "output" } else { "error" }] = json!(run.text);
        }
        let item = item.clone();
        let stage = match (is_search, returned) {
            (true, _) => "web_search_call.completed",
            (false, true) => "mcp_call.completed",
            (false, false) => "mcp_call.failed",
        };
        events.push(self.of_call(index, stage));
        events.push(self.event(json!({"type": "response.output_item.done", "output_index": index, "item": item})));
        events
    }

    fn of_call(&mut self, index: usize, stage: &str) -> Event {
        let id = self.items[index]["id"].clone();
        self.event(json!({"type": format!("response.{stage}"), "output_index": index, "item_id": id}))
    }

    /// The open item refers to a page. What an earlier one did is told of no more.
    fn annotate(&mut self, citation: &Citation, events: &mut Vec<Event>) {
        let Some(start) = citation.start.checked_sub(self.said_before) else { return };
        if self.open != Some(Kind::Message) {
            return;
        }
        let annotation = json!({
            "type": "url_citation", "url": citation.url, "title": citation.title, "start_index": start,
            "end_index": citation.end - self.said_before,
        });
        let index = self.annotations.len();
        self.annotations.push(annotation.clone());
        let event = json!({"type": "response.output_text.annotation.added", "annotation_index": index, "annotation": annotation});
        events.push(self.of_item(event));
    }

    pub fn done(&mut self, summary: &Summary) -> Vec<Event> {
        let limit = match summary.finish {
            Finish::Length => Some("max_output_tokens"),
            Finish::ToolRounds => Some("max_tool_calls"),
            Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete => None,
        };
        let cut = limit.is_some();
        let mut events = Vec::new();
        self.close(if cut { "incomplete" } else { "completed" }, &mut events);
        let usage = &summary.usage;
        let mut details = by_kind(&self.received);
        details["cached_tokens"] = json!(usage.cached_tokens);
        self.body["usage"] = json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": details,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": summary.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        });
        if let Some(limit) = limit {
            self.body["incomplete_details"] = json!({"reason": limit});
        }
        events.push(self.last(if cut { "incomplete" } else { "completed" }));
        events
    }

    pub fn failed(&mut self, failure: &Failure) -> Vec<Event> {
        let error = &failure.body()["error"];
        self.body["error"] = json!({"code": "server_error", "message": error["message"]});
        vec![self.last("failed")]
    }

    fn last(&mut self, status: &str) -> Event {
        self.body["status"] = json!(status);
        self.body["output"] = json!(self.items);
        let body = self.body.clone();
        self.event(json!({"type": format!("response.{status}"), "response": body}))
    }

    fn event(&mut self, mut event: Value) -> Event {
        event["sequence_number"] = json!(self.sequence_number);
        self.sequence_number += 1;
        named(&event)
    }

    /// An event about the open item.
    fn of_item(&mut self, mut event: Value) -> Event {
        event["output_index"] = json!(self.items.len().saturating_sub(1));
        event["item_id"] = self.items.last().map_or(Value::Null, |item| item["id"].clone());
        if matches!(self.open, Some(Kind::Message | Kind::Reasoning)) {
            event["content_index"] = json!(0);
        }
        self.event(event)
    }

    /// Ends the item that is open, unless it is this one; begins this one.
    fn go_to(&mut self, kind: Kind, item: impl FnOnce() -> Value, events: &mut Vec<Event>) {
        if self.open == Some(kind) {
            return;
        }
        self.close("completed", events);
        let item = item();
        self.items.push(item.clone());
        self.open = Some(kind);
        let index = self.items.len() - 1;
        events.push(self.event(json!({"type": "response.output_item.added", "output_index": index, "item": item})));
        if let Some(part) = self.part() {
            events.push(self.of_item(json!({"type": "response.content_part.added", "part": part})));
        }
    }

    fn more(&mut self, kind: &str, text: &str, events: &mut Vec<Event>) {
        self.text += text;
        let mut event = json!({"type": kind, "delta": text});
        if self.open == Some(Kind::Message) {
            event["logprobs"] = json!([]);
        }
        events.push(self.of_item(event));
    }

    /// The open item's content, as far as it has come.
    fn part(&self) -> Option<Value> {
        match self.open? {
            Kind::Message => {
                Some(json!({"type": "output_text", "text": self.text, "annotations": self.annotations, "logprobs": []}))
            }
            Kind::Reasoning => Some(json!({"type": "reasoning_text", "text": self.text})),
            Kind::Call(_) => None,
        }
    }

    fn close(&mut self, status: &str, events: &mut Vec<Event>) {
        let Some(open) = self.open else { return };
        let part = self.part();
        let text = std::mem::take(&mut self.text);
        if open == Kind::Message {
            self.said_before += text.chars().count();
            self.annotations.clear();
        }
        events.push(match open {
            Kind::Message => self.of_item(json!({"type": "response.output_text.done", "text": text, "logprobs": []})),
            Kind::Reasoning => self.of_item(json!({"type": "response.reasoning_text.done", "text": text})),
            Kind::Call(_) => {
                let name = self.items.last().map_or(Value::Null, |item| item["name"].clone());
                self.of_item(json!({"type": "response.function_call_arguments.done", "name": name, "arguments": text}))
            }
        });
        if let Some(part) = &part {
            events.push(self.of_item(json!({"type": "response.content_part.done", "part": part})));
        }
        self.open = None;
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else { return };
        item["status"] = json!(status);
        match part {
            Some(part) => item["content"] = json!([part]),
            None => item["arguments"] = json!(text),
        }
        let item = item.clone();
        events.push(self.event(json!({"type": "response.output_item.done", "output_index": index, "item": item})));
    }
}
