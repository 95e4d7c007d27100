//! The JSON of a clip: where it is, or its frames are, and what is wanted of it.

use mistralrs::{MediaSource, Part, VideoOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// Frames of JPEG one after the other, behind this and separated by commas: a list in one URL.
const JPEG_FRAMES: &str = "data:video/jpeg;base64,";
const JPEG: &str = "data:image/jpeg;base64,";

/// `video_url`, or a part of type `video` itself.
#[derive(Debug, Deserialize)]
struct VideoBody {
    #[serde(alias = "video")]
    url: Value,
    timestamps: Option<Vec<f64>>,
    fps: Option<f64>,
    max_frames: Option<usize>,
    start: Option<f64>,
    end: Option<f64>,
}

/// `{"type": "video_url", "video_url": {"url": …, …}}`, or `{"type": "video", "video": …, …}`.
pub fn part(value: &Value, at: &str) -> Result<Part, Refusal> {
    let (value, at) = match &value["video_url"] {
        Value::Null => (value.clone(), at.to_string()),
        url @ (Value::String(_) | Value::Array(_)) => (json!({"url": url}), format!("{at}.video_url")),
        body => (body.clone(), format!("{at}.video_url")),
    };
    let body: VideoBody = serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string().as_str() {
        "." => Refusal::invalid(format!("{at}.url"), format!("{at}.url is missing: {}", e.inner())),
        field => Refusal::invalid(format!("{at}.{field}"), format!("{at}.{field}: {}", e.inner())),
    })?;
    let VideoBody { url, timestamps, fps, max_frames, start, end } = body;
    let options = VideoOptions { fps, max_frames, start, end };
    let refuse = |field: &str, reason: &str| {
        let at = format!("{at}.{field}");
        Refusal::invalid(&at, format!("{at} {reason}"))
    };
    options.check().map_err(|e| refuse(e.field, &e.reason))?;
    let frames: Option<Vec<MediaSource>> = match &url {
        Value::String(url) => {
            url.strip_prefix(JPEG_FRAMES).map(|all| all.split(',').map(|one| MediaSource::Url(format!("{JPEG}{one}"))).collect())
        }
        Value::Array(urls) => {
            let urls: Option<_> = urls.iter().map(|url| url.as_str().map(MediaSource::from)).collect();
            Some(urls.ok_or_else(|| refuse("url", "must be a text or a list of texts"))?)
        }
        _ => return Err(refuse("url", "must be a text or a list of texts")),
    };
    let source = match (frames, timestamps) {
        (Some(_), Some(_)) if fps.is_some() => return Err(refuse("fps", "and timestamps exclude each other")),
        (Some(frames), timestamps) => MediaSource::Frames { frames, timestamps },
        (None, Some(_)) => return Err(refuse("timestamps", "are for a list of frames")),
        (None, None) => url.as_str().unwrap_or_default().into(),
    };
    Ok(Part::Video(source, options))
}
