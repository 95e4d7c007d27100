//! An answer, or what would be asked, as a table or JSON.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use mistralrs::{Answer, BoundingBox, ChatRequest, Extent, Finish, Image, Model, Preview, Received, ToolRun};
use serde_json::{Value, json};

/// What a model would read. Its views go to a folder, if one is given.
pub async fn preview(model: &Model, request: &ChatRequest, as_json: bool, folder: Option<&Path>) -> Result<()> {
    let preview = model.preview(request).await?;
    if let Some(folder) = folder {
        save(&preview, folder)?;
    }
    if as_json {
        let Preview { token_ids, media, .. } = &preview;
        let media: Vec<Value> = media.iter().map(receipt).collect();
        let report = json!({"tokens": token_ids.len(), "prompt": preview.text, "media": media, "context": model.context_max()});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}", preview.text);
    preview.media.iter().for_each(|item| eprintln!("{}", in_words(item)));
    eprintln!("{} of {} tokens", preview.token_ids.len(), model.context_max());
    Ok(())
}

/// `1-image-1.png` is the first view of the first item.
fn save(preview: &Preview, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (i, (item, views)) in preview.media.iter().zip(&preview.views).enumerate() {
        for (j, view) in views.iter().enumerate() {
            let path = folder.join(format!("{}-{}-{}.png", i + 1, item.kind, j + 1));
            fs::write(&path, png(view)?).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// A picture as PNG.
pub fn png(picture: &Image) -> Result<Vec<u8>> {
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(picture.rgb(), width, height, ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

/// "messages[0].content[0]: image, 640x480, shown as 5 of 336x336, 720 tokens"
fn in_words(item: &Received) -> String {
    let Received { param, kind, tokens, extent, views, .. } = item;
    let extent = match extent {
        Extent::Picture { width, height } => format!("{width}x{height}"),
        Extent::Sound { seconds } => format!("{seconds:.2} s"),
        Extent::Clip { times } => {
            let times: Vec<String> = times.iter().map(|time| format!("{time:.2}")).collect();
            format!("frames at {} s", times.join(", "))
        }
    };
    let alike = |views: &[(usize, usize)]| match views {
        [(width, height)] => format!("{width}x{height}"),
        views => format!("{} of {}x{}", views.len(), views[0].0, views[0].1),
    };
    let shown: Vec<String> = views.chunk_by(|a, b| a == b).map(alike).collect();
    let shown = if shown.is_empty() { String::new() } else { format!(", shown as {}", shown.join(" and ")) };
    format!("{param}: {kind}, {extent}{shown}, {tokens} tokens")
}

/// An answer, and what it took; the boxes in it, if they were looked for.
pub fn json(answer: &Answer, boxes: Option<&[BoundingBox]>) -> Result<()> {
    let Answer { text, reasoning, summary, received, .. } = answer;
    let usage = &summary.usage;
    let seconds = |time: std::time::Duration| (time.as_secs_f64() * 1e4).round() / 1e4;
    let media: Vec<Value> = received.iter().map(receipt).collect();
    let ran = |run: &Arc<ToolRun>| json!({"name": run.call.name, "arguments": run.call.arguments, "result": run.text});
    let functions: Vec<Value> = answer.tool_runs.iter().map(ran).collect();
    let report = json!({
        "text": text,
        "reasoning": Some(reasoning).filter(|thoughts| !thoughts.is_empty()),
        "finish": match summary.finish {
            Finish::EndToken(_) | Finish::StopText(_) => "stop",
            Finish::Complete => "complete",
            Finish::Length => "length",
            Finish::ToolRounds => "tool_rounds",
        },
        "media": media,
        "functions": functions,
        "boxes": boxes.map(|boxes| boxes.iter().map(as_json).collect::<Vec<_>>()),
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

fn as_json(found: &BoundingBox) -> Value {
    let BoundingBox { label, left, top, right, bottom } = found;
    json!({"label": label, "box": [left, top, right, bottom]})
}

fn receipt(item: &Received) -> Value {
    let Received { param, kind, bytes, tokens, extent, views, spent } = item;
    let extent = match extent {
        Extent::Picture { width, height } => json!({"size": [width, height]}),
        Extent::Sound { seconds } => json!({"seconds": seconds}),
        Extent::Clip { times } => json!({"timestamps": times}),
    };
    json!({
        "param": param,
        "type": kind.name(),
        "bytes": bytes,
        "tokens": tokens,
        "extent": extent,
        "views": views,
        "seconds": {"decoded": spent.decode.as_secs_f64(), "processed": spent.process.as_secs_f64()},
    })
}
