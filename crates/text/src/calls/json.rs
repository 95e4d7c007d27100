//! `{"name": "f", "arguments": {…}}`

use super::{Reader, Sink, Step};

/// Levels that a value may have.
const DEPTH_MAX: usize = 64;

/// Finds the end of a JSON value.
#[derive(Debug, Default)]
pub(super) struct JsonValue {
    /// Open brackets, the innermost last.
    open: Vec<char>,
    text: Text,
    begun: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// Behind a backslash.
    Escape,
}

/// Where a value is behind a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In the midst of it.
    Not,
    /// This character is its last.
    With,
    /// It ended before this character.
    Before,
    /// It cannot be one.
    Never,
}

impl JsonValue {
    pub fn push(&mut self, c: char) -> End {
        let outermost = self.open.is_empty();
        match (&self.text, c) {
            (Text::Escape, _) => self.text = Text::Inside,
            (Text::Inside, '\\') => self.text = Text::Escape,
            (Text::Inside, '"') => {
                self.text = Text::Outside;
                return if outermost { End::With } else { End::Not };
            }
            (Text::Inside, _) => {}
            (Text::Outside, '"') if outermost && self.begun => return End::Never,
            (Text::Outside, '"') => self.text = Text::Inside,
            (Text::Outside, '{' | '[') if outermost && self.begun || self.open.len() == DEPTH_MAX => return End::Never,
            (Text::Outside, '{' | '[') => self.open.push(if c == '{' { '}' } else { ']' }),
            (Text::Outside, '}' | ']') if outermost => return if self.begun { End::Before } else { End::Never },
            (Text::Outside, '}' | ']') => {
                if self.open.pop() != Some(c) {
                    return End::Never;
                }
                return if self.open.is_empty() { End::With } else { End::Not };
            }
            (Text::Outside, c) if outermost && self.begun && (c == ',' || c.is_whitespace()) => return End::Before,
            (Text::Outside, c) if outermost && !self.begun && c.is_whitespace() => return End::Not,
            (Text::Outside, _) => {}
        }
        self.begun = true;
        End::Not
    }
}

/// A call as an object; its keys may come in any order.
#[derive(Debug, Default)]
pub(super) struct JsonCall {
    at: At,
    named: bool,
    /// Arguments that came before the name.
    early: Option<String>,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Start,
    /// Before a key, or the end of an empty object.
    Key,
    InKey(String, JsonValue),
    Colon(Key),
    Value(Key, String, JsonValue),
    /// Arguments that are passed on as they come.
    Arguments(JsonValue),
    Behind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Arguments,
    Other,
}

impl Key {
    fn of(quoted: &str) -> Self {
        match quoted {
            "\"name\"" => Self::Name,
            "\"arguments\"" | "\"parameters\"" => Self::Arguments,
            _ => Self::Other,
        }
    }
}

impl JsonCall {
    fn value_ended(&mut self, key: Key, value: &str, sink: &mut Sink) -> Step {
        self.at = At::Behind;
        match key {
            Key::Name if self.named => Step::Broken,
            Key::Name => {
                let Ok(name) = serde_json::from_str::<String>(value) else { return Step::Broken };
                let step = sink.call(&name);
                self.named = step == Step::More;
                if let Some(early) = self.early.take().filter(|_| self.named) {
                    sink.arguments(&early);
                    self.early = Some(String::new());
                }
                step
            }
            Key::Arguments => {
                // Some models write the arguments as JSON in a text.
                let inner = serde_json::from_str::<String>(value).ok();
                let arguments = inner.filter(|text| text.trim_start().starts_with('{')).unwrap_or_else(|| value.to_string());
                if self.named {
                    sink.arguments(&arguments);
                }
                self.early = Some(arguments);
                Step::More
            }
            Key::Other => Step::More,
        }
    }

    fn value(&mut self, c: char, sink: &mut Sink) -> Step {
        let At::Value(key, mut value, mut scan) = std::mem::take(&mut self.at) else { return Step::Broken };
        let end = scan.push(c);
        if matches!(end, End::Not | End::With) && scan.begun {
            value.push(c);
        }
        match end {
            End::Never => return Step::Broken,
            End::Not if key == Key::Arguments && self.named && value == "{" => {
                sink.arguments("{");
                self.early = Some(String::new());
                self.at = At::Arguments(scan);
            }
            End::Not => self.at = At::Value(key, value, scan),
            End::With => return self.value_ended(key, value.trim(), sink),
            End::Before => match self.value_ended(key, value.trim(), sink) {
                Step::More => return self.behind(c, sink),
                step => return step,
            },
        }
        Step::More
    }

    fn behind(&mut self, c: char, sink: &mut Sink) -> Step {
        match c {
            ',' => self.at = At::Key,
            '}' => return self.ended(sink),
            c if c.is_whitespace() => {}
            _ => return Step::Broken,
        }
        Step::More
    }

    fn ended(&self, sink: &mut Sink) -> Step {
        if !self.named {
            return Step::Broken;
        }
        if self.early.is_none() {
            sink.arguments("{}");
        }
        Step::Done
    }
}

impl Reader for JsonCall {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.at {
            At::Start | At::Key | At::Colon(_) if c.is_whitespace() => {}
            At::Start if c == '{' => self.at = At::Key,
            At::Key if c == '"' => {
                let mut scan = JsonValue::default();
                scan.push(c);
                self.at = At::InKey("\"".into(), scan);
            }
            At::Key if c == '}' => return self.ended(sink),
            At::InKey(key, scan) => {
                key.push(c);
                match scan.push(c) {
                    End::Not => {}
                    End::With => self.at = At::Colon(Key::of(key)),
                    End::Before | End::Never => return Step::Broken,
                }
            }
            At::Colon(key) if c == ':' => self.at = At::Value(*key, String::new(), JsonValue::default()),
            At::Value(..) => return self.value(c, sink),
            At::Arguments(scan) => match scan.push(c) {
                End::Not => sink.arguments(c.encode_utf8(&mut [0; 4])),
                End::With => {
                    sink.arguments(c.encode_utf8(&mut [0; 4]));
                    self.at = At::Behind;
                }
                End::Before | End::Never => return Step::Broken,
            },
            At::Behind => return self.behind(c, sink),
            At::Start | At::Key | At::Colon(_) => return Step::Broken,
        }
        Step::More
    }
}

/// `[call, call]`, behind its first bracket.
#[derive(Debug, Default)]
pub(super) struct CallList {
    inner: Option<JsonCall>,
}

impl Reader for CallList {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.inner {
            Some(call) => match call.push(c, sink) {
                Step::Done => self.inner = None,
                step => return step,
            },
            None if c == ']' => return Step::Done,
            None if c == ',' || c.is_whitespace() => {}
            None => return self.inner.insert(JsonCall::default()).push(c, sink),
        }
        Step::More
    }
}
