//! Content parts, in the spellings of all clients → words and media, in their order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mistralrs::{AudioOptions, Content, ImageOptions, MediaSource, Part, VideoOptions};
use serde_json::Value;

use crate::refusal::Refusal;
use crate::{audio, image, video};

const KINDS: &str = "text, image_url, audio_url, input_audio, video_url, video, file, or one of OpenAI's input_ kinds";

/// Who speaks. Templates know developers by their older name.
pub fn role(role: &str) -> String {
    if role == "developer" { "system" } else { role }.to_string()
}

/// A message's content: a text or a list of parts.
pub fn content(value: &Value, at: &str) -> Result<Content, Refusal> {
    match value {
        Value::Null => Ok(Content::default()),
        Value::String(text) => Ok(Content::Text(text.clone())),
        Value::Array(parts) => {
            let parts = parts.iter().enumerate().map(|(j, value)| part(value, &format!("{at}[{j}]")));
            Ok(Content::Parts(parts.collect::<Result<_, _>>()?))
        }
        _ => Err(Refusal::invalid(at, format!("{at} must be a text or a list of parts"))),
    }
}

/// Words alone are one text, which every chat template takes; where there are media, parts stay parts.
pub fn gathered(parts: Vec<Part>) -> Content {
    let words = parts.iter().map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None });
    match words.collect::<Option<Vec<_>>>() {
        Some(words) => Content::Text(words.join("\n")),
        None => Content::Parts(parts),
    }
}

/// One part.
pub fn part(value: &Value, at: &str) -> Result<Part, Refusal> {
    if let Value::String(text) = value {
        return Ok(Part::Text(text.clone()));
    }
    let kind = value["type"].as_str().unwrap_or_default();
    match kind {
        "text" | "input_text" | "output_text" => text(value, "text", at),
        "refusal" => text(value, "refusal", at),
        "image_url" | "input_image" | "image" => image::part(value, at),
        "audio_url" | "input_audio" => audio::part(value, kind, at),
        "video_url" | "video" | "input_video" => video::part(value, at),
        "file" | "input_file" => file(value, at),
        _ => Err(Refusal::invalid(format!("{at}.type"), format!("{at}.type must be {KINDS}"))),
    }
}

fn text(value: &Value, field: &str, at: &str) -> Result<Part, Refusal> {
    let text = value[field].as_str();
    text.map(|text| Part::Text(text.to_string())).ok_or_else(|| missing(at, field))
}

fn missing(at: &str, field: &str) -> Refusal {
    Refusal::invalid(format!("{at}.{field}"), format!("{at}.{field} is missing or not a text"))
}

/// A file that came with the message (`file_data`) or lies elsewhere (`file_url`). What it is, is told by the type that its data URL
/// names, or by the end of its name.
fn file(value: &Value, at: &str) -> Result<Part, Refusal> {
    let (body, at) = match &value["file"] {
        Value::Null => (value, at.to_string()),
        body => (body, format!("{at}.file")),
    };
    let refuse = |field: &str, reason: &str| Refusal::invalid(format!("{at}.{field}"), format!("{at}.{field} {reason}"));
    let name = body["filename"].as_str();
    let url = match (body["file_data"].as_str(), body["file_url"].as_str()) {
        (Some(data), _) if data.starts_with("data:") => data.to_string(),
        (Some(data), _) => format!("data:;base64,{data}"),
        (None, Some(url)) => url.to_string(),
        (None, None) => return Err(refuse("file_data", "is missing; a file comes as file_data, a data URL")),
    };
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    match kind_of(data.map_or("", |(head, _)| head), name.unwrap_or(&url)) {
        FileKind::Image => Ok(Part::Image(MediaSource::Url(url), ImageOptions::default())),
        FileKind::Audio => Ok(Part::Audio(MediaSource::Url(url), AudioOptions::default())),
        FileKind::Video => Ok(Part::Video(MediaSource::Url(url), VideoOptions::default())),
        FileKind::Pdf => Err(refuse("file_data", "is a PDF, which is not read; send its pages as pictures or its text")),
        FileKind::Other => {
            let (_, data) = data.ok_or_else(|| refuse("file_url", "is of no kind that is read from elsewhere"))?;
            let bytes = STANDARD.decode(data).map_err(|_| refuse("file_data", "is not base64"))?;
            if bytes.starts_with(b"%PDF") {
                return Err(refuse("file_data", "is a PDF, which is not read; send its pages as pictures or its text"));
            }
            let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
            let text =
                text.ok_or_else(|| refuse("file_data", "is neither text nor a picture, sound or clip by its type or name"))?;
            Ok(Part::Text(name.map_or_else(|| text.clone(), |name| format!("{name}:\n{text}"))))
        }
    }
}

#[derive(Debug, PartialEq)]
enum FileKind {
    Image,
    Audio,
    Video,
    Pdf,
    Other,
}

