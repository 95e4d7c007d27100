use std::str::FromStr;

use super::json::{CallList, JsonCall};
use super::named::{ARGS, CALL_ID, NamedCall};
use super::python::{FencedCalls, PythonCalls};
use super::quoted::{QUOTE, QuotedCall};
use super::tag::TagCall;
use super::{Reader, Sink, Step};

/// The notation in which a model calls functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `<tool_call>{"name": "f", "arguments": {…}}</tool_call>`
    Hermes,
    /// `<tool_call><function=f><parameter=a>1</parameter></function></tool_call>`
    Xml,
    /// `<|tool_call>call:f{a:<|"|>text<|"|>,b:1}<tool_call|>`
    Quoted,
    /// `[TOOL_CALLS][{"name": "f", "arguments": {…}}]`; `[TOOL_CALLS]f[ARGS]{…}` and `[TOOL_CALLS]f{…}` are understood too.
    Bracketed,
    /// `<|tool_call|>[{"name": "f", "arguments": {…}}]<|/tool_call|>`
    Listed,
    /// `<|python_tag|>{"name": "f", "parameters": {…}}`, also without the tag
    PythonTag,
    /// `[f(a=1), g(b="x")]`
    Pythonic,
    /// `f(a=1)`, each on a line, in a fence of Python between `<|tool_call_start|>` and `<|tool_call_end|>`; a list is understood too
    Fenced,
    /// `{"name": "f", "arguments": {…}}`, or a list of these, and nothing else
    Json,
}

/// What stands around a model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinking {
    /// In front of them.
    pub open: &'static str,
    /// Behind them.
    pub close: &'static str,
}

/// Whether an answer has thoughts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Thoughts {
    /// It begins with them: the prompt has opened them.
    Begun,
    /// If the model likes.
    #[default]
    Possible,
    /// None, they have ended.
    Over,
}

const THINKING: [Thinking; 4] = [
    Thinking { open: "<think>", close: "</think>" },
    Thinking { open: "<|channel>thought\n", close: "<channel|>" },
    Thinking { open: "<unused94>thought\n", close: "<unused95>" },
    Thinking { open: "<|thought_start|>", close: "<|thought_end|>" },
];

impl Thinking {
    /// That of a chat template, by the marks that it names.
    pub fn of_template(template: &str) -> Option<Self> {
        THINKING.into_iter().find(|thinking| template.contains(thinking.open_parts().0))
    }

    /// Marks that are tokens of their own in some tokenizers: they must be heard.
    pub fn marks(self) -> impl Iterator<Item = &'static str> {
        [self.open_parts().0, self.close].into_iter()
    }

    /// What opens thoughts: a mark, and the word behind it, if there is one.
    pub(super) fn open_parts(self) -> (&'static str, &'static str) {
        self.open.split_at(self.open.find('>').map_or(self.open.len(), |at| at + 1))
    }

    /// Where thoughts stand in the answer to a prompt.
    pub fn behind(self, prompt: &str) -> Thoughts {
        let prompt = prompt.trim_end();
        if prompt.ends_with(self.open.trim_end()) {
            Thoughts::Begun
        } else if prompt.ends_with(self.close) {
            Thoughts::Over
        } else {
            Thoughts::Possible
        }
    }
}

impl Dialect {
    /// All, the more particular ones first.
    pub const ALL: [Self; 9] = [
        Self::Quoted,
        Self::Xml,
        Self::Hermes,
        Self::Bracketed,
        Self::Listed,
        Self::Fenced,
        Self::Pythonic,
        Self::PythonTag,
        Self::Json,
    ];

