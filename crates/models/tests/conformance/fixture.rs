//! A reference fixture: a checkpoint, a request, and what the reference made of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fixtures::{Array as Reference, arrays, root};
use media::{AudioOptions, ImageOptions, Interest, Limits, Video, VideoOptions, decode_audio, decode_image};
use mistralrs_models::{Family, Loaded, Marker, Media, Processed, Processor, assemble, load, media_in_words};
use nn::{Array, Files, LoadSettings, Prompt, Slice};
use serde::Deserialize;
use serde_json::{Value, json};
use text::{ChatTemplate, Conversation, TemplateFiles, Tokenizer, without_breaks};

/// A loaded checkpoint with its text side.
pub struct Subject {
    pub loaded: Loaded,
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
}

/// `expected.json`.
#[derive(Deserialize)]
pub struct Expected {
    pub rendered_prompt: String,
    pub prompt_token_ids: Vec<u32>,
    pub greedy_token_ids: Vec<u32>,
    pub logits_prompt_tail_start: usize,
    pub tolerances: Tolerances,
    #[serde(default)]
    processor_kwargs: Value,
}

#[derive(Deserialize)]
pub struct Tolerances {
    pub processor_max_abs: f32,
    pub processor_mean_abs: f32,
    pub encoder_max_abs_from_golden_inputs: f32,
    pub logits_max_abs_from_golden_inputs: f32,
    pub logits_max_abs_under_input_noise: Option<f32>,
}

pub struct Case {
    pub name: String,
    pub request: Value,
    pub expected: Expected,
    pub arrays: BTreeMap<String, Reference>,
}

/// A request on its way to the model.
pub struct Prepared {
    pub rendered: String,
    pub prompt: Prompt,
}

impl Subject {
    pub fn load(files: &Files) -> Self {
        Self::load_slice(files, None)
    }

    pub fn load_slice(files: &Files, slice: Option<Slice>) -> Self {
        let loaded =
            load(files, LoadSettings { slice, ..LoadSettings::default() }).unwrap_or_else(|e| panic!("{}: {e}", files.name()));
        let markers: Vec<&str> = loaded.processor.markers().iter().map(Marker::protected).collect();
        let tokenizer = Tokenizer::new("tokenizer.json", &files.read("tokenizer.json").unwrap().unwrap(), &markers).unwrap();
        let file = |name: &str| files.text(name).map(|text| text.map(|text| (name.to_string(), text)));
        let of_family = loaded.processor.chat_template();
        let templates = TemplateFiles { of_family, ..TemplateFiles::of_model(file).unwrap() };
        Self { loaded, tokenizer, template: ChatTemplate::new(templates.choose().unwrap()).unwrap() }
    }

    /// The whole way from a request to a prompt; `None` when a tool that decodes its media is not there.
    pub fn prepare(&self, request: &Value) -> Option<Prepared> {
        let mut items = Vec::new();
        let mut messages = request["messages"].as_array().unwrap().clone();
        for part in messages.iter_mut().filter_map(|m| m["content"].as_array_mut()).flatten() {
            let kind = part["type"].as_str().unwrap().to_string();
            if let Some(kind) = kind.strip_suffix("_url") {
                let url = part[&format!("{kind}_url")]["url"].as_str().unwrap();
                items.push(self.process(kind, &root().join(url))?);
                *part = json!({"type": kind});
            }
        }
        let kwargs = request["chat_template_kwargs"].as_object().cloned().unwrap_or_default();
        let conversation = Conversation { messages, kwargs, media: media_in_words(self.processor()), ..Conversation::default() };
        let rendered = self.template.render(&conversation, self.tokenizer.guard()).unwrap();
        let prompt = assemble(&rendered, items, self.processor(), &self.tokenizer).unwrap();
        Some(Prepared { rendered: without_breaks(&rendered), prompt })
    }

    fn processor(&self) -> &dyn Processor {
        self.loaded.processor.as_ref()
    }

