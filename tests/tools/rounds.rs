use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mistralrs::{
    ChatRequest, Finish, MediaKind, ModelSource, Outcome, Piece, ServerTool, Source, ToolBox, ToolChoice, ToolOutput,
    ToolProgress,
};
use serde_json::{Map, Value, json};
use tokio::sync::Barrier;

use super::{DONE, begins, calling, demo, load, only_run, picture};

/// A function whose calls differ in nothing but a number.
fn definition(name: &str) -> Value {
    let number = json!({"enum": [1, 2]});
    let parameters = json!({"type": "object", "properties": {"n": number}, "required": ["n"], "additionalProperties": false});
    json!({"name": name, "description": "", "parameters": parameters, "strict": true})
}

fn boxed(tool: ServerTool) -> ToolBox {
    ToolBox::default().with(tool).unwrap()
}

fn returning(name: &str, output: ToolOutput) -> ToolBox {
    boxed(ServerTool::new(&definition(name), move |_| std::future::ready(Ok(output.clone()))).unwrap())
}

#[tokio::test]
async fn a_model_reads_what_its_calls_return() {
    let model = demo().await;
    let request = calling(&model, "look", returning("look", "a red circle".into())).await;
    let mut stream = model.stream(&request).await.unwrap();
    let first_prompt = stream.prompt_token_ids().len();
    let (mut order, mut text) = (Vec::new(), String::new());
    let summary = loop {
        match stream.next().await.unwrap() {
            Piece::Delta(delta) => {
                assert!(delta.calls.is_empty(), "the client is told of calls that are not its own");
                text += &delta.text;
            }
            Piece::Tool(ToolProgress::Begun { round, call, .. }) => order.push(format!("{round} {} begins", call.name)),
            Piece::Tool(ToolProgress::Ended(run)) => order.push(format!("{} {} {}", run.round, run.call.name, run.text)),
            Piece::Done(summary) => break summary,
        }
    };
    assert_eq!(order, ["0 look begins", "0 look a red circle"]);
    assert_eq!((text.as_str(), summary.calls, summary.finish), (DONE, 0, Finish::Complete));
    assert!(summary.usage.prompt_tokens > 2 * first_prompt && summary.usage.cached_tokens > 0, "{summary:?}");
    let answer = model.answer(&request).await.unwrap();
    assert_eq!((only_run(&answer).text.as_str(), answer.prompt_token_ids.len()), ("a red circle", first_prompt));
}

type Run = Box<dyn Fn(Map<String, Value>) -> Result<ToolOutput, String> + Send + Sync>;

#[tokio::test]
async fn whatever_a_function_does_is_told_to_the_model() {
    let model = demo().await;
    let pictures = |pictures: &[Vec<u8>]| Ok(ToolOutput { pictures: pictures.to_vec(), ..ToolOutput::default() });
    let (good, bad) = (picture("red_circle.png"), vec![1, 2, 3]);
    let cases: Vec<(Run, Outcome, &str, usize)> = vec![
        (Box::new(|arguments| Ok(format!("got {}", arguments["n"]).into())), Outcome::Returned, "got ", 0),
        (Box::new(|_| Err("no luck".into())), Outcome::Failed, "error: no luck", 0),
        (Box::new(|_| panic!("ouch {}", 1)), Outcome::Failed, "error: it panicked: ouch 1", 0),
        (Box::new(|_| Ok("é ".repeat(1 << 20).as_str().into())), Outcome::Returned, "(cut off here)", 0),
        (Box::new(move |_| pictures(std::slice::from_ref(&good))), Outcome::Returned, "", 1),
        (Box::new(move |_| pictures(std::slice::from_ref(&bad))), Outcome::Returned, "a picture that cannot be shown: ", 0),
    ];
    for (i, (run, outcome, text, pictures)) in cases.into_iter().enumerate() {
        let run = Arc::new(run);
        let blocking = run.clone();
        let tools = [
            ServerTool::new(&definition("f"), move |arguments| std::future::ready(run(arguments))).unwrap(),
            ServerTool::blocking(&definition("f"), move |arguments| blocking(arguments)).unwrap(),
        ];
        for tool in tools {
            let answer = model.answer(&calling(&model, "f", boxed(tool)).await).await.unwrap();
            let run = only_run(&answer);
            assert_eq!((run.outcome, run.pictures.len()), (outcome, pictures), "case {i}: {}", run.text);
            assert!(run.text.contains(text) && run.text.len() < 70_000, "case {i}: {}", run.text);
        }
    }
    let never = ServerTool::new(&definition("f"), |_| std::future::pending()).unwrap();
    let never = never.with_time_max(Duration::from_millis(5));
    let answer = model.answer(&calling(&model, "f", boxed(never)).await).await.unwrap();
    assert_eq!(
        (only_run(&answer).outcome, only_run(&answer).text.as_str()),
        (Outcome::Failed, "error: it took longer than 0.005 s")
    );
}

