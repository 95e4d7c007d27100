//! Formats that the ffmpeg program decodes.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::ops::ControlFlow;

use super::Audio;
use super::collect::Collector;
use crate::MediaError;
use crate::ffmpeg::{Medium, Output, Process, Terms, system};
use crate::video::is_container;

const DAMAGED: MediaError = MediaError::Damaged { format: "audio" };
/// The longest header of what the program writes.
const HEADER_MAX: usize = 4096;
/// Samples of one channel that are read at a time.
const FRAMES_AT_A_TIME: usize = 1 << 14;

/// Whether the bytes begin like something that may hold sound, and that ffmpeg is allowed to read.
pub fn is_known(bytes: &[u8]) -> bool {
    let magics: [&[u8]; 10] = [b"RF64", b"BW64", b"riff", b"caff", b".snd", b"#!AMR", b"wvpk", b"MAC ", b"TTA1", &[0x0B, 0x77]];
    magics.iter().any(|magic| bytes.starts_with(magic)) || is_container(bytes)
}

/// Has the program write the first sound as big-endian floats behind a header of Sun's AU format, which says how they are to be read.
pub fn decode(bytes: &[u8], mut collector: Collector) -> Result<Audio, MediaError> {
    let mut file = tempfile::Builder::new().prefix("sound-").tempfile().map_err(system)?;
    file.write_all(bytes).and_then(|()| file.flush()).map_err(system)?;
    let terms = Terms::new(Medium::Audio, collector.limits, collector.interest);
    let after = ["-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"];
    let (_process, mut output) = Process::start("ffmpeg", file.path(), [&["-nostdin", "-threads", "2"], &after], &terms)?;
    let Some((rate, channels)) = read_header(&mut output, &terms)? else { return Err(MediaError::NoSound) };
    let mut bytes = vec![0; FRAMES_AT_A_TIME * channels * 4];
    loop {
        let count = fill(&mut output, &mut bytes, &terms)?;
        let samples: Vec<f32> = bytes[..count].as_chunks().0.iter().map(|sample| f32::from_be_bytes(*sample)).collect();
        let flow = collector.take(rate, channels, &samples)?;
        if count < bytes.len() || flow == ControlFlow::Break(()) {
            return collector.finish("audio");
        }
    }
}

/// Sample rate and channels; `None` when there is nothing to read.
fn read_header(from: &mut BufReader<Output>, terms: &Terms) -> Result<Option<(u32, usize)>, MediaError> {
    let mut header = [0; 24];
    if fill(from, &mut header, terms)? < header.len() {
        return Ok(None);
    }
    let [magic, length, _, encoding, rate, channels] = *header.as_chunks().0 else { return Err(DAMAGED) };
    let [length, encoding, rate, channels] = [length, encoding, rate, channels].map(u32::from_be_bytes);
    const FLOATS: u32 = 6;
    let channels = channels as usize;
    let fits = (header.len()..=HEADER_MAX).contains(&(length as usize)) && (1..=1024).contains(&channels);
    if magic != *b".snd" || encoding != FLOATS || !fits {
        return Err(DAMAGED);
    }
    let mut rest = vec![0; length as usize - header.len()];
    fill(from, &mut rest, terms)?;
    Ok(Some((rate, channels)))
}

/// Reads until the buffer is full or the output ends; how much there was.
fn fill(from: &mut BufReader<Output>, buffer: &mut [u8], terms: &Terms) -> Result<usize, MediaError> {
    let mut count = 0;
    while count < buffer.len() {
        match from.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(terms.failed(e)),
        }
    }
    Ok(count)
}
