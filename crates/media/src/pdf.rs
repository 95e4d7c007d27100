//! Pages of a PDF → pictures.

use std::io::{self, Cursor, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::page::Page;
use hayro::hayro_syntax::{LoadPdfError, Pdf};
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{PixmapSettings, RenderCache, RenderSettings, render};
use image::{ImageFormat, RgbImage};

use crate::ffmpeg::{Medium, Process, Terms, system};
use crate::options::OptionError;
use crate::{Interest, Limits, MediaError};

const DAMAGED: MediaError = MediaError::Damaged { format: "PDF" };
/// A PDF may have other bytes in front of its mark, but not more than this.
const BEGINNING: usize = 1024;
/// Longer side of a page's picture, in pixels: letters of a printed page can be read.
const EDGE: f32 = 1600.0;
/// Bytes of a page's picture that a program may write.
const PICTURE_BYTES_MAX: usize = 64 << 20;

/// Which pages are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageOptions {
    /// Those before are left out. The first page is number 1.
    pub first_page: Option<usize>,
    /// Those behind are left out.
    pub last_page: Option<usize>,
}

/// Who reads the file. What draws it has no bounds of memory and time in itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PdfReader {
    /// This process: for files of one's own.
    #[default]
    Here,
    /// A process for each file, within bounds of memory and time: a program that is given these arguments, then those of
    /// [`write_pages`].
    Program {
        /// Path of the program.
        program: PathBuf,
        /// What it is told first.
        arguments: Vec<String>,
    },
}

/// Pages as PNG files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Number of the first of them, counted from 1.
    pub first: usize,
    /// Pages that the document has.
    pub all: usize,
    /// In order.
    pub pictures: Vec<Vec<u8>>,
}

/// Whether the bytes begin like a PDF.
pub fn is_pdf(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(BEGINNING)].windows(5).any(|window| window == b"%PDF-")
}

/// The pages that are wanted, on white, 1600 pixels along their longer side.
///
/// # Errors
/// [`MediaError::Damaged`], [`MediaError::Locked`], [`MediaError::Option`] and [`MediaError::TooLarge`] for pages that are not there
/// or too many, [`MediaError::TooSlow`], [`MediaError::Abandoned`].
pub fn read_pdf(
    bytes: Vec<u8>,
    options: &PageOptions,
    reader: &PdfReader,
    limits: &Limits,
    interest: &Interest,
) -> Result<Pages, MediaError> {
    let terms = Terms::new(Medium::Pdf, limits, interest);
    match reader {
        PdfReader::Here => draw_here(bytes, options, &terms),
        PdfReader::Program { program, arguments } => {
            let mut file = tempfile::Builder::new().prefix("document-").tempfile().map_err(system)?;
            file.write_all(&bytes).and_then(|()| file.flush()).map_err(system)?;
            drop(bytes);
            let mut command = Command::new(program);
            let numbers = [options.first_page.unwrap_or(1), options.last_page.unwrap_or(0)].map(|page| page.to_string());
            command.args(arguments).arg(file.path()).args(numbers);
            collect(command, options, &terms)
        }
    }
}

/// What a [`PdfReader::Program`] does with its arguments, which are a path, the number of the first page, and that of the last or 0: it
/// writes the number of all pages, then each page's PNG behind its length; numbers as four bytes, the most significant first. There
/// are no pages where it cannot read the file, and one fewer than none where it is locked.
///
/// # Errors
/// The file cannot be read, or nobody takes what is written.
pub fn write_pages(path: &std::path::Path, options: &PageOptions, mut to: impl Write) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let number = |number: usize, to: &mut dyn Write| to.write_all(&(number as u32).to_be_bytes());
    let (limits, mut failed) = (Limits::default(), None);
    let drawn = draw(bytes, options, &limits, |part| {
        let written = match part {
            Part::All(all) => number(all, &mut to),
            Part::Page(picture) => number(picture.len(), &mut to).and_then(|()| to.write_all(&picture)),
        };
        written.map_err(|e| {
            failed = Some(e);
            MediaError::Abandoned
        })
    });
    match (drawn, failed) {
        (_, Some(e)) => Err(e),
        (Err(MediaError::Locked), _) => number(u32::MAX as usize, &mut to),
        (Err(MediaError::Damaged { .. }), _) => number(0, &mut to),
        _ => to.flush(),
    }
}

/// What is learnt of a document, in this order.
enum Part {
    /// How many pages it has.
    All(usize),
    /// A page that is wanted, as PNG.
    Page(Vec<u8>),
}

