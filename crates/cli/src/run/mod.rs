//! `mistralrs run`: one question, or a conversation.

mod boxes;
mod command;
mod markdown;
mod report;
mod show;
mod talk;

use std::fs;
use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};

use anyhow::{Context, Result};
use mistralrs::{
    ChatRequest, Content, Dry, FileAccess, Grammar, MediaSource, Message, Model, Part, Piece, Reach, Reading, Sampling, Summary,
    ToolProgress, WebSearchOptions,
};

use crate::args::RunOptions;
use crate::load::load;
use crate::tooling::Tooling;
use markdown::Markdown;
pub use show::Graphics;
use show::show;

pub async fn run(options: RunOptions) -> Result<()> {
    options.clip.checked()?;
    let mut request = request(&options)?;
    let Tooling { mcp, web_search, rounds_max } = options.tools.clone().ready(Reach::Anywhere).await?;
    (request.server_tools, request.tool_rounds_max) = (mcp.tools, Some(rounds_max));
    if let Some(web) = web_search {
        web.tools(&WebSearchOptions::default())?.into_iter().try_for_each(|tool| request.server_tools.add(tool))?;
    }
    let reading = if options.dry_run { Reading::Shapes } else { Reading::Whole };
    let load = |options| load(options, FileAccess::All, Reach::Anywhere);
    let question = match options.input.as_deref() {
        Some("-") => Some(said(stdin().lock(), "standard input")?),
        Some(question) => Some(question.to_string()),
        None => None,
    };
    let model = load(options.model.clone().reading(reading)).await?;
    let Some(question) = question else {
        return talk::Talk::new(model, request, options).run(load).await;
    };
    let request = asked(request, &options, question)?;
    if options.show_images {
        show(&model, &request).await?;
    }
    if options.dry_run {
        return report::preview(&model, &request, options.json, options.save_inputs.as_deref()).await;
    }
    if !options.json && options.draw_boxes.is_none() {
        return write(&model, &request, options.plain, &mut String::new()).await;
    }
    let answer = model.answer(&request).await?;
    if !options.json {
        println!("{}", answer.text);
    }
    let boxes = match &options.draw_boxes {
        Some(path) => Some(boxes::draw(&model, &request, &answer, path).await?),
        None => None,
    };
    if options.json { report::json(&answer, boxes.as_deref()) } else { Ok(()) }
}

/// What is the same for all questions.
fn request(options: &RunOptions) -> Result<ChatRequest> {
    let sampling = Sampling {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        repetition_penalty: options.repetition_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        dry: (options.dry_multiplier != 0.0).then(|| Dry { multiplier: options.dry_multiplier, ..Dry::default() }),
        seed: options.seed,
        ..Sampling::default()
    };
    let mut request =
        ChatRequest { sampling, tokens_min: options.min_tokens, tokens_max: options.max_tokens, ..ChatRequest::default() };
    request.template_kwargs.extend(options.thinking.map(|thinking| ("enable_thinking".into(), thinking.into())));
    request.messages.extend(options.system.clone().map(|text| message("system", Content::Text(text))));
    if let Some(path) = &options.schema {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let schema = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON schema"))?;
        request.grammar = Some(Grammar::JsonSchema(schema));
    }
    Ok(request)
}

fn asked(mut request: ChatRequest, options: &RunOptions, question: String) -> Result<ChatRequest> {
    let media = options.media.0.iter().cloned().map(|attachment| attachment.part(&options.clip));
    let parts: Vec<Part> = media.collect::<Result<_>>()?;
    request.messages.push(message("user", content(parts, question)));
    Ok(request)
}

/// Where the pictures of a turn are.
fn pictures(content: &Content) -> impl Iterator<Item = &MediaSource> {
    let parts = match content {
        Content::Parts(parts) => parts.as_slice(),
        Content::Text(_) => &[],
    };
    parts.iter().filter(|part| matches!(part, Part::Image(..))).filter_map(Part::source)
}

/// Media, and what is said about them.
fn content(mut media: Vec<Part>, text: String) -> Content {
    if media.is_empty() {
        return Content::Text(text);
    }
    media.push(Part::Text(text));
    Content::Parts(media)
}

fn message(role: &str, content: Content) -> Message {
    Message { role: role.into(), content, ..Message::default() }
}

fn said(mut from: impl Read, name: &str) -> Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    Ok(text.trim_end().to_string())
}

/// Streams the answer to standard output, thoughts and figures to standard error. `text` has what was said so far, when it is broken off
/// too.
async fn write(model: &Model, request: &ChatRequest, plain: bool, text: &mut String) -> Result<()> {
    let mut stream = model.stream(request).await?;
    let mut markdown = if plain { None } else { Markdown::new() };
    let mut thought = false;
    loop {
        match stream.next().await? {
            Piece::Delta(delta) => {
                eprint!("{}", faint(&delta.reasoning));
                if !delta.text.is_empty() && std::mem::take(&mut thought) {
                    eprintln!("\n");
                }
                thought |= !delta.reasoning.is_empty();
                text.push_str(&delta.text);
                match &mut markdown {
                    Some(markdown) => markdown.write(&delta.text)?,
                    None => {
                        print!("{}", delta.text);
                        stdout().flush()?;
                    }
                }
            }
            Piece::Tool(ToolProgress::Begun { call, .. }) => {
                eprintln!("{}", faint(&format!("{} {}", call.name, call.arguments)));
            }
            Piece::Tool(ToolProgress::Ended(run)) => eprintln!("{}", faint(&run.text)),
            Piece::Done(summary) => {
                match &mut markdown {
                    Some(markdown) => markdown.end()?,
                    None => println!(),
                }
                eprintln!("{}", faint(&figures(&summary)));
                return Ok(());
            }
        }
    }
}

/// Paler, where people read along.
fn faint(text: &str) -> String {
    if text.is_empty() || !stderr().is_terminal() { text.into() } else { format!("\x1b[2m{text}\x1b[0m") }
}

/// "52 prompt tokens (16 of media) at 700/s, first token after 0.12 s, 9 tokens at 80/s"
fn figures(summary: &Summary) -> String {
    let usage = &summary.usage;
    let timings = usage.timings;
    let rate =
        |tokens: usize, seconds: f64| if seconds > 0.0 { format!(" at {:.1}/s", tokens as f64 / seconds) } else { String::new() };
    let prompt = rate(usage.prompt_tokens - usage.cached_tokens, timings.prefill.as_secs_f64());
    let decode = rate(usage.completion_tokens.saturating_sub(1), timings.decode.as_secs_f64());
    let encode =
        if usage.media_tokens > 0 { format!(", media encoded in {:.2} s", timings.encode.as_secs_f64()) } else { String::new() };
    let cached = if usage.cached_tokens > 0 { format!(", {} remembered", usage.cached_tokens) } else { String::new() };
    format!(
        "{} prompt tokens ({} of media{cached}){prompt}{encode}, first token after {:.2} s, {} tokens{decode}",
        usage.prompt_tokens,
        usage.media_tokens,
        timings.first_token.as_secs_f64(),
        usage.completion_tokens,
    )
}
