use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::{Map, Value, json};

use crate::json::dumps;
use crate::template_files::TemplateFile;
use crate::{Dialect, Guard, TextError, Thinking};

/// Longest template source that is compiled, in bytes.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Longest prompt that a template may write, in bytes.
const PROMPT_BYTES_MAX: usize = 16 << 20;
/// Instructions that one rendering may execute.
const FUEL: u64 = 5_000_000;
/// The template for conversations without tools, and the one for those with some.
const CHAT: &str = "chat";
const TOOL_USE: &str = "tool_use";
/// Names that `chat_template_kwargs` cannot replace.
const OWN_VARIABLES: [&str; 7] =
    ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "unk_token", "pad_token"];

/// What a chat template turns into a prompt.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Messages in the shape templates expect: `role`, `content` (a string or a list of parts with a `type`), ….
    pub messages: Vec<Value>,
    /// Tool descriptions in OpenAI's shape.
    pub tools: Vec<Value>,
    /// Further variables; they cannot replace the template's own (`messages`, `bos_token`, …).
    pub kwargs: Map<String, Value>,
    /// What `strftime_now` sees.
    pub now: DateTime<Utc>,
    /// What stands for a media part where the template takes words alone, by the part's `type`; [`NUMBER`] in it is the part's
    /// number among those of its type. [`OWN_LINE`] may stand in front.
    pub media: BTreeMap<&'static str, &'static str>,
}

/// Stands for a number, from 1 on, in [`Conversation::media`].
pub const NUMBER: &str = "{n}";
/// Says, in front of what is in [`Conversation::media`], that the part has a line of its own.
pub const OWN_LINE: &str = "{line}";

/// What a template takes for the content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A string, or a list of parts.
    Either,
    /// A list of parts: it would leave out a string without a word.
    Parts,
    /// A string.
    Words,
}

/// A compiled Jinja chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Map<String, Value>,
    source: String,
    dialect: Dialect,
    thinking: Option<Thinking>,
    takes_tools: bool,
    takes_system: bool,
    takes: Takes,
}

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(file: TemplateFile) -> Result<Self, TextError> {
        let refused = |reason: String| TextError::Template { file: file.name.clone(), reason };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| refused(e.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        let tool_use = file.tool_use.unwrap_or_else(|| file.source.clone());
        let (dialect, thinking) = (Dialect::of_template(&tool_use), Thinking::of_template(&file.source));
        let takes_tools = tool_use.contains("tools");
        let mut compile = |name, source: String| {
            if source.len() > SOURCE_BYTES_MAX {
                return Err(refused(format!("the template has {} bytes; at most {SOURCE_BYTES_MAX} are allowed", source.len())));
            }
            let compiled = environment.add_template_owned(name, source);
            compiled.map_err(|e| refused(format!("the chat template does not parse: {}", one_line(&e))))
        };
        compile(TOOL_USE, tool_use)?;
        compile(CHAT, file.source)?;
        let (tokens, source) = (file.tokens, file.name);
        let (takes, takes_system) = (Takes::Either, true);
        let mut template = Self { environment, tokens, source, dialect, thinking, takes_tools, takes_system, takes };
        template.takes = template.probe();
        template.takes_system = template.probe_system();
        Ok(template)
    }

    /// Finds out whether it shows what a system message says: one that does not leaves it out, or fails.
    fn probe_system(&self) -> bool {
        const WORD: &str = "probe";
        let messages = vec![json!({"role": "system", "content": WORD}), json!({"role": "user", "content": "a"})];
        let written = self.render(&Conversation { messages, ..Conversation::default() }, &Guard::new([]));
        written.is_ok_and(|prompt| prompt.contains(WORD))
    }

    /// Finds out what the template takes: one that takes words alone writes a list as it is, or nothing of it, or fails; one that takes
    /// parts alone finds none in words.
    fn probe(&self) -> Takes {
        const WORD: &str = "probe";
        let written = |content: Value| {
            let messages = vec![json!({"role": "user", "content": content})];
            self.render(&Conversation { messages, ..Conversation::default() }, &Guard::new([])).unwrap_or_default()
        };
        let parts = written(json!([{"type": "text", "text": WORD}]));
        let listed = ['"', '\''].iter().any(|quote| parts.contains(&format!("{quote}{WORD}{quote}")));
        match (written(WORD.into()).contains(WORD), parts.contains(WORD) && !listed) {
            (true, false) => Takes::Words,
            (false, true) => Takes::Parts,
            _ => Takes::Either,
        }
    }

    /// How it writes calls of functions.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What it has thoughts between, if anything.
    pub fn thinking(&self) -> Option<Thinking> {
        self.thinking
    }

    /// Whether it shows the model what functions there are.
    pub fn takes_tools(&self) -> bool {
        self.takes_tools
    }

    /// Whether it shows the model what a system message says.
    pub fn takes_system(&self) -> bool {
        self.takes_system
    }

    /// Where the template came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens a template may name (`bos_token`, `eos_token`, …).
    pub fn tokens(&self) -> &Map<String, Value> {
        &self.tokens
    }

    /// Writes the prompt up to where the assistant's answer begins. Every string that came with the conversation is
    /// protected by `guard`; the prompt therefore contains breaks ([`crate::without_breaks`] removes them).
    pub fn render(&self, chat: &Conversation, guard: &Guard) -> Result<String, TextError> {
        let mut variables: Map<String, Value> = chat
            .kwargs
            .iter()
            .filter(|(name, _)| !OWN_VARIABLES.contains(&name.as_str()))
            .map(|(k, v)| (k.clone(), protect(v, guard)))
            .collect();
        variables.extend(self.tokens.clone());
        let mut messages: Vec<Value> = chat.messages.iter().map(|m| protect(m, guard)).collect();
        match self.takes {
            Takes::Words => join_parts(&mut messages, &chat.media),
            Takes::Parts => wrap_words(&mut messages),
            Takes::Either => {}
        }
        variables.insert("messages".into(), messages.into());
        variables.insert("add_generation_prompt".into(), true.into());
        if !chat.tools.is_empty() {
            variables.insert("tools".into(), chat.tools.iter().map(|t| protect(t, guard)).collect());
        }
        let now = chat.now;
        let date = Jinja::from(now.format("%d %b %Y").to_string());
        let strftime = Jinja::from_function(move |format: &str| strftime(now, format));
        let variables = context! { date_string => date, strftime_now => strftime, ..Jinja::from(Serde(&variables)) };
        let refused = |e: Error| TextError::Render(one_line(&e));
        let name = if chat.tools.is_empty() { CHAT } else { TOOL_USE };
        let template = self.environment.get_template(name).map_err(refused)?;
        let prompt = template.render(variables).map_err(refused)?;
        if prompt.len() > PROMPT_BYTES_MAX {
            return Err(TextError::Render(format!("it wrote more than {PROMPT_BYTES_MAX} bytes")));
        }
        Ok(prompt)
    }
}

