//! `mistralrs bench`: how fast a model is on this machine, as a table or as JSON.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mistralrs::{ChatRequest, Error, FileAccess, ImageOptions, MediaKind, MediaSource, Model, Part, Piece, Reach, Summary};
use serde_json::{Value, json};

use crate::args::BenchOptions;
use crate::load::load;

/// One line of the table.
struct Figure {
    test: String,
    value: f64,
    unit: &'static str,
}

struct Bench {
    model: Model,
    options: BenchOptions,
    figures: Vec<Figure>,
    /// Makes every question and picture different from all others, so that nothing is remembered; the same in every run.
    random: fastrand::Rng,
}

pub async fn bench(mut options: BenchOptions) -> Result<()> {
    ensure!(options.iterations > 0 && options.gen_len > 1, "--iterations must be at least 1 and --gen-len at least 2");
    options.prompt_len.retain(|length| *length > 0);
    options.beside.retain(|length| *length > 0);
    let began = Instant::now();
    let model = load(options.model.clone(), FileAccess::All, Reach::Anywhere).await?;
    let mut bench = Bench { model, options, figures: Vec::new(), random: fastrand::Rng::with_seed(1) };
    bench.note("load", began.elapsed().as_secs_f64(), "s");
    for length in bench.options.prompt_len.clone() {
        unless_too_long(&format!("prompt of {length}"), bench.prompt(length).await)?;
    }
    for depth in bench.options.depth.clone() {
        unless_too_long(&format!("decode at {depth}"), bench.decode(depth).await)?;
    }
    if bench.model.family().modalities.contains(&MediaKind::Image) {
        for size in bench.options.image_size.clone() {
            bench.picture(size).await?;
        }
    }
    if bench.model.family().modalities.contains(&MediaKind::Audio) {
        for sound in bench.options.audio.clone() {
            unless_too_long(&format!("sound {sound}"), bench.sound(&sound).await)?;
        }
    }
    if bench.model.family().modalities.contains(&MediaKind::Video) {
        for clip in bench.options.video.clone() {
            unless_too_long(&format!("clip {clip}"), bench.clip(&clip).await)?;
        }
    }
    for requests in bench.options.concurrency.clone() {
        bench.together(requests).await?;
    }
    for length in bench.options.beside.clone() {
        unless_too_long(&format!("beside a prompt of {length}"), bench.disturbed(length).await)?;
    }
    if let Some(bytes) = peak_memory_bytes() {
        bench.note("peak memory", bytes as f64 / 1e9, "GB");
    }
    println!("{}", if bench.options.json { bench.json()? } else { bench.table() });
    Ok(())
}

impl Bench {
    fn note(&mut self, test: impl Into<String>, value: f64, unit: &'static str) {
        let test = test.into();
        eprintln!("{test}: {value:.2} {unit}");
        self.figures.push(Figure { test, value, unit });
    }

