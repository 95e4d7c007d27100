//! Files in messages, and the document that describes the routes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{CHAT, answer, ask, load, options, send};
use mistralrs::ModelSource;
use mistralrs_server::{Server, Settings};
use serde_json::{Value, json};

const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

async fn server() -> Router {
    Server::new(load(options(ModelSource::Demo)).await, Settings::default()).router()
}

/// A PDF with so many empty pages. The table of its objects is missing, as in damaged files that are read all the same.
fn pdf(pages: usize) -> String {
    let kids: Vec<String> = (0..pages).map(|i| format!("{} 0 R", 3 + i)).collect();
    let mut file = format!(
        "%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [{}] /Count {pages} >>\nendobj\n",
        kids.join(" ")
    );
    for i in 0..pages {
        file.push_str(&format!("{} 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>\nendobj\n", 3 + i));
    }
    file.push_str("trailer\n<< /Root 1 0 R >>\n%%EOF\n");
    STANDARD.encode(file)
}

fn chat(parts: Value) -> Value {
    json!({"messages": [{"role": "user", "content": parts}], "max_tokens": 1, "return_media": true})
}

#[tokio::test]
async fn the_pages_of_a_pdf_are_pictures() {
    let server = server().await;
    let file = json!({"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{}", pdf(3)), "filename": "a.pdf", "last_page": 2}});
    let words = json!({"type": "text", "text": "What is there?"});
    let image = json!({"type": "image_url", "image_url": common::data_url("red_circle.png")});
    let seen = answer(&server, CHAT, &chat(json!([file, words, image]))).await;
    let params: Vec<&Value> = seen["media"].as_array().unwrap().iter().map(|item| &item["param"]).collect();
    assert_eq!(params, ["messages[0].content[0], page 1", "messages[0].content[0], page 2", "messages[0].content[2]"]);
    assert_eq!(seen["media"][0]["size"], json!([1600, 1600]));
    // The other APIs' spellings of the same.
    let tokens = seen["usage"]["prompt_tokens_details"]["image_tokens"].as_u64().unwrap() / 3 * 2;
    let input = json!([{"role": "user", "content": [{"type": "input_file", "file_data": pdf(2)}]}]);
    let response = answer(&server, "/v1/responses/input_tokens", &json!({"input": input})).await;
    assert_eq!(response["input_tokens_details"]["image_tokens"], tokens);
    let source = json!({"type": "base64", "media_type": "application/pdf", "data": pdf(2)});
    let block = json!({"type": "document", "source": source, "title": "a.pdf"});
    let body = json!({"max_tokens": 1, "messages": [{"role": "user", "content": [block]}]});
    assert!(answer(&server, MESSAGES, &body).await["usage"]["input_tokens"].as_u64().unwrap() > tokens);
}

#[tokio::test]
async fn files_are_what_their_bytes_are() {
    let server = server().await;
    let upload = Request::post("/v1/media").body(Body::from("Roses are red.")).unwrap();
    let uploaded: Value = serde_json::from_str(&send(&server, upload).await.1).unwrap();
    let id = uploaded["id"].as_str().unwrap();
    let count = async |part: Value| {
        let counted = answer(&server, "/v1/chat/completions/input_tokens", &chat(json!([part]))).await;
        (counted["input_tokens"].as_u64().unwrap(), counted["input_tokens_details"]["image_tokens"].as_u64().unwrap())
    };
    let (words, none) = count(json!({"type": "text", "text": "Roses are red."})).await;
    assert_eq!(none, 0);
    let text = STANDARD.encode("Roses are red.");
    for file in [json!({"file_id": id}), json!({"file_id": format!("media:{id}")}), json!({"file_data": text})] {
        assert_eq!(count(json!({"type": "file", "file": file})).await, (words, 0), "{file}");
    }
    let picture = json!({"type": "file", "file": {"file_data": common::base64("red_circle.png")}});
    assert_eq!(count(picture).await.1, 25);
}

#[tokio::test]
async fn files_that_cannot_be_read_are_refused_by_their_place() {
    let server = server().await;
    let cases = [
        (json!({"file_data": STANDARD.encode("%PDF-1.7 nothing")}), "invalid_file", ""),
        (json!({"file_data": pdf(33)}), "media_too_large", ""),
        (json!({"file_data": pdf(2), "first_page": 3}), "invalid_value", ""),
        (json!({"file_data": pdf(2), "first_page": 0}), "invalid_value", ".file.first_page"),
        (json!({"file_data": "AAEC/w=="}), "invalid_file", ""),
        (json!({"file_data": "@"}), "invalid_file", ""),
        (json!({"file_id": "unknown"}), "invalid_value", ""),
        (json!({"file_url": "ftp://example.com/a.pdf"}), "invalid_file", ""),
        (json!({}), "invalid_value", ".file.file_data"),
    ];
    for (file, code, place) in cases {
        let (status, answer) = ask(&server, CHAT, &chat(json!([{"type": "file", "file": file}]))).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{file}: {answer}");
        assert_eq!(error["param"], format!("messages[0].content[0]{place}"), "{file}");
    }
    let input = json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": pdf(33)}]}]});
    let (_, refused) = ask(&server, RESPONSES, &input).await;
    assert_eq!(refused["error"]["param"], "input[0].content[0]", "{refused}");
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let server = server().await;
    let get = async |path: &str| send(&server, Request::get(path).body(Body::empty()).unwrap()).await;
    let (_, document) = get("/openapi.json").await;
    assert_eq!(get("/api-doc/openapi.json").await.1, document);
    let document: Value = serde_json::from_str(&document).unwrap();
    let described = document["paths"].as_object().unwrap();
    for (path, operations) in described {
        let operations: Vec<&str> = operations.as_object().unwrap().keys().map(String::as_str).collect();
        for method in ["get", "post", "delete", "put"] {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path.replace("{id}", "some"));
            let (status, text) = send(&server, request.body(Body::empty()).unwrap()).await;
            let reached = status != 405 && !text.contains("there is no /");
            assert_eq!(reached, operations.contains(&method), "{method} {path}: {status} {text}");
        }
    }
    // What README's table lists is described.
    let readme = include_str!("../../../README.md");
    let listed = readme.lines().filter(|line| line.starts_with("| `POST /") || line.starts_with("| `GET /"));
    let paths: Vec<&str> = listed
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`'))
        .filter_map(|word| word.find('/').map(|at| &word[at..]))
        .collect();
    assert!(paths.len() > 10);
    for path in paths.into_iter().filter(|path| !["/docs", "/openapi.json"].contains(path)) {
        let path = path.replace("/ID", "/{id}");
        assert!(described.contains_key(&path), "{path} is not described");
    }
    let fields = &document["components"]["schemas"];
    assert!(
        fields["ChatBody"]["properties"]["messages"].is_object() && fields["Options"]["properties"]["temperature"].is_object()
    );
}

#[tokio::test]
async fn the_page_that_shows_the_document_loads_nothing_from_elsewhere() {
    let server = server().await;
    let get = async |path: &str| send(&server, Request::get(path).body(Body::empty()).unwrap()).await;
    let (status, page) = get("/docs").await;
    assert!(status == 200 && !page.contains("http"), "{page}");
    let sources = page.split('"').filter(|part| part.starts_with("/docs/"));
    for source in sources {
        let response =
            tower::ServiceExt::oneshot(server.clone(), Request::get(source).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{source}");
    }
    assert_eq!(get("/docs/other.js").await.0, 404);
}