fn protect(value: &Value, guard: &Guard) -> Value {
    match value {
        Value::String(text) => Value::String(guard.protect(text)),
        Value::Array(items) => items.iter().map(|item| protect(item, guard)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, item)| (guard.protect(name), protect(item, guard))).collect(),
        other => other.clone(),
    }
}

/// Makes a part of every text.
fn wrap_words(messages: &mut [Value]) {
    for content in messages.iter_mut().filter_map(|message| message.get_mut("content")).filter(|content| content.is_string()) {
        *content = json!([{"type": "text", "text": content}]);
    }
}

/// Writes parts one behind the other.
fn join_parts(messages: &mut [Value], media: &BTreeMap<&str, &str>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for content in messages.iter_mut().filter_map(|message| message.get_mut("content")) {
        let Value::Array(parts) = content else { continue };
        let mut joined = String::new();
        let mut alone_before = false;
        for (i, part) in parts.iter().enumerate() {
            let text = part["text"].as_str();
            let kind = part["type"].as_str().filter(|_| text.is_none()).unwrap_or_default();
            let marker = media.get(kind).copied().unwrap_or_default();
            let alone = marker.starts_with(OWN_LINE);
            if i > 0 && (alone || alone_before) {
                joined.push('\n');
            }
            match text {
                Some(text) => joined.push_str(text),
                None => {
                    let number = seen.entry(kind.to_string()).or_default();
                    *number += 1;
                    joined.push_str(&marker.replace(OWN_LINE, "").replace(NUMBER, &number.to_string()));
                }
            }
            alone_before = alone;
        }
        *content = Value::String(joined);
    }
}

