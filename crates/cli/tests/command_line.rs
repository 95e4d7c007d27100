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

fn media(name: &str) -> String {
    fixtures::root().join("media").join(name).display().to_string()
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

/// M15 of docs/reliability.md: the program that reads a PDF is this one.
#[test]
fn a_document_is_a_text_or_the_pages_of_a_pdf() {
    const PDF: &str = "%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [3 0 R 4 0 R] \
        /Count 2 >>\nendobj\n3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>\nendobj\n4 0 obj\n<< /Type /Page \
        /Parent 2 0 R /MediaBox [0 0 100 100] >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n";
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("a.pdf", PDF, Ok("(50 of media)")),
        ("a.txt", "Roses are red.", Ok("(0 of media)")),
        ("b.pdf", "%PDF-1.4\nnothing", Err("the PDF data is damaged or incomplete")),
    ];
    for (name, content, expected) in cases {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        let output = mistralrs(&["run", "--document", file.to_str().unwrap(), "-i", "What is there?", "--max-tokens", "2"]);
        let rest = text(&output.stderr);
        assert_eq!(output.status.success(), expected.is_ok(), "{name}: {rest}");
        assert!(rest.contains(expected.unwrap_or_else(|message| message)), "{name}: {rest}");
    }
}

#[test]
fn a_slice_of_a_nested_model_is_loaded_by_its_name() {
    let model = |name| fixtures::model(name).unwrap().display().to_string();
    let nested = model("gemma3n_matformer");
    let table = format!("{nested}/matformer.csv");
    let own: &[&str] = &["--matformer-config-path", &table];
    let published: &[&str] = &[];
    let cases = [
        (nested.clone(), own, "Config for E0.7B (mixed)", ""),
        (
            nested.clone(),
            own,
            "E0.7B",
            "slice \"E0.7B\" is not in the table; there are \"Main model\", \"Config for E0.7B (mixed)\"",
        ),
        (nested, published, "Config for E2.49B (block-level)", "keeps 15 of 15 layers, but names the widths of 35"),
        (model("qwen2_vl"), published, "Main model", "Qwen2-VL is not a nested model (MatFormer), so it has no slices"),
    ];
    for (model, table, name, expected) in cases {
        let arguments = ["run", "-m", &model, "--max-tokens", "2", "-i", "Hello", "--matformer-slice-name", name];
        let output = mistralrs(&[&arguments, table].concat());
        let rest = text(&output.stderr);
        assert_eq!(output.status.success(), expected.is_empty(), "{rest}");
        assert!(rest.contains(expected), "{rest}");
    }
}

/// Tokens of media, as the last line of an answer says.
fn media_tokens(arguments: &[&str]) -> usize {
    let output = mistralrs(&[&["run", "--max-tokens", "1", "-i", "What?"], arguments].concat());
    let rest = text(&output.stderr);
    assert!(output.status.success(), "{rest}");
    let (before, _) = rest.split_once(" of media").unwrap();
    before.rsplit_once('(').unwrap().1.parse().unwrap()
}

#[test]
fn a_clip_is_a_file_or_a_folder_and_flags_say_what_is_wanted_of_it() {
    let clip = media("motion_64x64_5fps.gif");
    let folder = tempfile::tempdir().unwrap();
    for i in 0..6 {
        std::fs::copy(media("photo_64x64.png"), folder.path().join(format!("frame{i}.png"))).unwrap();
    }
    let folder = folder.path().display().to_string();
    // Steps in time have two frames each.
    let step = media_tokens(&["--video", &folder, "--max-frames", "2"]);
    let cases: [(&[&str], usize); 6] = [
        (&["--video", &folder], 3),
        (&["--video", &folder, "--fps", "1", "--start", "2"], 2),
        (&["--video", &clip], 2),
        (&["--video", &clip, "--fps", "5"], 6),
        (&["--video", &clip, "--max-frames", "2"], 1),
        (&["--video", &clip, "--video", &folder], 5),
    ];
    for (arguments, steps) in cases {
        assert_eq!(media_tokens(arguments), steps * step, "{arguments:?}");
    }
}

#[test]
fn without_ffmpeg_one_line_says_how_to_install_it() {
    let nowhere = tempfile::tempdir().unwrap();
    let program = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mistralrs")).args(arguments).env("PATH", nowhere.path()).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, complaint) = program(&["run", "--video", &media("motion_128x96_12fps.mp4"), "-i", "Hi"]);
    let last = complaint.lines().last().unwrap();
    assert_eq!(code, Some(1), "{complaint}");
    for part in ["error: messages[0].content[0]: ", "apt install ffmpeg", "dnf install", "brew install", "winget install"] {
        assert!(last.contains(part), "{part:?} in {complaint}");
    }
    let (code, report, _) = program(&["doctor"]);
    assert!(
        code == Some(0) && report.contains("ffmpeg            not found") && report.contains("apt install ffmpeg"),
        "{report}"
    );
}

