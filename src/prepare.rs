//! A request → a prompt for the engine.

use std::sync::Arc;

use chrono::Utc;
use engine::{Constraint, EngineError, Sampling};
use media::{Limits, MediaError, Video, VideoOptions, decode_image};
use models::{Media, ModelError, Processed, assemble};
use nn::{MediaKind, Prompt};
use text::Conversation;

use crate::chat::ChatRequest;
use crate::constraint::constraint;
use crate::fetch::Place;
use crate::load::Inner;
use crate::{Error, Fault};

/// A fetched item and where it stood in the request.
struct Fetched {
    param: String,
    kind: MediaKind,
    bytes: Vec<u8>,
}

/// What the engine is given.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub constraint: Option<Box<dyn Constraint>>,
}

/// What DRY sees no repetition over, unless the request says otherwise.
const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Fetches media (together), then decodes, processes and tokenizes on a worker thread.
pub(crate) async fn prepare(inner: &Arc<Inner>, request: &ChatRequest) -> Result<Prepared, Error> {
    request.sampling.validate().map_err(refused)?;
    let constraint = match &request.grammar {
        Some(grammar) => Some(constraint(inner, grammar).await?),
        None => None,
    };
    let media = request.media();
    for (param, kind, _) in &media {
        if !inner.family.modalities.contains(kind) {
            let (title, accepted) = (inner.family.title, inner.family.accepts());
            return Err(Error::request(
                param,
                Fault::Modality,
                format!("{title} does not take {kind} input; it takes {accepted}"),
            ));
        }
    }
    let fetch = media.into_iter().map(|(param, kind, source)| async move {
        let bytes = inner.fetcher.fetch(source, &Place { param: &param, kind }).await?;
        Ok::<_, Error>(Fetched { param, kind, bytes })
    });
    let fetched = futures_util::future::try_join_all(fetch).await?;
    let conversation = Conversation {
        messages: request.template_messages(),
        tools: request.tools.clone(),
        kwargs: request.template_kwargs.clone(),
        now: Utc::now(),
    };
    let permit = inner.workers.acquire().await.map_err(|e| Error::Generation(e.to_string()))?;
    let shared = inner.clone();
    let mut sampling = request.sampling.clone();
    let breakers = request.dry_sequence_breakers.clone().unwrap_or_else(|| BREAKERS.map(String::from).to_vec());
    let work = tokio::task::spawn_blocking(move || {
        if let Some(dry) = &mut sampling.dry {
            dry.breakers = shared.tokenizer.holding(&breakers);
        }
        build(&shared, fetched, &conversation).map(|prompt| Prepared { prompt, sampling, constraint })
    });
    let prepared = work.await.map_err(|e| Error::Generation(format!("preparing the prompt failed: {e}")))?;
    drop(permit);
    prepared
}

/// What the engine refuses, as a fault of the request where it is one.
pub(crate) fn refused(e: EngineError) -> Error {
    match e {
        EngineError::Overloaded { .. } => Error::Overloaded,
        EngineError::ShutDown => Error::Generation(e.to_string()),
        EngineError::OutOfRange { field, .. } | EngineError::UnknownToken { field, .. } => {
            Error::request(field, Fault::Invalid, e)
        }
        e => Error::request("request", Fault::Invalid, e),
    }
}

fn build(inner: &Inner, fetched: Vec<Fetched>, conversation: &Conversation) -> Result<Prompt, Error> {
    let items = fetched.into_iter().map(|item| process(inner, item)).collect::<Result<Vec<_>, _>>()?;
    let rejected = |e: ModelError| Error::request("messages", Fault::Invalid, e);
    let rendered = inner.template.render(conversation, inner.tokenizer.guard()).map_err(|e| rejected(e.into()))?;
    assemble(&rendered, items, inner.processor.as_ref(), &inner.tokenizer).map_err(rejected)
}

fn process(inner: &Inner, item: Fetched) -> Result<Processed, Error> {
    let Fetched { param, kind, bytes } = item;
    let place = Place { param: &param, kind };
    decode_and_process(inner, kind, bytes).map_err(|e| match e {
        ModelError::Media(MediaError::TooLarge { .. }) => place.fault(Fault::TooLarge, e),
        e => place.fault(Fault::Media(kind), e),
    })
}

fn decode_and_process(inner: &Inner, kind: MediaKind, bytes: Vec<u8>) -> Result<Processed, ModelError> {
    let limits = Limits::default();
    match kind {
        MediaKind::Video => {
            let video = Video::open(bytes, &limits)?;
            let options = VideoOptions::default();
            let clip = video.clip(&options, |part| inner.processor.sample(part, &options))?;
            inner.processor.process(Media::Video(clip))
        }
        MediaKind::Image | MediaKind::Audio => inner.processor.process(Media::Image(decode_image(&bytes, &limits)?)),
    }
}
