//! The JSON of a picture: where it is, and what is wanted of it.

use mistralrs::{ImageOptions, OptionError, Part};
use serde::Deserialize;
use serde_json::Value;

use crate::refusal::Refusal;

/// What stands beside a picture's URL.
#[derive(Debug, Default, Deserialize)]
struct OptionsBody {
    detail: Option<String>,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    max_tokens: Option<usize>,
    max_edge: Option<usize>,
}

/// `{"image_url": {"url": …, …}}`; or `{"image_url": …, …}` and `{"image": …, …}`, where what is wanted stands beside.
pub fn part(value: &Value, at: &str) -> Result<Part, Refusal> {
    let field = if value["image"].is_null() { "image_url" } else { "image" };
    let (body, at) = if value[field].is_object() { (&value[field], format!("{at}.{field}")) } else { (value, at.to_string()) };
    let url = value[field].as_str().or_else(|| body["url"].as_str());
    let missing = || {
        let at = if value[field].is_object() { format!("{at}.url") } else { format!("{at}.{field}") };
        Refusal::invalid(&at, format!("{at} is missing or not a text"))
    };
    Ok(Part::Image(url.ok_or_else(missing)?.into(), options(body, &at)?))
}

/// What is wanted of a picture, by what stands beside it.
pub fn options(body: &Value, at: &str) -> Result<ImageOptions, Refusal> {
    let refuse = |field: &str, reason: &str| {
        let at = format!("{at}.{field}");
        Refusal::invalid(&at, format!("{at} {reason}"))
    };
    let body: OptionsBody = serde_path_to_error::deserialize(body)
        .map_err(|e| refuse(&e.path().to_string(), &format!("is not what it should be: {}", e.inner())))?;
    let OptionsBody { detail, min_pixels, max_pixels, max_tokens, max_edge } = body;
    let detail = detail.map(|name| name.parse()).transpose().map_err(|e: OptionError| refuse(e.field, &e.reason))?;
    let options = ImageOptions { detail, min_pixels, max_pixels, max_tokens, max_edge };
    options.check().map_err(|e| refuse(e.field, &e.reason))?;
    Ok(options)
}
