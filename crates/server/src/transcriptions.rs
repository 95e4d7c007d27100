//! POST /v1/audio/transcriptions: what is said in a sound, asked of a model that talks.

use axum::body::{Body, Bytes};
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use mistralrs::{AudioOptions, ChatRequest, MediaSource, Part, Sampling};
use serde_json::json;
use wire::response::by_kind;

use crate::app::App;
use crate::error::Failure;
use crate::payload::{Raw, essence};
use crate::places::Places;

const INSTRUCTION: &str = "Write down what is said, word for word, and nothing else.";

/// The fields of the form.
#[derive(Default)]
struct Form {
    file: Option<Bytes>,
    model: Option<String>,
    prompt: Option<String>,
    language: Option<String>,
    temperature: Option<String>,
    response_format: Option<String>,
    stream: Option<String>,
}

pub async fn create(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let form = Form::read(request, &app).await?;
    app.check_model(form.model.as_deref())?;
    let plain = match form.response_format.as_deref() {
        None | Some("json") => false,
        Some("text") => true,
        Some(_) => {
            return Err(Failure::invalid("response_format", "response_format must be json or text: there are no timestamps"));
        }
    };
    if form.stream.as_deref() == Some("true") {
        return Err(Failure::invalid("stream", "stream is not supported here; chat completions stream what they hear"));
    }
    let request = form.request()?;
    let mut places = Places::default();
    places.add(vec!["file".into()]);
    let answers = app.start(&request, 1).await.map_err(|failure| places.restore(failure))?;
    let answers = app.whole(answers).await?;
    let answer = answers.first().ok_or_else(Failure::ending)?;
    let text = answer.text.trim();
    if plain {
        return Ok(format!("{text}\n").into_response());
    }
    let usage = &answer.summary.usage;
    let audio_tokens = by_kind(&answer.received)["audio_tokens"].clone();
    let usage = json!({
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": {"audio_tokens": audio_tokens, "text_tokens": usage.prompt_tokens - usage.media_tokens},
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    });
    Ok(axum::Json(json!({"text": text, "usage": usage})).into_response())
}

impl Form {
    async fn read(request: Request, app: &App) -> Result<Self, Failure> {
        let is_form = essence(request.headers()).is_some_and(|essence| essence.eq_ignore_ascii_case("multipart/form-data"));
        let kind = request.headers().get(CONTENT_TYPE).filter(|_| is_form).cloned();
        let kind = kind.ok_or_else(|| {
            let message = "the body must be a form: set the header Content-Type: multipart/form-data";
            Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_media_type")
        })?;
        let Raw(body) = Raw::from_request(request, app).await?;
        let broken = || Failure::new(StatusCode::BAD_REQUEST, "the form cannot be read").code("invalid_form");
        let refused = |_: MultipartError| broken();
        let mut request = Request::new(Body::from(body));
        request.headers_mut().insert(CONTENT_TYPE, kind);
        let mut parts = Multipart::from_request(request, &()).await.map_err(|_| broken())?;
        let mut form = Self::default();
        while let Some(field) = parts.next_field().await.map_err(refused)? {
            let slot = match field.name() {
                Some("file") => {
                    form.file = Some(field.bytes().await.map_err(refused)?);
                    continue;
                }
                Some("model") => &mut form.model,
                Some("prompt") => &mut form.prompt,
                Some("language") => &mut form.language,
                Some("temperature") => &mut form.temperature,
                Some("response_format") => &mut form.response_format,
                Some("stream") => &mut form.stream,
                _ => continue,
            };
            *slot = Some(field.text().await.map_err(refused)?);
        }
        Ok(form)
    }

    fn request(self) -> Result<ChatRequest, Failure> {
        let file = self.file.ok_or_else(|| Failure::invalid("file", "file is missing"))?;
        let temperature = self.temperature.map_or(Ok(0.0), |text| text.parse());
        let temperature = temperature.map_err(|_| Failure::invalid("temperature", "temperature must be a number"))?;
        let language = self.language.map(|language| format!(" The language is {language}.")).unwrap_or_default();
        let hint = self.prompt.map(|prompt| format!(" What comes before it, or words in it: {prompt}")).unwrap_or_default();
        let sound = Part::Audio(MediaSource::Bytes(file.to_vec()), AudioOptions::default());
        let words = Part::Text(format!("{INSTRUCTION}{language}{hint}"));
        let sampling = Sampling { temperature, ..Sampling::default() };
        Ok(ChatRequest { sampling, ..ChatRequest::user(vec![sound, words]) })
    }
}
