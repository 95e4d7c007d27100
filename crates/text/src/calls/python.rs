//! `[f(a=1, b="x"), g()]`, behind its first bracket: calls as Python writes them, their arguments being literals.

use super::{Reader, Sink, Step};

/// Characters of a name, a key, or a value that is not text.
const WORD_MAX: usize = 256;
/// Levels that a value may have.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct PythonCalls {
    at: At,
    /// What closes the open brackets, the innermost last.
    open: Vec<char>,
}

#[derive(Debug)]
enum At {
    /// A function's name, up to its bracket; or the end of the list.
    Function(String),
    /// The name of an argument, up to the equals sign.
    Argument(String),
    /// Before a key or a value, or the end of an empty collection.
    Value(String, Place),
    /// In a text that this quote ends.
    Text(char, Escape, Place),
    /// Behind a key.
    Colon,
    Behind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Key,
    Value,
}

/// The same behind its mark: a list, or calls each on a line in a fence.
#[derive(Debug)]
pub(super) enum FencedCalls {
    /// The line with which the fence begins.
    Fence(String),
    List(PythonCalls),
    Lines(PythonCalls),
    /// How many backticks of the fence's end have come.
    End(usize),
}

const FENCE: &str = "```";

impl Default for FencedCalls {
    fn default() -> Self {
        Self::Fence(String::new())
    }
}

impl Reader for FencedCalls {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match self {
            Self::Fence(line) if line.is_empty() && c.is_whitespace() => {}
            Self::Fence(line) if line.is_empty() && c == '[' => *self = Self::List(PythonCalls::default()),
            Self::Fence(line) if c == '\n' => match line.trim_end() {
                FENCE | "```python" | "```py" => *self = Self::Lines(PythonCalls::default()),
                _ => return Step::Broken,
            },
            Self::Fence(line) => {
                line.push(c);
                if !"```python".starts_with(line.trim_end()) || line.len() > WORD_MAX {
                    return Step::Broken;
                }
            }
            Self::List(calls) => return calls.push(c, sink),
            Self::Lines(calls) if c == '`' && calls.is_between() => *self = Self::End(1),
            Self::Lines(calls) => return calls.push(c, sink),
            Self::End(ticks) if c == '`' => {
                *ticks += 1;
                if *ticks == FENCE.len() {
                    return if sink.named { Step::Done } else { Step::Broken };
                }
            }
            Self::End(_) => return Step::Broken,
        }
        Step::More
    }
}

/// How much of an escape sequence has come.
#[derive(Debug, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    /// Hexadecimal digits that are still missing, and what they say so far.
    Code(u8, u32),
}

impl Default for At {
    fn default() -> Self {
        Self::Function(String::new())
    }
}

impl PythonCalls {
    /// Between two calls.
    fn is_between(&self) -> bool {
        matches!(&self.at, At::Function(name) if name.is_empty())
    }

    fn close(&mut self, c: char, sink: &mut Sink) -> Step {
        if self.open.pop() != Some(c) {
            return Step::Broken;
        }
        if self.open.is_empty() {
            sink.arguments("}");
            self.at = At::Function(String::new());
        } else {
            sink.arguments(if c == '}' { "}" } else { "]" });
            self.at = At::Behind;
        }
        Step::More
    }

    fn behind(&mut self, c: char, sink: &mut Sink) -> Step {
        match (c, self.open.as_slice()) {
            (c, _) if c.is_whitespace() => {}
            (',', open) => {
                sink.comma();
                self.at = match open {
                    [_] => At::Argument(String::new()),
                    [.., '}'] => At::Value(String::new(), Place::Key),
                    _ => At::Value(String::new(), Place::Value),
                };
            }
            (')' | ']' | '}', _) => return self.close(c, sink),
            _ => return Step::Broken,
        }
        Step::More
    }

