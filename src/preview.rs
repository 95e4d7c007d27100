//! A prompt without an answer: what a request would take.

use std::sync::Arc;

use ::media::{Image, Limits, decode_image};
use nn::MediaKind;

use crate::agent::Past;
use crate::chat::{ChatRequest, MediaSource, RawPrompt};
use crate::fetch::{Fetched, Place};
use crate::load::Model;
use crate::media::Received;
use crate::prepare::prepare;
use crate::{Error, Fault};

/// What a model would read.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// Ids of the prompt, those that stand for media included.
    pub token_ids: Vec<u32>,
    /// The same as text: control tokens as they are spelled, and one that stands there many times in a row once, with its number.
    pub text: String,
    /// Its media, in their order.
    pub media: Arc<[Received]>,
    /// The pictures, tiles and frames that the model would look at, item by item, before pixels become numbers.
    pub views: Vec<Vec<Image>>,
}

/// Equal tokens in a row that are not written out.
const ROW: usize = 4;

/// Whether control tokens belong to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlTokens {
    /// They do.
    Included,
    /// They are left out.
    LeftOut,
}

impl Model {
    /// Prepares a request, media and all, and generates nothing.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    pub async fn preview(&self, request: &ChatRequest) -> Result<Preview, Error> {
        let prepared = prepare(&self.inner, request, &Past::default()).await?;
        let token_ids = prepared.prompt.tokens;
        Ok(Preview { text: self.spelled(&token_ids), token_ids, media: prepared.received, views: prepared.views })
    }

    /// A picture as it is meant to be seen, before a model's processor changes it.
    ///
    /// # Errors
    /// It cannot be fetched or decoded.
    pub async fn picture(&self, source: &MediaSource) -> Result<Image, Error> {
        let place = Place { param: "picture", kind: MediaKind::Image };
        let content = self.inner.fetcher.fetch(source, &place).await?;
        let invalid = |e: String| Error::request("picture", Fault::Media(MediaKind::Image), e);
        let Fetched::File(bytes) = content else { return Err(invalid("it is several".into())) };
        let decoding = tokio::task::spawn_blocking(move || decode_image(&bytes, &Limits::default()));
        let decoded = decoding.await.map_err(|e| Error::Generation(format!("decoding failed: {e}")))?;
        decoded.map_err(|e| invalid(e.to_string()))
    }

    fn spelled(&self, ids: &[u32]) -> String {
        // Some models have ids for media that their tokenizers do not know.
        let words = |ids: &[u32]| {
            self.detokenize(ids, ControlTokens::Included).unwrap_or_else(|_| ids.iter().map(|id| format!("#{id}")).collect())
        };
        let mut text = String::new();
        let (mut begin, mut end) = (0, 0);
        for row in ids.chunk_by(|a, b| a == b) {
            if row.len() >= ROW {
                text += &format!("{}[{} x {}]", words(&ids[begin..end]), words(&row[..1]), row.len());
                begin = end + row.len();
            }
            end += row.len();
        }
        text + &words(&ids[begin..])
    }

    /// Token ids of a text. Control tokens that it spells out are taken for some; with `control`, the begin-of-sequence token is
    /// added where the model has one.
    ///
    /// # Errors
    /// It cannot be tokenized.
    pub async fn tokenize(&self, text: String, control: ControlTokens) -> Result<Vec<u32>, Error> {
        if control == ControlTokens::Included {
            let request = ChatRequest { prompt: Some(RawPrompt::Text(text)), ..ChatRequest::default() };
            return Ok(self.preview(&request).await?.token_ids);
        }
        let inner = self.inner.clone();
        let ids = tokio::task::spawn_blocking(move || inner.tokenizer.tokens(&text)).await;
        let ids = ids.map_err(|e| Error::Generation(format!("tokenizing failed: {e}")))?;
        ids.map_err(|e| Error::request("text", Fault::Invalid, e))
    }

    /// The text of token ids, with what control tokens are called or without.
    ///
    /// # Errors
    /// One of them is none of this model's.
    pub fn detokenize(&self, ids: &[u32], control: ControlTokens) -> Result<String, Error> {
        let invalid = |reason: String| Error::request("tokens", Fault::Invalid, reason);
        let tokenizer = &self.inner.tokenizer;
        if let Some(id) = ids.iter().find(|id| tokenizer.token(**id).is_none()) {
            return Err(invalid(format!("there is no token with the id {id}")));
        }
        tokenizer.decode(ids, control == ControlTokens::Included).map_err(|e| invalid(e.to_string()))
    }
}
