//! Functions that run here when a model calls them.

mod citation;
mod mcp;
mod page;
mod search;

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nn::MediaKind;
use serde_json::{Map, Value};
use text::Tool;

use crate::Error;
use crate::calls::Call;
use crate::load::Inner;
use crate::prepare::look_at;

pub(crate) use citation::citations;
pub use citation::{Citation, Source};
pub use mcp::{Mcp, McpConfig, McpServer, McpSource};
pub use search::{SearchContext, WebSearch, WebSearchOptions};

/// Functions of a box.
const TOOLS_MAX: usize = 128;
/// Pictures of one result.
const PICTURES_MAX: usize = 8;
/// Bytes of one result's text.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// For which a function may run, unless it says otherwise.
const TIME_MAX: Duration = Duration::from_secs(30);

type Run = dyn Fn(Map<String, Value>) -> BoxFuture<'static, Result<ToolOutput, String>> + Send + Sync;

/// A function that runs here when a model calls it. Clones share it.
///
/// ```
/// use mistralrs::{ServerTool, ToolBox};
/// use serde_json::json;
///
/// # fn main() -> Result<(), mistralrs::Error> {
/// let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
/// let definition = json!({"name": "weather", "description": "The weather of a city", "parameters": city});
/// let weather = ServerTool::new(&definition, |arguments| async move {
///     let city = arguments["city"].as_str().ok_or("no city was named")?;
///     Ok(format!("It rains in {city}.").into())
/// })?;
/// let tools = ToolBox::default().with(weather)?;
/// # assert_eq!(tools.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServerTool {
    described: Arc<Tool>,
    kind: ToolKind,
    time_max: Duration,
    run: Arc<Run>,
}

/// What a function does, as far as clients are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolKind {
    /// Only who wrote it knows.
    #[default]
    Custom,
    /// It searches the web.
    WebSearch,
    /// It reads a page.
    WebPage,
    /// It asks the MCP server of this name.
    Mcp(String),
}

/// What a function returns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    /// Words for the model.
    pub text: String,
    /// Pictures for it to look at: files of any format that requests may have.
    pub pictures: Vec<Vec<u8>>,
    /// What was found on the web. The model reads it behind the text, with a number each to refer to it by.
    pub sources: Vec<Source>,
}

/// What happens to calls of functions that run here.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolProgress {
    /// One runs.
    Begun {
        /// In which round, from 0.
        round: usize,
        /// What was called.
        call: Call,
        /// What it does.
        kind: ToolKind,
    },
    /// One has ended, or will not run.
    Ended(Arc<ToolRun>),
}

/// A call that ran here.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolRun {
    /// In which round, from 0.
    pub round: usize,
    /// What was called.
    pub call: Call,
    /// What it does.
    pub kind: ToolKind,
    /// How it ended.
    pub outcome: Outcome,
    /// What the model reads of it.
    pub text: String,
    /// What the model sees of it.
    pub pictures: Vec<Vec<u8>>,
    /// What it found on the web.
    pub sources: Vec<Source>,
    /// How long it ran.
    pub took: Duration,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Returned,
    /// With an error, in a panic, or not in time.
    Failed,
    /// It did not run.
    Skipped,
}

/// Functions that run here, by their names. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ToolBox(Vec<ServerTool>);

impl ServerTool {
    /// A function, described in OpenAI's shape: `{"name", "description", "parameters", "strict"}`, also within `{"type": "function",
    /// "function": …}`. `run` is given the arguments and says for the model what came of it, or what went wrong.
    ///
    /// # Errors
    /// The description is none.
    pub fn new<F>(definition: &Value, run: impl Fn(Map<String, Value>) -> F + Send + Sync + 'static) -> Result<Self, Error>
    where
        F: Future<Output = Result<ToolOutput, String>> + Send + 'static,
    {
        let read = Tool::read(std::slice::from_ref(definition));
        let described = read.map_err(|e| Error::Source(format!("not a function: {e}")))?.pop();
        let described = described.ok_or_else(|| Error::Source("not a function".into()))?;
        let run = Arc::new(move |arguments| run(arguments).boxed());
        Ok(Self { described: Arc::new(described), kind: ToolKind::Custom, time_max: TIME_MAX, run })
    }

    /// The same of a function that keeps its thread while it runs. One that takes too long is not waited for, but goes on.
    ///
    /// # Errors
    /// The description is none.
    pub fn blocking(
        definition: &Value,
        run: impl Fn(Map<String, Value>) -> Result<ToolOutput, String> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let run = Arc::new(run);
        Self::new(definition, move |arguments| {
            let run = run.clone();
            async move {
                let ran = tokio::task::spawn_blocking(move || run(arguments)).await;
                ran.map_err(|e| e.try_into_panic().map_or_else(|e| e.to_string(), |panic| panicked(panic.as_ref())))?
            }
        })
    }

    /// For which it may run; half a minute otherwise.
    pub fn with_time_max(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }

    pub(crate) fn with_kind(mut self, kind: ToolKind) -> Self {
        self.kind = kind;
        self
    }

    /// What calls name.
    pub fn name(&self) -> &str {
        &self.described.name
    }

    /// What it does.
    pub fn kind(&self) -> &ToolKind {
        &self.kind
    }

    pub(crate) fn described(&self) -> &Tool {
        &self.described
    }

    /// Runs it with arguments in JSON, within its time, as for a model that has called it. A panic of it is an error like any other.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn call(&self, arguments: &str) -> Result<ToolOutput, String> {
        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
        let arguments: Map<String, Value> =
            serde_json::from_str(arguments).map_err(|e| format!("the arguments are no JSON object: {e}"))?;
        let ran = AssertUnwindSafe(async { (self.run)(arguments).await }).catch_unwind();
        match tokio::time::timeout(self.time_max, ran).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(panicked(panic.as_ref())),
            Err(_) => Err(format!("it took longer than {} s", self.time_max.as_secs_f64())),
        }
    }
}

