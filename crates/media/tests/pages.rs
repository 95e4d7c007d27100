//! PDFs → pictures of their pages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;

use mistralrs_media::{Interest, Limits, MediaError, PageOptions, Pages, PdfReader, decode_image, is_pdf, read_pdf, write_pages};

/// A PDF whose pages are filled with these colours, 200 by 100 points each.
fn pdf(colours: &[&str]) -> Vec<u8> {
    let count = colours.len();
    let kids: Vec<String> = (0..count).map(|i| format!("{} 0 R", 3 + 2 * i)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_string(),
        format!("<< /Type /Pages /Kids [{}] /Count {count} /MediaBox [0 0 200 100] >>", kids.join(" ")),
    ];
    for (i, colour) in colours.iter().enumerate() {
        let drawing = format!("{colour} rg 0 0 200 100 re f");
        objects.push(format!("<< /Type /Page /Parent 2 0 R /Contents {} 0 R >>", 4 + 2 * i));
        objects.push(format!("<< /Length {} >>\nstream\n{drawing}\nendstream", drawing.len()));
    }
    let (mut file, mut table) = ("%PDF-1.4\n".to_string(), String::new());
    for (object, number) in objects.iter().zip(1..) {
        writeln!(table, "{:010} 00000 n ", file.len()).unwrap();
        writeln!(file, "{number} 0 obj\n{object}\nendobj").unwrap();
    }
    let (all, at) = (objects.len() + 1, file.len());
    write!(file, "xref\n0 {all}\n0000000000 65535 f \n{table}trailer\n<< /Size {all} /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n")
        .unwrap();
    file.into_bytes()
}

fn read(bytes: Vec<u8>, first_page: Option<usize>, last_page: Option<usize>) -> Result<Pages, MediaError> {
    read_pdf(bytes, &PageOptions { first_page, last_page }, &PdfReader::Here, &Limits::default(), &Interest::default())
}

#[test]
fn pages_are_drawn_as_large_as_letters_need() {
    let three = pdf(&["1 0 0", "0 1 0", "0 0 1"]);
    assert!(is_pdf(&three) && !is_pdf(b"%PD"));
    let cases = [
        (None, None, 1, vec![[255, 0, 0], [0, 255, 0], [0, 0, 255]]),
        (Some(2), None, 2, vec![[0, 255, 0], [0, 0, 255]]),
        (None, Some(1), 1, vec![[255, 0, 0]]),
        (Some(3), Some(9), 3, vec![[0, 0, 255]]),
    ];
    for (from, to, first, colours) in cases {
        let pages = read(three.clone(), from, to).unwrap();
        assert_eq!((pages.first, pages.all, pages.pictures.len()), (first, 3, colours.len()));
        for (picture, colour) in pages.pictures.iter().zip(colours) {
            let image = decode_image(picture, &Limits::default()).unwrap();
            assert_eq!((image.width(), image.height()), (1600, 800));
            assert_eq!(image.crop(800, 400, 1, 1).rgb(), colour);
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_in_so_many_words() {
    let cases = [
        (b"%PDF-1.7".to_vec(), (None, None), "the PDF data is damaged"),
        (pdf(&[]), (None, None), "the PDF data is damaged"),
        (pdf(&["1 0 0"]), (Some(2), None), "first_page is 2, but the document has 1 pages"),
        (pdf(&["1 0 0"]), (Some(0), None), "first_page must be at least 1"),
        (pdf(&["1 0 0"; 2]), (Some(2), Some(1)), "last_page is 1, before the first, 2"),
        (pdf(&["1 0 0"; 33]), (None, None), "the document is 33 pages long; at most 32 pages"),
    ];
    for (bytes, (first, last), expected) in cases {
        let message = read(bytes, first, last).expect_err(expected).to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    let gone = Interest::default();
    gone.lose();
    let left = read_pdf(pdf(&["1 0 0"]), &PageOptions::default(), &PdfReader::Here, &Limits::default(), &gone);
    assert_eq!(left, Err(MediaError::Abandoned));
}

/// A program that answers with what [`write_pages`] wrote, or anything else.
#[cfg(unix)]
fn by_program(answer: &[u8], options: &PageOptions) -> Result<Pages, MediaError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, answer).unwrap();
    let arguments = vec!["-c".into(), format!("cat {}", file.path().display())];
    let reader = PdfReader::Program { program: "/bin/sh".into(), arguments };
    read_pdf(b"%PDF-".to_vec(), options, &reader, &Limits::default(), &Interest::default())
}

#[cfg(unix)]
/// M15 of docs/reliability.md.
#[test]
fn a_program_is_believed_as_far_as_it_makes_sense() {
    let all = PageOptions::default();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &pdf(&["1 0 0", "0 1 0"])).unwrap();
    let mut written = Vec::new();
    write_pages(file.path(), &all, &mut written).unwrap();
    assert_eq!(by_program(&written, &all).unwrap(), read(pdf(&["1 0 0", "0 1 0"]), None, None).unwrap());
    let damaged = MediaError::Damaged { format: "PDF" };
    let cases: [(&[u8], MediaError); 5] = [
        (b"", damaged.clone()),
        (&[0; 4], damaged.clone()),
        (&[255; 4], MediaError::Locked),
        (&[0, 0, 0, 1, 255, 255, 255, 255], damaged.clone()),
        (&written[..written.len() - 1], damaged),
    ];
    for (answer, expected) in cases {
        assert_eq!(by_program(answer, &all), Err(expected));
    }
}