    fn process(&self, kind: &str, path: &Path) -> Option<Processed> {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let limits = Limits::default();
        if kind == "image" {
            return Some(
                self.processor().process(Media::Image(decode_image(&bytes, &limits).unwrap(), ImageOptions::default())).unwrap(),
            );
        }
        if kind == "audio" {
            let audio = decode_audio(bytes, &AudioOptions::default(), &limits, &Interest::default()).unwrap();
            return Some(self.processor().process(Media::Audio(audio)).unwrap());
        }
        let video = match Video::open(bytes, &limits) {
            Err(media::MediaError::NoFfmpeg { .. }) => {
                println!("SKIPPED {}: the ffmpeg program is missing", path.display());
                return None;
            }
            other => other.unwrap(),
        };
        let options = VideoOptions::default();
        let clip = video.clip(&options, |info| self.processor().sample(info, &options)).unwrap();
        Some(self.processor().process(Media::Video(clip)).unwrap())
    }
}

/// The slice of its model that a fixture is about.
pub fn slice(files: &Files, cases: &[Case]) -> Option<Slice> {
    let kwargs = &cases.first()?.expected.processor_kwargs;
    let file = Path::new(kwargs["matformer_config"].as_str()?).file_name()?.to_string_lossy().into_owned();
    let table = files.text(&file).unwrap().map(|text| (file, text));
    let family = Family::of(files).unwrap();
    Some(family.slice(table, kwargs["matformer_slice_name"].as_str()?).unwrap())
}

impl Case {
    /// What an array of the reference's processor has for each item of a prompt. Where items are a batch of different shapes, the
    /// reference pads them with zeros.
    pub fn of_items(&self, name: &str, items: &[&Array]) -> Result<Vec<Vec<f32>>, String> {
        let reference = self.arrays.get(name).ok_or(format!("the reference has no array {name}"))?;
        let mut rest = reference.as_slice();
        if rest.len() == items.iter().map(|item| item.data.len()).sum::<usize>() {
            return Ok(items.iter().map(|item| rest.split_off(..item.data.len()).unwrap().to_vec()).collect());
        }
        // All pictures of a conversation may be one entry of a batch, and follow each other in it.
        let in_a_row =
            matches!(reference.shape[..], [1, all, ..] if all == items.iter().map(|item| item.shape[0]).sum::<usize>());
        let [batch, padded @ ..] = &reference.shape[usize::from(in_a_row)..] else { return Err(format!("{name} is no batch")) };
        let count = |item: &Array| if in_a_row { item.shape[0] } else { 1 };
        let shape = |item: &Array| item.shape[item.shape.len().saturating_sub(padded.len())..].to_vec();
        let inside = |item: &Array| shape(item).iter().zip(padded).all(|(length, all)| length <= all);
        if *batch != items.iter().map(|item| count(item)).sum::<usize>() || !items.iter().all(|item| inside(item)) {
            let found: Vec<_> = items.iter().map(|item| &item.shape).collect();
            return Err(format!("{name}: shapes {found:?} instead of {:?}", reference.shape));
        }
        let mut entries = rest.chunks(rest.len() / batch);
        let crop_all = |item: &&Array| {
            entries.by_ref().take(count(item)).flat_map(|entry| crop(entry, padded, &shape(item))).collect::<Vec<f32>>()
        };
        let parts: Vec<_> = items.iter().map(crop_all).collect();
        let seen = |numbers: &[f32]| numbers.iter().filter(|x| **x != 0.0).count();
        let all = parts.iter().map(|part| seen(part)).sum::<usize>() == seen(rest);
        if all { Ok(parts) } else { Err(format!("{name}: the items are larger in the reference")) }
    }
}

/// The corner of an array that has another shape.
fn crop(numbers: &[f32], shape: &[usize], wanted: &[usize]) -> Vec<f32> {
    let ([_, shape @ ..], [count, wanted @ ..]) = (shape, wanted) else { return numbers.to_vec() };
    let stride = shape.iter().product();
    numbers.chunks(stride).take(*count).flat_map(|part| crop(part, shape, wanted)).collect()
}

/// The cases of a fixture, by name.
pub fn cases(fixture: &str) -> Vec<Case> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root().join(fixture).join("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let json = |path: PathBuf| std::fs::read(path).unwrap();
    let case = |path: &PathBuf| Case {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        request: serde_json::from_slice(&json(path.join("request.json"))).unwrap(),
        expected: serde_json::from_slice(&json(path.join("expected.json"))).unwrap(),
        arrays: arrays(&path.join("expected.safetensors")).unwrap(),
    };
    folders.iter().map(case).collect()
}
