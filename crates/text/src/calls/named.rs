//! Behind `[TOOL_CALLS]`: a list of objects, or `f[ARGS]{…}`, `f[CALL_ID]abc[ARGS]{…}`, `f{…}`.

use super::json::{CallList, End, JsonValue};
use super::{Reader, Sink, Step};

/// What stands behind a function's name.
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";
/// Characters of a name and an id together.
const NAME_MAX: usize = 256;

#[derive(Debug)]
pub(super) enum NamedCall {
    Name(String),
    List(CallList),
    Arguments(JsonValue),
}

impl Default for NamedCall {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

impl Reader for NamedCall {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match self {
            Self::Name(name) if name.is_empty() && c.is_whitespace() => Step::More,
            Self::Name(name) if name.is_empty() && c == '[' => {
                *self = Self::List(CallList::default());
                Step::More
            }
            Self::Name(name) if c == '{' => {
                let head = name.trim_end();
                let head = head.strip_suffix(ARGS).unwrap_or(head);
                let named = head.split(CALL_ID).next().unwrap_or_default().trim();
                if sink.call(named) == Step::Broken {
                    return Step::Broken;
                }
                *self = Self::Arguments(JsonValue::default());
                self.push(c, sink)
            }
            Self::Name(name) if name.len() < NAME_MAX => {
                name.push(c);
                Step::More
            }
            Self::Name(_) => Step::Broken,
            Self::List(list) => list.push(c, sink),
            Self::Arguments(scan) => {
                let end = scan.push(c);
                if matches!(end, End::Before | End::Never) {
                    return Step::Broken;
                }
                sink.arguments(c.encode_utf8(&mut [0; 4]));
                if end == End::With { Step::Done } else { Step::More }
            }
        }
    }
}
