//! Every case of every fixture, stage by stage: what differs first is where the mistake is.
//!
//! The test of a fixture is one line below.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../examples/quality/divergence.rs"]
#[allow(dead_code)] // a test needs one of its figures
mod divergence;
mod fixture;
mod importance;
mod layouts;
mod organization;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use fixture::{Case, Prepared, Subject, cases, slice};
use mistralrs_models::{FAMILIES, Loaded, measure};
use nn::{Array, Files, LoadSettings, MediaInput, MediaKind, Model, Placement, Prompt, Slice};
use run::{Room, Sequence, greedy, prompt_logits};
use serde_json::Value;

/// Outputs of the reference's processor that nothing is computed from here.
const NOT_COMPARED: [&str; 7] = [
    "processor.cross_attention_mask",
    "processor.token_type_ids",
    "processor.mm_token_type_ids",
    "processor.pixel_attention_mask",
    "processor.input_features_mask",
    "processor.image_attention_mask",
    "processor.audio_embed_sizes",
];
/// Sounds that the reference pads to the longest of the request, and hears in their last frames. Here a sound is what it is alone.
const PADDED_TOGETHER: [&str; 1] = ["gemma3n/two_audio"];

macro_rules! fixtures {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            conform(stringify!($name));
        })*
    };
}

fixtures! { gemma gemma2 gemma3 gemma3_pan_scan gemma3_text gemma3n gemma3n_matformer gemma4 gemma4_31b gemma4_e2b gemma4_moe idefics2 idefics2_whole idefics3 idefics3_smolvlm llama llama4 llama4_text llava llava_mistral llava_next llava_next_mistral minicpmo mistral mistral3 mllama phi3 phi3v phi4_multimodal phi4mm qwen2 qwen2_5_vl qwen2_vl qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_vl qwen3_vl_moe smolvlm voxtral }

#[test]
fn every_fixture_is_tested_and_every_family_has_one() {
    let names = fixtures::names().unwrap();
    assert_eq!(names, TESTED);
    for family in FAMILIES {
        assert!(TESTED.contains(&family.name), "{} has no fixture", family.name);
    }
}

/// What a checkpoint takes is known before it is read.
fn measured(files: &Files, slice: Option<Slice>, loaded: &Loaded) {
    let measured = measure(files, &LoadSettings { slice, ..LoadSettings::default() }).unwrap();
    assert_eq!(measured.footprint, loaded.footprint);
    assert_eq!((&measured.cache_spec, measured.vocab_size), (loaded.model.cache_spec(), loaded.model.vocab_size()));
    assert_eq!((measured.context_max, measured.dtype), (loaded.context_max, loaded.dtype));
    let has_towers = !loaded.family.modalities.is_empty();
    assert_eq!((measured.footprint.language > 0, measured.footprint.towers > 0), (true, has_towers));
}

fn conform(name: &str) {
    let files = Files::Folder(fixtures::model(name).unwrap());
    let cases = cases(name);
    let subject = Subject::load_slice(&files, slice(&files, &cases));
    measured(&files, slice(&files, &cases), &subject.loaded);
    assert_eq!(subject.loaded.leftover, [""; 0], "tensors that nobody took");
    let generation: Value = files.required_json("generation_config.json").unwrap();
    let ends: Vec<u32> = match &generation["eos_token_id"] {
        Value::Array(ids) => ids.iter().map(|id| id.as_u64().unwrap() as u32).collect(),
        id => vec![id.as_u64().unwrap() as u32],
    };
    let mut failures = Vec::new();
    let mut prompts = Vec::new();
    for case in &cases {
        let Some(prepared) = subject.prepare(&case.request) else { continue };
        let alike = || {
            processor(case, &prepared.prompt)?;
            sampled_pixels(case, &prepared.prompt)?;
            positions(case, &prepared.prompt)?;
            golden(case, &subject, &prepared.prompt)?;
            answer(case, &subject, &prepared.prompt, &ends)
        };
        let padded = PADDED_TOGETHER.contains(&format!("{name}/{}", case.name).as_str());
        let stage = text(case, &prepared)
            .and_then(|()| if padded { Ok(()) } else { alike() })
            .and_then(|()| chunks(&subject, &prepared.prompt));
        match stage {
            Ok(()) => println!("ok {name}/{}", case.name),
            Err(reason) => failures.push(format!("{name}/{}: {reason}", case.name)),
        }
        prompts.push((case, prepared.prompt));
    }
    failures.extend(strangers(&subject, &prompts).err());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(!prompts.is_empty());
}

type Stage = Result<(), String>;

