//! JSON schemas of arguments that are not written as JSON → rules of a grammar.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::grammar::{literal, repeated};
use crate::TextError;
use crate::grammar::tidy;

/// Levels that a schema may have.
const DEPTH_MAX: usize = 64;

/// How values are written.
pub(super) enum Style {
    /// `{a:<|"|>text<|"|>}`; holds what stands on both sides of a text.
    Quoted(String),
    /// `{"a": "text", "b": None}`
    Python,
}

/// Rules for the arguments of one function.
pub(super) struct Rules<'a> {
    style: &'a Style,
    /// What references in it are to.
    root: &'a Value,
    /// In front of the names of its rules.
    prefix: String,
    /// Rules so far, a line each.
    lines: Vec<String>,
    /// Rules of what was referred to.
    known: HashMap<String, String>,
    depth: usize,
}

impl<'a> Rules<'a> {
    pub fn new(style: &'a Style, root: &'a Value, prefix: String) -> Self {
        Self { style, root, prefix, lines: Vec::new(), known: HashMap::new(), depth: 0 }
    }

    /// The rules that values need.
    pub fn lines(self) -> Vec<String> {
        self.lines
    }

    /// What stands for a value that is valid for a schema.
    pub fn value(&mut self, schema: &Value) -> Result<String, TextError> {
        if self.depth == DEPTH_MAX {
            return Err(TextError::Grammar(format!("a schema of a function has more than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let value = self.of_schema(schema);
        self.depth -= 1;
        value
    }

    /// The arguments of a function by their names: those that it requires first, the rest may be left out.
    pub fn members(
        &mut self,
        schema: &Value,
        separator: &str,
        key: impl Fn(&str) -> String,
    ) -> Result<Option<String>, TextError> {
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let required: BTreeSet<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(missing) = required.iter().find(|name| !properties.contains_key(**name)) {
            return Err(TextError::Grammar(format!("a function requires {missing:?}, which is not among its properties")));
        }
        let mut names: Vec<&String> = properties.keys().collect();
        names.sort_by_key(|name| (!required.contains(name.as_str()), name.as_str()));
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            members.push(format!("{} {}", key(name), self.value(&properties[name.as_str()])?));
        }
        let (must, may) = members.split_at(required.len());
        let comma = literal(separator);
        let tail = |from: usize| may[from..].iter().map(|member| format!(" ({comma} {member})?")).collect::<String>();
        if !must.is_empty() {
            return Ok(Some(must.join(&format!(" {comma} ")) + &tail(0)));
        }
        // Whichever comes first has no comma in front of it.
        let ways: Vec<String> = (0..may.len()).map(|i| may[i].clone() + &tail(i + 1)).collect();
        Ok((!ways.is_empty()).then(|| format!("({})?", ways.join(" | "))))
    }

    fn of_schema(&mut self, schema: &Value) -> Result<String, TextError> {
        let unsupported = |what: &str| TextError::Grammar(format!("{what} in a schema of a function cannot be held to here"));
        if let Some(reference) = schema["$ref"].as_str() {
            return self.reference(reference);
        }
        if let Some(value) = schema.get("const") {
            return Ok(self.written(value));
        }
        if let Some(values) = schema["enum"].as_array() {
            return Ok(either(values.iter().map(|value| self.written(value))));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(ways) = schema[key].as_array() {
                let ways: Vec<String> = ways.iter().map(|way| self.value(way)).collect::<Result<_, _>>()?;
                return Ok(either(ways.into_iter()));
            }
        }
        if let Some(all) = schema["allOf"].as_array() {
            let [only] = all.as_slice() else { return Err(unsupported("allOf")) };
            return self.value(only);
        }
        match &schema["type"] {
            Value::String(kind) => self.of_type(kind, schema),
            Value::Array(kinds) => {
                let kinds = kinds.iter().filter_map(Value::as_str);
                let ways: Vec<String> = kinds.map(|kind| self.of_type(kind, schema)).collect::<Result<_, _>>()?;
                Ok(either(ways.into_iter()))
            }
            _ if schema.get("properties").is_some() => self.of_type("object", schema),
            _ if schema.get("items").is_some() => self.of_type("array", schema),
            _ => Ok(self.anything()),
        }
    }

    fn of_type(&mut self, kind: &str, schema: &Value) -> Result<String, TextError> {
        match kind {
            "string" => self.text(schema),
            "integer" | "number" => {
                let mut schema = schema.clone();
                schema["type"] = kind.into();
                Ok(self.rule(&format!("%json {}", tidy(schema))))
            }
            "boolean" => Ok(either([true, false].map(|value| self.written(&value.into())).into_iter())),
            "null" => Ok(self.written(&Value::Null)),
            "array" => self.list(schema),
            "object" => self.object(schema),
            other => Err(TextError::Grammar(format!("a schema of a function has the unknown type {other:?}"))),
        }
    }

    fn text(&mut self, schema: &Value) -> Result<String, TextError> {
        let Style::Quoted(quote) = self.style else {
            let kept = ["minLength", "maxLength", "pattern", "format"].into_iter();
            let mut text: Map<String, Value> = kept.filter_map(|key| Some((key.into(), schema.get(key)?.clone()))).collect();
            text.insert("type".into(), "string".into());
            return Ok(self.rule(&format!("%json {}", tidy(Value::Object(text)))));
        };
        let text = terminal(schema);
        let name = format!("{}_T{}", self.prefix.to_uppercase(), self.lines.len());
        self.lines.push(format!("{name}: {text}"));
        Ok(format!("{quote} {name} {quote}"))
    }

    fn list(&mut self, schema: &Value) -> Result<String, TextError> {
        let item = match schema.get("items") {
            Some(items) => self.value(items)?,
            None => self.anything(),
        };
        let item = self.rule(&item);
        let count = |key: &str| schema[key].as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (least, most) = (count("minItems").unwrap_or(0), count("maxItems"));
        let comma = self.comma();
        Ok(format!("\"[\" {} \"]\"", repeated(&item, comma, least, most)?))
    }

    fn object(&mut self, schema: &Value) -> Result<String, TextError> {
        if schema["properties"].as_object().is_none_or(Map::is_empty) {
            let value = match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => return Ok("\"{\" \"}\"".into()),
                Some(values @ Value::Object(_)) => self.value(values)?,
                _ => self.anything(),
            };
            return Ok(self.any_object(&value));
        }
        let (style, comma) = (self.style, self.comma());
        let members = self.members(schema, comma, |name| style.key(name))?.unwrap_or_default();
        Ok(self.rule(&format!("\"{{\" {members} \"}}\"")))
    }

    fn any_object(&mut self, value: &str) -> String {
        let (key, colon) = match self.style {
            Style::Quoted(_) => ("/[A-Za-z_][A-Za-z0-9_]*/", ":"),
            Style::Python => ("/\"[^\"\\\\\\n]*\"/", ": "),
        };
        let comma = literal(self.comma());
        let member = self.rule(&format!("{key} {} {value}", literal(colon)));
        self.rule(&format!("\"{{\" ({member} ({comma} {member})*)? \"}}\""))
    }

    /// A value that no schema says anything of.
    fn anything(&mut self) -> String {
        const ANYTHING: &str = "anything";
        if let Some(name) = self.known.get(ANYTHING) {
            return name.clone();
        }
        let name = format!("{}_{ANYTHING}", self.prefix);
        self.known.insert(ANYTHING.into(), name.clone());
        let text = self.text(&json!({})).unwrap_or_default();
        let number = self.rule(&format!("%json {}", json!({"type": "number"})));
        let object = self.any_object(&name);
        let comma = literal(self.comma());
        let list = format!("\"[\" ({name} ({comma} {name})*)? \"]\"");
        let words = [Value::Bool(true), Value::Bool(false), Value::Null].map(|value| self.written(&value));
        let ways = either([text, number, object, list].into_iter().chain(words));
        self.lines.push(format!("{name}: {ways}"));
        name
    }

    fn reference(&mut self, reference: &str) -> Result<String, TextError> {
        if let Some(name) = self.known.get(reference) {
            return Ok(name.clone());
        }
        let nowhere = || TextError::Grammar(format!("{reference:?} refers to nothing in the schema of the function"));
        let root = self.root;
        let schema = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).ok_or_else(nowhere)?;
        let name = format!("{}_r{}", self.prefix, self.known.len());
        self.known.insert(reference.into(), name.clone());
        let value = self.value(schema)?;
        self.lines.push(format!("{name}: {value}"));
        Ok(name)
    }

    /// Names what stands for something.
    fn rule(&mut self, body: &str) -> String {
        let name = format!("{}_{}", self.prefix, self.lines.len());
        self.lines.push(format!("{name}: {body}"));
        name
    }

    fn comma(&self) -> &'static str {
        match self.style {
            Style::Quoted(_) => ",",
            Style::Python => ", ",
        }
    }