    /// What `--tool-dialect` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hermes => "hermes",
            Self::Xml => "xml",
            Self::Quoted => "quoted",
            Self::Bracketed => "bracketed",
            Self::Listed => "listed",
            Self::PythonTag => "python_tag",
            Self::Pythonic => "pythonic",
            Self::Fenced => "fenced",
            Self::Json => "json",
        }
    }

    /// That of a chat template, by the marks that it names; [`Self::Json`] where it names none.
    pub fn of_template(template: &str) -> Self {
        let found = Self::ALL.into_iter().find(|dialect| dialect.signs().iter().any(|sign| template.contains(sign)));
        found.unwrap_or(Self::Json)
    }

    /// What only templates of this notation name.
    fn signs(self) -> &'static [&'static str] {
        match self {
            Self::Xml => &["<function="],
            Self::Pythonic => &["<|python_start|>"],
            Self::Json => &[],
            _ => self.opens(),
        }
    }

    /// A call, for the words that tell a model of it.
    pub fn example(self) -> &'static str {
        match self {
            Self::Hermes => "<tool_call>\n{\"name\": NAME, \"arguments\": {...}}\n</tool_call>",
            Self::Xml => "<tool_call>\n<function=NAME>\n<parameter=PARAMETER>\nVALUE\n</parameter>\n</function>\n</tool_call>",
            Self::Quoted => "<|tool_call>call:NAME{PARAMETER:<|\"|>VALUE<|\"|>}<tool_call|>",
            Self::Bracketed => "[TOOL_CALLS][{\"name\": NAME, \"arguments\": {...}}]",
            Self::Listed => "<|tool_call|>[{\"name\": NAME, \"arguments\": {...}}]<|/tool_call|>",
            Self::PythonTag => "{\"name\": NAME, \"parameters\": {...}}",
            Self::Pythonic => "[NAME(PARAMETER=VALUE)]",
            Self::Fenced => "<|tool_call_start|>\n```python\nNAME(PARAMETER=VALUE)\n```\n<|tool_call_end|>",
            Self::Json => "{\"name\": NAME, \"arguments\": {...}}",
        }
    }

    /// What stands in front of a call.
    pub fn opens(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Xml => &["<tool_call>"],
            Self::Quoted => &["<|tool_call>"],
            Self::Bracketed => &["[TOOL_CALLS]"],
            Self::Listed => &["<|tool_call|>"],
            Self::PythonTag => &["<|python_tag|>"],
            Self::Pythonic => &["<|python_start|>"],
            Self::Fenced => &["<|tool_call_start|>"],
            Self::Json => &[],
        }
    }

    /// What may stand behind it, and means nothing.
    pub fn closes(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Xml => &["</tool_call>"],
            Self::Quoted => &["<tool_call|>"],
            Self::Listed => &["<|/tool_call|>"],
            Self::Pythonic => &["<|python_end|>"],
            Self::Fenced => &["<|tool_call_end|>"],
            Self::Bracketed | Self::PythonTag | Self::Json => &[],
        }
    }

    /// Marks that are tokens of their own in some tokenizers: they must be heard.
    pub fn marks(self) -> impl Iterator<Item = &'static str> {
        let inner: &[&str] = match self {
            Self::Quoted => &[QUOTE],
            Self::Bracketed => &[ARGS, CALL_ID],
            _ => &[],
        };
        self.opens().iter().chain(self.closes()).chain(inner).copied()
    }

    /// Whether an answer may begin with a call that nothing stands in front of.
    pub(super) fn may_be_bare(self) -> bool {
        matches!(self, Self::PythonTag | Self::Pythonic | Self::Json)
    }

    /// Reads what stands behind the opening mark. `heard` is how a mark comes.
    pub(super) fn reader(self, heard: impl Fn(&str) -> String) -> Box<dyn Reader> {
        match self {
            Self::Quoted => Box::new(QuotedCall::new(heard(QUOTE))),
            Self::Bracketed => Box::new(NamedCall::new(heard(ARGS), heard(CALL_ID))),
            Self::Fenced => Box::new(FencedCalls::default()),
            _ => Box::new(ByFirst::Undecided),
        }
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|dialect| dialect.name()).collect();
            format!("{text:?} is not a notation of calls; known are {}", known.join(", "))
        })
    }
}

/// Reads the notation that the first characters show: models write what they were trained on, whatever their template says.
enum ByFirst {
    Undecided,
    /// Behind a bracket.
    List,
    Known(Box<dyn Reader>),
}

impl Reader for ByFirst {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        let known: Box<dyn Reader> = match (&mut *self, c) {
            (Self::Known(reader), _) => return reader.push(c, sink),
            (_, c) if c.is_whitespace() => return Step::More,
            (Self::Undecided, '{') => Box::new(JsonCall::default()),
            (Self::Undecided, '<') => Box::new(TagCall::default()),
            (Self::Undecided, '[') => {
                *self = Self::List;
                return Step::More;
            }
            (Self::List, '{') => Box::new(CallList::default()),
            (Self::List, _) => Box::new(PythonCalls::default()),
            (Self::Undecided, _) => return Step::Broken,
        };
        *self = Self::Known(known);
        self.push(c, sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_show_their_notation() {
        let cases = [
            ("{{ '<tool_call>' }}", Dialect::Hermes, None),
            ("<tool_call>\\n<function=example> <think>", Dialect::Xml, THINKING.first()),
            ("<|tool_call>call: <|channel>", Dialect::Quoted, THINKING.get(1)),
            ("[TOOL_CALLS]", Dialect::Bracketed, None),
            ("<|tool_call|>", Dialect::Listed, None),
            ("<|tool_call_start|> <|thought_start|>", Dialect::Fenced, THINKING.get(3)),
            ("<|python_tag|>", Dialect::PythonTag, None),
            ("<|python_start|> <|python_tag|>", Dialect::Pythonic, None),
            ("{{ messages }}", Dialect::Json, None),
        ];
        for (template, dialect, thinking) in cases {
            assert_eq!(
                (Dialect::of_template(template), Thinking::of_template(template)),
                (dialect, thinking.copied()),
                "{template}"
            );
        }
    }
}
