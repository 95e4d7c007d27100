use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::EngineError;

/// Bounds the requests that wait.
#[derive(Debug)]
pub struct Queue {
    waiting: Arc<AtomicUsize>,
    max: usize,
}

/// One place in the queue, given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Queue {
    pub fn new(max: usize) -> Self {
        Self { waiting: Arc::default(), max }
    }

    /// A place, if there is one.
    pub fn enter(&self) -> Option<Place> {
        let room = |waiting| (waiting < self.max).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        entered.ok().map(|_| Place(self.waiting.clone()))
    }
}

impl Queue {
    /// What to say when there is no place.
    pub fn full(&self) -> EngineError {
        EngineError::Overloaded { queue_max: self.max }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