impl fmt::Debug for ServerTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

impl From<String> for ToolOutput {
    /// Words alone.
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<&str> for ToolOutput {
    /// Words alone.
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl ToolBox {
    /// Adds one.
    ///
    /// # Errors
    /// There is one of its name, or there are too many.
    pub fn add(&mut self, tool: ServerTool) -> Result<(), Error> {
        if self.get(tool.name()).is_some() {
            return Err(Error::Source(format!("there are two functions with the name {:?}", tool.name())));
        }
        if self.0.len() == TOOLS_MAX {
            return Err(Error::Source(format!("{} is one function too many; at most {TOOLS_MAX} are allowed", tool.name())));
        }
        self.0.push(tool);
        Ok(())
    }

    /// The box with one more.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn with(mut self, tool: ServerTool) -> Result<Self, Error> {
        self.add(tool)?;
        Ok(self)
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&ServerTool> {
        self.0.iter().find(|tool| tool.name() == name)
    }

    /// All, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &ServerTool> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a call has come to, as the model may see it.
pub(crate) struct Ran {
    pub outcome: Outcome,
    pub text: String,
    pub pictures: Vec<Vec<u8>>,
    pub sources: Vec<Source>,
    pub took: Duration,
}

impl Ran {
    /// It did not run.
    pub fn skipped(why: &str) -> Self {
        Self { outcome: Outcome::Skipped, text: format!("not run: {why}"), ..Self::failed("", Duration::ZERO) }
    }

    fn failed(reason: &str, took: Duration) -> Self {
        let text = format!("error: {reason}");
        Self { outcome: Outcome::Failed, text, pictures: Vec::new(), sources: Vec::new(), took }
    }
}

/// Runs a function. Whatever goes wrong is told to the model, which may try something else.
pub(crate) async fn run(inner: &Arc<Inner>, tool: Option<ServerTool>, call: &Call, salt: Option<String>) -> Ran {
    let began = Instant::now();
    let ran = match tool {
        Some(tool) => tool.call(&call.arguments).await,
        None => Err("there is no such function".into()),
    };
    let ToolOutput { mut text, pictures, mut sources } = match ran {
        Ok(output) => output,
        Err(reason) => return Ran::failed(cut(&reason, TEXT_BYTES_MAX), began.elapsed()),
    };
    shorten(&mut text, TEXT_BYTES_MAX);
    let share = TEXT_BYTES_MAX / sources.len().max(1);
    sources.iter_mut().for_each(|source| source.text.truncate(cut(&source.text, share).len()));
    let mut seen = Vec::new();
    for picture in pictures {
        let refused = if seen.len() == PICTURES_MAX {
            Some(format!("at most {PICTURES_MAX} are shown"))
        } else if !inner.family.modalities.contains(&MediaKind::Image) {
            Some("this model takes no pictures".into())
        } else {
            look_at(inner, picture.clone(), salt.clone()).await.err().map(|e| e.to_string())
        };
        match refused {
            Some(reason) => text += &format!("\n(a picture that cannot be shown: {reason})"),
            None => seen.push(picture),
        }
    }
    Ran { outcome: Outcome::Returned, text, pictures: seen, sources, took: began.elapsed() }
}

/// Cuts off a text, and says so in it.
pub(crate) fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(cut(text, bytes_max).len());
        *text += "\n(cut off here)";
    }
}

/// The beginning of a text.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// What is known of a panic.
fn panicked(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", said.unwrap_or("without a message"))
}
