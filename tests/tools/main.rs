//! Functions that run here when a model calls them: rounds of them, searches of the web, MCP servers. The models know nothing of
//! functions; grammars and biases make them call some, and say "done" when they have read what came of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mcp;
mod rounds;
mod schemas;
mod web;

use std::path::PathBuf;
use std::sync::Arc;

use mistralrs::{
    Answer, ChatRequest, ControlTokens, Dialect, Dtype, Grammar, Hub, LoadOptions, Model, ModelSource, Part, ToolBox, ToolChoice,
    ToolRun,
};

/// What models say when they have called enough.
const DONE: &str = "done";

async fn load(source: ModelSource, dialect: Option<Dialect>) -> Model {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    let options = LoadOptions { dtype: Dtype::F32, dialect, ..LoadOptions::new(source, hub) };
    Model::load(options, Arc::new(|_| ())).await.unwrap()
}

async fn demo() -> Model {
    load(ModelSource::Demo, Some(Dialect::Json)).await
}

/// A request that calls `function` at first, and says [`DONE`] then.
async fn calling(model: &Model, function: &str, tools: ToolBox) -> ChatRequest {
    let mut request = ChatRequest {
        server_tools: tools,
        tool_choice: ToolChoice::Named(function.into()),
        calls_max: Some(1),
        tokens_max: Some(400),
        grammar: Some(Grammar::Choice(vec![DONE.into()])),
        template_kwargs: [("enable_thinking".to_string(), false.into())].into_iter().collect(),
        ..ChatRequest::user(vec![Part::Text("Go!".into())])
    };
    request.sampling.logit_bias = vec![(begins(model, DONE).await, 90.0)];
    request
}

/// The token with which a text begins.
async fn begins(model: &Model, text: &str) -> u32 {
    let ids = ["", text].map(|text| model.tokenize(text.into(), ControlTokens::Included));
    let [empty, ids] = ids.map(|ids| async { ids.await.unwrap() });
    ids.await[empty.await.len()]
}

/// The one call of an answer that ended with [`DONE`].
fn only_run(answer: &Answer) -> &ToolRun {
    let runs: Vec<_> = answer.tool_runs.iter().map(|run| (run.round, &run.call.arguments, &run.text)).collect();
    assert_eq!((answer.text.as_str(), answer.calls.as_slice()), (DONE, &[][..]), "{runs:?}");
    let [run] = answer.tool_runs.as_slice() else { panic!("{runs:?}") };
    run
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo").join(name)).unwrap()
}

/// A web server on loopback, which is told its own address.
async fn serving(router: impl Fn(&str) -> axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = router(&address);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}
