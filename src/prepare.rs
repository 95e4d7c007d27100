//! A request → a prompt for the engine.

use std::sync::Arc;
use std::time::Instant;

use ::media::{Image, ImageOptions, Interest, VideoOptions};
use chrono::Utc;
use engine::{Constraint, EngineError, Sampling};
use futures_util::future::try_join_all;
use models::{ModelError, Processed, Processor, assemble, media_in_words};
use nn::{MediaKind, Prompt};
use serde_json::json;
use text::{ChatTemplate, Conversation, Piece, Thoughts};

use crate::agent::Past;
use crate::calls::Offer;
use crate::chat::{ChatRequest, Content, Item, MediaSource, Part, RawPrompt, Wanted};
use crate::constraint::constraint;
use crate::fetch::{Fetched, Place};
use crate::load::Inner;
use crate::machine::Memory;
use crate::media::{Made, Raw, Received, Spent};
use crate::plan::amount;
use crate::{Error, Fault, documents};

/// What the engine is given.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub constraint: Option<Box<dyn Constraint>>,
    pub spent: Spent,
    /// The pictures, tiles and frames that the model looks at, item by item; none of what was remembered.
    pub views: Vec<Vec<Image>>,
    /// What became of its media, in their order.
    pub received: Arc<[Received]>,
    pub offer: Offer,
    /// Where the prompt leaves thoughts.
    pub thoughts: Thoughts,
    /// When preparing it began.
    pub began: Instant,
}

/// Tells the workers when the request is gone that they work for.
struct Guard(Interest);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lose();
    }
}

/// Pictures, sounds and clips of a request, pages of documents included.
pub const MEDIA_MAX: usize = 64;
/// What DRY sees no repetition over, unless the request says otherwise.
const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Fetches media (together), then decodes, processes and tokenizes on a worker thread. `past` is what the answer has come to already.
pub(crate) async fn prepare(inner: &Arc<Inner>, request: &ChatRequest, past: &Past) -> Result<Prepared, Error> {
    let began = Instant::now();
    request.sampling.validate().map_err(refused)?;
    let (request, places) = documents::read(inner, request).await?;
    let request = request.as_ref();
    let mut media = if request.prompt.is_none() { request.media(&past.messages, &places) } else { Vec::new() };
    media.iter_mut().for_each(|item| item.wanted = item.wanted.or(&inner.pictures));
    check(inner, &media)?;
    let offer = Offer::read(inner, request, past)?;
    let rendered = match request.prompt {
        None => render(inner, request, (&offer, past)).await?,
        Some(_) => String::new(),
    };
    let thoughts = offer.thoughts(&rendered);
    let constraint = match offer.form(request.grammar.as_ref(), thoughts) {
        Some(form) => Some(constraint(inner, form).await?),
        None => None,
    };
    let fetched = fetched(inner, media).await?;
    let (salt, raw) = (request.cache_salt.clone(), request.prompt.clone());
    let mut sampling = request.sampling.clone();
    let breakers = request.dry_sequence_breakers.clone().unwrap_or_else(|| BREAKERS.map(String::from).to_vec());
    let work = move |shared: &Inner, interest: &Interest| {
        if let Some(dry) = &mut sampling.dry {
            dry.breakers = shared.tokenizer.holding(&breakers);
        }
        let (mut spent, mut received, mut views) = (Spent::default(), Vec::new(), Vec::new());
        let items = fetched.into_iter().map(|raw| {
            let (param, kind, bytes) = (raw.param.clone(), raw.wanted.kind(), raw.content.bytes());
            let (made, took) = shared.media.process(shared.processor.as_ref(), raw, salt.as_deref(), interest)?;
            let Made { mut item, extent, shown } = made;
            check_memory(shared, &item, &param)?;
            spent += took;
            views.push(std::mem::take(&mut item.views));
            received.push(Received { param, kind, bytes, tokens: item.tokens(), extent, views: shown, spent: took });
            Ok(item)
        });
        let items = items.collect::<Result<Vec<_>, Error>>()?;
        let prompt = match raw {
            None => assemble(&rendered, items, shared.processor.as_ref(), &shared.tokenizer).map_err(rejected)?,
            Some(raw) => continued(shared, raw)?,
        };
        Ok(Prepared { prompt, sampling, constraint, spent, views, received: received.into(), offer, thoughts, began })
    };
    on_worker(inner, "preparing the prompt", work).await?
}

