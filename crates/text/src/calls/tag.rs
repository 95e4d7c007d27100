//! `<function=f><parameter=a>1</parameter></function>`

use super::{Reader, Sink, Step};
use crate::stop::overlap;

/// What ends a value.
const VALUE_END: &str = "</parameter>";
/// The same with the line end that is not part of the value.
const LINE_AND_VALUE_END: &str = "\n</parameter>";
/// Characters of a tag.
const TAG_MAX: usize = 256;

#[derive(Debug)]
pub(super) enum TagCall {
    /// Before the function, or between parameters: a tag as far as it has come.
    Tag(String, Inside),
    /// A text that is passed on as it comes, but for what may be the beginning of its end. The first line end behind the tag is not
    /// part of it.
    Text { held: String, at_start: bool, inside: Inside },
    /// A value whose kind its whole shows.
    Value(String, Inside),
}

/// What a call has had so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Inside {
    function: Option<String>,
    parameters: usize,
}

impl Default for TagCall {
    fn default() -> Self {
        Self::Tag(String::new(), Inside::default())
    }
}

impl TagCall {
    /// A tag is complete.
    fn tag(&mut self, tag: &str, mut inside: Inside, sink: &mut Sink) -> Step {
        if let Some(function) = &inside.function {
            if tag == "</function>" {
                sink.arguments(if inside.parameters == 0 { "{}" } else { "}" });
                return Step::Done;
            }
            let Some(name) = tag.strip_prefix("<parameter=").and_then(|rest| rest.strip_suffix('>')) else { return Step::Broken };
            sink.arguments(if inside.parameters == 0 { "{" } else { ", " });
            sink.quoted(name.trim());
            sink.arguments(": ");
            inside.parameters += 1;
            let tool = sink.tools.iter().find(|tool| tool.name == *function);
            *self = if tool.is_some_and(|tool| tool.takes_text(name.trim())) {
                sink.arguments("\"");
                Self::Text { held: String::new(), at_start: true, inside }
            } else {
                Self::Value(String::new(), inside)
            };
            return Step::More;
        }
        let Some(name) = tag.strip_prefix("<function=").and_then(|rest| rest.strip_suffix('>')) else { return Step::Broken };
        let name = name.trim().to_string();
        let step = sink.call(&name);
        *self = Self::Tag(String::new(), Inside { function: Some(name), parameters: 0 });
        step
    }
}

impl Reader for TagCall {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match self {
            Self::Tag(tag, _) if tag.is_empty() && c.is_whitespace() => {}
            Self::Tag(tag, inside) => {
                tag.push(c);
                if !tag.starts_with('<') || tag.len() > TAG_MAX {
                    return Step::Broken;
                }
                if c == '>' {
                    let (tag, inside) = (std::mem::take(tag), std::mem::take(inside));
                    return self.tag(&tag, inside, sink);
                }
            }
            Self::Text { held, at_start, inside } => {
                if std::mem::take(at_start) && c == '\n' {
                    return Step::More;
                }
                held.push(c);
                if let Some(text) = held.strip_suffix(VALUE_END) {
                    sink.escaped(text.strip_suffix('\n').unwrap_or(text));
                    sink.arguments("\"");
                    *self = Self::Tag(String::new(), std::mem::take(inside));
                } else {
                    let kept = overlap(held, LINE_AND_VALUE_END).max(overlap(held, VALUE_END));
                    let tail = held.split_off(held.len() - kept);
                    sink.escaped(&std::mem::replace(held, tail));
                }
            }
            Self::Value(held, inside) => {
                held.push(c);
                if let Some(value) = held.strip_suffix(VALUE_END) {
                    sink.python_scalar(value.trim());
                    *self = Self::Tag(String::new(), std::mem::take(inside));
                }
            }
        }
        Step::More
    }
}
