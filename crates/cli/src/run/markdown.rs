//! An answer on a terminal: words as they come, and each paragraph, list, table or block of code set as Markdown once it is complete.

use std::io::Write;

use anyhow::Result;
use console::Term;
use termimad::MadSkin;

/// Writes an answer.
pub struct Markdown {
    terminal: Term,
    skin: MadSkin,
    /// What was written since the last block that is complete.
    block: Block,
}

/// A part of a text that Markdown reads as one.
#[derive(Debug, Default)]
struct Block {
    text: String,
    in_code: bool,
    /// Where the line begins that is not complete.
    line: usize,
}

impl Block {
    /// Takes more of the text; what is complete comes out, with the line end behind it.
    fn push(&mut self, text: &str) -> Vec<String> {
        let mut complete = Vec::new();
        for c in text.chars() {
            self.text.push(c);
            if c != '\n' {
                continue;
            }
            let line = self.text[self.line..].trim();
            let is_fence = line.starts_with("```") || line.starts_with("~~~");
            let ends = (is_fence && self.in_code) || (line.is_empty() && !self.in_code);
            self.in_code ^= is_fence;
            self.line = self.text.len();
            if ends {
                complete.push(std::mem::take(self).text);
            }
        }
        complete
    }
}

impl Markdown {
    /// For standard output, if people look at it.
    pub fn new() -> Option<Self> {
        let terminal = Term::stdout();
        terminal.is_term().then(|| Self { terminal, skin: MadSkin::default(), block: Block::default() })
    }

    /// More of the answer.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let before = self.block.text.len();
        let complete = self.block.push(text);
        let Some(first) = complete.first() else {
            self.terminal.write_all(text.as_bytes())?;
            return Ok(self.terminal.flush()?);
        };
        // What was written of the first one is written anew.
        self.erase(&first[..before])?;
        for block in complete {
            self.set(&block)?;
        }
        self.terminal.write_all(self.block.text.as_bytes())?;
        Ok(self.terminal.flush()?)
    }

    /// The answer is complete.
    pub fn end(&mut self) -> Result<()> {
        let last = std::mem::take(&mut self.block).text;
        self.erase(&last)?;
        self.set(&last)?;
        Ok(self.terminal.flush()?)
    }

    fn set(&self, block: &str) -> Result<()> {
        if block.trim().is_empty() {
            return Ok(());
        }
        let width = usize::from(self.terminal.size().1);
        let text = self.skin.text(block.trim_end(), Some(width)).to_string();
        self.terminal.write_line(text.trim_end())?;
        Ok(self.terminal.write_line("")?)
    }

    /// Takes back what was written of a block. What has left the screen stays there, and the block comes a second time.
    fn erase(&self, written: &str) -> Result<()> {
        let (height, width) = self.terminal.size();
        let rows = rows(written, usize::from(width)).min(usize::from(height).saturating_sub(1));
        self.terminal.clear_line()?;
        Ok(self.terminal.clear_last_lines(rows)?)
    }
}

/// How many rows the cursor is below the one in which a text begins.
fn rows(text: &str, width: usize) -> usize {
    let of_line = |line: &str| console::measure_text_width(line).saturating_sub(1) / width.max(1);
    text.matches('\n').count() + text.split('\n').map(of_line).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_at_empty_lines_and_behind_code() {
        let text = "# Title\n\nOne\ntwo\n\n```rust\nlet x;\n\nlet y;\n```\n- a\n- b\n";
        let expected = ["# Title\n\n", "One\ntwo\n\n", "```rust\nlet x;\n\nlet y;\n```\n"];
        for size in [1, 3, 7, text.len()] {
            let mut block = Block::default();
            let chunks = text.as_bytes().chunks(size).map(|chunk| std::str::from_utf8(chunk).unwrap());
            let complete: Vec<String> = chunks.flat_map(|chunk| block.push(chunk)).collect();
            assert_eq!(complete, expected, "{size} at a time");
            assert_eq!(block.text, "- a\n- b\n");
        }
    }

    #[test]
    fn rows_are_counted_as_a_terminal_breaks_lines() {
        for (text, expected) in [("", 0), ("abcd", 0), ("abcde", 1), ("ab\n", 1), ("abcdefghi\nab", 3), ("äöü", 0), ("日本語", 1)]
        {
            assert_eq!(rows(text, 4), expected, "{text}");
        }
    }
}
