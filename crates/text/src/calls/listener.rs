use aho_corasick::AhoCorasick;

use super::{Dialect, Reader, Sink, Step, Thinking, Thoughts, Tool};
use crate::detokenizer::CERTAIN;
use crate::stop::overlap;

/// Blanks that are held at the end of thoughts and behind calls, in bytes: those at the very end are not part of either.
const BLANKS_HELD_MAX: usize = 16;

/// What a piece of an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Words for the person who asked.
    Text(String),
    /// Thoughts on the way to them.
    Reasoning(String),
    /// A function is called. Its arguments follow.
    Call {
        /// One of the tools.
        name: String,
    },
    /// More of the arguments of the call that began last: JSON, as far as it has come.
    Arguments(String),
}

impl Said {
    /// Leaves of marks what they are spelled like.
    fn spell(&mut self) {
        let (Self::Text(text) | Self::Reasoning(text) | Self::Call { name: text } | Self::Arguments(text)) = self;
        text.retain(|c| c != CERTAIN);
    }
}

/// Hears what an answer is about: words, thoughts, calls. However the text is divided, the same is heard, in time that grows with
/// its length.
pub struct Listener {
    thinking: Option<Thinking>,
    dialect: Option<Dialect>,
    marks: Marks,
    /// Marks that are control tokens; text that is spelled like one is text.
    certain: Vec<&'static str>,
    /// Behind thoughts.
    close: String,
    within: Within,
    /// Text that may yet turn out to begin a mark.
    held: String,
    blanks: Blanks,
    sink: Sink,
    /// Bytes that were looked at, those that were held again each time.
    #[cfg(test)]
    looked_at: usize,
}

enum Within {
    Text,
    Reasoning,
    /// With the call's text, until it has named a function.
    Call(Box<dyn Reader>, String),
}

/// What becomes of blanks that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blanks {
    /// Nothing but blanks was said yet.
    AtStart,
    /// A call has ended, or thoughts have.
    Dropped,
    Kept,
}

/// What may interrupt text, and what it turns to.
struct Marks {
    texts: Vec<(String, Turn)>,
    finder: Option<AhoCorasick>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Reasoning,
    Call,
    Nothing,
}

impl Marks {
    /// Those of `certain` are heard only as control tokens.
    fn new(thinking: Option<Thinking>, dialect: Option<Dialect>, certain: &[&str]) -> Self {
        let mut texts: Vec<_> = thinking.iter().map(|thinking| (thinking.open, Turn::Reasoning)).collect();
        if let Some(dialect) = dialect {
            texts.extend(dialect.opens().iter().map(|mark| (*mark, Turn::Call)));
            texts.extend(dialect.closes().iter().map(|mark| (*mark, Turn::Nothing)));
        }
        let texts: Vec<_> = texts.into_iter().map(|(mark, turn)| (heard(mark, certain), turn)).collect();
        // An automaton over a few literals only fails to build when there are more than 2^31 of them.
        let finder = AhoCorasick::new(texts.iter().map(|(text, _)| text)).ok().filter(|_| !texts.is_empty());
        Self { texts, finder }
    }

    /// The first: what is in front of it, itself, and what it turns to.
    fn find(&self, text: &str) -> Option<(usize, String, Turn)> {
        let found = self.finder.as_ref()?.find(text)?;
        let (mark, turn) = self.texts.get(found.pattern().as_usize())?;
        Some((found.start(), mark.clone(), *turn))
    }

    /// Bytes at the end that may begin one.
    fn begun(&self, text: &str) -> usize {
        self.texts.iter().map(|(mark, _)| overlap(text, mark)).max().unwrap_or(0)
    }
}

/// A mark as it comes: as text, or as a control token where it is one.
fn heard(mark: &str, certain: &[&str]) -> String {
    if certain.iter().any(|token| mark.starts_with(token)) { format!("{CERTAIN}{mark}") } else { mark.to_string() }
}