fn text(case: &Case, prepared: &Prepared) -> Stage {
    same("rendered prompt", &prepared.rendered, &case.expected.rendered_prompt)?;
    same("prompt ids", &prepared.prompt.tokens, &case.expected.prompt_token_ids)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Stage {
    if found == expected { Ok(()) } else { Err(format!("{what} differ\n   found {found:?}\nexpected {expected:?}")) }
}

/// Greatest and mean difference stay below the bounds.
fn close(what: &str, found: &[f32], expected: &[f32], max: f32, mean: f32) -> Stage {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} numbers instead of {}", found.len(), expected.len()));
    }
    let differences = || found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let worst = differences().fold(0.0, |a: f32, b| if b.is_nan() { f32::INFINITY } else { a.max(b) });
    let average = differences().sum::<f32>() / found.len().max(1) as f32;
    if worst <= max && average <= mean {
        Ok(())
    } else {
        Err(format!("{what}: off by {worst} (allowed {max}), {average} on average (allowed {mean})"))
    }
}

/// Arrays of all items of a prompt, by name.
fn by_name(prompt: &Prompt) -> BTreeMap<&'static str, Vec<&Array>> {
    let mut out: BTreeMap<&'static str, Vec<&Array>> = BTreeMap::new();
    for (name, array) in prompt.media.iter().flat_map(|item| &item.input.arrays) {
        out.entry(name).or_default().push(array);
    }
    out
}

fn processor(case: &Case, prompt: &Prompt) -> Stage {
    let found = by_name(prompt);
    let t = &case.expected.tolerances;
    let expected = case.arrays.keys().filter(|name| name.starts_with("processor.") && !NOT_COMPARED.contains(&name.as_str()));
    for name in expected {
        let found = found.get(&name["processor.".len()..]).ok_or(format!("no array {name}"))?;
        let expected = case.of_items(name, found)?.concat();
        let found: Vec<f32> = found.iter().flat_map(|array| &array.data).copied().collect();
        // A logarithm that begins at a thousandth makes more of a nearly silent band.
        let outlier = if slack(prompt) > 1.0 { 10.0 } else { 1.0 };
        close(name, &found, &expected, outlier * t.processor_max_abs, t.processor_mean_abs)?;
    }
    Ok(())
}

/// Pixels of which the reference keeps every eighth line and column, since the whole would be too large.
fn sampled_pixels(case: &Case, prompt: &Prompt) -> Stage {
    const EVERY: usize = 8;
    let sample = |array: &Array| {
        let [before @ .., height, width] = array.shape.as_slice() else { panic!("pixels without lines") };
        let plane = |plane: &[f32]| {
            let lines = plane.chunks_exact(*width).step_by(EVERY);
            lines.flat_map(|line| line.iter().copied().step_by(EVERY)).collect::<Vec<f32>>()
        };
        let data = array.data.chunks_exact(height * width).flat_map(plane).collect();
        Array { shape: [before, &[height.div_ceil(EVERY), width.div_ceil(EVERY)]].concat(), data }
    };
    let pixels = by_name(prompt).into_iter().filter(|(name, _)| name.ends_with("pixel_values"));
    // Where pictures follow each other number by number, nothing is left out.
    let pictures = pixels.flat_map(|(_, arrays)| arrays).filter(|array| array.shape.len() > 1);
    let samples: Vec<Array> = pictures.map(sample).collect();
    let batch: Vec<&Array> = samples.iter().collect();
    let of_one = |i: usize| (format!("debug.pixels_{i}_every_8th"), &batch[i..i + 1]);
    let kept = std::iter::once(("debug.pixels_every_8th".to_string(), &batch[..])).chain((0..batch.len()).map(of_one));
    for (name, found) in kept.filter(|(name, _)| case.arrays.contains_key(name)) {
        let expected = case.of_items(&name, found)?.concat();
        let found: Vec<f32> = found.iter().flat_map(|array| &array.data).copied().collect();
        let t = &case.expected.tolerances;
        close(&name, &found, &expected, t.processor_max_abs, t.processor_mean_abs)?;
    }
    Ok(())
}

/// What bounds on our own arrays are multiplied by. The reference's resampler works in two stages at some rates (44.1 kHz), of which
/// the second does not hear what the first rings before the first sample: a nearly silent band of the first frame differs.
fn slack(prompt: &Prompt) -> f32 {
    if prompt.media.iter().any(|item| item.input.kind == MediaKind::Audio) { 2.0 } else { 1.0 }
}

