//! Behind `[TOOL_CALLS]`: a list of objects, or `f[ARGS]{…}`, `f[CALL_ID]abc[ARGS]{…}`, `f{…}`.

use super::json::{CallList, End, JsonValue};
use super::{Reader, Sink, Step};

/// What stands behind a function's name.
pub(super) const ARGS: &str = "[ARGS]";
pub(super) const CALL_ID: &str = "[CALL_ID]";
/// Characters of a name and an id together.
const NAME_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct NamedCall {
    at: At,
    /// How [`ARGS`] comes.
    args: String,
    /// How [`CALL_ID`] comes.
    call_id: String,
}

#[derive(Debug)]
enum At {
    Name(String),
    List(CallList),
    Arguments(JsonValue),
}

impl NamedCall {
    pub fn new(args: String, call_id: String) -> Self {
        Self { at: At::Name(String::new()), args, call_id }
    }
}

impl Reader for NamedCall {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.at {
            At::Name(name) if name.is_empty() && c.is_whitespace() => Step::More,
            At::Name(name) if name.is_empty() && c == '[' => {
                self.at = At::List(CallList::default());
                Step::More
            }
            At::Name(name) if c == '{' => {
                let head = name.trim_end();
                let head = head.strip_suffix(&self.args).unwrap_or(head);
                let named = head.split(&self.call_id).next().unwrap_or_default().trim();
                if sink.call(named) == Step::Broken {
                    return Step::Broken;
                }
                self.at = At::Arguments(JsonValue::default());
                self.push(c, sink)
            }
            At::Name(name) if name.len() < NAME_MAX => {
                name.push(c);
                Step::More
            }
            At::Name(_) => Step::Broken,
            At::List(list) => list.push(c, sink),
            At::Arguments(scan) => {
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