/// Works on one of a bounded number of threads; `what` it is says the error, should it not come to an end. The interest is lost when
/// nobody waits for the result any more.
pub(crate) async fn on_worker<R: Send + 'static>(
    inner: &Arc<Inner>,
    what: &str,
    work: impl FnOnce(&Inner, &Interest) -> R + Send + 'static,
) -> Result<R, Error> {
    let permit = inner.workers.acquire().await.map_err(|e| Error::Generation(e.to_string()))?;
    let guard = Guard(Interest::default());
    let (shared, interest) = (inner.clone(), guard.0.clone());
    let done = tokio::task::spawn_blocking(move || work(&shared, &interest)).await;
    drop((permit, guard));
    done.map_err(|e| Error::Generation(format!("{what} failed: {e}")))
}

/// Fetches media, together.
async fn fetched(inner: &Inner, media: Vec<Item<'_>>) -> Result<Vec<Raw>, Error> {
    let fetch = media.into_iter().map(|item| async move {
        let place = Place { param: &item.param, kind: item.wanted.kind() };
        let content = inner.fetcher.fetch(item.source, &place).await?;
        let timed = matches!(content, Fetched::Frames(_, Some(_)));
        if timed && matches!(item.wanted, Wanted::Video(VideoOptions { fps: Some(_), .. })) {
            return Err(place.fault(Fault::Invalid, "fps and timestamps exclude each other"));
        }
        Ok(Raw { param: item.param, content, wanted: item.wanted })
    });
    try_join_all(fetch).await
}

/// The request with documents read, and the bytes of its media in the places of their URLs: they are fetched once, however many prompts
/// come of it.
pub(crate) async fn pinned(inner: &Arc<Inner>, request: &ChatRequest) -> Result<ChatRequest, Error> {
    let (request, places) = documents::read(inner, request).await?;
    let media = request.media(&[], &places);
    check(inner, &media)?;
    let fetched = fetched(inner, media).await?;
    let mut pinned = request.into_owned();
    let parts = pinned.messages.iter_mut().flat_map(|message| match &mut message.content {
        Content::Text(_) => [].iter_mut(),
        Content::Parts(parts) => parts.iter_mut(),
    });
    for (source, raw) in parts.filter_map(Part::source_mut).zip(fetched) {
        match (&mut *source, raw.content) {
            (_, Fetched::File(bytes)) => *source = MediaSource::Bytes(bytes),
            (MediaSource::Frames { frames, .. }, Fetched::Frames(files, _)) => {
                *frames = files.into_iter().map(MediaSource::Bytes).collect();
            }
            // A folder is read again.
            (_, Fetched::Frames(..)) => {}
        }
    }
    Ok(pinned)
}