fn positions(case: &Case, prompt: &Prompt) -> Stage {
    let Some(expected) = case.arrays.get("debug.position_ids") else { return Ok(()) };
    let tokens = prompt.tokens.len();
    let found: Vec<f32> = (0..expected.len()).map(|i| prompt.positions.at(i % tokens)[i / tokens] as f32).collect();
    close("position ids", &found, expected, 0.0, 0.0)
}

/// The prompt with the reference's own processor arrays. Ours stay where the reference keeps none.
fn with_golden_arrays(case: &Case, prompt: &Prompt) -> Result<Prompt, String> {
    let mut golden = BTreeMap::new();
    for (name, items) in by_name(prompt) {
        let reference = format!("processor.{name}");
        if case.arrays.contains_key(&reference) {
            golden.insert(name, case.of_items(&reference, &items)?.into_iter());
        }
    }
    let mut prompt = prompt.clone();
    for item in &mut prompt.media {
        let mut arrays = item.input.arrays.clone();
        for (name, array) in &mut arrays {
            if let Some(golden) = golden.get_mut(name) {
                array.data = golden.next().unwrap();
            }
        }
        item.input = Arc::new(MediaInput::new(item.input.kind, item.input.rows, arrays));
    }
    Ok(prompt)
}

fn golden(case: &Case, subject: &Subject, prompt: &Prompt) -> Stage {
    let model = subject.loaded.model.as_ref();
    let prompt = with_golden_arrays(case, prompt)?;
    let t = &case.expected.tolerances;
    encoder(case, model, &prompt)?;
    let logits = prompt_logits(model, &prompt, usize::MAX);
    tail("logits from golden inputs", case, &logits, t.logits_max_abs_from_golden_inputs)
}

/// Rows are the features, and then what DeepStack adds behind each layer.
fn encoder(case: &Case, model: &dyn Model, prompt: &Prompt) -> Stage {
    // Where the reference calls frames pictures, their rows stand among those of pictures.
    let kind_of = |item: &Placement| match item.input.kind {
        MediaKind::Video if !case.arrays.contains_key("encoder.video_features") => MediaKind::Image,
        kind => kind,
    };
    for (kind, name) in [(MediaKind::Image, "image"), (MediaKind::Audio, "audio"), (MediaKind::Video, "video")] {
        let features = std::iter::once(format!("encoder.{name}_features"));
        let parts = features.chain((0..).map(|part| format!("encoder.{name}_deepstack_{part}")));
        let parts: Vec<&[f32]> = parts.map_while(|name| Some(case.arrays.get(&name)?.as_slice())).collect();
        if parts.is_empty() {
            continue;
        }
        let items = prompt.media.iter().filter(|item| kind_of(item) == kind);
        let encode = |item: &Placement| model.encode(&item.input, &mut || Ok(())).unwrap().narrow(0, item.input.rows).unwrap();
        let rows: Vec<Vec<f32>> = items.flat_map(|item| filled(encode(item).to_vec2().unwrap())).collect();
        for (i, expected) in parts.iter().enumerate() {
            let found: Vec<f32> =
                rows.iter().flat_map(|row| row.chunks(row.len() / parts.len()).nth(i).unwrap()).copied().collect();
            let bound = case.expected.tolerances.encoder_max_abs_from_golden_inputs;
            close(&format!("{name} rows, part {i}"), &found, expected, bound, bound)?;
        }
    }
    Ok(())
}

/// Without the row that an item's slots are filled up with, which the reference does elsewhere.
fn filled(mut rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let repeated = rows.iter().rev().take_while(|row| Some(*row) == rows.last()).count();
    rows.truncate(rows.len() - if repeated > 1 { repeated } else { 0 });
    rows
}

fn tail(what: &str, case: &Case, logits: &[Vec<f32>], bound: f32) -> Stage {
    let expected = &case.arrays["logits.prompt_tail"];
    assert!(case.expected.logits_prompt_tail_start <= logits.len().saturating_sub(16), "{}: a short tail", case.name);
    let found = logits[case.expected.logits_prompt_tail_start..].concat();
    close(what, &found, expected, bound, bound)
}

fn answer(case: &Case, subject: &Subject, prompt: &Prompt, ends: &[u32]) -> Stage {
    let model = subject.loaded.model.as_ref();
    let t = &case.expected.tolerances;
    let bound = slack(prompt) * t.logits_max_abs_under_input_noise.unwrap_or(t.logits_max_abs_from_golden_inputs);
    tail("logits", case, &prompt_logits(model, prompt, usize::MAX), bound)?;
    let count = case.request["max_tokens"].as_u64().unwrap() as usize;
    let (tokens, logits) = greedy(model, prompt, count, ends);
    same("greedy ids", &tokens, &case.expected.greedy_token_ids)?;
    let (ids, values) = (&case.arrays["logits.steps.ids"], &case.arrays["logits.steps.values"]);
    let largest = ids.len() / logits.len();
    let found: Vec<f32> = ids.iter().enumerate().map(|(i, id)| logits[i / largest][*id as usize]).collect();
    close("logits of the answer", &found, values, bound, bound)
}