impl Listener {
    /// Listens for the thoughts of a model and for calls of these tools. Where there are none, calls are words like any other.
    pub fn new(thinking: Option<Thinking>, dialect: Dialect, tools: Vec<Tool>) -> Self {
        let dialect = Some(dialect).filter(|_| !tools.is_empty());
        Self {
            thinking,
            dialect,
            marks: Marks::new(thinking, dialect, &[]),
            certain: Vec::new(),
            close: thinking.map(|thinking| thinking.close.to_string()).unwrap_or_default(),
            within: Within::Text,
            held: String::new(),
            blanks: Blanks::AtStart,
            sink: Sink::new(tools),
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// Hears marks that are control tokens only as such: text may then be spelled like one.
    pub fn of_tokens(mut self, is_token: impl Fn(&str) -> bool) -> Self {
        let thoughts = self.thinking.into_iter().flat_map(Thinking::marks);
        let calls = self.dialect.into_iter().flat_map(Dialect::marks);
        self.certain = thoughts.chain(calls).filter(|mark| is_token(mark)).collect();
        self.marks = Marks::new(self.thinking, self.dialect, &self.certain);
        self.close = heard(&self.close, &self.certain);
        self
    }

    /// Listens from where the prompt ends.
    pub fn from(mut self, thoughts: Thoughts) -> Self {
        if self.thinking.is_some() && thoughts == Thoughts::Begun {
            (self.within, self.blanks) = (Within::Reasoning, Blanks::Dropped);
        }
        self
    }

    /// What more text says.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        let text = std::mem::take(&mut self.held) + text;
        #[cfg(test)]
        {
            self.looked_at += text.len();
        }
        let mut rest = text.as_str();
        while !rest.is_empty() {
            rest = match self.within {
                Within::Text => self.text(rest),
                Within::Reasoning => self.reasoning(rest),
                Within::Call(..) => self.call(rest),
            };
        }
        self.said()
    }

    fn said(&mut self) -> Vec<Said> {
        let mut said = std::mem::take(&mut self.sink.said);
        if !self.certain.is_empty() {
            said.iter_mut().for_each(Said::spell);
        }
        said
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> Vec<Said> {
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.within, Within::Text) {
            Within::Reasoning => self.think(held.trim_end()),
            Within::Text => self.say(&held),
            Within::Call(_, raw) => self.say(&raw),
        }
        self.said()
    }

    /// What is behind the words that `text` begins with.
    fn text<'a>(&mut self, text: &'a str) -> &'a str {
        if self.dialect.is_some_and(Dialect::may_be_bare) && self.blanks != Blanks::Kept {
            let dropped = self.blanks == Blanks::Dropped;
            match text.find(|c: char| !(c.is_whitespace() || dropped && c == ';')) {
                Some(at) if text[at..].starts_with(['{', '[']) => {
                    self.turn(Turn::Call, "");
                    return &text[at..];
                }
                None if text.len() <= BLANKS_HELD_MAX => {
                    self.held = text.into();
                    return "";
                }
                _ => {}
            }
        }
        if let Some((at, mark, turn)) = self.marks.find(text) {
            self.say(&text[..at]);
            self.turn(turn, &mark);
            return &text[at + mark.len()..];
        }
        let (said, held) = text.split_at(text.len() - self.marks.begun(text));
        self.say(said);
        self.held = held.into();
        ""
    }

    /// What is behind the thoughts that `text` begins with.
    fn reasoning<'a>(&mut self, text: &'a str) -> &'a str {
        if let Some(at) = text.find(&self.close) {
            self.think(text[..at].trim_end());
            (self.within, self.blanks) = (Within::Text, Blanks::Dropped);
            return &text[at + self.close.len()..];
        }
        let thoughts = &text[..text.len() - overlap(text, &self.close)];
        let words = thoughts.trim_end().len();
        let words = if thoughts.len() - words > BLANKS_HELD_MAX { thoughts.len() } else { words };
        self.think(&text[..words]);
        self.held = text[words..].into();
        ""
    }

    /// What is behind the part of a call that `text` begins with.
    fn call<'a>(&mut self, text: &'a str) -> &'a str {
        let Within::Call(reader, raw) = &mut self.within else { return text };
        for (at, c) in text.char_indices() {
            let behind = at + c.len_utf8();
            match reader.push(c, &mut self.sink) {
                Step::More if self.sink.named => raw.clear(),
                Step::More => raw.push(c),
                Step::Done => {
                    (self.within, self.blanks) = (Within::Text, Blanks::Dropped);
                    return &text[behind..];
                }
                Step::Broken => {
                    raw.push(c);
                    let raw = std::mem::take(raw);
                    self.within = Within::Text;
                    self.say(&raw);
                    return &text[behind..];
                }
            }
        }
        ""
    }

    fn turn(&mut self, turn: Turn, mark: &str) {
        match (turn, self.dialect) {
            (Turn::Reasoning, _) => (self.within, self.blanks) = (Within::Reasoning, Blanks::Dropped),
            (Turn::Call, Some(dialect)) => {
                self.sink.named = false;
                self.within = Within::Call(dialect.reader(|mark| heard(mark, &self.certain)), mark.into());
            }
            (Turn::Call | Turn::Nothing, _) => {}
        }
    }

    fn say(&mut self, text: &str) {
        let text = if self.blanks == Blanks::Dropped { text.trim_start() } else { text };
        if !text.trim_start().is_empty() {
            self.blanks = Blanks::Kept;
        }
        self.sink.text(text);
    }

    fn think(&mut self, text: &str) {
        let text = if self.blanks == Blanks::Dropped { text.trim_start() } else { text };
        if !text.is_empty() {
            self.blanks = Blanks::Kept;
        }
        self.sink.reasoning(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tools() -> Vec<Tool> {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"}, "o": {}}});
        let tool = |name: &str| json!({"function": {"name": name, "parameters": parameters}});
        Tool::read(&[tool("f"), tool("get.it")]).unwrap()
    }

    /// What is heard, in one line: words, `~thoughts~`, `f{…}`. Arguments have to be JSON.
    fn heard(dialect: Dialect, thinking: Option<Thinking>, text: &str, size: usize) -> String {
        heard_by(Listener::new(thinking, dialect, tools()), text, size)
    }

    fn heard_by(mut listener: Listener, text: &str, size: usize) -> String {
        let chars: Vec<char> = text.chars().collect();
        let mut said: Vec<Said> = chars.chunks(size).flat_map(|part| listener.push(&part.iter().collect::<String>())).collect();
        said.extend(listener.finish());
        let mut out = String::new();
        let mut arguments = String::new();
        let flush = |arguments: &mut String, out: &mut String| {
            if !arguments.is_empty() {
                let value: Value = serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{arguments}: {e}"));
                *out += &value.to_string();
                arguments.clear();
            }
        };
        let mut thought = false;
        for said in said {
            if !matches!(said, Said::Arguments(_)) {
                flush(&mut arguments, &mut out);
            }
            if thought != matches!(said, Said::Reasoning(_)) {
                thought = !thought;
                out.push('~');
            }
            match said {
                Said::Text(text) | Said::Reasoning(text) => out += &text,
                Said::Call { name } => out += &name,
                Said::Arguments(json) => arguments += &json,
            }
        }
        flush(&mut arguments, &mut out);
        out
    }

    #[test]
    fn the_same_is_heard_wherever_the_text_is_divided() {
        let think = Thinking { open: "<think>", close: "</think>" };
        let channel = Thinking { open: "<|channel>thought\n", close: "<channel|>" };
        let cases = [
            (Dialect::Hermes, "Hi.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", "Hi.\nf{\"a\":1}"),
            (
                Dialect::Hermes,
                "<tool_call>{\"arguments\": {\"s\": \"}\\\"\"}, \"name\": \"f\"}</tool_call> so",
                "f{\"s\":\"}\\\"\"}so",
            ),
            (
                Dialect::Hermes,
                "<tool_call>{\"name\": \"f\"}</tool_call>\n<tool_call>{\"name\":\"get.it\",\"arguments\":\"{\\\"a\\\":2}\"}",
                "f{}get.it{\"a\":2}",
            ),
            (
                Dialect::Hermes,
                "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>!",
                "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}!",
            ),
            (Dialect::Hermes, "a <tool_cal <tool_call>b", "a <tool_cal <tool_call>b"),
            (Dialect::Hermes, "<think>\nhm, </thin\n\n</think>\n\nYes <b>", "~hm, </thin~Yes <b>"),
            (
                Dialect::Xml,
                "<tool_call>\n<function=f>\n<parameter=a>\n3\n</parameter>\n<parameter=s>\nx\n\"y\"\n\n</parameter>\n</function>\n</tool_call>",
                "f{\"a\":3,\"s\":\"x\\n\\\"y\\\"\\n\"}",
            ),
            (
                Dialect::Xml,
                "<tool_call><function=f></function></tool_call><tool_call><function=f><parameter=s></parameter><parameter=o>[1, {}]</parameter></function>",
                "f{}f{\"s\":\"\",\"o\":[1,{}]}",
            ),
            (
                Dialect::Xml,
                "<tool_call><function=f><parameter=o>True</parameter><parameter=s>\n</par</parameter></function>",
                "f{\"o\":true,\"s\":\"</par\"}",
            ),
            (
                Dialect::Quoted,
                "<|tool_call>call:f{a:1,s:<|\"|>a < \"b\" <| }<|\"|>,o:{x:[true,null,<|\"|>y<|\"|>],z:{}}}<tool_call|>",
                "f{\"a\":1,\"s\":\"a < \\\"b\\\" <| }\",\"o\":{\"x\":[true,null,\"y\"],\"z\":{}}}",
            ),
            (
                Dialect::Quoted,
                "<|channel>thought\nhm<channel|><|tool_call>call:f{}<tool_call|><|tool_call>call:get.it{o:[],s:word}<tool_call|>",
                "~hm~f{}get.it{\"o\":[],\"s\":\"word\"}",
            ),
            (
                Dialect::Bracketed,
                "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"f\", \"arguments\": {\"a\": 2}}]",
                "f{\"a\":1}f{\"a\":2}",
            ),
            (
                Dialect::Bracketed,
                "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]get.it[CALL_ID]123[ARGS]{\"a\": 2}",
                "f{\"a\":1}get.it{\"a\":2}",
            ),
            (Dialect::Bracketed, "ok[TOOL_CALLS]f{\"o\": {\"x\": []}}", "okf{\"o\":{\"x\":[]}}"),
            (Dialect::Listed, "<|tool_call|>[{\"name\": \"f\", \"arguments\": {}}]<|/tool_call|>", "f{}"),
            (
                Dialect::PythonTag,
                "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": -1.5e3}}",
                "f{\"a\":-1500.0}",
            ),
            (
                Dialect::PythonTag,
                "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"f\", \"parameters\": {}}",
                "f{\"a\":1}f{}",
            ),
            (Dialect::PythonTag, "{\"name\": \"Ann\", \"age\": 3}", "{\"name\": \"Ann\", \"age\": 3}"),
            (
                Dialect::Pythonic,
                "<|python_start|>[f(a=1, s='it\\'s \\u00e9\\n'), get.it(o={'k': [None, True, (1,)]},)]<|python_end|>",
                "f{\"a\":1,\"s\":\"it's é\\n\"}get.it{\"o\":{\"k\":[null,true,[1]]}}",
            ),
            (Dialect::Pythonic, "[f()]", "f{}"),
            (Dialect::Pythonic, "[1, 2] is a list", "[1, 2] is a list"),
            (Dialect::Pythonic, "{\"name\": \"f\", \"parameters\": {}}", "f{}"),
            (Dialect::Json, " [{\"name\": \"f\", \"arguments\": {}}]", "f{}"),
            (Dialect::Json, "No {\"name\": \"f\"}", "No {\"name\": \"f\"}"),
        ];
        for (dialect, text, expected) in cases {
            let thinking = if dialect == Dialect::Quoted { channel } else { think };
            for size in 1..=text.chars().count() {
                assert_eq!(heard(dialect, Some(thinking), text, size), expected, "{text:?} by {size}");
            }
        }
    }

    /// G6 of docs/reliability.md.
    #[test]
    fn what_is_spelled_like_a_mark_is_text_where_the_mark_is_a_token() {
        // `¦` stands in front of tokens.
        let cases = [
            (
                Dialect::Quoted,
                "¦<|tool_call>call:f{s:¦<|\"|>a<|\"|>, <tool_call|>¦<|\"|>,o:¦<|\"|><¦<|\"|>}¦<tool_call|>",
                "f{\"s\":\"a<|\\\"|>, <tool_call|>\",\"o\":\"<\"}",
            ),
            (Dialect::Quoted, "¦<|tool_call>call:f{a:1,s:<|\"|>x}¦<tool_call|>!", "f{\"a\":1,\"s\":\"<|\\\"|>x\"}!"),
            (Dialect::Hermes, "<tool_call>{\"name\": \"f\"}</tool_call>", "<tool_call>{\"name\": \"f\"}</tool_call>"),
            (Dialect::Hermes, "¦<tool_call>{\"name\": \"g\"}¦</tool_call>", "<tool_call>{\"name\": \"g\"}"),
            (Dialect::Hermes, "¦<think>a </think> b¦</think><think>", "~a </think> b~<think>"),
            (Dialect::Bracketed, "¦[TOOL_CALLS]f¦[ARGS]{\"s\": \"[ARGS]¦[TOOL_CALLS]\"}", "f{\"s\":\"[ARGS][TOOL_CALLS]\"}"),
        ];
        for (dialect, text, expected) in cases {
            let text = text.replace('¦', &CERTAIN.to_string());
            let think = Thinking { open: "<think>", close: "</think>" };
            for size in 1..=text.chars().count() {
                let listener = Listener::new(Some(think), dialect, tools()).of_tokens(|_| true);
                assert_eq!(heard_by(listener, &text, size), expected, "{text:?} by {size}");
            }
        }
    }

    /// G6 of docs/reliability.md.
    #[test]
    fn work_grows_with_the_length_of_what_is_heard() {
        let heads = ["", "<tool_call>", "<tool_call><function=f><parameter=s>", "<tool_call>{\"name\": ", "<think>"];
        let heads_of_call =
            ["{\"name\": \"f\", \"arguments\": {\"s\": \"", "call:f{s:", "[f(s='", "f[ARGS]{", "\n```python\nf(s=\""];
        let bodies =
            ["<", "<tool_call>", "</tool_call>", "</think><think>", "\n", " x", "{\"", "[[", "</parameter", "\\", "`", "<|\"|"];
        let think = Thinking { open: "<think>", close: "</think>" };
        for dialect in Dialect::ALL {
            let open = dialect.opens().first().copied().unwrap_or_default();
            let heads = heads.iter().map(|head| head.to_string()).chain(heads_of_call.iter().map(|head| format!("{open}{head}")));
            for (head, body) in heads.flat_map(|head| bodies.map(|body| (head.clone(), body))) {
                // A megabyte of what holds back most.
                let much = if body == "</parameter" || body == "<|\"|" { 1 << 20 } else { 10_000 };
                for (length, size) in [(much, usize::MAX), (1000, 1), (10_000, 100)] {
                    let text = head.clone() + &body.repeat(length / body.len());
                    let mut listener = Listener::new(Some(think), dialect, tools());
                    let pieces: Vec<&str> = text.as_bytes().chunks(size).map(|part| str::from_utf8(part).unwrap()).collect();
                    let said: usize = pieces.iter().map(|piece| listener.push(piece).len()).sum();
                    assert!(said + listener.finish().len() <= text.len(), "{dialect:?}: {head} {body}");
                    // No more is looked at again than a mark may be long, and blanks may be many.
                    let most = text.len() + pieces.len() * 32;
                    assert!(listener.looked_at <= most, "{dialect:?}: {head} {body}: {} of {most}", listener.looked_at);
                }
            }
        }
    }
}
