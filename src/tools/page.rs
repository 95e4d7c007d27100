//! Web pages → text.

use std::collections::HashSet;
use std::time::Duration;

use crate::fetch::{Fetcher, Page};

/// Bytes of a page that are looked at.
const BYTES_MAX: usize = 2 << 20;
/// For which a page is waited for.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Characters of a line.
const WIDTH: usize = 200;

/// The text of a page.
pub(super) async fn read(fetcher: &Fetcher, url: &str) -> Result<String, String> {
    let late = |_| format!("the page did not come within {} s", TIME_MAX.as_secs());
    let page = tokio::time::timeout(TIME_MAX, fetcher.page(url, BYTES_MAX)).await.map_err(late)??;
    // Pages take time to be read, and what reads them is not ours: it may panic.
    let reading = tokio::task::spawn_blocking(move || text(&page));
    reading.await.map_err(|_| "the page cannot be read".to_string())?
}

fn text(page: &Page) -> Result<String, String> {
    let kind = page.kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = match kind.as_str() {
        "text/html" | "application/xhtml+xml" | "" => {
            let config = html2text::config::plain_no_decorate().no_table_borders().allow_width_overflow();
            config.string_from_read(page.bytes.as_slice(), WIDTH).map_err(|e| format!("the page is no HTML: {e}"))?
        }
        kind if kind.starts_with("text/") || kind.ends_with("json") || kind.ends_with("xml") => {
            String::from_utf8_lossy(&page.bytes).into_owned()
        }
        kind => return Err(format!("the page is no text, but {kind}")),
    };
    let lines = text.lines().map(str::trim_end);
    Ok(lines.collect::<Vec<_>>().join("\n").trim().to_string())
}

/// The paragraphs of a text that have most words of a question in them, in their order, up to so many bytes.
pub(super) fn excerpt(text: &str, question: &str, bytes_max: usize) -> String {
    let words: HashSet<String> = words(question).collect();
    let paragraphs: Vec<&str> = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()).collect();
    let score = |paragraph: &str| self::words(paragraph).filter(|word| words.contains(word)).collect::<HashSet<_>>().len();
    let mut by_score: Vec<(usize, usize)> =
        paragraphs.iter().enumerate().map(|(i, paragraph)| (usize::MAX - score(paragraph), i)).collect();
    by_score.sort_unstable();
    let (mut chosen, mut bytes) = (Vec::new(), 0);
    for (_, i) in by_score {
        let paragraph = super::cut(paragraphs[i], bytes_max.saturating_sub(bytes));
        if paragraph.is_empty() {
            break;
        }
        bytes += paragraph.len() + 1;
        chosen.push((i, paragraph));
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|(_, paragraph)| paragraph).collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(kind: &str, bytes: &[u8]) -> Page {
        Page { kind: kind.into(), bytes: bytes.to_vec() }
    }

    #[test]
    fn pages_become_text_or_are_refused() {
        let html = "<html><head><title>T</title><style>p{}</style><script>x()</script></head><body><h1>Head</h1>\
                    <p>One &amp; <a href='/x'>two</a></p><table><tr><td>a</td><td>b</td></tr></table></body>";
        let cases = [
            ("text/html; charset=utf-8", html, Ok(&["Head", "One & [two]", "a", "b"][..])),
            ("TEXT/HTML", "<p>unclosed <b>tags", Ok(&["unclosed tags"][..])),
            ("text/plain", "as it is <b>", Ok(&["as it is <b>"][..])),
            ("application/json", "{\"a\": 1}", Ok(&["{\"a\": 1}"][..])),
            ("image/png", "", Err("image/png")),
        ];
        for (kind, bytes, expected) in cases {
            match (text(&page(kind, bytes.as_bytes())), expected) {
                (Ok(text), Ok(parts)) => {
                    assert!(parts.iter().all(|part| text.contains(part)) && !text.contains("x()"), "{kind}: {text}");
                }
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{kind}: {reason}"),
                (text, _) => panic!("{kind}: {text:?}"),
            }
        }
    }

    #[test]
    fn pages_that_are_nested_deeply_end_nothing() {
        for tag in ["<div>", "<b>", "<table><tr><td>", "<ul><li>", "<blockquote>", "<p><a>"] {
            let _ = text(&page("text/html", tag.repeat(60_000).as_bytes()));
        }
    }

    #[test]
    fn what_is_about_the_question_is_kept() {
        let text = "Menu\n\nHome\n\nThe red fox\njumps.\n\nA fox.\n\nThe end";
        let cases = [
            ("fox red", 100, "Menu\nHome\nThe red fox\njumps.\nA fox.\nThe end"),
            ("Fox, RED", 18, "The red fox\njumps."),
            ("fox", 26, "The red fox\njumps.\nA fox."),
            ("", 7, "Menu\nHo"),
            ("é", 0, ""),
        ];
        for (question, bytes, expected) in cases {
            assert_eq!(excerpt(text, question, bytes), expected, "{question}");
        }
    }
}