/// Whole prompt = in chunks = token by token.
fn chunks(subject: &Subject, prompt: &Prompt) -> Stage {
    let model = subject.loaded.model.as_ref();
    let whole = prompt_logits(model, prompt, usize::MAX).concat();
    for chunk in [1, 7, 32] {
        let found = prompt_logits(model, prompt, chunk).concat();
        close(&format!("logits in chunks of {chunk}"), &found, &whole, 2e-3, 1e-4)?;
    }
    Ok(())
}

/// Alone = in a batch of strangers of other lengths, at other stages.
fn strangers(subject: &Subject, prompts: &[(&Case, Prompt)]) -> Stage {
    let model = subject.loaded.model.as_ref();
    let alone: Vec<Vec<Vec<f32>>> = prompts.iter().map(|(_, prompt)| prompt_logits(model, prompt, usize::MAX)).collect();
    let mut room = Room::new(model);
    let mut sequences: Vec<Sequence> = prompts.iter().map(|(_, prompt)| Sequence::new(model, prompt)).collect();
    let mut together: Vec<Vec<Vec<f32>>> = vec![Vec::new(); prompts.len()];
    while together.iter().zip(prompts).any(|(rows, (_, prompt))| rows.len() < prompt.tokens.len()) {
        let sizes = [1, 5, 40, 13];
        let unfinished = sequences.iter_mut().enumerate().filter(|(i, _)| together[*i].len() < prompts[*i].1.tokens.len());
        let (who, mut chunks): (Vec<usize>, Vec<(&mut Sequence, usize)>) = unfinished
            .map(|(i, sequence)| {
                let count = sequence.chunk(sizes[i % sizes.len()]);
                (i, (sequence, count))
            })
            .unzip();
        for (i, rows) in who.into_iter().zip(room.step(model, &mut chunks)) {
            together[i].extend(rows);
        }
    }
    for ((found, expected), (case, _)) in together.iter().zip(&alone).zip(prompts) {
        close(&format!("{} among strangers", case.name), &found.concat(), &expected.concat(), 2e-3, 1e-4)?;
    }
    Ok(())
}

#[test]
fn sounds_that_cannot_be_heard_are_refused() {
    let sound = |seconds: f64| media::Audio { samples: vec![0.1; (seconds * 16_000.0) as usize], rate: 16_000 };
    let cases = [
        ("gemma4", 29.99, None),
        ("gemma4", 30.1, Some("30.1 s long, and this model hears 30 s at a time")),
        ("gemma4", 0.005, Some("too short to be heard")),
        ("gemma4_31b", 1.0, Some("does not take audio input")),
    ];
    for (name, seconds, expected) in cases {
        let processor = Subject::load(&Files::Folder(fixtures::model(name).unwrap())).loaded.processor;
        let found = processor.process(mistralrs_models::Media::Audio(sound(seconds))).err().map(|e| e.to_string());
        let named = found.as_deref().zip(expected).is_some_and(|(found, expected)| found.contains(expected));
        assert!(named || found.is_none() && expected.is_none(), "{name}, {seconds} s: {found:?}");
    }
}

#[test]
fn shards_load_like_one_file() {
    let whole = fixtures::model("qwen2_vl").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fixtures::copy("qwen2_vl", folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let bytes = std::fs::read(whole.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut index = serde_json::Map::new();
    for shard in 0..3 {
        let name = format!("model-{shard}-of-3.safetensors");
        let part: Vec<_> = tensors.iter().enumerate().filter(|(i, _)| i % 3 == shard).map(|(_, tensor)| tensor).collect();
        index.extend(part.iter().map(|(tensor, _)| (tensor.to_string(), name.clone().into())));
        std::fs::write(folder.path().join(name), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({"metadata": {"total_size": bytes.len()}, "weight_map": index});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let logits = |folder: &std::path::Path| {
        let loaded = Subject::load(&Files::Folder(folder.into())).loaded;
        prompt_logits(loaded.model.as_ref(), &Prompt::text((1..20).collect()), usize::MAX)
    };
    assert_eq!(logits(folder.path()), logits(&whole));
}
