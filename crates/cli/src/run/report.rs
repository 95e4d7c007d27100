//! An answer, or what would be asked, as a table or JSON.

use anyhow::Result;
use mistralrs::{Answer, ChatRequest, Finish, Model, Preview, Received};
use serde_json::{Value, json};

/// What a model would read.
pub async fn preview(model: &Model, request: &ChatRequest, as_json: bool) -> Result<()> {
    let preview = model.preview(request).await?;
    if as_json {
        let Preview { token_ids, media, .. } = &preview;
        let media: Vec<Value> = media.iter().map(receipt).collect();
        let report = json!({"tokens": token_ids.len(), "prompt": preview.text, "media": media, "context": model.context_max()});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}", preview.text);
    let media = preview.media.iter().map(|item| format!("{}: {}, {} tokens", item.param, item.kind, item.tokens));
    media.for_each(|line| eprintln!("{line}"));
    eprintln!("{} of {} tokens", preview.token_ids.len(), model.context_max());
    Ok(())
}

/// An answer, and what it took.
pub fn json(answer: &Answer) -> Result<()> {
    let Answer { text, reasoning, summary, received, .. } = answer;
    let usage = &summary.usage;
    let seconds = |time: std::time::Duration| (time.as_secs_f64() * 1e4).round() / 1e4;
    let media: Vec<Value> = received.iter().map(receipt).collect();
    let report = json!({
        "text": text,
        "reasoning": Some(reasoning).filter(|thoughts| !thoughts.is_empty()),
        "finish": match summary.finish {
            Finish::EndToken(_) | Finish::StopText(_) => "stop",
            Finish::Complete => "complete",
            Finish::Length => "length",
        },
        "media": media,
        "tokens": {
            "prompt": usage.prompt_tokens,
            "media": usage.media_tokens,
            "remembered": usage.cached_tokens,
            "answer": usage.completion_tokens,
            "reasoning": summary.reasoning_tokens,
        },
        "seconds": {
            "prepared": seconds(summary.prepared),
            "encoded": seconds(usage.timings.encode),
            "prompt": seconds(usage.timings.prefill),
            "first_token": seconds(usage.timings.first_token),
            "answer": seconds(usage.timings.decode),
        },
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn receipt(item: &Received) -> Value {
    let Received { param, kind, bytes, tokens, spent } = item;
    json!({
        "param": param,
        "type": kind.name(),
        "bytes": bytes,
        "tokens": tokens,
        "seconds": {"decoded": spent.decode.as_secs_f64(), "processed": spent.process.as_secs_f64()},
    })
}
