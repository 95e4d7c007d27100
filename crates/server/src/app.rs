//! What all routes share.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::StatusCode;
use mistralrs::{AnswerStream, ChatRequest, Content, MediaSource, Message, Model, Part, WebSearchOptions};
use wire::content::UPLOADED;

use crate::edge::{Keys, Phase, Phases};
use crate::error::Failure;
use crate::metrics::Recorder;
use crate::responses::Kept;
use crate::settings::Settings;
use crate::shelf::Shelf;

/// The state of a server. Clones share it.
#[derive(Clone)]
pub struct App(Arc<Shared>);

pub struct Shared {
    pub model: Model,
    pub settings: Settings,
    pub keys: Keys,
    pub phases: Phases,
    /// Uploaded files by their ids.
    pub uploads: Shelf<Arc<[u8]>>,
    /// Conversations that can be continued, by the ids of their last answers.
    pub conversations: Shelf<Arc<Kept>>,
    pub recorder: Recorder,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub fn new(model: Model, settings: Settings) -> Self {
        Self(Arc::new(Shared {
            model,
            keys: Keys::new(&settings.api_keys),
            phases: Phases::default(),
            uploads: Shelf::new(settings.uploads_bytes_max, settings.kept_for),
            conversations: Shelf::new(settings.responses_bytes_max, settings.kept_for),
            recorder: Recorder::default(),
            settings,
        }))
    }

    /// Refuses a model that is not the one served. A request that names none means it.
    pub fn check_model(&self, name: Option<&str>) -> Result<(), Failure> {
        let own = self.model.id();
        match name {
            None | Some("default") => Ok(()),
            Some(name) if name == own => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(100).collect();
                let message = format!("there is no model {name:?}; use \"default\" or {own:?}");
                Err(Failure::new(StatusCode::NOT_FOUND, message).param("model").code("model_not_found"))
            }
        }
    }

    /// Lets a request call the functions that run here, in as many rounds as it wants and may have; and search the web, if it says how
    /// and at which place of its body.
    pub fn equip(
        &self,
        request: &mut ChatRequest,
        rounds: Option<usize>,
        web: Option<(WebSearchOptions, String)>,
    ) -> Result<(), Failure> {
        let most = self.settings.tool_rounds_max;
        request.tool_rounds_max = Some(rounds.unwrap_or(most).min(most));
        let ours = &self.settings.tools;
        let Some((options, at)) = web else {
            request.server_tools = ours.clone();
            return Ok(());
        };
        let missing = "this server has no search engine; --enable-search and --search-url give it one";
        let engine = self.settings.web_search.as_ref().ok_or_else(|| Failure::invalid(&at, format!("{at}: {missing}")))?;
        for tool in engine.tools(&options)?.into_iter().chain(ours.iter().cloned()) {
            // What was asked for goes before what happens to have its name.
            if request.server_tools.get(tool.name()).is_none() {
                request.server_tools.add(tool)?;
            }
        }
        Ok(())
    }

    /// Starts answers to a request.
    pub async fn start(&self, request: &ChatRequest, choices: usize) -> Result<Vec<AnswerStream>, Failure> {
        let request = self.with_uploads(request)?;
        Ok(self.model.choices(request.as_ref(), choices).await?)
    }

    /// The request with uploaded media in the places of their names.
    pub fn with_uploads<'a>(&self, request: &'a ChatRequest) -> Result<Cow<'a, ChatRequest>, Failure> {
        if !request.messages.iter().any(names_uploads) {
            return Ok(Cow::Borrowed(request));
        }
        let mut request = request.clone();
        for (i, message) in request.messages.iter_mut().enumerate() {
            let Content::Parts(parts) = &mut message.content else { continue };
            for (j, part) in parts.iter_mut().enumerate() {
                let Some(source) = part.source_mut() else { continue };
                self.take_from_shelf(source).map_err(|reason| {
                    let at = format!("messages[{i}].content[{j}]");
                    Failure::invalid(&at, format!("{at}: {reason}"))
                })?;
            }
        }
        Ok(Cow::Owned(request))
    }

    fn take_from_shelf(&self, source: &mut MediaSource) -> Result<(), String> {
        match source {
            MediaSource::Url(url) => {
                let Some(id) = url.strip_prefix(UPLOADED) else { return Ok(()) };
                let found = self.uploads.get(id).ok_or("there is no upload with this id, or no longer")?;
                *source = MediaSource::Bytes(found.to_vec());
                Ok(())
            }
            MediaSource::Frames { frames, .. } => frames.iter_mut().try_for_each(|frame| self.take_from_shelf(frame)),
            MediaSource::Bytes(_) => Ok(()),
        }
    }

    /// What a future comes to, unless the server ends first.
    pub async fn unless_ended<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            result = future => result,
            () = self.phases.reached(Phase::Ended) => Err(Failure::ending()),
        }
    }
}

/// Whether a message has to be given what was uploaded. What it says may be large, and is copied only then.
fn names_uploads(message: &Message) -> bool {
    fn is_upload(source: &MediaSource) -> bool {
        match source {
            MediaSource::Url(url) => url.starts_with(UPLOADED),
            MediaSource::Frames { frames, .. } => frames.iter().any(is_upload),
            MediaSource::Bytes(_) => false,
        }
    }
    let Content::Parts(parts) = &message.content else { return false };
    parts.iter().filter_map(Part::source).any(is_upload)
}
