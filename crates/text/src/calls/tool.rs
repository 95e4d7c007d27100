use serde_json::{Map, Value, json};

use crate::TextError;

/// Functions that a request may offer.
const TOOLS_MAX: usize = 128;

/// A function that a model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// What calls name.
    pub name: String,
    /// JSON schema of its arguments, which are an object.
    pub parameters: Value,
    /// Whether arguments have to be valid for the schema.
    pub strict: bool,
    /// As the request has it, for the chat template.
    pub definition: Value,
}

impl Tool {
    /// Reads definitions in OpenAI's shape: `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`, or
    /// the function by itself.
    ///
    /// # Errors
    /// [`TextError::Tool`] says which definition is none, and why.
    pub fn read(definitions: &[Value]) -> Result<Vec<Self>, TextError> {
        if definitions.len() > TOOLS_MAX {
            let reason = format!("there are {}; at most {TOOLS_MAX} are allowed", definitions.len());
            return Err(TextError::Tool { place: "tools".into(), reason });
        }
        let mut tools: Vec<Self> = Vec::with_capacity(definitions.len());
        for (i, definition) in definitions.iter().enumerate() {
            let refused = |reason: &str| TextError::Tool { place: format!("tools[{i}]"), reason: reason.into() };
            let tool = Self::of(definition).map_err(refused)?;
            if tools.iter().any(|other| other.name == tool.name) {
                return Err(refused("another function has the same name"));
            }
            tools.push(tool);
        }
        Ok(tools)
    }

    fn of(definition: &Value) -> Result<Self, &'static str> {
        if definition.get("type").is_some_and(|kind| kind != "function") {
            return Err("its type must be function");
        }
        let (function, definition) = match definition.get("function") {
            Some(function) => (function, definition.clone()),
            None => (definition, json!({"type": "function", "function": without_type(definition)})),
        };
        let name = function["name"].as_str().ok_or("its name is missing or not a text")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err("its name must be 1 to 64 letters, digits, points, underscores and dashes");
        }
        let parameters = match &function["parameters"] {
            Value::Null => json!({"type": "object", "properties": {}}),
            Value::Object(fields) => Value::Object(fields.clone()),
            _ => return Err("its parameters must be a JSON schema, which is an object"),
        };
        if parameters.get("type").is_some_and(|kind| kind != "object") {
            return Err("its parameters must be those of an object");
        }
        let strict = function["strict"].as_bool().unwrap_or(false);
        Ok(Self { name: name.into(), parameters, strict, definition })
    }

    /// Whether the value of a parameter is text, so that it needs no quotes to be understood.
    pub(super) fn takes_text(&self, parameter: &str) -> bool {
        let schema = &self.parameters["properties"][parameter];
        let text = |value: &Value| value.is_string();
        match &schema["type"] {
            Value::String(kind) => kind == "string",
            Value::Array(kinds) => kinds.contains(&json!("string")),
            _ => schema["enum"].as_array().is_some_and(|values| values.iter().all(text)) || text(&schema["const"]),
        }
    }
}

fn without_type(definition: &Value) -> Value {
    let fields = definition.as_object().into_iter().flatten();
    Value::Object(fields.filter(|(name, _)| *name != "type").map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read_or_refused() {
        let wrapped = json!({"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type": "object"}}});
        let bare = json!({"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true});
        assert_eq!(Tool::read(std::slice::from_ref(&wrapped)).unwrap(), Tool::read(&[bare]).unwrap());
        let cases = [
            (json!([{"type": "web_search"}]), "tools[0]: its type must be function"),
            (json!([wrapped, wrapped]), "tools[1]: another function has the same name"),
            (json!([{"function": {}}]), "tools[0]: its name is missing or not a text"),
            (json!([{"function": {"name": "a b"}}]), "tools[0]: its name must be 1 to 64"),
            (json!([{"function": {"name": "a", "parameters": 3}}]), "tools[0]: its parameters must be a JSON schema"),
            (json!([{"function": {"name": "a", "parameters": {"type": "string"}}}]), "tools[0]: its parameters must be those"),
        ];
        for (definitions, expected) in cases {
            let message = Tool::read(definitions.as_array().unwrap()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
