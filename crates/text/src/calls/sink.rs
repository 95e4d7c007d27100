use super::{Said, Tool};

/// Reads the body of a call, character by character.
pub(super) trait Reader: Send {
    /// The next character.
    fn push(&mut self, c: char, sink: &mut Sink) -> Step;
}

/// Where a reader is behind a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// In the midst of it.
    More,
    /// The call, or the list of calls, is complete.
    Done,
    /// It is none.
    Broken,
}

/// Takes what was understood.
pub(super) struct Sink {
    pub tools: Vec<Tool>,
    pub said: Vec<Said>,
    /// Whether a function was named since this was last unset.
    pub named: bool,
    /// A comma is due, unless a bracket closes.
    comma: bool,
}

impl Sink {
    pub fn new(tools: Vec<Tool>) -> Self {
        Self { tools, said: Vec::new(), named: false, comma: false }
    }

    /// A call begins; [`Step::Broken`] where there is no such function.
    pub fn call(&mut self, name: &str) -> Step {
        if !self.tools.iter().any(|tool| tool.name == name) {
            return Step::Broken;
        }
        self.named = true;
        self.comma = false;
        self.said.push(Said::Call { name: name.into() });
        Step::More
    }

    /// More of the arguments of the call that began last.
    pub fn arguments(&mut self, json: &str) {
        if std::mem::take(&mut self.comma) && !json.starts_with(['}', ']']) {
            self.arguments(", ");
        }
        match self.said.last_mut() {
            Some(Said::Arguments(last)) => last.push_str(json),
            _ if json.is_empty() => {}
            _ => self.said.push(Said::Arguments(json.into())),
        }
    }

    /// Another item of the arguments may follow.
    pub fn comma(&mut self) {
        self.comma = true;
    }

    /// A text within the arguments, as JSON without the quotes around it.
    pub fn escaped(&mut self, text: &str) {
        let json = serde_json::Value::from(text).to_string();
        self.arguments(&json[1..json.len() - 1]);
    }

    /// A text within the arguments, as JSON.
    pub fn quoted(&mut self, text: &str) {
        self.arguments(&serde_json::Value::from(text).to_string());
    }

    /// A value that is no text for certain: JSON where it can be read as such.
    pub fn scalar(&mut self, word: &str) {
        match serde_json::from_str::<serde::de::IgnoredAny>(word) {
            Ok(_) => self.arguments(word),
            Err(_) => self.quoted(word),
        }
    }

    /// The same, where constants are Python's.
    pub fn python_scalar(&mut self, word: &str) {
        match word {
            "True" => self.arguments("true"),
            "False" => self.arguments("false"),
            "None" => self.arguments("null"),
            word => self.scalar(word),
        }
    }

    pub fn text(&mut self, text: &str) {
        match self.said.last_mut() {
            Some(Said::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.said.push(Said::Text(text.into())),
        }
    }

    pub fn reasoning(&mut self, text: &str) {
        match self.said.last_mut() {
            Some(Said::Reasoning(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.said.push(Said::Reasoning(text.into())),
        }
    }
}