/// Processes a picture that a function has returned. The prompt that it is part of finds what was made of it.
pub(crate) async fn look_at(inner: &Arc<Inner>, picture: Vec<u8>, salt: Option<String>) -> Result<(), Error> {
    let raw = Raw {
        param: "picture".into(),
        content: Fetched::File(picture),
        wanted: Wanted::Image(ImageOptions::default()).or(&inner.pictures),
    };
    let work = move |shared: &Inner, interest: &Interest| {
        let (made, _) = shared.media.process(shared.processor.as_ref(), raw, salt.as_deref(), interest)?;
        check_memory(shared, &made.item, "picture")
    };
    on_worker(inner, "looking at a picture", work).await?
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

/// Refuses media that the family does not take, and options that make no sense.
fn check(inner: &Inner, media: &[Item]) -> Result<(), Error> {
    if let Some(item) = media.get(MEDIA_MAX) {
        let reason = format!("a request may have {MEDIA_MAX} pictures, sounds and clips");
        return Err(Error::request(&item.param, Fault::Invalid, reason));
    }
    for item in media {
        let kind = item.wanted.kind();
        if !inner.family.modalities.contains(&kind) {
            let (title, accepted) = (inner.family.title, inner.family.accepts());
            let reason = format!("{title} does not take {kind} input; it takes {accepted}");
            return Err(Error::request(&item.param, Fault::Modality, reason));
        }
        item.wanted.check().map_err(|e| Error::request(&item.param, Fault::Invalid, e))?;
    }
    Ok(())
}

/// Refuses an item for whose encoding there is no memory.
fn check_memory(inner: &Inner, item: &Processed, param: &str) -> Result<(), Error> {
    let needed = inner.footprint.encoding(&item.input);
    // What the plan has room for needs no look at the system.
    let free = match needed <= inner.plan.encoding {
        true => None,
        false => Memory::here().map(|memory| usize::try_from(memory.free).unwrap_or(usize::MAX)),
    };
    match free {
        Some(free) if free < needed => {
            let reason = format!(
                "to encode it takes {} of memory, and {} are free; send less of it, or smaller",
                amount(needed),
                amount(free)
            );
            Err(Error::request(param, Fault::TooLarge, reason))
        }
        _ => Ok(()),
    }
}

/// The conversation as the chat template writes it, on a worker thread.
async fn render(inner: &Arc<Inner>, request: &ChatRequest, (offer, past): (&Offer, &Past)) -> Result<String, Error> {
    let mut messages = request.template_messages(&past.messages, |kind| inner.processor.shown_as(kind));
    offer.explain(&mut messages);
    let (tools, kwargs) = (offer.definitions(), request.template_kwargs.clone());
    let media = media_in_words(inner.processor.as_ref());
    let conversation = Conversation { messages, tools, kwargs, now: Utc::now(), media };
    let work = move |shared: &Inner, _: &Interest| shared.template.render(&conversation, shared.tokenizer.guard());
    let rendered = on_worker(inner, "rendering the prompt", work).await?;
    rendered.map_err(|e| rejected(e.into()))
}

/// A prompt that no template has written.
fn continued(inner: &Inner, raw: RawPrompt) -> Result<Prompt, Error> {
    let ids = match raw {
        RawPrompt::Tokens(ids) => ids,
        RawPrompt::Text(text) => {
            let encoded = inner.tokenizer.encode(&[Piece::Text(text)]);
            encoded.map_err(|e| Error::request("prompt", Fault::Invalid, e))?.ids
        }
    };
    let mut prompt = Prompt::text(ids);
    inner.processor.arrange(&mut prompt);
    Ok(prompt)
}

fn rejected(e: ModelError) -> Error {
    Error::request("messages", Fault::Invalid, e)
}

/// Whether the chat template shows pictures in the results of functions. Where it knows nothing of functions, results are words of
/// the user, who may show some.
pub(crate) fn shows_pictures_in_results(template: &ChatTemplate, processor: &dyn Processor, guard: &text::Guard) -> bool {
    let picture = processor.shown_as(MediaKind::Image);
    let Some(marker) = processor.markers().iter().find(|marker| marker.kind == picture) else { return false };
    if !template.takes_tools() {
        return true;
    }
    let function = json!({"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}});
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {}}});
    let result = json!([{"type": "text", "text": "a"}, {"type": picture.name()}]);
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "f", "content": result},
    ]);
    let conversation = Conversation {
        messages: messages.as_array().cloned().unwrap_or_default(),
        tools: vec![json!({"type": "function", "function": function})],
        media: media_in_words(processor),
        ..Conversation::default()
    };
    template.render(&conversation, guard).is_ok_and(|prompt| prompt.contains(marker.protected()))
}
