//! The program as a person runs it: what goes where, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

fn mistralrs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mistralrs"))
        .args(arguments)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn demo(picture: &str) -> String {
    fixtures::root().join("demo").join(picture).display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_answer_goes_to_standard_output_and_all_else_to_standard_error() {
    let output = mistralrs(&["run", "--image", &demo("red_circle.png"), "-i", "What is in this picture?"]);
    let (answer, rest) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{rest}");
    assert!(answer.contains("red circle") && answer.ends_with('\n') && answer.lines().count() == 1, "{answer}");
    assert!(rest.contains("no model given (-m)"), "{rest}");
    let figures = rest.lines().last().unwrap();
    for part in ["prompt tokens", "of media", "first token after", "tokens at", "/s"] {
        assert!(figures.contains(part), "{part:?} in {figures}");
    }
}

#[test]
fn several_pictures_and_a_quantised_model() {
    let output = mistralrs(&[
        "run",
        "--quant",
        "8",
        "--image",
        &demo("red_circle.png"),
        "--image",
        &demo("heart_and_moon.jpg"),
        "--max-tokens",
        "5",
        "-i",
        "What is in the first picture?",
    ]);
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("5 tokens"), "{}", text(&output.stderr));
}

#[test]
fn a_model_quantised_by_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, "There is a red circle. Where is the blue star?").unwrap();
    let file = file.display().to_string();
    let output = mistralrs(&["run", "--quant", "2", "--calibration-file", &file, "--max-tokens", "2", "-i", "What is there?"]);
    let rest = text(&output.stderr);
    assert!(output.status.success() && !output.stdout.is_empty(), "{rest}");
    assert!(rest.contains("importance known of 29 of 29 quantised matrices"), "{rest}");
    assert_eq!(mistralrs(&["run", "--calibration-file", &file]).status.code(), Some(2));
}

#[test]
fn experts_alone_are_quantised_where_there_are_some() {
    let run = |name: &str| {
        let folder = fixtures::model(name).unwrap().display().to_string();
        mistralrs(&[
            "run",
            "-m",
            &folder,
            "--isq",
            "4",
            "--isq-organization",
            "moqe",
            "--max-tokens",
            "3",
            "-i",
            "What is there?",
        ])
    };
    let output = run("qwen3_vl_moe");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run("qwen3_vl");
    let complaint = text(&output.stderr);
    assert!(output.status.code() == Some(1) && complaint.contains("moqe"), "{complaint}");
}

/// A checkpoint of a fixture in which a file has other content.
fn spoiled(file: &str, content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fixtures::copy("qwen2_vl", folder.path()).unwrap();
    std::fs::write(folder.path().join(file), content).unwrap();
    let name = folder.path().display().to_string();
    (folder, name)
}

#[test]
fn what_is_wrong_is_one_line_and_exit_code_1() {
    let (_kept, unknown) = spoiled("config.json", r#"{"architectures": ["MambaForCausalLM"]}"#);
    let (_kept, garbage) = spoiled("model.safetensors", "garbage");
    let cases: [(&[&str], &str); 8] = [
        (&["run", "-m", "/nonexistent/model", "-i", "Hi"], "no folder /nonexistent/model"),
        (&["run", "-m", "org/name", "-i", "Hi"], "is not in the cache /nonexistent/hub"),
        (&["run", "-m", &unknown, "-i", "Hi"], "\"MambaForCausalLM\" is not supported"),
        (&["run", "-m", &garbage, "-i", "Hi"], "model.safetensors: not safetensors"),
        (&["serve", "-m", &garbage, "-p", "0"], "model.safetensors: not safetensors"),
        (&["run", "--image", "/nonexistent.png", "-i", "Hi"], "cannot read /nonexistent.png"),
        (&["run", "--image", &demo("expected.json"), "-i", "Hi"], "not an image"),
        (&["run", "--audio", "a.wav", "-i", "Hi"], "does not take audio"),
    ];
    for (arguments, expected) in cases {
        let output = mistralrs(arguments);
        let complaint = text(&output.stderr);
        let last = complaint.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(last.starts_with("error: ") && last.contains(expected), "{expected:?} in {complaint}");
        assert!(output.stdout.is_empty() && !complaint.contains("panicked"), "{complaint}");
    }
}

#[test]
fn a_port_in_use_is_told_before_the_model_is_loaded() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = mistralrs(&["serve", "-m", "/nonexistent/model", "-p", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&format!("cannot listen at 127.0.0.1:{port}")), "{}", text(&output.stderr));
}
