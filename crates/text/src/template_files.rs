//! Which of a model's many places the chat template comes from.

use serde_json::{Map, Value};

use crate::TextError;

/// A template's source and the special tokens it may name.
#[derive(Debug, Clone, Default)]
pub struct TemplateFile {
    /// File it came from, for messages.
    pub name: String,
    /// Jinja source.
    pub source: String,
    /// Jinja source for conversations with tools, where it is another one.
    pub tool_use: Option<String>,
    /// `bos_token`, `eos_token`, `unk_token`, `pad_token` as far as known.
    pub tokens: Map<String, Value>,
}

/// The contents of every file that may hold a chat template, as (file name, text). What a person named comes first;
/// of what the model ships, later files are the older convention.
#[derive(Debug, Clone, Default)]
pub struct TemplateFiles {
    /// `--jinja-explicit FILE`: a bare template.
    pub jinja_explicit: Option<(String, String)>,
    /// `--chat-template FILE`: a bare template (.jinja) or an object like tokenizer_config.json (.json).
    pub chat_template: Option<(String, String)>,
    /// processor_config.json
    pub processor_config: Option<(String, String)>,
    /// chat_template.jinja
    pub chat_template_jinja: Option<(String, String)>,
    /// tokenizer_config.json
    pub tokenizer_config: Option<(String, String)>,
    /// chat_template.json
    pub chat_template_json: Option<(String, String)>,
    /// A template that is known for all models of this kind, in case that they ship none.
    pub of_family: Option<&'static str>,
}

impl TemplateFiles {
    /// Those that a model ships, by a function that gives a file's name for messages and its text, if there is one.
    ///
    /// # Errors
    /// What the function fails with.
    pub fn of_model<E>(read: impl Fn(&str) -> Result<Option<(String, String)>, E>) -> Result<Self, E> {
        Ok(Self {
            processor_config: read("processor_config.json")?,
            chat_template_jinja: read("chat_template.jinja")?,
            tokenizer_config: read("tokenizer_config.json")?,
            chat_template_json: read("chat_template.json")?,
            ..Self::default()
        })
    }

    /// The template that wins, with the special tokens of tokenizer_config.json (or of the `--chat-template` object).
    pub fn choose(&self) -> Result<TemplateFile, TextError> {
        let tokens = match &self.tokenizer_config {
            Some((name, text)) => special_tokens(&object(name, text)?),
            None => Map::new(),
        };
        if let Some((name, source)) = &self.jinja_explicit {
            return match name.ends_with(".jinja") {
                true => Ok(TemplateFile::bare(name, source, tokens)),
                false => Err(TextError::Template { file: name.clone(), reason: "an explicit template is a .jinja file".into() }),
            };
        }
        if let Some((name, text)) = &self.chat_template {
            return from_flag(name, text, tokens);
        }
        let json = [&self.processor_config, &self.tokenizer_config, &self.chat_template_json];
        let mut found = Vec::with_capacity(3);
        for (name, text) in json.into_iter().flatten() {
            found.push((name, template_in(name, &object(name, text)?, &tokens)?));
        }
        let in_json = |wanted: &Option<(String, String)>| {
            let name = wanted.as_ref().map(|(name, _)| name)?;
            found.iter().find(|(n, _)| *n == name)?.1.clone()
        };
        in_json(&self.processor_config)
            .or_else(|| self.chat_template_jinja.as_ref().map(|(name, source)| TemplateFile::bare(name, source, tokens.clone())))
            .or_else(|| in_json(&self.tokenizer_config))
            .or_else(|| in_json(&self.chat_template_json))
            .or_else(|| self.of_family.map(|source| TemplateFile::bare("the template of this family", source, tokens)))
            .ok_or(TextError::NoTemplate)
    }
}

impl TemplateFile {
    fn bare(name: &str, source: &str, tokens: Map<String, Value>) -> Self {
        Self { name: name.to_string(), source: source.to_string(), tool_use: None, tokens }
    }
}

fn from_flag(name: &str, text: &str, mut tokens: Map<String, Value>) -> Result<TemplateFile, TextError> {
    let refused = |reason: &str| TextError::Template { file: name.to_string(), reason: reason.to_string() };
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jinja") => Ok(TemplateFile::bare(name, text, tokens)),
        Some("json") => {
            let config = object(name, text)?;
            tokens.extend(special_tokens(&config));
            template_in(name, &config, &tokens)?.ok_or_else(|| refused("has no \"chat_template\""))
        }
        _ => Err(refused("a chat template is a .jinja file or a .json file with the key \"chat_template\"")),
    }
}

