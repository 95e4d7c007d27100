//! The engine's numbers, as Prometheus reads them.

use std::fmt::Write;

use mistralrs::Stats;

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