fn kind_of(mime: &str, name: &str) -> FileKind {
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match (mime.split('/').next().unwrap_or_default(), extension.as_str()) {
        _ if mime.starts_with("application/pdf") => FileKind::Pdf,
        ("image", _) => FileKind::Image,
        ("audio", _) => FileKind::Audio,
        ("video", _) => FileKind::Video,
        ("text", _) => FileKind::Other,
        (_, "png" | "jpg" | "jpeg" | "webp" | "gif" | "bmp" | "tif" | "tiff") => FileKind::Image,
        (_, "wav" | "mp3" | "flac" | "ogg" | "opus" | "m4a" | "aac" | "aiff") => FileKind::Audio,
        (_, "mp4" | "mov" | "mkv" | "webm" | "avi" | "m4v") => FileKind::Video,
        (_, "pdf") => FileKind::Pdf,
        _ => FileKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A part, with those options that are given.
    fn said(part: &Part) -> String {
        let Part::Image(source, options) = part else { return format!("{part:?}") };
        let all = format!("{options:?}");
        let fields = all.trim_start_matches("ImageOptions { ").trim_end_matches(" }").split(", ");
        let given: Vec<&str> = fields.filter(|field| !field.ends_with("None")).collect();
        format!("Image({source:?}, {})", if given.is_empty() { "none".into() } else { given.join(", ") })
    }

    #[test]
    fn every_spelling_is_read() {
        let png = "data:image/png;base64,AA==";
        let note = format!("data:text/plain;base64,{}", STANDARD.encode("words"));
        let cases = [
            (json!("a"), "Text(\"a\")"),
            (json!({"type": "text", "text": "a"}), "Text(\"a\")"),
            (json!({"type": "input_text", "text": "a"}), "Text(\"a\")"),
            (json!({"type": "output_text", "text": "a"}), "Text(\"a\")"),
            (json!({"type": "image_url", "image_url": "u"}), "Image(Url(\"u\"), none)"),
            (json!({"type": "image_url", "image_url": {"url": "u", "detail": "low"}}), "Image(Url(\"u\"), detail: Some(Low))"),
            (json!({"type": "input_image", "image_url": "u", "max_edge": 9}), "Image(Url(\"u\"), max_edge: Some(9))"),
            (json!({"type": "image", "image": "u", "min_pixels": 9}), "Image(Url(\"u\"), min_pixels: Some(9))"),
            (json!({"type": "input_image", "image_url": "u"}), "Image(Url(\"u\"), none)"),
            (json!({"type": "image", "image": "u"}), "Image(Url(\"u\"), none)"),
            (json!({"type": "file", "file": {"file_data": note, "filename": "n.txt"}}), "Text(\"n.txt:\\nwords\")"),
            (json!({"type": "input_file", "file_data": note}), "Text(\"words\")"),
            (json!({"type": "input_file", "file_data": png}), "Image(Url(\"data:image/png;base64,AA==\"), none)"),
            (json!({"type": "input_file", "file_url": "https://a/b.jpg"}), "Image(Url(\"https://a/b.jpg\"), none)"),
        ];
        for (value, expected) in cases {
            let part = part(&value, "here").unwrap_or_else(|e| panic!("{value}: {e:?}"));
            assert_eq!(said(&part), expected, "{value}");
        }
        let cases = [
            (json!({"type": "file", "file": {}}), "here.file.file_data"),
            (json!({"type": "file", "file": {"file_data": "JVBERi0xLjc="}}), "here.file.file_data"),
            (json!({"type": "file", "file": {"file_data": "AA=="}}), "here.file.file_data"),
            (json!({"type": "input_file", "file_url": "https://a/b.doc"}), "here.file_url"),
            (json!({"type": "input_file", "file_data": "data:application/pdf;base64,AA=="}), "here.file_data"),
            (json!({"type": "input_image"}), "here.image_url"),
            (json!({"type": "image_url", "image_url": {}}), "here.image_url.url"),
            (json!({"type": "image_url", "image_url": {"url": "u", "detail": "some"}}), "here.image_url.detail"),
            (json!({"type": "image_url", "image_url": {"url": "u", "max_pixels": -1}}), "here.image_url.max_pixels"),
            (json!({"type": "image_url", "image_url": {"url": "u", "max_tokens": 0}}), "here.image_url.max_tokens"),
            (json!({"type": "input_image", "image_url": "u", "max_edge": "x"}), "here.max_edge"),
            (json!({"type": "hologram"}), "here.type"),
            (json!({"type": "text"}), "here.text"),
            (json!(3), "here.type"),
        ];
        for (value, place) in cases {
            let refusal = part(&value, "here").expect_err("this is no part");
            assert_eq!(refusal.param.as_deref(), Some(place), "{value}");
        }
    }
}
