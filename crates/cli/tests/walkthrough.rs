//! The commands of the walkthrough, word by word, with tiny checkpoints in the place of the models that it names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// (id, fixture)
const MODELS: [(&str, &str); 6] = [
    ("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl"),
    ("google/gemma-4-E4B-it", "gemma4_e2b"),
    ("google/gemma-3n-E4B-it", "gemma3n_matformer"),
    ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistral3"),
    ("llava-hf/llava-1.5-7b-hf", "llava"),
    ("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3_vl_moe"),
];

/// Answers that end.
const SHORT: [&str; 2] = ["--max-tokens", "4"];

/// A folder to work in: a Hugging Face cache with the models, and the files that the commands name.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for (id, fixture) in MODELS {
        let repo = place.path().join("hub").join(format!("models--{}", id.replace('/', "--")));
        let snapshot = repo.join("snapshots/0123abc");
        fs::create_dir_all(repo.join("refs")).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(repo.join("refs/main"), "0123abc").unwrap();
        fixtures::copy(fixture, &snapshot).unwrap();
    }
    let media = |name: &str| fixtures::root().join("media").join(name);
    fs::copy(fixtures::root().join("demo/red_circle.png"), place.path().join("photo.jpg")).unwrap();
    fs::copy(media("motion_64x64_5fps.gif"), place.path().join("clip.mp4")).unwrap();
    let templates = place.path().join("chat_templates");
    fs::create_dir(&templates).unwrap();
    for name in ["vicuna.json", "mistral_small_tool_call.jinja"] {
        fs::copy(fixtures::root().join("../chat_templates").join(name), templates.join(name)).unwrap();
    }
    // The published slices have the layers of the published model.
    let table = fs::read_to_string(fixtures::model("gemma3n_matformer").unwrap().join("matformer.csv")).unwrap();
    let table = table.replace("Config for E0.7B (mixed)", "Config for E2.49B (block-level)");
    fs::write(place.path().join("gemma3n.csv"), table).unwrap();
    place
}

/// The words of a command line without the program's name; those in quotes are one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let parts = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(String::from).collect(),
        _ => vec![part.to_string()],
    });
    parts.skip(1).collect()
}

fn program(place: &Path, line: &str, more: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_mistralrs"));
    program.args(words(line)).args(more).current_dir(place);
    program.env("HF_HOME", place).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null());
    program
}

#[test]
fn questions() {
    let place = place();
    let lines = [
        r#"mistralrs run -m Qwen/Qwen3-VL-4B-Instruct --quant 4 --image photo.jpg -i "What is in this picture?""#,
        r#"mistralrs run -m google/gemma-4-E4B-it --quant 8 --video clip.mp4 -i "What happens in this clip?""#,
        r#"mistralrs run -m google/gemma-3n-E4B-it --matformer-config-path gemma3n.csv --matformer-slice-name "Config for E2.49B (block-level)" -i "Hello""#,
        r#"mistralrs run -m llava-hf/llava-1.5-7b-hf -c ./chat_templates/vicuna.json --image photo.jpg -i "Describe it.""#,
        r#"mistralrs run -m Qwen/Qwen3-VL-30B-A3B-Instruct --isq 4 --isq-organization moqe --image photo.jpg -i "What is this?""#,
    ];
    for line in lines {
        let output = program(place.path(), line, &SHORT).output().unwrap();
        let rest = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}\n{rest}");
        assert!(!rest.contains("warning"), "{line}\n{rest}");
    }
}

#[test]
fn servers() {
    let place = place();
    let lines = [
        "mistralrs serve -m Qwen/Qwen3-VL-4B-Instruct --quant 4",
        "mistralrs serve -m mistralai/Mistral-Small-3.1-24B-Instruct-2503 --jinja-explicit ./chat_templates/mistral_small_tool_call.jinja",
    ];
    for line in lines {
        let mut server = program(place.path(), line, &["-p", "0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
        let address = log.find_map(|line| Some(line.unwrap().strip_prefix("listening on http://")?.to_string())).expect(line);
        let mut connection = TcpStream::connect(address).unwrap();
        let photo = place.path().join("photo.jpg");
        let body = format!(
            r#"{{"model": "default", "max_tokens": 4, "messages": [{{"role": "user", "content": [
                {{"type": "image_url", "image_url": {{"url": "file://{}"}}}}, {{"type": "text", "text": "What is this?"}}]}}]}}"#,
            photo.display()
        );
        let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close";
        write!(connection, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("chat.completion"), "{line}\n{answer}");
    }
}
