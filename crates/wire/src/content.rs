//! Content parts, in the spellings of all clients → words and media, in their order.

use mistralrs::{AudioOptions, Content, DocumentOptions, MediaSource, PageOptions, Part, VideoOptions};
use serde::Deserialize;
use serde_json::Value;

use crate::read::read_at;
use crate::refusal::Refusal;
use crate::{audio, image, video};

/// How a URL names media that were uploaded.
pub const UPLOADED: &str = "media:";
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

/// What stands beside a file.
#[derive(Debug, Deserialize)]
struct FileBody {
    filename: Option<String>,
    file_data: Option<String>,
    file_url: Option<String>,
    file_id: Option<String>,
    first_page: Option<usize>,
    last_page: Option<usize>,
}

/// A file that came with the message (`file_data`), was uploaded (`file_id`) or lies elsewhere (`file_url`). A picture, sound or clip is
/// told by the type that its data URL names, or by the end of its name; what else it is, its bytes say when they are read.
fn file(value: &Value, at: &str) -> Result<Part, Refusal> {
    let (body, at) = match &value["file"] {
        Value::Null => (value, at.to_string()),
        body => (body, format!("{at}.file")),
    };
    let refuse = |field: &str, reason: &str| Refusal::invalid(format!("{at}.{field}"), format!("{at}.{field} {reason}"));
    let pictures = image::options(body, &at)?;
    let FileBody { filename: name, file_data, file_url, file_id, first_page, last_page } = read_at(body, &at)?;
    let url = match (file_data, file_id, file_url) {
        (Some(data), ..) if data.starts_with("data:") => data,
        (Some(data), ..) => format!("data:;base64,{data}"),
        (None, Some(id), _) if id.starts_with(UPLOADED) => id,
        (None, Some(id), _) => format!("{UPLOADED}{id}"),
        (None, None, Some(url)) => url,
        (None, None, None) => return Err(refuse("file_data", "is missing; a file comes as file_data, file_id or file_url")),
    };
    let mime = url.strip_prefix("data:").and_then(|rest| rest.split_once(',')).map_or("", |(head, _)| head);
    let kind = kind_of(mime, name.as_deref().unwrap_or(&url));
    let source = MediaSource::Url(url);
    match kind {
        FileKind::Image => Ok(Part::Image(source, pictures)),
        FileKind::Audio => Ok(Part::Audio(source, AudioOptions::default())),
        FileKind::Video => Ok(Part::Video(source, VideoOptions::default())),
        FileKind::Document => {
            let options = DocumentOptions { name, pages: PageOptions { first_page, last_page }, pictures };
            options.check().map_err(|e| refuse(e.field, &e.reason))?;
            Ok(Part::Document(source, options))
        }
    }
}

#[derive(Debug, PartialEq)]
enum FileKind {
    Image,
    Audio,
    Video,
    Document,
}

fn kind_of(mime: &str, name: &str) -> FileKind {
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match (mime.split('/').next().unwrap_or_default(), extension.as_str()) {
        _ if mime.starts_with("application/pdf") => FileKind::Document,
        ("image", _) => FileKind::Image,
        ("audio", _) => FileKind::Audio,
        ("video", _) => FileKind::Video,
        ("text", _) => FileKind::Document,
        (_, "png" | "jpg" | "jpeg" | "webp" | "gif" | "bmp" | "tif" | "tiff") => FileKind::Image,
        (_, "wav" | "mp3" | "flac" | "ogg" | "opus" | "m4a" | "aac" | "aiff") => FileKind::Audio,
        (_, "mp4" | "mov" | "mkv" | "webm" | "avi" | "m4v") => FileKind::Video,
        _ => FileKind::Document,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A part, with those options that are given.
    fn said(part: &Part) -> String {
        if let Part::Document(MediaSource::Url(url), options) = part {
            let name = options.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let first = options.pages.first_page.map(|page| format!(" from page {page}")).unwrap_or_default();
            return format!("document{name} from {url}{first}");
        }
        let Part::Image(source, options) = part else { return format!("{part:?}") };
        let all = format!("{options:?}");
        let fields = all.trim_start_matches("ImageOptions { ").trim_end_matches(" }").split(", ");
        let given: Vec<&str> = fields.filter(|field| !field.ends_with("None")).collect();
        format!("Image({source:?}, {})", if given.is_empty() { "none".into() } else { given.join(", ") })
    }

    #[test]
    fn every_spelling_is_read() {
        let png = "data:image/png;base64,AA==";
        let note = "data:text/plain;base64,d29yZHM=";
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
            (
                json!({"type": "file", "file": {"file_data": note, "filename": "n.txt"}}),
                "document n.txt from data:text/plain;base64,d29yZHM=",
            ),
            (json!({"type": "input_file", "file_data": "JVBERi0xLjc="}), "document from data:;base64,JVBERi0xLjc="),
            (json!({"type": "input_file", "file_id": "1f"}), "document from media:1f"),
            (json!({"type": "file", "file": {"file_id": "media:1f", "filename": "a.png"}}), "Image(Url(\"media:1f\"), none)"),
            (
                json!({"type": "input_file", "file_url": "https://a/b.pdf", "first_page": 2}),
                "document from https://a/b.pdf from page 2",
            ),
            (json!({"type": "input_file", "file_data": png}), "Image(Url(\"data:image/png;base64,AA==\"), none)"),
            (json!({"type": "input_file", "file_url": "https://a/b.jpg"}), "Image(Url(\"https://a/b.jpg\"), none)"),
        ];
        for (value, expected) in cases {
            let part = part(&value, "here").unwrap_or_else(|e| panic!("{value}: {e:?}"));
            assert_eq!(said(&part), expected, "{value}");
        }
        let cases = [
            (json!({"type": "file", "file": {}}), "here.file.file_data"),
            (json!({"type": "file", "file": {"file_data": note, "first_page": 0}}), "here.file.first_page"),
            (json!({"type": "input_file", "file_data": note, "first_page": 3, "last_page": 2}), "here.last_page"),
            (json!({"type": "input_file", "file_data": note, "max_pixels": 0}), "here.max_pixels"),
            (json!({"type": "input_file", "file_id": 3}), "here.file_id"),
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
            let failure = part(&value, "here").expect_err("this is no part");
            assert_eq!(failure.param.as_deref(), Some(place), "{value}");
        }
    }
}
