use thiserror::Error;

use crate::{Ffmpeg, OptionError};

/// Why a picture, sound or clip cannot be used. The messages are ours: what a decoder says of hostile bytes is not repeated.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum MediaError {
    /// The bytes begin like no format that is decoded here.
    #[error("not an image (PNG, JPEG, GIF, WebP, BMP and TIFF are understood)")]
    NotAnImage,
    /// The bytes begin like no container that is decoded here.
    #[error(
        "not a video (animated GIF, WebP and PNG, a folder or list of pictures, and MP4, MOV, WebM, MKV, AVI, MPEG, FLV, OGG and \
         ASF are understood)"
    )]
    NotAVideo,
    /// The bytes begin like no format of sound.
    #[error(
        "not audio (WAV, MP3, FLAC, OGG, AAC, M4A and AIFF are understood, and with the ffmpeg program Opus, WebM, MKV, AMR, CAF, \
         ASF and others)"
    )]
    NotAudio,
    /// There is no sound in it, or none that could be decoded.
    #[error("there is no sound in it")]
    NoSound,
    /// A picture file that could be an animation, but is none.
    #[error("not a video but a still picture; send it as an image")]
    StillPicture,
    /// What was wanted of a sound or clip.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A known format whose content does not decode.
    #[error("the {format} data is damaged or incomplete")]
    Damaged {
        /// Name of the format.
        format: &'static str,
    },
    /// The header promises more than the limits allow.
    #[error("{what} is {found}; at most {allowed} is allowed")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size, with unit.
        found: String,
        /// The limit, with unit.
        allowed: String,
    },
    /// A PDF that nobody may read without its password, or that is encrypted in an unknown way.
    #[error("the PDF is encrypted; send it without a password")]
    Locked,
    /// The clip has no frames.
    #[error("the video has no frames")]
    NoFrames,
    /// Only the ffmpeg program can decode this, and it was not found.
    #[error("this {what} needs the ffmpeg program, which was not found; install it ({}), or send {instead}", Ffmpeg::INSTALL)]
    NoFfmpeg {
        /// What it is.
        what: &'static str,
        /// What needs no program.
        instead: &'static str,
    },
    /// Frames of one clip are not of one size.
    #[error("frame {frame} is {}x{} pixels, those before are {}x{}; all frames of a clip have one size", size.0, size.1, expected.0, expected.1)]
    Unequal {
        /// Which one, counted from 0.
        frame: usize,
        /// Its width and height.
        size: (usize, usize),
        /// Those of the first.
        expected: (usize, usize),
    },
    /// Nobody waits for it any more.
    #[error("decoding was given up")]
    Abandoned,
    /// Decoding took longer than the limit.
    #[error("decoding took longer than {seconds} s")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// Something outside the bytes failed: no temporary file, no process.
    #[error("cannot decode it: {0}")]
    System(String),
}
