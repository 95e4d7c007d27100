//! `mistralrs doctor`: what this machine has, and what would help.

use anyhow::Result;
use mistralrs::{Ffmpeg, Machine};
use serde_json::{Map, Value, json};

use crate::args::DoctorOptions;
use crate::environment;

/// Codecs of the usual clips and sounds, by ffmpeg's names.
const VIDEO_CODECS: [&str; 8] = ["h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg"];
const AUDIO_CODECS: [&str; 7] = ["aac", "mp3", "opus", "vorbis", "flac", "ac3", "pcm_s16le"];

/// A line of the report.
struct Finding {
    name: &'static str,
    value: Value,
    /// What to do about it.
    advice: Option<String>,
}

pub async fn doctor(options: &DoctorOptions) -> Result<()> {
    let findings = examine().await;
    if options.json {
        let values: Map<String, Value> = findings
            .into_iter()
            .map(|Finding { name, value, advice }| (name.replace(' ', "_"), json!({"value": value, "advice": advice})))
            .collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(());
    }
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for Finding { name, value, advice } in &findings {
        println!("{name:width$}  {}", in_words(value));
        advice.iter().for_each(|advice| println!("{:width$}  -> {advice}", ""));
    }
    Ok(())
}

async fn examine() -> Vec<Finding> {
    let Machine { instructions, threads, memory, ffmpeg } = Machine::here();
    let gigabytes = |bytes: u64| (bytes as f64 / 1e8).round() / 10.0;
    let hub = environment::hub(None);
    let (cache, answers) = (&hub.cache, hub.is_reachable().await);
    let unreachable = if hub.offline {
        "switched off by HF_HUB_OFFLINE"
    } else {
        "not to be reached: only models in the cache or in folders can be loaded"
    };
    let is_slow = instructions.is_empty();
    let mut findings = vec![
        finding("version", env!("CARGO_PKG_VERSION")),
        finding("instruction sets", instructions)
            .unless(!is_slow, "there are no kernels for this processor: what the compiler makes of plain loops is much slower"),
        finding("threads", threads),
        finding("memory GB", memory.map(|memory| gigabytes(memory.total))),
        finding("free memory GB", memory.map(|memory| gigabytes(memory.free))),
        finding("model cache", cache.display().to_string())
            .unless(cache.is_dir(), "not there yet: the first download makes it (HF_HOME, --hf-cache)"),
        finding("hub", hub.address()).unless(answers, unreachable),
        finding("accelerators", Vec::<String>::new()).unless(false, "this program computes on the processor alone"),
    ];
    let install = format!("clips other than GIF, WebP and PNG need it, and sounds like Opus: {}", Ffmpeg::INSTALL);
    let Some(Ffmpeg { version, ffprobe, decodes }) = ffmpeg else {
        findings.push(finding("ffmpeg", Value::Null).unless(false, &install));
        return findings;
    };
    let split = |codecs: &[&'static str]| -> (Vec<&str>, Vec<&str>) {
        codecs.iter().partition(|codec| decodes.iter().any(|known| known == *codec))
    };
    findings.push(finding("ffmpeg", version));
    findings.push(finding("ffprobe", ffprobe).unless(ffprobe, &install));
    for (name, codecs) in [("decodes video", &VIDEO_CODECS[..]), ("decodes audio", &AUDIO_CODECS[..])] {
        let (known, missing) = split(codecs);
        let advice = format!("not {}: another build of ffmpeg has more", missing.join(", "));
        findings.push(finding(name, known).unless(missing.is_empty(), &advice));
    }
    findings
}

fn finding(name: &'static str, value: impl Into<Value>) -> Finding {
    Finding { name, value: value.into(), advice: None }
}

impl Finding {
    fn unless(self, fine: bool, advice: &str) -> Self {
        Self { advice: (!fine).then(|| advice.to_string()), ..self }
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "not found".into(),
        Value::Bool(there) => if *there { "found" } else { "not found" }.into(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".into(),
        Value::Array(all) => all.iter().map(in_words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