    fn value(&mut self, c: char, sink: &mut Sink) -> Step {
        let At::Value(word, place) = &mut self.at else { return Step::Broken };
        let place = *place;
        match c {
            c if word.is_empty() && c.is_whitespace() => {}
            '"' | '\'' if word.is_empty() => {
                sink.arguments("\"");
                self.at = At::Text(c, Escape::None, place);
            }
            '[' | '(' | '{' if word.is_empty() && place == Place::Value && self.open.len() < DEPTH_MAX => {
                sink.arguments(if c == '{' { "{" } else { "[" });
                let (close, inner) = match c {
                    '{' => ('}', Place::Key),
                    '(' => (')', Place::Value),
                    _ => (']', Place::Value),
                };
                self.open.push(close);
                self.at = At::Value(String::new(), inner);
            }
            ')' | ']' | '}' if word.is_empty() => return self.close(c, sink),
            ',' | ')' | ']' | '}' if place == Place::Value => {
                sink.python_scalar(word.trim());
                return self.behind(c, sink);
            }
            ':' if place == Place::Key => {
                sink.quoted(word.trim());
                sink.arguments(": ");
                self.at = At::Value(String::new(), Place::Value);
            }
            c if word.len() < WORD_MAX => word.push(c),
            _ => return Step::Broken,
        }
        Step::More
    }

    fn text(&mut self, c: char, sink: &mut Sink) -> Step {
        let At::Text(quote, escape, place) = &mut self.at else { return Step::Broken };
        let said = match (std::mem::take(escape), c) {
            (Escape::None, '\\') => {
                *escape = Escape::Begun;
                return Step::More;
            }
            (Escape::None, c) if c == *quote => {
                sink.arguments("\"");
                self.at = if *place == Place::Key { At::Colon } else { At::Behind };
                return Step::More;
            }
            (Escape::None, c) => c,
            (Escape::Begun, 'x' | 'u' | 'U') => {
                let digits = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                *escape = Escape::Code(digits, 0);
                return Step::More;
            }
            (Escape::Begun, c) => match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                '\\' | '\'' | '"' => c,
                // Python leaves the backslash in front of anything else.
                other => {
                    sink.escaped("\\");
                    other
                }
            },
            (Escape::Code(missing, code), c) => {
                let Some(digit) = c.to_digit(16) else { return Step::Broken };
                let code = code << 4 | digit;
                if missing > 1 {
                    *escape = Escape::Code(missing - 1, code);
                    return Step::More;
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        };
        sink.escaped(said.encode_utf8(&mut [0; 4]));
        Step::More
    }
}

impl Reader for PythonCalls {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.at {
            At::Function(name) if name.is_empty() && (c == ',' || c.is_whitespace()) => {}
            At::Function(name) if name.is_empty() && c == ']' && sink.named => return Step::Done,
            At::Function(name) if c == '(' => {
                if sink.call(name.trim()) == Step::Broken {
                    return Step::Broken;
                }
                sink.arguments("{");
                self.open.push(')');
                self.at = At::Argument(String::new());
            }
            At::Argument(word) if word.is_empty() && c == ')' => return self.close(c, sink),
            At::Argument(word) if c == '=' => {
                sink.quoted(word.trim());
                sink.arguments(": ");
                self.at = At::Value(String::new(), Place::Value);
            }
            At::Argument(word) if word.is_empty() && c.is_whitespace() => {}
            At::Function(word) | At::Argument(word) => {
                word.push(c);
                if word.len() > WORD_MAX || !(c.is_alphanumeric() || "_-. ".contains(c)) {
                    return Step::Broken;
                }
            }
            At::Value(..) => return self.value(c, sink),
            At::Text(..) => return self.text(c, sink),
            At::Colon if c.is_whitespace() => {}
            At::Colon if c == ':' => {
                sink.arguments(": ");
                self.at = At::Value(String::new(), Place::Value);
            }
            At::Colon => return Step::Broken,
            At::Behind => return self.behind(c, sink),
        }
        Step::More
    }
}