#[test]
fn the_doctor_says_what_there_is() {
    let output = mistralrs(&["doctor", "--json"]);
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in
        ["version", "instruction_sets", "threads", "memory_GB", "free_memory_GB", "model_cache", "hub", "accelerators", "ffmpeg"]
    {
        assert!(report[name].as_object().is_some_and(|finding| finding.contains_key("value")), "{name} in {report}");
    }
    assert_eq!(report["model_cache"]["value"], "/nonexistent/hub");
    assert!(report["threads"]["value"].as_u64().unwrap() > 0);
    let table = text(&mistralrs(&["doctor"]).stdout);
    assert!(table.lines().any(|line| line.starts_with("threads ")) && table.contains("/nonexistent/hub"), "{table}");
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

#[test]
fn a_template_given_by_flag_wins_and_is_named() {
    let model = fixtures::model("llava").unwrap().display().to_string();
    let template = |name: &str| fixtures::root().join("../chat_templates").join(name).display().to_string();
    let (vicuna, hermes) = (template("vicuna.json"), template("hermes_tool_use.jinja"));
    let cases: [(&[&str], &str, i32); 5] = [
        (&[], "chat template from MODEL/chat_template.json", 0),
        (&["-c", &vicuna], "chat template from VICUNA", 0),
        (&["-c", &hermes], "chat template from HERMES", 0),
        (&["-c", &vicuna, "-j", &hermes], "chat template from HERMES", 0),
        (&["-j", &vicuna], "error: VICUNA: an explicit template is a .jinja file", 1),
    ];
    for (flags, expected, code) in cases {
        let output = mistralrs(&[&["run", "-m", &model, "--max-tokens", "1", "-i", "Hi"], flags].concat());
        let (told, code_found) = (text(&output.stderr), output.status.code());
        let expected = expected.replace("MODEL", &model).replace("VICUNA", &vicuna).replace("HERMES", &hermes);
        assert!(told.lines().any(|line| line == expected) && code_found == Some(code), "{expected:?} in {told}");
    }
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
    let clip = media("motion_64x64_5fps.gif");
    let empty = tempfile::tempdir().unwrap();
    let (sound, ears) = (media("speech_16k.wav"), fixtures::model("voxtral").unwrap().display().to_string());
    let cases: [(&[&str], &str); 14] = [
        (&["run", "-m", "/nonexistent/model", "-i", "Hi"], "no folder /nonexistent/model"),
        (&["run", "-m", "org/name", "-i", "Hi"], "is not in the cache /nonexistent/hub"),
        (&["run", "-m", &unknown, "-i", "Hi"], "\"MambaForCausalLM\" is not supported"),
        (&["run", "-m", &garbage, "-i", "Hi"], "model.safetensors: not safetensors"),
        (&["serve", "-m", &garbage, "-p", "0"], "model.safetensors: not safetensors"),
        (&["run", "--image", "/nonexistent.png", "-i", "Hi"], "cannot read /nonexistent.png"),
        (&["run", "--image", &demo("expected.json"), "-i", "Hi"], "not an image"),
        (&["run", "--audio", "a.wav", "-i", "Hi"], "does not take audio"),
        (&["run", "-m", &ears, "--audio", &clip, "-i", "Hi"], "not audio"),
        (&["run", "-m", &ears, "--audio", &sound, "--start", "9", "-i", "Hi"], "start is 9 s, but the sound is 2.50 s long"),
        (&["run", "--video", &clip, "--max-frames", "0", "-i", "Hi"], "--max-frames must be between 1 and 768, not 0"),
        (&["run", "--video", &clip, "--fps", "-1", "-i", "Hi"], "--fps must be above 0"),
        (&["run", "--video", &clip, "--start", "9", "-i", "Hi"], "start is 9 s, but the clip is 2.40 s long"),
        (&["run", "--video", empty.path().to_str().unwrap(), "-i", "Hi"], "there are no pictures in the folder"),
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

#[test]
fn media_are_shown_in_the_order_of_their_flags() {
    let gemma = fixtures::model("gemma3n").unwrap().display().to_string();
    let order = |flags: &[&str]| {
        let output = mistralrs(&[&["run", "-m", &gemma, "--dry-run", "--json", "-i", "What?"], flags].concat());
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
        let kinds: Vec<String> = report["media"].as_array().unwrap().iter().map(|item| item["type"].to_string()).collect();
        let prompt = report["prompt"].as_str().unwrap();
        assert!(prompt.contains(" x ") && prompt.contains("What?"), "{prompt}");
        kinds.join(" ")
    };
    let (picture, sound) = (demo("red_circle.png"), media("speech_16k.wav"));
    assert_eq!(order(&["--image", &picture, "--audio", &sound]), r#""image" "audio""#);
    assert_eq!(order(&["--audio", &sound, "--image", &picture]), r#""audio" "image""#);
}

#[test]
fn what_a_model_would_read_is_told_without_its_weights() {
    let (_kept, model) = spoiled("generation_config.json", "{}");
    // The header stays, and nothing behind it is looked at.
    let picture = demo("red_circle.png");
    let output = mistralrs(&["run", "-m", &model, "--dry-run", "--image", &picture, "-i", "What?"]);
    let (prompt, rest) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && prompt.contains("What?") && prompt.contains("_pad|> x "), "{prompt}{rest}");
    assert!(rest.contains("messages[0].content[0]: image, ") && rest.lines().last().unwrap().contains(" of "), "{rest}");
}

#[test]
fn an_answer_as_json_in_the_form_of_a_schema() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    std::fs::write(
        &schema,
        r#"{"type": "object", "properties": {"shape": {"enum": ["circle", "star"]}}, "required": ["shape"], "additionalProperties": false}"#,
    )
    .unwrap();
    let schema = schema.display().to_string();
    let mut program = Command::new(env!("CARGO_BIN_EXE_mistralrs"))
        .args(["run", "--image", &demo("red_circle.png"), "--schema", &schema, "--json", "-i", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut program.stdin.take().unwrap(), b"Which shape is in this picture?\n").unwrap();
    let output = program.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let answer: serde_json::Value = serde_json::from_str(report["text"].as_str().unwrap()).unwrap();
    assert!(["circle", "star"].contains(&answer["shape"].as_str().unwrap()), "{report}");
    assert_eq!((&report["media"][0]["type"], &report["media"][0]["tokens"]), (&"image".into(), &report["tokens"]["media"]));
    std::fs::write(&schema, "no schema").unwrap();
    assert!(text(&mistralrs(&["run", "--schema", &schema, "-i", "?"]).stderr).contains("schema.json is no JSON schema"));
}

#[test]
fn a_conversation_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("it.json");
    let lines = [
        format!("What is in '{}'?", demo("red_circle.png")),
        format!("What is in this picture? {}", demo("red_circle.png")),
        "/set max_tokens 3".into(),
        "And where is it?".into(),
        "/dance".into(),
        format!("/image {}", demo("nothing.png")),
        "What is this?".into(),
        format!("/save {}", saved.display()),
        "/exit".into(),
        "never asked".into(),
    ];
    let mut program = Command::new(env!("CARGO_BIN_EXE_mistralrs"))
        .arg("run")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut program.stdin.take().unwrap(), (lines.join("\n") + "\n").as_bytes()).unwrap();
    let output = program.wait_with_output().unwrap();
    let (answers, rest) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{rest}");
    assert!(answers.contains("red circle"), "{answers}");
    for part in ["image: ", "there is no /dance", "3 tokens", "cannot read", "saved as "] {
        assert!(rest.contains(part), "{part:?} in {rest}");
    }
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
    let turns: Vec<String> = saved.as_array().unwrap().iter().map(|turn| turn["role"].as_str().unwrap().into()).collect();
    // What could not be answered is forgotten.
    assert_eq!(turns.join(" "), "user assistant user assistant user assistant", "{saved}");
    assert_eq!(saved[2]["media"][0], demo("red_circle.png").as_str());
}

#[test]
fn the_cache_is_listed_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("models--org--name/blobs");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("a"), vec![0; 1234]).unwrap();
    let cache = folder.path().display().to_string();
    let list = || text(&mistralrs(&["cache", "list", "--json", "--hf-cache", &cache]).stdout);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&list()).unwrap(),
        serde_json::json!([{"id": "org/name", "bytes": 1234}])
    );
    assert_eq!(mistralrs(&["cache", "delete", "-m", "org/other", "--hf-cache", &cache]).status.code(), Some(1));
    assert!(mistralrs(&["cache", "delete", "-m", "org/name", "--hf-cache", &cache]).status.success());
    assert_eq!(list().trim(), "[]");
}

