//! Answers of models as they were written down (`dialects/`): the same is heard in them wherever they are divided.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use mistralrs_text::{Dialect, Listener, Said, Thinking, Tool};
use serde_json::{Value, json};

/// Answers in all files.
const CASES: usize = 40;

struct Case {
    name: String,
    answer: String,
    heard: Vec<String>,
}

fn cases(dialect: Dialect) -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/dialects/{}.txt", dialect.name()));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let sections = text.split("\n>>> ").map(|section| section.strip_prefix(">>> ").unwrap_or(section));
    let case = |section: &str| {
        let (name, rest) = section.split_once('\n').unwrap();
        let (answer, heard) = rest.split_once("<<<\n").unwrap();
        let answer = answer.strip_suffix("\\c\n").unwrap_or(answer).to_string();
        let heard = heard.lines().map(str::to_string).collect();
        Case { name: format!("{}, {name}", dialect.name()), answer, heard }
    };
    sections.map(case).collect()
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str, properties: Value| json!({"name": name, "parameters": {"type": "object", "properties": properties}});
    let weather = tool("weather", json!({"city": {"type": "string"}, "days": {"type": "integer"}}));
    let note = tool("note.add", json!({"text": {"type": "string"}, "tags": {}, "more": {}}));
    Tool::read(&[weather, note]).unwrap()
}

fn thinking(dialect: Dialect) -> Option<Thinking> {
    Thinking::of_template(match dialect {
        Dialect::Quoted => "<|channel>",
        Dialect::Fenced => "<|thought_start|>",
        _ => "<think>",
    })
}

/// What is heard in an answer that comes in pieces, a line for each thing. Arguments are written as JSON writes them, where they are
/// complete.
fn heard<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut listener = Listener::new(thinking(dialect), dialect, tools());
    let mut all: Vec<Said> = pieces.into_iter().flat_map(|piece| listener.push(piece)).collect();
    all.extend(listener.finish());
    let mut joined: Vec<Said> = Vec::new();
    for said in all {
        match (joined.last_mut(), said) {
            (Some(Said::Text(last)), Said::Text(more)) => *last += &more,
            (Some(Said::Reasoning(last)), Said::Reasoning(more)) => *last += &more,
            (Some(Said::Arguments(last)), Said::Arguments(more)) => *last += &more,
            (_, said) => joined.push(said),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for said in joined {
        match said {
            // What is only blank behind a call says nothing.
            Said::Text(text) | Said::Reasoning(text) if text.is_empty() => {}
            Said::Text(text) => lines.push(format!("text {}", json!(text))),
            Said::Reasoning(text) => lines.push(format!("think {}", json!(text))),
            Said::Call { name } => lines.push(format!("call {name} ")),
            Said::Arguments(arguments) => {
                let whole = serde_json::from_str::<Value>(&arguments).map(|whole| whole.to_string());
                lines.last_mut().unwrap().push_str(&whole.unwrap_or(arguments));
            }
        }
    }
    lines.iter().map(|line| line.trim_end().to_string()).collect()
}

#[test]
fn the_same_is_heard_wherever_an_answer_is_divided() {
    let mut count = 0;
    for dialect in Dialect::ALL {
        for Case { name, answer, heard: expected } in cases(dialect) {
            count += 1;
            assert_eq!(heard(dialect, [answer.as_str()]), expected, "{name}");
            let places = answer.char_indices().map(|(at, _)| at);
            for at in places.clone() {
                let (head, tail) = answer.split_at(at);
                assert_eq!(heard(dialect, [head, tail]), expected, "{name}, divided at {at}");
            }
            let letters = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
            assert_eq!(heard(dialect, letters), expected, "{name}, letter by letter");
        }
    }
    assert!(count >= CASES, "there are only {count} answers");
}
