//! The engine's numbers and those of answers, as Prometheus reads them.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mistralrs::{MediaKind, Received, Stats, Summary};

/// Upper bounds of times, in seconds.
const TIMES: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Upper bounds of sizes, in bytes.
const SIZES: [f64; 6] = [1e4, 1e5, 1e6, 4e6, 16e6, 64e6];

/// How often values came that were at most so large.
struct Histogram<const N: usize> {
    bounds: [f64; N],
    counts: [AtomicU64; N],
    count: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        Self { bounds, counts: std::array::from_fn(|_| AtomicU64::new(0)), count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: f64, times: u64) {
        let add = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
        self.bounds.iter().zip(&self.counts).filter(|(bound, _)| value <= **bound).for_each(|(_, count)| {
            add(count, times);
        });
        add(&self.count, times);
        add(&self.sum, (value * 1e6) as u64 * times);
    }

    fn write(&self, name: &str, help: &str, out: &mut String) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Writing to a text cannot fail.
        let _ = write!(out, "# HELP mistralrs_{name} {help}\n# TYPE mistralrs_{name} histogram\n");
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let _ = writeln!(out, "mistralrs_{name}_bucket{{le=\"{bound}\"}} {}", read(count));
        }
        let (count, sum) = (read(&self.count), read(&self.sum) as f64 / 1e6);
        let _ = writeln!(
            out,
            "mistralrs_{name}_bucket{{le=\"+Inf\"}} {count}\nmistralrs_{name}_sum {sum}\nmistralrs_{name}_count {count}"
        );
    }
}

/// A counter per value of a label.
fn counter<const N: usize>(
    name: &str,
    help: &str,
    (label, values): (&str, [&str; N]),
    counts: &[AtomicU64; N],
    out: &mut String,
) {
    let _ = write!(out, "# HELP mistralrs_{name} {help}\n# TYPE mistralrs_{name} counter\n");
    for (value, count) in values.iter().zip(counts) {
        let _ = writeln!(out, "mistralrs_{name}{{{label}=\"{value}\"}} {}", count.load(Ordering::Relaxed));
    }
}

/// Counts what answers and their media took.
pub struct Recorder {
    first_token: Histogram<12>,
    between_tokens: Histogram<12>,
    media_bytes: Histogram<6>,
    media_decode: Histogram<12>,
    media_process: Histogram<12>,
    media_items: [AtomicU64; 3],
    requests: [AtomicU64; 5],
    request_time: Histogram<12>,
}

/// Classes of statuses, and those who went away.
const STATUSES: [&str; 5] = ["2xx", "3xx", "4xx", "499", "5xx"];
const KINDS: [MediaKind; 3] = [MediaKind::Image, MediaKind::Audio, MediaKind::Video];

impl Default for Recorder {
    fn default() -> Self {
        Self {
            first_token: Histogram::new(TIMES),
            between_tokens: Histogram::new(TIMES),
            media_bytes: Histogram::new(SIZES),
            media_decode: Histogram::new(TIMES),
            media_process: Histogram::new(TIMES),
            media_items: Default::default(),
            requests: Default::default(),
            request_time: Histogram::new(TIMES),
        }
    }
}

impl Recorder {
    /// A request has ended.
    pub fn ended(&self, status: u16, took: Duration) {
        let class = match status {
            499 => 3,
            500.. => 4,
            400.. => 2,
            300.. => 1,
            _ => 0,
        };
        self.requests[class].fetch_add(1, Ordering::Relaxed);
        self.request_time.observe(took.as_secs_f64(), 1);
    }

    /// An answer is complete.
    pub fn answered(&self, summary: &Summary) {
        let timings = summary.usage.timings;
        self.first_token.observe((summary.prepared + timings.first_token).as_secs_f64(), 1);
        let more = summary.usage.completion_tokens.saturating_sub(1);
        if more > 0 {
            self.between_tokens.observe(timings.decode.as_secs_f64() / more as f64, more as u64);
        }
    }