#[tokio::test]
async fn the_calls_of_a_round_run_together() {
    let model = demo().await;
    let called = |server_tools, tools, seed| {
        let model = model.clone();
        async move {
            let request = calling(&model, "f", server_tools).await;
            let mut request = ChatRequest { tools, calls_max: None, tool_choice: ToolChoice::Required, ..request };
            (request.sampling.temperature, request.sampling.seed) = (1.0, Some(seed));
            request.sampling.logit_bias.push((begins(&model, "[").await, 80.0));
            request
        }
    };
    // As functions of the client first: how many calls there are does not depend on who runs them.
    let mut seed = 0;
    let calls = loop {
        let answer = model.answer(&called(ToolBox::default(), vec![definition("f")], seed).await).await.unwrap();
        if answer.calls.len() > 1 && answer.summary.finish != Finish::Length {
            break answer.calls.len();
        }
        seed += 1;
        assert!(seed < 64, "the model calls one function at a time");
    };
    // None returns before all have begun.
    let all = Arc::new(Barrier::new(calls));
    let f = ServerTool::new(&definition("f"), move |_| {
        let all = all.clone();
        async move {
            all.wait().await;
            Ok("".into())
        }
    });
    let answer = model.answer(&called(boxed(f.unwrap()), Vec::new(), seed).await).await.unwrap();
    assert_eq!((answer.tool_runs.len(), answer.text.as_str()), (calls, DONE));
    assert!(answer.tool_runs.iter().all(|run| run.outcome == Outcome::Returned && run.round == 0), "{answer:?}");
}

#[tokio::test]
async fn rounds_end_where_they_have_to() {
    let model = demo().await;
    let on_and_on = async |tools, rounds| {
        let mut request = calling(&model, "f", tools).await;
        request.sampling.logit_bias = vec![(begins(&model, "{").await, 100.0)];
        ChatRequest { tool_rounds_max: Some(rounds), ..request }
    };
    for rounds in [0, 1, 3] {
        let answer = model.answer(&on_and_on(returning("f", "again".into()), rounds).await).await.unwrap();
        assert_eq!((answer.summary.finish, answer.summary.calls), (Finish::ToolRounds, 0), "{rounds}");
        let outcomes: Vec<Outcome> = answer.tool_runs.iter().map(|run| run.outcome).collect();
        let expected: Vec<Outcome> = [Outcome::Returned].repeat(rounds).into_iter().chain([Outcome::Skipped]).collect();
        assert_eq!(outcomes, expected, "{rounds}");
        assert!(answer.tool_runs[rounds].text.contains("no more rounds"));
    }
    // Tokens of all rounds count.
    let request = on_and_on(returning("f", "again".into()), 100).await;
    let all = model.answer(&ChatRequest { tool_rounds_max: Some(1), ..request.clone() }).await.unwrap();
    let few = all.summary.usage.completion_tokens;
    let answer = model.answer(&ChatRequest { tokens_max: Some(few), ..request }).await.unwrap();
    assert_eq!((answer.summary.finish, answer.summary.usage.completion_tokens), (Finish::Length, few));
}

