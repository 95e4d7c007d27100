//! A PDF of a stranger is read by a process of its own, which is this program.

use std::io::{BufWriter, stdout};

use anyhow::Result;
use mistralrs::{PageOptions, PdfReader, write_pages};

use crate::args::PagesOptions;

pub const COMMAND: &str = "pdf-pages";

/// How the server has PDFs read; where it cannot tell what program it is, it reads them itself.
pub fn reader() -> PdfReader {
    std::env::current_exe().map_or(PdfReader::Here, |program| PdfReader::Program { program, arguments: vec![COMMAND.into()] })
}

pub fn write(options: &PagesOptions) -> Result<()> {
    let last_page = Some(options.last).filter(|last| *last > 0);
    let pages = PageOptions { first_page: Some(options.first), last_page };
    Ok(write_pages(&options.file, &pages, BufWriter::new(stdout().lock()))?)
}
