//! An operation that goes on without Python, and how Python waits for it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use pyo3::prelude::*;
use pyo3::{IntoPyObjectExt, exceptions::PyRuntimeError};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use crate::failure::Failure;

/// How long Python's signals (Ctrl-C, say) wait at most until they are looked at.
const SIGNALS: Duration = Duration::from_millis(50);

/// What an operation came to, made into Python's when it is asked for.
type Outcome = Result<Made, Failure>;
type Made = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// An operation on its way. Forgetting it ends it.
#[pyclass(frozen, module = "mistralrs._native")]
pub struct Pending {
    task: AbortHandle,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Default)]
enum Progress {
    #[default]
    Running,
    /// Whom to tell.
    Awaited(Py<PyAny>),
    Ended(Outcome),
    /// The outcome was asked for.
    Taken,
}

/// What runs operations, in the process that started it.
static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();

/// # Errors
/// The system gives no threads, or the process is a copy (a fork) of the one that they run in.
pub fn runtime() -> Result<&'static Runtime, Failure> {
    let here = std::process::id();
    let running = match RUNTIME.get() {
        Some(running) => running,
        None => {
            let built = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("mistralrs").build();
            let built = built.map_err(|e| Failure::Internal(format!("threads cannot be started: {e}")))?;
            RUNTIME.get_or_init(|| (here, built))
        }
    };
    let forked = "this process was forked from one that had used mistralrs, whose threads are not here; \
                  start processes with multiprocessing's method \"spawn\"";
    if running.0 == here { Ok(&running.1) } else { Err(Failure::Internal(forked.into())) }
}

impl Pending {
    /// Begins an operation. A panic of it is a failure.
    pub fn start<T>(future: impl Future<Output = Result<T, Failure>> + Send + 'static) -> PyResult<Self>
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = runtime()?.spawn(async move {
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            let outcome = ended.unwrap_or_else(|panic| Err(Failure::Internal(words_of(&*panic))));
            shared.end(outcome.map(|value| -> Made { Box::new(move |py| value.into_py_any(py)) }));
        });
        Ok(Self { task: task.abort_handle(), state })
    }
}

#[pymethods]
impl Pending {
    /// What it comes to. Other threads run meanwhile; a signal whose handler raises (Ctrl-C) ends it.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        loop {
            if let Some(outcome) = py.detach(|| self.state.outcome_within(SIGNALS)) {
                return outcome?(py);
            }
            if self.task.is_finished() && !self.state.has_outcome() {
                return Err(PyRuntimeError::new_err("the operation was cancelled, or its outcome was asked for before"));
            }
            py.check_signals().inspect_err(|_| self.task.abort())?;
        }
    }

    /// Has `callback()` called once it has ended, by another thread, or at once if it has.
    fn then(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        match self.state.await_with(callback) {
            Some(callback) => callback.call0(py).map(drop),
            None => Ok(()),
        }
    }

    /// Ends it.
    fn cancel(&self) {
        self.task.abort();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_outcome(&self) -> bool {
        matches!(*self.progress(), Progress::Ended(_))
    }

    fn end(&self, outcome: Outcome) {
        let before = std::mem::replace(&mut *self.progress(), Progress::Ended(outcome));
        self.ended.notify_all();
        if let Progress::Awaited(callback) = before {
            // None: Python itself has ended.
            let _ = Python::try_attach(|py| callback.call0(py).map_err(|e| e.write_unraisable(py, None)));
        }
    }

    /// The callback comes back if it is too late for it.
    fn await_with(&self, callback: Py<PyAny>) -> Option<Py<PyAny>> {
        let mut progress = self.progress();
        if matches!(*progress, Progress::Ended(_) | Progress::Taken) {
            return Some(callback);
        }
        *progress = Progress::Awaited(callback);
        None
    }

    fn outcome_within(&self, time: Duration) -> Option<Outcome> {
        let goes_on = |progress: &mut Progress| !matches!(progress, Progress::Ended(_));
        let waited = self.ended.wait_timeout_while(self.progress(), time, goes_on);
        let (mut progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !matches!(*progress, Progress::Ended(_)) {
            return None;
        }
        match std::mem::replace(&mut *progress, Progress::Taken) {
            Progress::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a mistake of mistralrs: {}", words.unwrap_or("it panicked"))
}

/// Panics within an operation, for the test of what becomes of that.
#[cfg(debug_assertions)]
#[pyfunction]
pub fn _panic(words: String) -> PyResult<Pending> {
    Pending::start::<()>(async move { std::panic::resume_unwind(Box::new(words)) })
}