#[tokio::test]
async fn calls_of_the_clients_functions_are_the_clients() {
    let model = demo().await;
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = ran.clone();
    let ours = ServerTool::new(&definition("f"), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok("".into()))
    });
    let ours = boxed(ours.unwrap());
    // Another function of the client's, and one of the same name as ours.
    for (theirs, called) in [("g", "g"), ("f", "f")] {
        let request = ChatRequest { tools: vec![definition(theirs)], ..calling(&model, called, ours.clone()).await };
        let answer = model.answer(&request).await.unwrap();
        let [call] = answer.calls.as_slice() else { panic!("{answer:?}") };
        assert_eq!((call.name.as_str(), answer.summary.calls, answer.tool_runs.len()), (called, 1, 0));
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    // One after one of ours: the second round's calls are numbered from 0.
    let mut request = ChatRequest { tools: vec![definition("g")], ..calling(&model, "f", ours).await };
    request.sampling.logit_bias = vec![(begins(&model, "{").await, 100.0)];
    request.grammar = None;
    for seed in 0..16 {
        (request.sampling.temperature, request.sampling.seed) = (1.0, Some(seed));
        let answer = model.answer(&request).await.unwrap();
        let Some(call) = answer.calls.first() else { continue };
        assert_eq!((call.name.as_str(), answer.summary.calls), ("g", 1));
        assert!(!answer.tool_runs.is_empty());
        return;
    }
    panic!("the client's function is never called");
}

/// Notes that it is gone.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn who_listens_no_more_ends_what_runs() {
    let model = demo().await;
    let gone = Arc::new(AtomicBool::new(false));
    let flag = gone.clone();
    let endless = ServerTool::new(&definition("f"), move |_| {
        let guard = Guard(flag.clone());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let mut stream = model.stream(&calling(&model, "f", boxed(endless.unwrap())).await).await.unwrap();
    while !matches!(stream.next().await.unwrap(), Piece::Tool(ToolProgress::Begun { .. })) {}
    // Polled once, it waits for what never comes.
    assert!(futures_util::poll!(std::pin::pin!(stream.next())).is_pending());
    assert!(!gone.load(Ordering::SeqCst));
    drop(stream);
    assert!(gone.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_was_found_is_cited() {
    let model = demo().await;
    let source = |i: usize| Source { url: format!("https://a.example/{i}"), title: format!("T{i}"), text: format!("about {i}") };
    let found = ToolOutput { sources: vec![source(1), source(2), source(1)], ..ToolOutput::default() };
    let mut request = calling(&model, "find", returning("find", found)).await;
    request.grammar = Some(mistralrs::Grammar::Choice(vec!["done [2], as https://a.example/1 says".into()]));
    let answer = model.answer(&request).await.unwrap();
    let cited: Vec<_> = answer.citations.iter().map(|cited| (cited.title.as_str(), cited.start, cited.end)).collect();
    assert_eq!(cited, [("T2", 5, 8), ("T1", 13, 32)]);
    let told = "[1] T1\nhttps://a.example/1\nabout 1\n\n[2] T2\nhttps://a.example/2\nabout 2";
    assert!(answer.tool_runs[0].text.starts_with(told), "{}", answer.tool_runs[0].text);
}

#[test]
fn boxes_refuse_what_is_no_function_or_is_there_already() {
    let tool = |definition: &Value| ServerTool::new(definition, |_| std::future::ready(Ok("".into())));
    assert!(tool(&json!({"name": "a b"})).unwrap_err().to_string().contains("1 to 64 letters"));
    let one = boxed(tool(&definition("f")).unwrap());
    assert!(one.with(tool(&definition("f")).unwrap()).unwrap_err().to_string().contains("\"f\""));
}

#[tokio::test]
async fn every_family_reads_results_and_looks_at_their_pictures() {
    for name in fixtures::names().unwrap() {
        let model = load(ModelSource::Folder(fixtures::model(&name).unwrap()), None).await;
        let output = ToolOutput { text: "so".into(), pictures: vec![picture("red_circle.png")], ..ToolOutput::default() };
        let request = calling(&model, "f", returning("f", output)).await;
        // Random weights may like to call again.
        let answer = model.answer(&ChatRequest { tool_rounds_max: Some(2), ..request }).await;
        let answer = answer.unwrap_or_else(|e| panic!("{name}: {e}"));
        let sees = model.family().modalities.contains(&MediaKind::Image);
        let run = &answer.tool_runs[0];
        assert_eq!((run.outcome, run.pictures.len()), (Outcome::Returned, usize::from(sees)), "{name}: {}", run.text);
        // The prompt of the second round finds what was made of the picture.
        assert_eq!(answer.summary.media.remembered > 0, sees, "{name}");
        assert!(answer.text == DONE || answer.summary.finish == Finish::ToolRounds, "{name}: {}", answer.text);
    }
}
