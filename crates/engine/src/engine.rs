use std::sync::Arc;
use std::thread::JoinHandle;

use nn::{Cache, MediaInput, Model};
use tokio::sync::{mpsc, oneshot};

use crate::encodings::Encodings;
use crate::errand::{Errand, Rows, Wish};
use crate::layout::Layout;
use crate::queue::Queue;
use crate::request::Limits;
use crate::runner::Runner;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::stats::Counters;
use crate::worker::Worker;
use crate::{EngineConfig, EngineError, Event, Events, Request, Stats};

/// A running engine. Dropping it ends all requests and waits for its thread.
#[derive(Debug)]
pub struct Engine {
    errands: Option<mpsc::Sender<Errand>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    queue: Queue,
    context_max: usize,
    step_tokens_max: usize,
    layout: Layout,
    vocab: usize,
    table: usize,
}

impl Engine {
    /// Allocates the cache and starts the thread.
    ///
    /// # Errors
    /// [`EngineError::OutOfRange`], [`EngineError::Cache`] or [`EngineError::Thread`].
    pub fn start(model: Box<dyn Model>, config: EngineConfig) -> Result<Self, EngineError> {
        let layout = Layout::new(&config, model.cache_spec());
        config.check(&layout)?;
        let cache = Cache::new(model.cache_spec(), &layout.blocks, config.block_size, config.format, &config.device);
        let cache = cache.map_err(|e| EngineError::Cache { bytes: layout.bytes, reason: e.to_string() })?;
        let counters = Arc::new(Counters::default());
        let (vocab, table) = (model.vocab_size(), model.table_size());
        let (errands, inbox) = mpsc::channel(config.queue_max.max(1));
        let encodings = Encodings::new(config.encodings_bytes_max);
        let runner = Runner { cache, encodings, counters: counters.clone() };
        let worker = Worker::new(model, inbox, Scheduler::new(&config, layout.clone()), runner);
        let spawned = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run());
        let thread = spawned.map_err(|e| EngineError::Thread(e.to_string()))?;
        let queue = Queue::new(config.queue_max);
        Ok(Self {
            errands: Some(errands),
            thread: Some(thread),
            counters,
            queue,
            context_max: config.context_max,
            step_tokens_max: config.budget_tokens_max,
            layout,
            vocab,
            table,
        })
    }

    /// Hands a request over; its events arrive at the receiver.
    ///
    /// # Errors
    /// Whatever can be refused before anything is computed: an empty prompt, unknown tokens, values out of range, more tokens
    /// than the context holds, a full queue.
    pub fn submit(&self, request: Request) -> Result<Events, EngineError> {
        self.check(&request)?;
        let (sender, events) = mpsc::channel::<Event>(request.tokens_max + 3);
        let place = self.queue.enter().ok_or_else(|| self.queue.full())?;
        self.send(Errand::Answer(Box::new(Sequence::new(request, &self.layout, sender, place))))?;
        Ok(events)
    }

    /// Has a media item encoded, between what else is computed; its rows arrive at the receiver.
    ///
    /// # Errors
    /// A full queue.
    pub fn encode(&self, input: Arc<MediaInput>) -> Result<oneshot::Receiver<Result<Rows, EngineError>>, EngineError> {
        let (answer, rows) = oneshot::channel();
        let place = self.queue.enter().ok_or_else(|| self.queue.full())?;
        self.send(Errand::Encode(Wish { input, answer, _place: place }))?;
        Ok(rows)
    }

    fn send(&self, errand: Errand) -> Result<(), EngineError> {
        let errands = self.errands.as_ref().ok_or(EngineError::ShutDown)?;
        errands.try_send(errand).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => self.queue.full(),
            mpsc::error::TrySendError::Closed(_) => EngineError::ShutDown,
        })
    }

    /// Tokens that a prompt and its answer may have together.
    pub fn context_max(&self) -> usize {
        self.context_max.min(self.cache_tokens())
    }

    /// Whether it serves requests.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Tokens that the cache has room for, of one sequence.
    pub fn cache_tokens(&self) -> usize {
        self.layout.context(self.step_tokens_max)
    }

    /// Bytes of the cache.
    pub fn cache_bytes(&self) -> usize {
        self.layout.bytes
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    fn check(&self, request: &Request) -> Result<(), EngineError> {
        request.check(Limits { vocab: self.vocab, table: self.table, context: self.context_max() })?;
        // An island is computed in one step, however large.
        let island = request.prompt.islands.iter().map(|island| island.len()).max().unwrap_or(0);
        let tokens = request.prompt.tokens.len() + request.tokens_max;
        match island.max(self.step_tokens_max) {
            step if self.layout.holds(tokens, step) => Ok(()),
            step => Err(EngineError::ContextTooLong { tokens, allowed: self.layout.context(step) }),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.errands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nobody to tell.
            let _ = thread.join();
        }
    }
}
