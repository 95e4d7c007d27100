//! `call:f{a:<|"|>text<|"|>,b:[1,{c:true}]}`

use super::{Reader, Sink, Step};
use crate::stop::overlap;

/// Stands on both sides of a text.
pub(super) const QUOTE: &str = "<|\"|>";
const HEAD: &str = "call:";
/// Characters of the head, a key, or a value that is not text.
const WORD_MAX: usize = 256;
/// Levels that a value may have.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct QuotedCall {
    at: At,
    /// How [`QUOTE`] comes.
    quote: String,
    /// What closes the open brackets, the innermost last.
    open: Vec<char>,
}

#[derive(Debug)]
enum At {
    /// Up to the first brace.
    Head(String),
    /// Before a key, or the end of an empty object.
    Key(String),
    /// Before a value, or the end of an empty list.
    Value(String),
    /// In a text; what may be the beginning of its end is held.
    Text(String),
    Behind,
}

impl QuotedCall {
    pub fn new(quote: String) -> Self {
        Self { at: At::Head(String::new()), quote, open: Vec::new() }
    }

    fn close(&mut self, c: char, sink: &mut Sink) -> Step {
        if self.open.pop() != Some(c) {
            return Step::Broken;
        }
        sink.arguments(c.encode_utf8(&mut [0; 4]));
        self.at = At::Behind;
        if self.open.is_empty() { Step::Done } else { Step::More }
    }

    fn begin(&mut self, bracket: char, sink: &mut Sink) -> Step {
        if self.open.len() == DEPTH_MAX {
            return Step::Broken;
        }
        sink.arguments(bracket.encode_utf8(&mut [0; 4]));
        let (at, close) = if bracket == '{' { (At::Key(String::new()), '}') } else { (At::Value(String::new()), ']') };
        self.at = at;
        self.open.push(close);
        Step::More
    }

    fn behind(&mut self, c: char, sink: &mut Sink) -> Step {
        match c {
            ',' => {
                sink.comma();
                self.at = if self.open.last() == Some(&'}') { At::Key(String::new()) } else { At::Value(String::new()) };
                Step::More
            }
            '}' | ']' => self.close(c, sink),
            c if c.is_whitespace() => Step::More,
            _ => Step::Broken,
        }
    }

    fn value(&mut self, c: char, sink: &mut Sink) -> Step {
        let At::Value(word) = &mut self.at else { return Step::Broken };
        match c {
            c if word.is_empty() && c.is_whitespace() => {}
            '{' | '[' if word.is_empty() => return self.begin(c, sink),
            ']' if word.is_empty() => return self.close(c, sink),
            ',' | '}' | ']' if word.chars().next() != self.quote.chars().next() => {
                let word = std::mem::take(word);
                sink.scalar(word.trim());
                return self.behind(c, sink);
            }
            c if word.len() < WORD_MAX => {
                word.push(c);
                if *word == self.quote {
                    sink.arguments("\"");
                    self.at = At::Text(String::new());
                }
            }
            _ => return Step::Broken,
        }
        Step::More
    }
}

impl Reader for QuotedCall {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.at {
            At::Head(head) if c == '{' => {
                let Some(name) = head.trim().strip_prefix(HEAD) else { return Step::Broken };
                match sink.call(name.trim()) {
                    Step::More => self.begin(c, sink),
                    step => step,
                }
            }
            At::Key(key) if key.is_empty() && c == '}' => self.close(c, sink),
            At::Key(key) if c == ':' => {
                let key = key.trim();
                let bare = key.strip_prefix(&self.quote).and_then(|key| key.strip_suffix(&self.quote)).unwrap_or(key);
                sink.quoted(bare);
                sink.arguments(": ");
                self.at = At::Value(String::new());
                Step::More
            }
            At::Key(word) if word.is_empty() && c.is_whitespace() => Step::More,
            At::Head(word) | At::Key(word) => {
                word.push(c);
                if word.len() > WORD_MAX { Step::Broken } else { Step::More }
            }
            At::Value(_) => self.value(c, sink),
            At::Text(held) => {
                held.push(c);
                if let Some(text) = held.strip_suffix(&self.quote) {
                    sink.escaped(text);
                    sink.arguments("\"");
                    self.at = At::Behind;
                } else {
                    let tail = held.split_off(held.len() - overlap(held, &self.quote));
                    sink.escaped(&std::mem::replace(held, tail));
                }
                Step::More
            }
            At::Behind => self.behind(c, sink),
        }
    }
}