fn object(name: &str, text: &str) -> Result<Map<String, Value>, TextError> {
    let refused = |reason: String| TextError::Template { file: name.to_string(), reason };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(refused("should hold a JSON object".into())),
        Err(e) => Err(refused(format!("is not JSON: {e}"))),
    }
}

/// `chat_template` of a config object: a string, or named templates of which `default` is taken, and `tool_use` where there are
/// tools.
fn template_in(name: &str, config: &Map<String, Value>, tokens: &Map<String, Value>) -> Result<Option<TemplateFile>, TextError> {
    let refused = |reason: &str| TextError::Template { file: name.to_string(), reason: reason.to_string() };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(TemplateFile::bare(name, source, tokens.clone()))),
        Some(Value::Array(all)) => {
            let named = |name: &str| all.iter().find(|t| t["name"] == name).and_then(|t| t["template"].as_str());
            let default = named("default").ok_or_else(|| refused("\"chat_template\" lists no template named \"default\""))?;
            let tool_use = named("tool_use").map(str::to_string);
            Ok(Some(TemplateFile { tool_use, ..TemplateFile::bare(name, default, tokens.clone()) }))
        }
        Some(_) => Err(refused("\"chat_template\" is neither a string nor a list of named templates")),
    }
}

fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let names = ["bos_token", "eos_token", "unk_token", "pad_token"];
    let content = |value: &Value| value.as_str().or_else(|| value["content"].as_str()).map(Value::from);
    names.iter().filter_map(|name| Some((name.to_string(), content(config.get(*name)?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> Option<(String, String)> {
        Some((name.into(), text.into()))
    }

    #[test]
    fn flags_come_first_and_newer_conventions_before_older_ones() {
        let everything = TemplateFiles {
            jinja_explicit: file("mine.jinja", "1"),
            chat_template: file("mine.json", r#"{"chat_template": "2", "eos_token": "</s>"}"#),
            processor_config: file("processor_config.json", r#"{"chat_template": "3"}"#),
            chat_template_jinja: file("chat_template.jinja", "4"),
            tokenizer_config: file(
                "tokenizer_config.json",
                r#"{"bos_token": {"content": "<s>"}, "eos_token": null, "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "5"}]}"#,
            ),
            chat_template_json: file("chat_template.json", r#"{"chat_template": "6"}"#),
            of_family: Some("7"),
        };
        type Remove = fn(&mut TemplateFiles);
        let steps: [(&str, Remove); 7] = [
            ("1", |f| f.jinja_explicit = None),
            ("2", |f| f.chat_template = None),
            ("3", |f| f.processor_config = None),
            ("4", |f| f.chat_template_jinja = None),
            ("5", |f| f.tokenizer_config = None),
            ("6", |f| f.chat_template_json = None),
            ("7", |f| f.of_family = None),
        ];
        let mut files = everything;
        for (expected, remove) in steps {
            let chosen = files.choose().unwrap_or_else(|e| panic!("{expected}: {e}"));
            assert_eq!(chosen.source, expected);
            assert_eq!(chosen.tool_use.as_deref(), (expected == "5").then_some("x"));
            assert_eq!(chosen.tokens.get("bos_token").is_some(), files.tokenizer_config.is_some());
            assert_eq!(chosen.tokens.get("eos_token").is_some(), expected == "2");
            remove(&mut files);
        }
        assert!(matches!(files.choose(), Err(TextError::NoTemplate)));
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let cases = [
            ("a.txt", "x", "a .jinja file or a .json file"),
            ("a.json", "x", "is not JSON"),
            ("a.json", "[]", "should hold a JSON object"),
            ("a.json", "{}", "has no \"chat_template\""),
            ("a.json", r#"{"chat_template": 3}"#, "neither a string nor a list"),
            ("a.json", r#"{"chat_template": []}"#, "no template named \"default\""),
        ];
        for (name, text, expected) in cases {
            let files = TemplateFiles { chat_template: file(name, text), ..TemplateFiles::default() };
            let message = files.choose().expect_err(text).to_string();
            assert!(message.contains(expected) && message.starts_with(name), "{message}");
        }
        let explicit = TemplateFiles { jinja_explicit: file("a.json", "{}"), ..TemplateFiles::default() };
        assert_eq!(explicit.choose().expect_err("a.json").to_string(), "a.json: an explicit template is a .jinja file");
    }
}
