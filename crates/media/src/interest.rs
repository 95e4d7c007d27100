use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::MediaError;

/// Whether somebody still waits for what is decoded. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Interest(Arc<AtomicBool>);

impl Interest {
    /// Nobody waits any more: decoding ends in a moment, and so do the processes that it started.
    pub fn lose(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), MediaError> {
        if self.0.load(Ordering::Relaxed) { Err(MediaError::Abandoned) } else { Ok(()) }
    }
}
