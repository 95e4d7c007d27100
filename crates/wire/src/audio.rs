//! The JSON of a sound: where it is, or what it is, and what is wanted of it.

use mistralrs::{AudioOptions, MediaSource, Part};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// `audio_url` or `input_audio`. The format that a client names is not looked at: the bytes tell it.
#[derive(Debug, Deserialize)]
struct AudioBody {
    url: Option<String>,
    /// Base64.
    data: Option<String>,
    start: Option<f64>,
    end: Option<f64>,
}

/// `{"type": "audio_url", "audio_url": {"url": …, …}}`, or `{"type": "input_audio", "input_audio": {"data": …, …}}`; `kind` is the type.
pub fn part(value: &Value, kind: &str, at: &str) -> Result<Part, Refusal> {
    let at = format!("{at}.{kind}");
    let value = match &value[kind] {
        url @ Value::String(_) => json!({"url": url}),
        body => body.clone(),
    };
    let refuse = |field: &str, reason: &str| {
        let at = format!("{at}.{field}");
        Refusal::invalid(&at, format!("{at} {reason}"))
    };
    let body: AudioBody = serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string().as_str() {
        "." => refuse("url", "is missing"),
        field => refuse(field, &format!("is not what it should be: {}", e.inner())),
    })?;
    let AudioBody { url, data, start, end } = body;
    let options = AudioOptions { start, end };
    options.check().map_err(|e| refuse(e.field, &e.reason))?;
    let url = match (url, data) {
        (Some(url), None) => url,
        (None, Some(data)) => format!("data:audio;base64,{data}"),
        (Some(_), Some(_)) => return Err(refuse("data", "and url exclude each other")),
        (None, None) => return Err(refuse("url", "is missing; a sound has a url, or data in base64")),
    };
    Ok(Part::Audio(MediaSource::Url(url), options))
}
