//! Searching the web, and reading what was found.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Map, Value, json};
use url::Url;

use super::page::{excerpt, read};
use super::{ServerTool, Source, ToolKind, ToolOutput, cut};
use crate::fetch::{Fetcher, FileAccess};
use crate::{Error, Reach};

/// Bytes of a question.
const QUESTION_BYTES_MAX: usize = 400;
/// Characters of a question or URL that models are told to keep within.
const ARGUMENT_MAX: usize = 400;
/// Bytes of what a search engine answers.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// For which a search engine is waited for.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a page that was asked for.
const PAGE_BYTES_MAX: usize = 20_000;
/// A result that says so much is not looked up.
const TELLING_BYTES: usize = 1000;

type Search = dyn Fn(String) -> BoxFuture<'static, Result<Vec<Source>, String>> + Send + Sync;

/// A search engine, and how far the pages that it finds may be read. Clones share it.
#[derive(Clone)]
pub struct WebSearch {
    search: Arc<Search>,
    fetcher: Fetcher,
}

/// How a request wants the web to be searched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebSearchOptions {
    /// How much of it the model reads.
    pub context: SearchContext,
    /// Where the person is who asks, in words.
    pub location: Option<String>,
    /// The only domains that results may come from, those below them included; any when empty.
    pub domains: Vec<String>,
    /// What the model is told of searching, instead of our words.
    pub search_description: Option<String>,
    /// What it is told of reading a page.
    pub page_description: Option<String>,
}

/// How much of what was found a model reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SearchContext {
    /// Three results, a paragraph of each.
    Low,
    /// Five results, some paragraphs of each.
    #[default]
    Medium,
    /// Eight results, a page of each.
    High,
}

impl SearchContext {
    fn results(self) -> usize {
        match self {
            Self::Low => 3,
            Self::Medium => 5,
            Self::High => 8,
        }
    }

    fn bytes_of_each(self) -> usize {
        match self {
            Self::Low => 600,
            Self::Medium => 2000,
            Self::High => 4000,
        }
    }
}

impl WebSearch {
    /// Searches by a function: from a question to what it finds, best first. Results that say little are looked up, within `reach`.
    ///
    /// # Errors
    /// This system cannot do HTTP.
    pub fn new<F>(reach: Reach, search: impl Fn(String) -> F + Send + Sync + 'static) -> Result<Self, Error>
    where
        F: Future<Output = Result<Vec<Source>, String>> + Send + 'static,
    {
        let search = Arc::new(move |question| search(question).boxed());
        Ok(Self { search, fetcher: Fetcher::new(FileAccess::None, reach)? })
    }

    /// Searches by asking a server that speaks SearXNG's JSON: `GET URL/search?q=QUESTION&format=json`. Wherever it is, it may be
    /// asked; `reach` is about the pages that it names.
    ///
    /// # Errors
    /// The URL is none.
    pub fn searxng(url: &str, reach: Reach) -> Result<Self, Error> {
        let refused = |reason: String| Error::Source(format!("the search engine {url}: {reason}"));
        let mut endpoint = Url::parse(url).map_err(|e| refused(format!("this is no URL: {e}")))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(refused("its URL must begin with http or https".into()));
        }
        if !endpoint.path().ends_with("/search") {
            endpoint.set_path(&format!("{}/search", endpoint.path().trim_end_matches('/')));
        }
        let engine = Fetcher::new(FileAccess::None, Reach::Anywhere)?;
        Self::new(reach, move |question| ask(engine.clone(), endpoint.clone(), question))
    }