#[test]
fn what_fits_is_told_before_it_is_loaded() {
    let model = fixtures::model("qwen2_vl").unwrap().display().to_string();
    let tune = |flags: &[&str]| {
        mistralrs(
            &[&["tune", "-m", &model, "--max-seq-len", "64", "--encoder-cache-mb", "0", "--media-cache-mb", "0"], flags].concat(),
        )
    };
    let table = text(&tune(&[]).stdout);
    assert!(table.lines().any(|line| line.starts_with("q5k") && line.ends_with("recommended")), "{table}");
    let rows: serde_json::Value = serde_json::from_slice(&tune(&["--json", "--profile", "quality"]).stdout).unwrap();
    assert_eq!((&rows[0]["quant"], &rows[0]["recommended"]), (&serde_json::Value::Null, &true.into()), "{rows}");
    let refused = tune(&["--memory-mb", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("too large") && text(&refused.stderr).contains("no format of this model fits"));
    let refused = text(&mistralrs(&["run", "-m", &model, "--memory-mb", "1", "-i", "Hi"]).stderr);
    for line in ["error: the model would take ", "weights of the language model ", "may be taken "] {
        assert!(refused.lines().any(|found| found.starts_with(line)), "{line:?} in {refused}");
    }
}

#[test]
fn shells_and_readers_of_manuals_are_served() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(text(&mistralrs(&["completions", shell]).stdout).contains("max-seq-len"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(mistralrs(&["man", folder.path().to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(folder.path().join("mistralrs-run.1")).unwrap();
    assert!(page.contains("schema"), "{page}");
}

#[test]
fn boxes_are_drawn_into_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (schema, drawn) = (folder.path().join("schema.json"), folder.path().join("drawn.png"));
    // Random weights say where something is, too, if they have to.
    let number = |least| serde_json::json!({"const": least});
    let found = serde_json::json!({
        "type": "object",
        "properties": {"label": {"const": "it"}, "bbox_2d": {"type": "array", "prefixItems": [number(100), number(200), number(900), number(800)], "minItems": 4, "items": false}},
        "required": ["label", "bbox_2d"],
        "additionalProperties": false,
    });
    std::fs::write(&schema, found.to_string()).unwrap();
    let model = fixtures::model("qwen2_vl").unwrap().display().to_string();
    let (schema, picture) = (schema.display().to_string(), demo("red_circle.png"));
    let arguments = ["run", "-m", &model, "--image", &picture, "--schema", &schema, "-i", "Where?", "--json"];
    let output = mistralrs(&[&arguments[..], &["--draw-boxes", drawn.to_str().unwrap()]].concat());
    let rest = text(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&rest);
    let size = report["media"][0]["extent"]["size"].clone();
    let side = |i: usize, thousandths: f64| size[i].as_f64().unwrap() * thousandths / 1000.0;
    let expected = serde_json::json!([{"label": "it", "box": [side(0, 100.0), side(1, 200.0), side(0, 900.0), side(1, 800.0)]}]);
    assert_eq!(report["boxes"], expected, "{rest}");
    assert!(rest.contains("red: it ") && std::fs::read(drawn).unwrap().starts_with(b"\x89PNG"), "{rest}");
}

#[test]
fn views_of_a_picture_are_written_as_the_model_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixtures::model("idefics3").unwrap().display().to_string();
    let (picture, into) = (media("photo_200x150.jpg"), folder.path().join("views"));
    let arguments = ["run", "-m", &model, "--image", &picture, "--dry-run", "--json", "-i", "What?"];
    let output = mistralrs(&[&arguments[..], &["--save-inputs", into.to_str().unwrap()]].concat());
    let rest = text(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&rest);
    let views = report["media"][0]["views"].as_array().unwrap();
    assert!(views.len() > 1, "{report}");
    for (i, size) in views.iter().enumerate() {
        let view = image::open(into.join(format!("1-image-{}.png", i + 1))).unwrap();
        assert_eq!(serde_json::json!([view.width(), view.height()]), *size);
    }
    assert_eq!(std::fs::read_dir(into).unwrap().count(), views.len());
}

#[test]
fn a_quantised_checkpoint_is_written_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("small").display().to_string();
    let quantize = |flags: &[&str]| mistralrs(&[&["quantize", "-o", &into], flags].concat());
    assert!(text(&quantize(&[]).stderr).contains("--quant or --topology says what is quantised"));
    let output = quantize(&["--quant", "8"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let ask = ["run", "-m", &into, "--image", &demo("red_circle.png"), "-i", "What is in this picture?"];
    assert!(text(&mistralrs(&ask).stdout).contains("red circle"));
}