impl PageOptions {
    /// Refuses what makes no sense for any document.
    ///
    /// # Errors
    /// The option at fault.
    pub fn check(&self) -> Result<(), OptionError> {
        let first = self.first_page.unwrap_or(1);
        match self.last_page {
            _ if first == 0 => Err(OptionError::new("first_page", "must be at least 1")),
            Some(last) if last < first => Err(OptionError::new("last_page", format!("is {last}, before the first, {first}"))),
            _ => Ok(()),
        }
    }

    /// First and last page of a document that has so many.
    fn range(&self, all: usize, limits: &Limits) -> Result<(usize, usize), MediaError> {
        self.check()?;
        let (first, last) = (self.first_page.unwrap_or(1), self.last_page.unwrap_or(all).min(all));
        if first > all {
            return Err(OptionError::new("first_page", format!("is {first}, but the document has {all} pages")).into());
        }
        let (count, most) = (last + 1 - first, limits.pages_max);
        if count > most {
            let allowed = format!("{most} pages (first_page and last_page say which)");
            return Err(MediaError::TooLarge { what: "the document", found: format!("{count} pages long"), allowed });
        }
        Ok((first, last))
    }
}

fn draw_here(bytes: Vec<u8>, options: &PageOptions, terms: &Terms) -> Result<Pages, MediaError> {
    let deadline = Instant::now() + Duration::from_secs(terms.limits.decoding_seconds_max);
    let (mut all_pages, mut pictures) = (0, Vec::new());
    draw(bytes, options, &terms.limits, |part| {
        terms.interest.check()?;
        match part {
            Part::All(all) => all_pages = all,
            Part::Page(_) if Instant::now() > deadline => return Err(terms.failed(io::ErrorKind::TimedOut.into())),
            Part::Page(picture) => pictures.push(picture),
        }
        Ok(())
    })?;
    Ok(Pages { first: options.first_page.unwrap_or(1), all: all_pages, pictures })
}

/// Tells of each page when it is drawn.
fn draw(
    bytes: Vec<u8>,
    options: &PageOptions,
    limits: &Limits,
    mut tell: impl FnMut(Part) -> Result<(), MediaError>,
) -> Result<(), MediaError> {
    // Like every decoder of hostile bytes.
    let drawn = catch_unwind(AssertUnwindSafe(|| {
        let pdf = Pdf::new(Arc::new(bytes)).map_err(|e| match e {
            LoadPdfError::Decryption(_) => MediaError::Locked,
            LoadPdfError::Invalid => DAMAGED,
        })?;
        let (pages, cache) = (pdf.pages(), RenderCache::new());
        if pages.is_empty() {
            return Err(DAMAGED);
        }
        tell(Part::All(pages.len()))?;
        let (first, last) = options.range(pages.len(), limits)?;
        pages[first - 1..last].iter().try_for_each(|page| tell(Part::Page(picture(page, &cache)?)))
    }));
    drawn.unwrap_or(Err(DAMAGED))
}

fn picture<'a>(page: &'a Page<'a>, cache: &RenderCache<'a>) -> Result<Vec<u8>, MediaError> {
    let (width, height) = page.render_dimensions();
    if !(width > 0.0 && height > 0.0 && width.is_finite() && height.is_finite()) {
        return Err(DAMAGED);
    }
    let scale = EDGE / width.max(height);
    // No side is without a pixel.
    let [x_scale, y_scale] = [width, height].map(|side| scale.max(1.0 / side));
    let settings = PixmapSettings { x_scale, y_scale, bg_color: WHITE };
    let pixmap = render(page, cache, &InterpreterSettings::default(), &RenderSettings::default(), &settings);
    let rgb = pixmap.data().iter().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect();
    let image = RgbImage::from_raw(pixmap.width().into(), pixmap.height().into(), rgb).ok_or(DAMAGED)?;
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|_| DAMAGED)?;
    Ok(png.into_inner())
}

/// What a program writes.
fn collect(command: Command, options: &PageOptions, terms: &Terms) -> Result<Pages, MediaError> {
    let (_process, mut output) = Process::run(command, terms).map_err(system)?;
    let mut exactly = |bytes: usize| {
        let mut buffer = vec![0; bytes];
        output.read_exact(&mut buffer).map_err(|e| terms.failed(e))?;
        Ok::<_, MediaError>(buffer)
    };
    let number = |bytes: Vec<u8>| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    let all = match number(exactly(4)?) {
        0 => return Err(DAMAGED),
        locked if locked == u32::MAX as usize => return Err(MediaError::Locked),
        all => all,
    };
    let (first, last) = options.range(all, &terms.limits)?;
    let page = |_| match number(exactly(4)?) {
        bytes if bytes == 0 || bytes > PICTURE_BYTES_MAX => Err(DAMAGED),
        bytes => exactly(bytes),
    };
    Ok(Pages { first, all, pictures: (first..=last).map(page).collect::<Result<_, _>>()? })
}