    /// The functions by which a model searches and reads.
    ///
    /// # Errors
    /// None that can be had.
    pub fn tools(&self, options: &WebSearchOptions) -> Result<Vec<ServerTool>, Error> {
        let place = options.location.as_ref().map(|place| format!(" Whoever asks is in {place}.")).unwrap_or_default();
        let search = options
            .search_description
            .as_deref()
            .unwrap_or("Searches the web. What you take from a result, mark with its number, as in [1].");
        let open = options.page_description.as_deref().unwrap_or("Reads a page of the web.");
        let one = |name: &str, what: &str| {
            let text = json!({"type": "string", "description": what, "minLength": 1, "maxLength": ARGUMENT_MAX});
            json!({"type": "object", "properties": {name: text}, "required": [name], "additionalProperties": false})
        };
        let question = one("query", "What to search for, in a few words");
        let definition = json!({"name": "web_search", "description": format!("{search}{place}"), "parameters": question});
        let (web, wanted) = (self.clone(), options.clone());
        let search = ServerTool::new(&definition, move |arguments| {
            let (web, wanted) = (web.clone(), wanted.clone());
            async move { web.find(text(&arguments, "query")?, &wanted).await }
        })?;
        let definition = json!({"name": "open_page", "description": open, "parameters": one("url", "Its URL")});
        let (web, wanted) = (self.clone(), options.clone());
        let open = ServerTool::new(&definition, move |arguments| {
            let (web, wanted) = (web.clone(), wanted.clone());
            async move { web.open(text(&arguments, "url")?, &wanted).await }
        })?;
        Ok(vec![search.with_kind(ToolKind::WebSearch), open.with_kind(ToolKind::WebPage)])
    }

    async fn find(&self, question: String, options: &WebSearchOptions) -> Result<ToolOutput, String> {
        let question = cut(question.trim(), QUESTION_BYTES_MAX).to_string();
        if question.is_empty() {
            return Err("query is empty".into());
        }
        let found = (self.search)(question.clone()).await?;
        let wanted = found.into_iter().filter(|source| options.allow(&source.url)).take(options.context.results());
        let bytes = options.context.bytes_of_each();
        let question = &question;
        let looked_up = wanted.map(|source| async move {
            let page = if source.text.len() >= TELLING_BYTES { None } else { read(&self.fetcher, &source.url).await.ok() };
            let text = match page {
                Some(page) => excerpt(&page, question, bytes),
                None => excerpt(&source.text, question, bytes),
            };
            Source { text: if text.is_empty() { cut(&source.text, bytes).into() } else { text }, ..source }
        });
        let sources = join_all(looked_up).await;
        let text = if sources.is_empty() { "Nothing was found." } else { "" };
        Ok(ToolOutput { text: text.into(), sources, ..ToolOutput::default() })
    }

    async fn open(&self, url: String, options: &WebSearchOptions) -> Result<ToolOutput, String> {
        if !options.allow(&url) {
            return Err("this page is of none of the domains that may be read".into());
        }
        let page = read(&self.fetcher, &url).await?;
        let source = Source { title: url.clone(), url, text: cut(&page, PAGE_BYTES_MAX).to_string() };
        Ok(ToolOutput { sources: vec![source], ..ToolOutput::default() })
    }
}

impl fmt::Debug for WebSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebSearch")
    }
}

impl WebSearchOptions {
    /// Whether a page is of one of the domains.
    fn allow(&self, url: &str) -> bool {
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_lowercase));
        let below =
            |host: &str, domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let listed = |host: &str| self.domains.iter().any(|domain| below(host, &domain.to_lowercase()));
        self.domains.is_empty() || host.is_some_and(|host| listed(&host))
    }
}

fn text(arguments: &Map<String, Value>, name: &str) -> Result<String, String> {
    arguments.get(name).and_then(Value::as_str).map(str::to_string).ok_or_else(|| format!("{name} is missing or not a text"))
}

/// Asks a server that speaks SearXNG's JSON.
async fn ask(engine: Fetcher, mut url: Url, question: String) -> Result<Vec<Source>, String> {
    url.query_pairs_mut().append_pair("q", &question).append_pair("format", "json");
    let late = |_| format!("the search engine did not answer within {} s", TIME_MAX.as_secs());
    let asked = tokio::time::timeout(TIME_MAX, engine.page(url.as_str(), ANSWER_BYTES_MAX)).await.map_err(late)?;
    let page = asked.map_err(|reason| format!("the search engine cannot be asked: {reason}"))?;
    let answer: Value = serde_json::from_slice(&page.bytes).map_err(|_| "the search engine's answer is no JSON".to_string())?;
    let results = answer["results"].as_array().ok_or("the search engine's answer has no results")?;
    let text = |result: &Value, field: &str| result[field].as_str().unwrap_or_default().to_string();
    let source =
        |result: &Value| Source { url: text(result, "url"), title: text(result, "title"), text: text(result, "content") };
    Ok(results.iter().map(source).filter(|source| !source.url.is_empty()).collect())
}
