//! Pictures in a terminal that can.

use std::io::{IsTerminal, Write, stdout};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mistralrs::{ChatRequest, Content, Message, Model};

use super::pictures;
use super::report::png;
use crate::environment;

/// A protocol by which a terminal takes pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphics {
    /// kitty's, which Ghostty has too.
    Kitty,
    /// iTerm's inline images, which `WezTerm` and VS Code have too.
    Iterm,
}

/// Lines of text that a picture takes.
const LINES: usize = 16;

/// Shows the pictures of the last message, where they are seen.
pub async fn show(model: &Model, request: &ChatRequest) -> Result<()> {
    let Some(Message { content: content @ Content::Parts(_), .. }) = request.messages.last() else { return Ok(()) };
    if !stdout().is_terminal() {
        return Ok(());
    }
    let Some(graphics) = environment::graphics() else {
        bail!(
            "--show-images: this terminal does not say that it can show pictures (kitty, Ghostty, iTerm, WezTerm and VS Code do)"
        );
    };
    for source in pictures(content) {
        let picture = png(&model.picture(source).await?)?;
        let mut out = stdout().lock();
        out.write_all(graphics.sequence(&picture).as_bytes()).context("cannot write to the terminal")?;
        out.flush()?;
    }
    Ok(())
}

impl Graphics {
    /// What makes the terminal show a picture, given as PNG.
    fn sequence(self, png: &[u8]) -> String {
        let data = STANDARD.encode(png);
        match self {
            Self::Iterm => {
                format!("\x1b]1337;File=inline=1;size={};height={LINES};preserveAspectRatio=1:{data}\x07\n", png.len())
            }
            Self::Kitty => {
                // In pieces of at most 4096 bytes, of which all but the last say that more follows.
                let pieces: Vec<&str> =
                    data.as_bytes().chunks(4096).filter_map(|piece| std::str::from_utf8(piece).ok()).collect();
                let piece = |(i, piece): (usize, &&str)| {
                    let first = if i == 0 { format!("a=T,f=100,r={LINES},") } else { String::new() };
                    format!("\x1b_G{first}m={};{piece}\x1b\\", u8::from(i + 1 < pieces.len()))
                };
                pieces.iter().enumerate().map(piece).collect::<String>() + "\n"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_come_in_pieces() {
        let shown = Graphics::Kitty.sequence(&[7; 7000]);
        let pieces: Vec<&str> = shown.split_inclusive("\x1b\\").collect();
        assert_eq!(pieces.len(), 4, "three pieces and the line end");
        assert!(pieces[0].starts_with("\x1b_Ga=T,f=100,r=16,m=1;") && pieces[2].starts_with("\x1b_Gm=0;"));
        let data: String = pieces.iter().filter_map(|piece| piece.split_once(';')?.1.strip_suffix("\x1b\\")).collect();
        assert_eq!(STANDARD.decode(data).unwrap(), [7; 7000]);
        assert!(Graphics::Iterm.sequence(&[1, 2, 3]).ends_with(":AQID\x07\n"));
    }
}