    /// The media of a prompt have been read.
    pub fn received(&self, media: &[Received]) {
        for item in media {
            for (kind, count) in KINDS.iter().zip(&self.media_items) {
                count.fetch_add(u64::from(*kind == item.kind), Ordering::Relaxed);
            }
            self.media_bytes.observe(item.bytes as f64, 1);
            if item.spent.remembered == 0 {
                self.media_decode.observe(item.spent.decode.as_secs_f64(), 1);
                self.media_process.observe(item.spent.process.as_secs_f64(), 1);
            }
        }
    }

    /// All of it in the text format, version 0.0.4.
    pub fn exposition(&self) -> String {
        let mut out = String::new();
        counter("media_items_total", "Media items read.", ("type", KINDS.map(MediaKind::name)), &self.media_items, &mut out);
        counter("http_requests_total", "Requests that have ended.", ("status", STATUSES), &self.requests, &mut out);
        self.request_time.write("http_request_duration_seconds", "From a request to the end of its answer.", &mut out);
        self.first_token.write("time_to_first_token_seconds", "From the request to its first token.", &mut out);
        self.between_tokens.write("inter_token_latency_seconds", "Between tokens, on average in each answer.", &mut out);
        self.media_bytes.write("media_bytes", "Bytes of media items.", &mut out);
        self.media_decode.write("media_decode_seconds", "Time that a media item took to be decoded.", &mut out);
        self.media_process.write("media_process_seconds", "Time that a media item took to become model input.", &mut out);
        out
    }
}

/// All metrics in the text format, version 0.0.4.
pub fn exposition(stats: &Stats) -> String {
    let seconds = |micros: usize| micros as f64 / 1e6;
    // Name, kind, what it is, and its values by label.
    type Metric<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, f64)]);
    let tokens = [("type=\"prompt\"", stats.prompt_tokens as f64), ("type=\"completion\"", stats.generated_tokens as f64)];
    let phases = [
        ("phase=\"encode\"", seconds(stats.encode_micros)),
        ("phase=\"prefill\"", seconds(stats.prefill_micros)),
        ("phase=\"decode\"", seconds(stats.decode_micros)),
    ];
    let one = |number: usize| [("", number as f64)];
    let metrics: [Metric; 12] = [
        ("sequences_running", "gauge", "Requests that are computed.", &one(stats.running)),
        ("sequences_waiting", "gauge", "Requests that wait.", &one(stats.waiting)),
        ("kv_cache_used_bytes", "gauge", "Bytes of cache blocks that requests own.", &one(stats.cache_bytes_used)),
        ("kv_cache_cached_bytes", "gauge", "Bytes of cache blocks whose content can be found.", &one(stats.cache_bytes_idle)),
        ("kv_cache_total_bytes", "gauge", "Bytes that all cache blocks may take.", &one(stats.cache_bytes_total)),
        ("tokens_processed_total", "counter", "Tokens computed.", &tokens),
        ("prefix_cache_tokens_total", "counter", "Tokens found in the cache instead.", &one(stats.prefix_tokens)),
        ("encoder_cache_hits_total", "counter", "Media items found encoded.", &one(stats.encoder_hits)),
        ("encoder_cache_misses_total", "counter", "Media items encoded.", &one(stats.encoded)),
        ("paged_preemptions_total", "counter", "Times a request began again.", &one(stats.preemptions)),
        ("steps_total", "counter", "Steps computed.", &one(stats.steps)),
        ("phase_seconds_total", "counter", "Where the engine's time went.", &phases),
    ];
    let mut out = String::new();
    for (name, kind, help, values) in metrics {
        // Writing to a text cannot fail.
        let _ = write!(out, "# HELP mistralrs_{name} {help}\n# TYPE mistralrs_{name} {kind}\n");
        for (label, value) in values {
            let label = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
            let _ = writeln!(out, "mistralrs_{name}{label} {value}");
        }
    }
    out
}
