//! JSON → structs, and what to say where it is none of theirs.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::refusal::Refusal;

/// JSON as what an API expects. Fields that it does not name are ignored.
pub fn read_as<T: DeserializeOwned>(json: &Value) -> Result<T, Refusal> {
    read_at(json, "")
}

/// The same of a part of a body, which is at this place.
pub fn read_at<T: DeserializeOwned>(json: &Value, at: &str) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(json).map_err(|e| {
        let path = e.path().to_string();
        let place = match (at, path.as_str()) {
            (at, ".") => at.to_string(),
            ("", path) => path.to_string(),
            (at, path) => format!("{at}.{path}"),
        };
        let reason = e.inner().to_string();
        // The field that is missing is not part of the path.
        let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        match (missing, place.as_str()) {
            (Some(field), "") => Refusal::invalid(field, format!("{field} is missing")),
            (Some(field), place) => Refusal::invalid(format!("{place}.{field}"), format!("{place}.{field} is missing")),
            (None, "") => Refusal { param: None, ..Refusal::invalid("", reason) },
            (None, place) => Refusal::invalid(place, format!("{place}: {reason}")),
        }
    })
}