    /// Speed of reading a text.
    async fn prompt(&mut self, tokens: usize) -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.options.iterations {
            let request = self.text(tokens, 1);
            let usage = ask(&self.model, &request).await?.usage;
            rates.push((usage.prompt_tokens - usage.cached_tokens) as f64 / usage.timings.prefill.as_secs_f64());
        }
        self.note(format!("prompt of {tokens}"), median(rates), "tokens/s");
        Ok(())
    }

    /// Speed of writing behind a text.
    async fn decode(&mut self, depth: usize) -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.options.iterations {
            let request = self.text(depth, self.options.gen_len);
            let usage = ask(&self.model, &request).await?.usage;
            rates.push((usage.completion_tokens - 1) as f64 / usage.timings.decode.as_secs_f64());
        }
        self.note(format!("decode at {depth}"), median(rates), "tokens/s");
        Ok(())
    }

    /// Where the time goes until the first word about pictures, and about the same pictures again.
    async fn picture(&mut self, (width, height): (usize, usize)) -> Result<()> {
        let mut parts: [Vec<f64>; 5] = Default::default();
        let mut tokens = 0;
        for _ in 0..self.options.iterations {
            let pictures: Vec<Part> = (0..self.options.images).map(|_| self.noise(width, height)).collect();
            for again in [false, true] {
                let request = question([pictures.clone(), vec![Part::Text(self.words(8))]].concat(), 1);
                let Summary { usage, prepared, .. } = ask(&self.model, &request).await?;
                let first = prepared + usage.timings.first_token;
                let times = [prepared, usage.timings.encode, usage.timings.prefill, first].map(|time| time.as_secs_f64());
                tokens = usage.media_tokens;
                match again {
                    false => times.into_iter().zip(&mut parts).for_each(|(time, all)| all.push(time)),
                    true => parts[4].push(times[3]),
                }
            }
        }
        let name = match self.options.images {
            1 => format!("picture {width}x{height} ({tokens} tokens)"),
            n => format!("{n} pictures {width}x{height} ({tokens} tokens)"),
        };
        let labels = ["decode and preprocess", "encode", "prefill", "first token", "first token, other question"];
        for (label, times) in labels.into_iter().zip(parts) {
            self.note(format!("{name}: {label}"), median(times), "s");
        }
        Ok(())
    }

    /// Frames of a clip per second: decoded, made into model input, encoded. The three do not overlap but for decoding, which goes
    /// on in another process while frames are resized.
    async fn clip(&mut self, path: &str) -> Result<()> {
        let options = self.options.clip.checked()?;
        let mut rates: [Vec<f64>; 2] = Default::default();
        let (mut frames, mut tokens, mut first) = (0, 0, [0.0; 2]);
        for i in 0..self.options.iterations {
            let parts = vec![Part::Video(path.into(), options), Part::Text(self.words(8))];
            // Another salt, or the clip would be remembered. Encoded it is only once, since rows go by what they were made of.
            let request = ChatRequest { cache_salt: Some(format!("clip {i}")), ..question(parts, 1) };
            let Summary { usage, prepared, media, .. } = ask(&self.model, &request).await?;
            (frames, tokens) = (media.pictures, usage.media_tokens);
            let times = [media.decode, media.process, usage.timings.encode, prepared + usage.timings.first_token];
            let [decode, process, encode, whole] = times.map(|time| time.as_secs_f64());
            rates[0].push(frames as f64 / decode);
            rates[1].push(frames as f64 / process);
            if i == 0 {
                first = [frames as f64 / encode, whole];
            }
        }
        let name = format!("clip {path} ({frames} frames, {tokens} tokens)");
        let [decode, process] = rates.map(median);
        for (label, value) in [("decode", decode), ("preprocess", process), ("encode", first[0])] {
            self.note(format!("{name}: {label}"), value, "frames/s");
        }
        self.note(format!("{name}: first token"), first[1], "s");
        Ok(())
    }

    /// Seconds of a sound per second: decoded, made into model input, encoded.
    async fn sound(&mut self, path: &str) -> Result<()> {
        let options = self.options.clip;
        options.checked()?;
        let mut rates: [Vec<f64>; 2] = Default::default();
        let (mut seconds, mut tokens, mut first) = (0.0, 0, [0.0; 2]);
        for i in 0..self.options.iterations {
            let parts = vec![Part::Audio(path.into(), options.of_sound()), Part::Text(self.words(8))];
            // As with clips.
            let request = ChatRequest { cache_salt: Some(format!("sound {i}")), ..question(parts, 1) };
            let Summary { usage, prepared, media, .. } = ask(&self.model, &request).await?;
            (seconds, tokens) = (media.sound.as_secs_f64(), usage.media_tokens);
            rates[0].push(seconds / media.decode.as_secs_f64());
            rates[1].push(seconds / media.process.as_secs_f64());
            if i == 0 {
                first = [seconds / usage.timings.encode.as_secs_f64(), (prepared + usage.timings.first_token).as_secs_f64()];
            }
        }
        let name = format!("sound {path} ({seconds:.1} s, {tokens} tokens)");
        let [decode, process] = rates.map(median);
        for (label, value) in [("decode", decode), ("preprocess", process), ("encode", first[0])] {
            self.note(format!("{name}: {label}"), value, "s/s");
        }
        self.note(format!("{name}: first token"), first[1], "s");
        Ok(())
    }

    /// Words of all answers that are written at the same time.
    async fn together(&mut self, requests: usize) -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.options.iterations {
            let texts: Vec<ChatRequest> = (0..requests).map(|_| self.text(32, self.options.gen_len)).collect();
            let began = Instant::now();
            let model = &self.model;
            let answers = futures_util::future::try_join_all(texts.iter().map(|request| ask(model, request))).await?;
            let tokens: usize = answers.iter().map(|summary| summary.usage.completion_tokens).sum();
            rates.push(tokens as f64 / began.elapsed().as_secs_f64());
        }
        self.note(format!("{requests} at once"), median(rates), "tokens/s");
        Ok(())
    }

    /// How long those who write wait for their next word, by themselves and while a long prompt is read.
    async fn disturbed(&mut self, prompt: usize) -> Result<()> {
        const WRITERS: usize = 4;
        const WORDS: usize = 24;
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel::<(usize, Instant)>();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let request = ChatRequest { tokens_max: None, ..self.text(32, 1) };
            let mut stream = self.model.stream(&request).await?;
            let said = said.clone();
            writers.spawn(async move {
                while let Ok(Piece::Delta(_)) = stream.next().await {
                    if said.send((writer, Instant::now())).is_err() {
                        return;
                    }
                }
            });
        }
        // The writers alone hold the channel open: when the last has ended, nobody waits for more.
        drop(said);
        let long = self.text(prompt, 1);
        let mut alone = Vec::new();
        while alone.len() < WRITERS * WORDS {
            alone.push(heard.recv().await.context("the answers ended before they could be measured")?);
        }
        // The first words come while others' prompts are read.
        alone.drain(..WRITERS * WORDS / 3);
        let began = Instant::now();
        ask(&self.model, &long).await?;
        let ended = Instant::now();
        writers.shutdown().await;
        let mut beside = Vec::new();
        while let Ok(word) = heard.try_recv() {
            beside.push(word);
        }
        beside.retain(|(_, at)| (began..ended).contains(at));
        let between = |words: &[(usize, Instant)]| -> Vec<f64> {
            let mut last: [Option<Instant>; WRITERS] = [None; WRITERS];
            let gap = |&(writer, at): &(usize, Instant)| last[writer].replace(at).map(|before| (at - before).as_secs_f64());
            words.iter().filter_map(gap).collect()
        };
        let (alone, beside) = (between(&alone), between(&beside));
        let longest = beside.iter().copied().fold(0.0, f64::max);
        self.note(format!("{WRITERS} at once: between words"), median(alone) * 1e3, "ms");
        self.note(format!("{WRITERS} at once: beside a prompt of {prompt}"), median(beside) * 1e3, "ms");
        self.note(format!("{WRITERS} at once: beside a prompt of {prompt}, longest"), longest * 1e3, "ms");
        Ok(())
    }

    fn words(&mut self, count: usize) -> String {
        const WORDS: [&str; 16] = [
            "the", "of", "and", "world", "people", "water", "time", "what", "house", "year", "good", "new", "great", "old",
            "place", "work",
        ];
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.random.usize(..WORDS.len())]).collect();
        words.join(" ")
    }

    /// A question of about so many tokens.
    fn text(&mut self, tokens: usize, answer: usize) -> ChatRequest {
        question(vec![Part::Text(self.words(tokens.saturating_sub(24).max(4)))], answer)
    }

    /// A picture of coarse noise, as BMP.
    fn noise(&mut self, width: usize, height: usize) -> Part {
        let line = (width * 3).next_multiple_of(4);
        let mut bytes = b"BM".to_vec();
        let numbers = [54 + line * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0];
        bytes.extend(numbers.iter().flat_map(|n| (*n as u32).to_le_bytes()));
        let seed = self.random.u64(..);
        let level = |x: usize, y: usize| (seed >> ((x / 16 * 7 + y / 16 * 13) % 57)) as u8;
        bytes.extend((0..height).flat_map(|y| (0..line).map(move |x| level(x, y))));
        Part::Image(MediaSource::Bytes(bytes), ImageOptions::default())
    }

    fn table(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.test.len()).max().unwrap_or(0);
        let mut out = format!("{} ({})\n", self.model.id(), self.model.family().title);
        for Figure { test, value, unit } in &self.figures {
            let digits = if *value < 100.0 { 2 } else { 0 };
            // Writing to a text cannot fail.
            let _ = writeln!(out, "  {test:width$}  {value:>9.digits$} {unit}");
        }
        out.trim_end().to_string()
    }

    fn json(&self) -> Result<String> {
        let figure = |figure: &Figure| json!({"test": figure.test, "value": figure.value, "unit": figure.unit});
        let figures: Vec<Value> = self.figures.iter().map(figure).collect();
        Ok(serde_json::to_string_pretty(&json!({"model": self.model.id(), "figures": figures}))?)
    }
}

/// A question whose answer has exactly so many tokens.
fn question(parts: Vec<Part>, tokens: usize) -> ChatRequest {
    let mut request = ChatRequest::user(parts);
    (request.tokens_max, request.ignore_eos) = (Some(tokens), true);
    request
}

/// Reads an answer to its end.
async fn ask(model: &Model, request: &ChatRequest) -> Result<Summary> {
    let mut stream = model.stream(request).await?;
    loop {
        if let Piece::Done(summary) = stream.next().await? {
            return Ok(summary);
        }
    }
}

/// Leaves a test out that the context has no room for, and says so.
fn unless_too_long(test: &str, result: Result<()>) -> Result<()> {
    result.or_else(|e| match e.downcast_ref() {
        Some(Error::Context { .. }) => {
            eprintln!("{test}: left out: {e}");
            Ok(())
        }
        _ => Err(e),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The most that this process has held at once, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![5.0], 5.0), (vec![], 0.0)] {
            assert_eq!(median(values), expected);
        }
    }
}
