use axum::Router;
use axum::extract::Query;
use axum::http::header::CONTENT_TYPE;
use axum::response::Redirect;
use axum::routing::get;
use mistralrs::{Reach, SearchContext, ServerTool, Source, ToolKind, WebSearch, WebSearchOptions};
use serde_json::{Value, json};

use super::{calling, demo, only_run, serving};

/// A search engine that finds pages of its own server, and one that may not be reached.
fn engine(address: &str) -> Router {
    let at = address.to_string();
    let search = async move |Query(query): Query<Value>| {
        assert_eq!(query["format"], "json");
        let result = |path: &str| json!({"url": format!("http://{at}/{path}"), "title": path, "content": "a snippet"});
        let secret = json!({"url": "http://127.0.0.1:1/", "title": "secret", "content": "what the engine said"});
        let found =
            json!([result("page"), secret, result("gone"), {"title": "without a URL"}, result("picture"), result("away")]);
        axum::Json(match query["q"].as_str() {
            Some("nothing") => json!({"results": []}),
            Some("broken") => json!("no results"),
            _ => json!({"results": found}),
        })
    };
    let html = "<html><body><h1>Menu</h1><p>All foxes are &amp; remain red.</p></body></html>";
    Router::new()
        .route("/search", get(search))
        .route("/page", get(async move || ([(CONTENT_TYPE, "text/html")], html)))
        .route("/large", get(async || ([(CONTENT_TYPE, "text/plain")], "word ".repeat(1 << 20))))
        .route("/picture", get(async || ([(CONTENT_TYPE, "image/png")], "")))
        .route("/away", get(async || Redirect::to("http://127.0.0.1:1/")))
}

/// Titles, and words of texts; or why there are none.
type Expected<'a> = Result<&'a [(&'a str, &'a str)], &'a str>;

fn one<'a>(tools: &'a [ServerTool], name: &str) -> &'a ServerTool {
    tools.iter().find(|tool| tool.name() == name).unwrap()
}

#[tokio::test]
async fn the_web_is_searched_and_read_within_reach() {
    let address = serving(engine).await;
    let web = WebSearch::searxng(&format!("http://{address}/"), Reach::Public { and: vec![address.clone()] }).unwrap();
    let all = WebSearchOptions::default();
    let few = WebSearchOptions { context: SearchContext::Low, ..all.clone() };
    let elsewhere = WebSearchOptions { domains: vec!["example.com".into()], ..all.clone() };
    let here = WebSearchOptions { domains: vec!["0.0.1".into()], ..all.clone() };
    let page = ("page", "All foxes are & remain red.");
    let found =
        [page, ("secret", "what the engine said"), ("gone", "a snippet"), ("picture", "a snippet"), ("away", "a snippet")];
    let (open_page, open_large) = (format!("http://{address}/page"), format!("http://{address}/large"));
    // Options, function, argument, what is found (titles, and words of their texts) or why nothing is.
    let cases: [(_, _, &str, Expected); 14] = [
        (&all, "web_search", "red foxes", Ok(&found)),
        (&few, "web_search", "red foxes", Ok(&found[..3])),
        (&here, "web_search", "red foxes", Ok(&found)),
        (&elsewhere, "web_search", "red foxes", Ok(&[])),
        (&all, "web_search", "nothing", Ok(&[])),
        (&all, "web_search", "broken", Err("the search engine's answer has no results")),
        (&all, "web_search", "  ", Err("query is empty")),
        (&all, "open_page", &open_page, Ok(&[(&open_page, page.1)])),
        (&all, "open_page", &open_large, Ok(&[(&open_large, "word word")])),
        (&all, "open_page", "http://127.0.0.1:1/", Err("may not be reached from here")),
        (&all, "open_page", &format!("http://{address}/away"), Err("may not be reached from here")),
        (&all, "open_page", &format!("http://{address}/gone"), Err("404")),
        (&all, "open_page", "file:///etc/passwd", Err("scheme \"file\"")),
        (&elsewhere, "open_page", &open_page, Err("none of the domains")),
    ];
    for (options, function, argument, expected) in cases {
        let context = format!("{function} {argument}");
        let tools = web.tools(options).unwrap();
        let name = if function == "web_search" { "query" } else { "url" };
        let result = one(&tools, function).call(&json!({name: argument}).to_string()).await;
        match (result, expected) {
            (Ok(output), Ok(expected)) => {
                let titles: Vec<&str> = output.sources.iter().map(|source| source.title.as_str()).collect();
                assert_eq!(titles, expected.iter().map(|(title, _)| *title).collect::<Vec<_>>(), "{context}");
                for (source, (_, words)) in output.sources.iter().zip(expected) {
                    assert!(source.text.contains(words) && source.text.len() <= 20_000, "{context}: {source:?}");
                }
                assert_eq!(output.text.is_empty(), !expected.is_empty(), "{context}");
            }
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{context}: {reason}"),
            (result, _) => panic!("{context}: {result:?}"),
        }
    }
    let refused = |url: &str| WebSearch::searxng(url, Reach::Anywhere).unwrap_err().to_string();
    assert!(refused("search.example").contains("no URL") && refused("ftp://search.example").contains("http"));
}

#[tokio::test]
async fn a_function_can_search_instead_of_an_engine() {
    let text = "What I know of it. ".repeat(60);
    let known = Source { url: "http://127.0.0.1:1/".into(), title: "T".into(), text: text.clone() };
    let web = WebSearch::new(Reach::Anywhere, move |question| {
        let found = if question == "?" { Err("no idea".to_string()) } else { Ok(vec![known.clone()]) };
        std::future::ready(found)
    });
    let tools =
        web.unwrap().tools(&WebSearchOptions { search_description: Some("Find it.".into()), ..Default::default() }).unwrap();
    assert_eq!(*one(&tools, "open_page").kind(), ToolKind::WebPage);
    let search = one(&tools, "web_search");
    assert_eq!(search.call(r#"{"query": "?"}"#).await.unwrap_err(), "no idea");
    assert_eq!(search.call("{}").await.unwrap_err(), "query is missing or not a text");
    let found = search.call(r#"{"query": "it"}"#).await.unwrap().sources;
    assert!(text.starts_with(&found[0].text) && found[0].text.len() > 1000, "{found:?}");
    // The same, called by a model.
    let model = demo().await;
    let tools = tools.into_iter().fold(Default::default(), |all: mistralrs::ToolBox, tool| all.with(tool).unwrap());
    let mut request = calling(&model, "web_search", tools).await;
    // Its question ends soon: nothing is more probable than the quote behind it.
    request.sampling.logit_bias.push((super::begins(&model, "\"").await, 100.0));
    let answer = model.answer(&request).await.unwrap();
    assert_eq!(only_run(&answer).kind, ToolKind::WebSearch);
}