fn to_json(Serde(value): Serde<Value>, kwargs: Kwargs) -> Result<Jinja, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    kwargs.get::<Option<bool>>("ensure_ascii")?;
    kwargs.assert_all_used()?;
    dumps(&value, indent).map(Jinja::from).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime(now: DateTime<Utc>, format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut out = String::new();
    write!(out, "{}", now.format(format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now cannot format {format:?}")))?;
    Ok(out)
}

/// The reason without the template's source around it.
fn one_line(error: &Error) -> String {
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "it did not finish within its budget of instructions".to_string(),
        _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_string),
    };
    match error.line() {
        Some(line) => format!("{reason} (line {line})"),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BREAK, without_breaks};

    fn render(source: &str, messages: Value) -> Result<String, TextError> {
        let tokens = [("bos_token".to_string(), json!("<s>"))].into_iter().collect();
        let file = TemplateFile { name: "test.jinja".into(), source: source.into(), tokens, ..TemplateFile::default() };
        let chat = Conversation {
            messages: messages.as_array().cloned().unwrap_or_default(),
            kwargs: json!({"messages": "shadow", "extra": "<s>"}).as_object().cloned().unwrap_or_default(),
            now: DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default(),
            ..Conversation::default()
        };
        ChatTemplate::new(file)?.render(&chat, &Guard::new(["<s>".to_string(), "<end>".to_string()]))
    }

    #[test]
    fn renders_like_the_reference_environment() {
        let hello = json!([{"role": "user", "content": " Hi <s> "}]);
        let cases = [
            ("{{ bos_token }}{{ messages[0]['content'] | trim }}<end>", hello.clone(), "<s>Hi <·s><end>"),
            ("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n", hello.clone(), "x\n"),
            ("{{ messages[0].role.capitalize() ~ ':' }}", hello.clone(), "User:"),
            ("{{ messages[0] | tojson }}", hello.clone(), "{\"role\": \"user\", \"content\": \" Hi <·s> \"}"),
            ("{{ strftime_now('%Y-%m-%d') }} {{ date_string }}", hello.clone(), "2023-11-14 14 Nov 2023"),
            ("{{ extra }}{% if tools is defined %}tools{% endif %}", hello.clone(), "<·s·>"),
            (
                "{% for p in messages[0].content %}{{ p.type in ('image', 'image_url') }}{% endfor %}",
                json!([{"content": [{"type": "image"}]}]),
                "True",
            ),
            ("{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", hello, "1"),
        ];
        for (source, messages, expected) in cases {
            let prompt = render(source, messages).unwrap_or_else(|e| panic!("{source}: {e}"));
            assert_eq!(prompt.replace(BREAK, "·"), expected, "{source}");
            assert_eq!(without_breaks(&prompt), expected.replace('·', ""));
        }
    }

    #[test]
    fn tools_may_have_a_template_of_their_own() {
        let tool_use = Some("{{ tools | length }} tools".into());
        let file = TemplateFile { source: "no tools".into(), tool_use, ..TemplateFile::default() };
        let template = ChatTemplate::new(file).unwrap_or_else(|e| panic!("{e}"));
        for (tools, expected) in [(vec![], "no tools"), (vec![json!({}), json!({})], "2 tools")] {
            let chat = Conversation { tools, ..Conversation::default() };
            assert_eq!(template.render(&chat, &Guard::new([])).unwrap_or_else(|e| panic!("{e}")), expected);
        }
    }

    #[test]
    fn parts_are_written_out_for_templates_that_take_words() {
        let picture = || json!({"type": "image"});
        let messages = vec![
            json!({"role": "user", "content": [picture(), {"type": "text", "text": "a<s>"}, picture()]}),
            json!({"role": "user", "content": "b"}),
            json!({"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "c"}, picture(), {"type": "audio"}]}),
        ];
        let media = BTreeMap::from([("image", "<{n}>"), ("audio", "{line}<sound>")]);
        let chat = Conversation { messages, media, ..Conversation::default() };
        let words = "<1>a<·s><2>;b;<sound>\nc<3>\n<sound>;";
        let cases = [
            ("{% for m in messages %}{{ m.content ~ ';' }}{% endfor %}", words),
            ("{% for m in messages %}{{ m.content + ';' }}{% endfor %}", words),
            ("{% for m in messages %}{% if m.content is string %}{{ m.content }};{% endif %}{% endfor %}", words),
            (
                "{% for m in messages %}{% for p in m.content %}{{ p.type or p }}.{% endfor %}{% endfor %}",
                "image.text.image.b.audio.text.image.audio.",
            ),
        ];
        for (source, expected) in cases {
            let file = TemplateFile { source: source.into(), ..TemplateFile::default() };
            let template = ChatTemplate::new(file).unwrap_or_else(|e| panic!("{e}"));
            let prompt = template.render(&chat, &Guard::new(["<s>".to_string()])).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(prompt.replace(BREAK, "·"), expected, "{source}");
        }
    }

    #[test]
    fn words_are_parts_for_templates_that_take_parts() {
        let of_parts = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }};{% endif %}{% endfor %}{% endfor %}";
        let either = format!(
            "{{% if messages[0].content is string %}}words{{% else %}}{of_parts}{{% endif %}}{{{{ messages[0].content }}}}"
        );
        let cases = [
            (of_parts, json!([{"role": "user", "content": "a b"}]), "a b;"),
            (
                of_parts,
                json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
                "a;b;",
            ),
            (either.as_str(), json!([{"role": "user", "content": "a b"}]), "wordsa b"),
        ];
        for (source, messages, expected) in cases {
            assert_eq!(render(source, messages).unwrap_or_else(|e| panic!("{source}: {e}")), expected, "{source}");
        }
    }

    /// T1, T2 of docs/reliability.md.
    #[test]
    fn refuses_with_one_line() {
        let cases = [
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate (line 1)"),
            ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "budget of instructions"),
            ("{{ 1 | nosuchfilter }}", "nosuchfilter"),
            ("{% include 'x' %}", "(line 1)"),
            ("{% if %}", "does not parse"),
        ];
        for (source, expected) in cases {
            let message = render(source, json!([])).expect_err(source).to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{source}: {message}");
        }
    }
}
