//! Formats that are decoded here, by the crate `symphonia`.

use std::io::{Cursor, ErrorKind};
use std::sync::Arc;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};

use super::Audio;
use super::collect::Collector;
use crate::MediaError;

/// What became of a file.
pub enum Decoded {
    Audio(Audio),
    /// It holds what only others can decode.
    Unsupported,
}

/// The name of a format that is decoded here, by its first bytes.
pub fn recognise(bytes: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let formats = [
        ("WAV", at(0, b"RIFF") && at(8, b"WAVE")),
        ("AIFF", at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC"))),
        ("FLAC", at(0, b"fLaC")),
        ("OGG", at(0, b"OggS")),
        ("M4A", at(4, b"ftyp")),
        ("MP3", at(0, b"ID3") || is_mpeg(bytes)),
        ("AAC", is_adts(bytes)),
    ];
    formats.into_iter().find_map(|(name, is)| is.then_some(name))
}

/// The header of an MPEG frame: eleven ones, and no value that is reserved.
fn is_mpeg(bytes: &[u8]) -> bool {
    let &[0xFF, second, third, _, ..] = bytes else { return false };
    let (version, layer, rate, sampling) = (second >> 3 & 3, second >> 1 & 3, third >> 4, third >> 2 & 3);
    second >> 5 == 7 && version != 1 && layer != 0 && rate != 15 && sampling != 3
}

/// The header of a frame of AAC: twelve ones, and a layer that MPEG frames cannot have.
fn is_adts(bytes: &[u8]) -> bool {
    matches!(bytes, [0xFF, second, ..] if second & 0xF6 == 0xF0)
}

/// Decodes the first track. Packets that do not decode are left out, unless they are most of them: a stream may begin in the middle.
pub fn decode(bytes: Arc<[u8]>, format: &'static str, mut collector: Collector) -> Result<Decoded, MediaError> {
    let damaged = MediaError::Damaged { format };
    // Every packet takes some of the bytes: a reader that gives more of them goes round in circles.
    let packets_max = bytes.len();
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let probed = get_probe().probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default());
    let mut reader = match probed {
        Ok(reader) => reader,
        Err(Error::Unsupported(_)) => return Ok(Decoded::Unsupported),
        Err(_) => return Err(damaged),
    };
    let Some((track, mut decoder)) = open(reader.as_ref()) else { return Ok(Decoded::Unsupported) };
    let mut samples = Vec::new();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..packets_max {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) if packet.track_id == track => packet,
            Ok(Some(_)) => continue,
            Ok(None) => break,
            // The file ends in the middle of a packet.
            Err(Error::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof && good > 0 => break,
            // Another stream begins behind this one.
            Err(Error::ResetRequired) => return Ok(Decoded::Unsupported),
            Err(_) => return Err(damaged),
        };
        match decoder.decode(&packet) {
            Ok(decoded) => {
                good += 1;
                let spec = decoded.spec();
                decoded.copy_to_vec_interleaved(&mut samples);
                if collector.take(spec.rate(), spec.channels().count(), &samples)?.is_break() {
                    break;
                }
            }
            Err(Error::DecodeError(_) | Error::IoError(_)) => bad += 1,
            Err(Error::Unsupported(_)) => return Ok(Decoded::Unsupported),
            Err(_) => return Err(damaged),
        }
    }
    if bad > good {
        return Err(damaged);
    }
    collector.finish(format).map(Decoded::Audio)
}

/// The first track that can be decoded.
fn open(reader: &dyn FormatReader) -> Option<(u32, Box<dyn AudioDecoder>)> {
    reader.tracks().iter().find_map(|track| {
        let sound = track.codec_params.as_ref()?.audio()?;
        Some((track.id, get_codecs().make_audio_decoder(sound, &AudioDecoderOptions::default()).ok()?))
    })
}
