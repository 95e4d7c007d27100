use std::sync::atomic::{AtomicUsize, Ordering};

/// Numbers of a running engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences in the batch.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Bytes of cache blocks that sequences own.
    pub cache_bytes_used: usize,
    /// Bytes of cache blocks that nobody owns and whose content can still be found.
    pub cache_bytes_idle: usize,
    /// Bytes that all cache blocks together may take.
    pub cache_bytes_total: usize,
    /// Prompt tokens computed since the start.
    pub prompt_tokens: usize,
    /// Tokens found in the cache instead of being computed.
    pub prefix_tokens: usize,
    /// Tokens drawn since the start.
    pub generated_tokens: usize,
    /// Times a sequence lost its blocks to another and began again.
    pub preemptions: usize,
    /// Steps computed since the start.
    pub steps: usize,
    /// Microseconds spent in encoding media.
    pub encode_micros: usize,
    /// Microseconds spent in computing steps that read prompts, sequences that write beside them included.
    pub prefill_micros: usize,
    /// Microseconds spent in computing steps in which sequences only write.
    pub decode_micros: usize,
    /// Media items encoded.
    pub encoded: usize,
    /// Media items found encoded already.
    pub encoder_hits: usize,
}

macro_rules! counters {
    ($($field:ident)*) => {
        /// The same numbers where the engine's thread writes and others read.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub $field: AtomicUsize),*
        }

        impl Counters {
            pub fn read(&self) -> Stats {
                Stats { $($field: self.$field.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! { running waiting cache_bytes_used cache_bytes_idle cache_bytes_total prompt_tokens prefix_tokens generated_tokens preemptions steps encode_micros prefill_micros decode_micros encoded encoder_hits }

/// Adds to a counter.
pub fn count(counter: &AtomicUsize, by: usize) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Sets a gauge.
pub fn set(gauge: &AtomicUsize, to: usize) {
    gauge.store(to, Ordering::Relaxed);
}