    /// Exactly this value.
    fn written(&self, value: &Value) -> String {
        match (value, self.style) {
            (Value::String(text), Style::Quoted(quote)) => format!("{quote} {} {quote}", literal(text)),
            (Value::Bool(true), Style::Python) => literal("True"),
            (Value::Bool(false), Style::Python) => literal("False"),
            (Value::Null, Style::Python) => literal("None"),
            (Value::Array(items), _) => {
                let items: Vec<String> = items.iter().map(|item| self.written(item)).collect();
                format!("\"[\" {} \"]\"", items.join(&format!(" {} ", literal(self.comma()))))
            }
            (Value::Object(fields), style) => {
                let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{} {}", style.key(k), self.written(v))).collect();
                format!("\"{{\" {} \"}}\"", fields.join(&format!(" {} ", literal(self.comma()))))
            }
            (value, _) => literal(&value.to_string()),
        }
    }
}

impl Style {
    /// A key of an object, and what stands between it and its value.
    pub fn key(&self, name: &str) -> String {
        match self {
            Self::Quoted(_) => literal(&format!("{name}:")),
            Self::Python => literal(&format!("{}: ", Value::from(name))),
        }
    }
}

/// The texts that a schema of texts allows, as a terminal.
pub(super) fn terminal(schema: &Value) -> String {
    let (least, most) = (schema["minLength"].as_u64(), schema["maxLength"].as_u64());
    let length = match (least, most) {
        (None, None) => None,
        (least, most) => Some(format!("/(?s:.){{{},{}}}/", least.unwrap_or(0), most.map(|n| n.to_string()).unwrap_or_default())),
    };
    let pattern = schema["pattern"].as_str().map(|pattern| {
        // A pattern is searched for, unless it says where it stands.
        let (head, rest) = pattern.strip_prefix('^').map_or(("(?s:.*)", pattern), |rest| ("", rest));
        let ends = rest.ends_with('$') && !rest.ends_with("\\$");
        let (rest, tail) = if ends { (&rest[..rest.len() - 1], "") } else { (rest, "(?s:.*)") };
        format!("/{head}(?:{}){tail}/", rest.replace('/', "\\/"))
    });
    match (length, pattern) {
        (Some(length), Some(pattern)) => format!("{length} & {pattern}"),
        (one, other) => one.or(other).unwrap_or_else(|| "/(?s:.*)/".into()),
    }
}

pub(super) fn either(ways: impl Iterator<Item = String>) -> String {
    let ways: Vec<String> = ways.collect();
    format!("({})", ways.join(" | "))
}
