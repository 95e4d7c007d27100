//! Every family through the engine: what is said does not depend on what else is said, on what was said before, or on how much
//! is computed at a time; and answers have the form that is asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mistralrs::{
    AudioOptions, Capacity, ChatRequest, Dialect, Dtype, Grammar, Hub, ImageOptions, LoadOptions, MediaKind, MediaSource, Model,
    ModelSource, Part, Quant, Stats, ToolChoice, VideoOptions,
};

/// Tokens of a block of the cache.
const BLOCK: usize = 32;

async fn load(name: &str, capacity: Capacity) -> Model {
    load_from(fixtures::model(name).unwrap(), capacity).await
}

async fn load_from(folder: PathBuf, capacity: Capacity) -> Model {
    Model::load(LoadOptions { capacity, ..options(folder) }, Arc::new(|_| ())).await.unwrap()
}

fn options(folder: PathBuf) -> LoadOptions {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    LoadOptions { dtype: Dtype::F32, ..LoadOptions::new(ModelSource::Folder(folder), hub) }
}

/// A model that takes text alone is asked without the picture.
fn asked_of(model: &Model, picture: &'static str) -> Option<&'static str> {
    model.family().modalities.contains(&MediaKind::Image).then_some(picture)
}

fn about(picture: Option<&str>, question: &str) -> ChatRequest {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo").join(name).display().to_string();
    let media = picture.map(|name| Part::Image(MediaSource::Url(file(name)), ImageOptions::default()));
    let request = ChatRequest::user(media.into_iter().chain([Part::Text(question.into())]).collect());
    ChatRequest { tokens_max: Some(12), ignore_eos: true, ..request }
}

/// Ids of an answer, and how many of its prompt's tokens were remembered.
async fn ids(model: &Model, request: &ChatRequest) -> (Vec<u32>, usize) {
    let answer = model.answer(request).await.unwrap();
    (answer.tokens.iter().map(|token| token.id).collect(), answer.summary.usage.cached_tokens)
}

fn encoded(stats: Stats) -> (usize, usize) {
    (stats.encoded, stats.encoder_hits)
}

/// M14 of docs/reliability.md.
#[tokio::test]
async fn a_second_question_about_a_picture_reads_only_what_is_new() {
    for name in fixtures::names().unwrap() {
        let model = load(&name, Capacity::default()).await;
        let question = |end: &str| format!("{}{end}", "Look closely. ".repeat(8));
        let ends = ["What is there?", "How many shapes are there?"];
        let [first, second] = ends.map(|end| about(asked_of(&model, "four_shapes.png"), &question(end)));
        let salted = ChatRequest { cache_salt: Some("nobody else".into()), ..second.clone() };
        let (expected, none) = ids(&model, &salted).await;
        assert_eq!(none, 0, "{name}");
        assert_eq!(ids(&model, &first).await.1, 0, "{name}: a salt was of no use");
        let before = encoded(model.stats());
        let (found, remembered) = ids(&model, &second).await;
        assert_eq!(found, expected, "{name}");
        let prompts = [model.stream(&first).await.unwrap(), model.stream(&second).await.unwrap()];
        let [a, b] = [prompts[0].prompt_token_ids(), prompts[1].prompt_token_ids()];
        let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        assert!(remembered > 0 && remembered == shared / BLOCK * BLOCK, "{name}: {remembered} of {shared} tokens remembered");
        assert_eq!(encoded(model.stats()).0, before.0, "{name}: the picture was encoded again");
        let Some(another) = asked_of(&model, "two_shapes.png") else { continue };
        let other = ids(&model, &about(Some(another), &question(ends[1]))).await;
        assert!(other.1 < remembered, "{name}: {} tokens of another picture's prompt remembered", other.1);
    }
}

#[tokio::test]
async fn what_was_made_of_media_is_remembered_by_those_who_may_know() {
    let model = load("qwen2_vl", Capacity::default()).await;
    let forgetful = load("qwen2_vl", Capacity { media_bytes_max: 0, ..Capacity::default() }).await;
    let file = |name: &str| MediaSource::Url(format!("{}/fixtures/media/{name}", env!("CARGO_MANIFEST_DIR")));
    let (base, picture) = (VideoOptions::default(), ImageOptions::default());
    let clip = |options| Part::Video(file("motion_64x64_5fps.gif"), options);
    let frames = |count| MediaSource::Frames { frames: vec![file("photo_64x64.png"); count], timestamps: None };
    // Part, salt, (pictures that are decoded, items that are remembered)
    let cases = [
        (clip(base), None, (4, 0)),
        (clip(base), None, (0, 1)),
        (clip(base), Some("me"), (4, 0)),
        (clip(base), Some("you"), (4, 0)),
        (clip(base), Some("me"), (0, 1)),
        (clip(VideoOptions { max_frames: Some(2), ..base }), None, (2, 0)),
        (clip(VideoOptions { start: Some(1.0), ..base }), None, (4, 0)),
        (clip(VideoOptions { max_frames: Some(2), ..base }), None, (0, 1)),
        (Part::Video(frames(3), base), None, (3, 0)),
        (Part::Video(frames(5), base), None, (5, 0)),
        (Part::Video(frames(3), base), None, (0, 1)),
        (Part::Image(file("photo_64x64.png"), picture), None, (1, 0)),
        (Part::Image(file("photo_64x64.png"), picture), None, (0, 1)),
    ];
    for (i, (part, salt, (pictures, remembered))) in cases.into_iter().enumerate() {
        let request =
            ChatRequest { cache_salt: salt.map(str::to_string), ..ChatRequest::user(vec![part, Part::Text("What?".into())]) };
        let request = ChatRequest { tokens_max: Some(2), ignore_eos: true, ..request };
        let [answer, expected] = [model.answer(&request).await.unwrap(), forgetful.answer(&request).await.unwrap()];
        let spent = answer.summary.media;
        assert_eq!((spent.pictures, spent.remembered), (pictures, remembered), "case {i}");
        assert_eq!(answer.text, expected.text, "case {i}");
        assert_eq!(expected.summary.media.remembered, 0, "case {i}");
    }
}

#[tokio::test]
async fn sounds_are_remembered_part_by_part() {
    let model = load("voxtral", Capacity::default()).await;
    let file = format!("{}/fixtures/media/speech_24k.mp3", env!("CARGO_MANIFEST_DIR"));
    let part = |start, end| AudioOptions { start, end };
    let cases = [
        (part(None, None), (2200, 0)),
        (part(None, None), (0, 1)),
        (part(Some(1.0), None), (1200, 0)),
        (part(None, Some(1.0)), (1000, 0)),
        (part(Some(1.0), None), (0, 1)),
    ];
    for (options, (milliseconds, remembered)) in cases {
        let sound = Part::Audio(MediaSource::Url(file.clone()), options);
        let request = ChatRequest { tokens_max: Some(2), ..ChatRequest::user(vec![sound, Part::Text("What?".into())]) };
        let spent = model.answer(&request).await.unwrap().summary.media;
        assert_eq!((spent.sound.as_millis(), spent.remembered), (milliseconds, remembered), "{options:?}");
    }
}

#[tokio::test]
async fn answers_do_not_depend_on_what_else_is_said() {
    let pictures = [Some("four_shapes.png"), None, Some("two_shapes.png"), None, Some("four_shapes.png"), Some("hello.png")];
    for name in fixtures::names().unwrap() {
        let roomy = load(&name, Capacity::default()).await;
        let picture = |i: usize| pictures[i].and_then(|picture| asked_of(&roomy, picture));
        let requests: Vec<ChatRequest> =
            (0..pictures.len()).map(|i| about(picture(i), &"What is there? ".repeat(i + 1))).collect();
        let mut expected = Vec::new();
        for request in &requests {
            expected
                .push(ids(&roomy, &ChatRequest { cache_salt: Some(format!("{}", expected.len())), ..request.clone() }).await.0);
        }
        for (step_tokens_max, sequences_max) in [(7, 2), (64, 6), (512, 3)] {
            let model = load(&name, Capacity { step_tokens_max, sequences_max, ..Capacity::default() }).await;
            let found = futures_util::future::join_all(requests.iter().map(|request| ids(&model, request))).await;
            let found: Vec<Vec<u32>> = found.into_iter().map(|(ids, _)| ids).collect();
            assert_eq!(found, expected, "{name}, {step_tokens_max} tokens a step");
        }
    }
}

#[tokio::test]
async fn a_tekken_file_alone_is_as_good_as_a_tokenizer_file() {
    let folder = tempfile::tempdir().unwrap();
    fixtures::copy("mistral3", folder.path()).unwrap();
    // Without the second one, ids say which tokens begin and end a text.
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let question = about(Some("hello.png"), "Grüße! What is there, in 3 words?  你好");
    let mut answers = Vec::new();
    for folder in [fixtures::model("mistral3").unwrap(), folder.path().into()] {
        let model = load_from(folder, Capacity::default()).await;
        let answer = model.answer(&question).await.unwrap();
        let ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        answers.push((ids, answer.text, answer.summary.usage.prompt_tokens));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn every_tokenizer_can_follow_a_grammar() {
    for name in fixtures::names().unwrap() {
        let model = load(&name, Capacity::default()).await;
        for (grammar, expected) in [
            (Grammar::Choice(vec!["a red circle".into()]), "a red circle"),
            (Grammar::Regex("The é 中 <b>\n[0]{3}\\.".into()), "The é 中 <b>\n000."),
            (Grammar::JsonSchema(serde_json::json!({"const": {"a": [1, " b"]}})), "{\"a\":[1,\" b\"]}"),
        ] {
            let without_thoughts = [("enable_thinking".to_string(), false.into())].into_iter().collect();
            let request = ChatRequest { grammar: Some(grammar.clone()), tokens_max: Some(60), ..about(None, "What?") };
            let request = ChatRequest { template_kwargs: without_thoughts, ..request };
            let answer = model.answer(&ChatRequest { ignore_eos: false, ..request }).await.unwrap();
            let text = if matches!(grammar, Grammar::JsonSchema(_)) {
                serde_json::from_str::<serde_json::Value>(&answer.text).unwrap_or_default().to_string()
            } else {
                answer.text
            };
            assert_eq!(text, expected, "{name}: {grammar:?}");
        }
    }
}

/// G3 of docs/reliability.md.
#[tokio::test]
async fn grammars_out_of_all_proportion_are_refused() {
    let model = load("qwen2_vl", Capacity::default()).await;
    let nested = |open: &str, close: &str| format!("{}a{}", open.repeat(20_000), close.repeat(20_000));
    let grammars = [
        Grammar::Regex(nested("(", ")")),
        Grammar::Regex("(((a{1,999}){1,999}){1,999}|b{999}){999}(c|d{3,999}){999}".into()),
        Grammar::Lark(format!("start: {}", nested("(", ")").replace('a', "\"a\""))),
        Grammar::Lark("start: start start | \"a\"".into()),
        Grammar::Choice((0..20_000).map(|i| format!("choice {i}")).collect()),
        Grammar::Llguidance(nested("{\"a\":", "}")),
    ];
    for grammar in grammars {
        let request = ChatRequest { grammar: Some(grammar), ..about(None, "What?") };
        let message = model.answer(&request).await.map_or_else(|e| e.to_string(), |answer| answer.text);
        assert!(message.len() < 1000 && !message.contains('\n'), "{message}");
    }
    // The model answers on.
    assert!(!model.answer(&about(None, "What?")).await.unwrap().tokens.is_empty());
}

/// Marks of calls and thoughts are tokens of their own in some of these tokenizers, and text in others.
#[tokio::test]
async fn functions_are_called_in_the_notation_of_the_model() {
    let parameters = serde_json::json!({
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1, "maxLength": 4},
            "mark": {"enum": ["<|\"|>", "[ARGS]", "</parameter>"]},
            "on": {"type": "boolean"},
        },
        "required": ["text", "mark", "on"],
        "additionalProperties": false,
    });
    let tool = serde_json::json!({"type": "function", "function": {"name": "paint", "parameters": parameters}});
    let models = [
        ("gemma4", Dialect::Quoted),
        ("mistral3", Dialect::Bracketed),
        ("qwen3_5", Dialect::Xml),
        ("qwen3_vl", Dialect::Hermes),
        ("llama", Dialect::PythonTag),
    ];
    for (name, dialect) in models {
        let options = LoadOptions { dialect: Some(dialect), ..options(fixtures::model(name).unwrap()) };
        let model = Model::load(options, Arc::new(|_| ())).await.unwrap();
        for seed in 0..3 {
            let mut request = ChatRequest {
                tools: vec![tool.clone()],
                tool_choice: ToolChoice::Required,
                calls_max: Some(1),
                tokens_max: Some(200),
                template_kwargs: [("enable_thinking".to_string(), false.into())].into_iter().collect(),
                ..about(asked_of(&model, "red_circle.png"), "Paint!")
            };
            (request.sampling.temperature, request.sampling.seed, request.ignore_eos) = (1.0, Some(seed), false);
            let answer = model.answer(&request).await.unwrap();
            let [call] = answer.calls.as_slice() else { panic!("{name}: {answer:?}") };
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
            let mark = ["<|\"|>", "[ARGS]", "</parameter>"].contains(&arguments["mark"].as_str().unwrap());
            let text = arguments["text"].as_str().unwrap();
            assert!(call.name == "paint" && mark && arguments["on"].is_boolean(), "{name}: {call:?}");
            assert!((1..=4).contains(&text.chars().count()) && answer.text.is_empty(), "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_topology_says_which_matrices_are_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let written = |text: &str| {
        let file = folder.path().join("topology.yml");
        std::fs::write(&file, text).unwrap();
        Some(file)
    };
    let likely = async |options: LoadOptions| -> Result<Vec<Option<f32>>, String> {
        let model = Model::load(options, Arc::new(|_| ())).await.map_err(|e| e.to_string())?;
        let mut request = about(None, "What?");
        request.sampling.logprobs = Some(0);
        Ok(model.answer(&request).await.unwrap().tokens.iter().map(|token| token.logprob).collect())
    };
    let base = || options(fixtures::model("qwen3").unwrap());
    let dense = likely(base()).await.unwrap();
    let all = likely(LoadOptions { quant: Some(Quant::Q8_0), ..base() }).await.unwrap();
    let said = [
        ("'/./':\n  isq: q8_0\n", None, Ok(&all)),
        ("0-3:\n  isq: q8_0\n'/embed_tokens|lm_head/':\n  isq: q8_0\n", None, Ok(&all)),
        ("'/./':\n  isq: q8_0\n", Some(Quant::Q4_0), Ok(&all)),
        ("'/o_proj/':\n  device: cpu\n", None, Ok(&dense)),
        ("0-99:\n  isq: q8_0\n", None, Err("layers 0 to")),
        ("'/x_proj/':\n  isq: q8_0\n", None, Err("no tensor")),
        ("'/q_proj/':\n  isq: q8_0\n", None, Err("one matrix here")),
    ];
    assert_ne!(dense, all);
    for (text, quant, expected) in said {
        let found = likely(LoadOptions { topology: written(text), quant, ..base() }).await;
        match expected {
            Ok(expected) => assert_eq!(found.as_ref(), Ok(expected), "{text}"),
            Err(expected) => assert!(found.as_ref().is_err_and(|e| e.contains(expected)), "{text}: {found:?}"),
        }
    }
}
