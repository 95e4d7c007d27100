//! `mistralrs run`: one question, or a conversation line by line.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin, stdout};

use anyhow::Result;
use mistralrs::{ChatRequest, Content, Dry, FileAccess, MediaSource, Message, Model, Part, Piece, Reach, Sampling, Summary};

use crate::args::RunOptions;
use crate::load::load;

pub async fn run(options: RunOptions) -> Result<()> {
    let (clip, sound) = (options.clip.checked()?, options.clip.of_sound());
    let RunOptions { model, input, image, audio, video, system, .. } = options;
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
    let model = load(model, FileAccess::All, Reach::Anywhere).await?;
    let mut request = ChatRequest { sampling, tokens_max: options.max_tokens, ..ChatRequest::default() };
    request.template_kwargs.extend(options.thinking.map(|thinking| ("enable_thinking".into(), thinking.into())));
    request.messages.extend(system.map(|text| message("system", Content::Text(text))));
    let Some(question) = input else { return talk(&model, request).await };
    let images = image.into_iter().map(|url| Part::Image(MediaSource::Url(url)));
    let sounds = audio.into_iter().map(|url| Part::Audio(MediaSource::Url(url), sound));
    let clips = video.into_iter().map(|url| Part::Video(MediaSource::Url(url), clip));
    let mut parts: Vec<Part> = images.chain(sounds).chain(clips).collect();
    let content = match parts.is_empty() {
        true => Content::Text(question),
        false => {
            parts.push(Part::Text(question));
            Content::Parts(parts)
        }
    };
    request.messages.push(message("user", content));
    answer(&model, &request).await.map(drop)
}

/// Reads questions until the input ends; earlier turns are remembered.
async fn talk(model: &Model, mut request: ChatRequest) -> Result<()> {
    if stdin().is_terminal() {
        eprintln!("Ask away; /clear forgets the conversation, /exit or Ctrl-D leaves.");
    }
    let system = request.messages.clone();
    loop {
        if stdin().is_terminal() {
            eprint!("> ");
            stderr().flush()?;
        }
        let mut line = String::new();
        if stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/clear" => request.messages.clone_from(&system),
            question => {
                request.messages.push(message("user", Content::Text(question.to_string())));
                match answer(model, &request).await {
                    Ok(text) => request.messages.push(message("assistant", Content::Text(text))),
                    Err(e) => {
                        request.messages.pop();
                        eprintln!("error: {e:#}");
                    }
                }
            }
        }
    }
}

fn message(role: &str, content: Content) -> Message {
    Message { role: role.into(), content, ..Message::default() }
}

/// Streams the answer to standard output; thoughts and figures to standard error.
async fn answer(model: &Model, request: &ChatRequest) -> Result<String> {
    let mut stream = model.stream(request).await?;
    let (mut text, mut thought) = (String::new(), false);
    loop {
        match stream.next().await? {
            Piece::Delta(delta) => {
                eprint!("{}", faint(&delta.reasoning));
                if !delta.text.is_empty() && std::mem::take(&mut thought) {
                    eprintln!("\n");
                }
                thought |= !delta.reasoning.is_empty();
                print!("{}", delta.text);
                stdout().flush()?;
                text.push_str(&delta.text);
            }
            Piece::Done(summary) => {
                println!();
                eprintln!("{}", figures(&summary));
                return Ok(text);
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
