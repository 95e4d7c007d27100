//! Documents of a request → words, and pictures of pages.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ::media::{ImageOptions, Interest, Limits, MediaError, OptionError, PageOptions, Pages, decode_image, is_pdf, read_pdf};
use nn::MediaKind;

use crate::chat::{ChatRequest, Content, MediaSource, Part};
use crate::fetch::{Fetched, Place};
use crate::load::Inner;
use crate::prepare::on_worker;
use crate::{Error, Fault};

/// Bytes of a text.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// What is wanted of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentOptions {
    /// What the model is told that it is called.
    pub name: Option<String>,
    /// Which pages of a PDF are looked at.
    pub pages: PageOptions,
    /// How they are looked at.
    pub pictures: ImageOptions,
}

impl DocumentOptions {
    /// Refuses what makes no sense for any document.
    ///
    /// # Errors
    /// The option at fault.
    pub fn check(&self) -> Result<(), OptionError> {
        self.pages.check()?;
        self.pictures.check()
    }
}

/// Where the parts of a request stood before its documents were read, by message and part.
pub(crate) type Places = BTreeMap<(usize, usize), String>;

/// The request with documents read: a text in words, a PDF page by page.
pub(crate) async fn read<'a>(inner: &Arc<Inner>, request: &'a ChatRequest) -> Result<(Cow<'a, ChatRequest>, Places), Error> {
    let is_document = |part: &Part| matches!(part, Part::Document(..));
    let mut places = Places::new();
    if !request.messages.iter().any(|message| message.parts().iter().any(is_document)) {
        return Ok((Cow::Borrowed(request), places));
    }
    let mut request = request.clone();
    for (i, message) in request.messages.iter_mut().enumerate() {
        if !message.parts().iter().any(is_document) {
            continue;
        }
        let mut read = Vec::new();
        for (j, part) in message.parts().iter().enumerate() {
            let param = format!("messages[{i}].content[{j}]");
            match part {
                Part::Document(source, options) => read.extend(document(inner, source, options, param).await?),
                part => read.push((part.clone(), param)),
            }
        }
        places.extend(read.iter().enumerate().map(|(j, (_, place))| ((i, j), place.clone())));
        message.content = gathered(read.into_iter().map(|(part, _)| part).collect());
    }
    Ok((Cow::Owned(request), places))
}

/// Words alone are one text, which every chat template takes.
fn gathered(parts: Vec<Part>) -> Content {
    let words = parts.iter().map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None });
    match words.collect::<Option<Vec<_>>>() {
        Some(words) => Content::Text(words.join("\n")),
        None => Content::Parts(parts),
    }
}

/// The parts that a document becomes, and what error messages call them.
async fn document(
    inner: &Arc<Inner>,
    source: &MediaSource,
    options: &DocumentOptions,
    param: String,
) -> Result<Vec<(Part, String)>, Error> {
    let unusable = |reason: &str| Error::request(&param, Fault::Document, reason);
    options.check().map_err(|e| Error::request(&param, Fault::Invalid, e))?;
    let place = Place { param: &param, kind: MediaKind::Image };
    let fetched = inner.fetcher.fetch(source, &place).await.map_err(|e| match e {
        Error::Request { param, fault: Fault::Media(_), reason } => Error::Request { param, fault: Fault::Document, reason },
        e => e,
    })?;
    let Fetched::File(bytes) = fetched else { return Err(unusable("a document is one file")) };
    if is_pdf(&bytes) {
        let pages = pdf(inner, bytes, options.pages, &param).await?;
        return Ok(shown(pages, options, &param));
    }
    if bytes.len() > TEXT_BYTES_MAX && std::str::from_utf8(&bytes).is_ok() {
        let reason = format!("a text may have {} MiB", TEXT_BYTES_MAX >> 20);
        return Err(Error::request(&param, Fault::TooLarge, reason));
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => {
            let named = options.name.as_ref().map_or_else(|| text.clone(), |name| format!("{name}:\n{text}"));
            Ok(vec![(Part::Text(named), param)])
        }
        Ok(_) => Err(unusable("it is neither a text nor a PDF")),
        Err(e) if decode_image(e.as_bytes(), &Limits::default()) != Err(MediaError::NotAnImage) => {
            Ok(vec![(Part::Image(MediaSource::Bytes(e.into_bytes()), options.pictures), param)])
        }
        Err(_) => Err(unusable("it is neither a text, a PDF nor a picture; send sounds as audio_url, clips as video_url")),
    }
}

/// Reads a PDF on a worker thread.
async fn pdf(inner: &Arc<Inner>, bytes: Vec<u8>, options: PageOptions, param: &str) -> Result<Pages, Error> {
    if !inner.family.modalities.contains(&MediaKind::Image) {
        let reason = format!("{} does not take image input, which the pages of a PDF are", inner.family.title);
        return Err(Error::request(param, Fault::Modality, reason));
    }
    let read =
        move |shared: &Inner, interest: &Interest| read_pdf(bytes, &options, &shared.pdf_reader, &Limits::default(), interest);
    let pages = on_worker(inner, "reading a document", read).await?;
    pages.map_err(|e| Error::request(param, Fault::of(&e, Fault::Document), e))
}

/// Each page behind its number.
fn shown(pages: Pages, options: &DocumentOptions, param: &str) -> Vec<(Part, String)> {
    let Pages { first, all, pictures } = pages;
    let page = |(i, picture)| {
        let number = first + i;
        let words = match &options.name {
            Some(name) => format!("{name}, page {number} of {all}:"),
            None => format!("Page {number} of {all}:"),
        };
        let place = format!("{param}, page {number}");
        [(Part::Text(words), place.clone()), (Part::Image(MediaSource::Bytes(picture), options.pictures), place)]
    };
    pictures.into_iter().enumerate().flat_map(page).collect()
}
