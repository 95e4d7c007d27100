use thiserror::Error;

/// Why a picture or clip cannot be used. The messages are ours: what a decoder says of hostile bytes is not repeated.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum MediaError {
    /// The bytes begin like no format that is decoded here.
    #[error("not an image (PNG, JPEG, GIF, WebP, BMP and TIFF are understood)")]
    NotAnImage,
    /// The bytes begin like no container that is decoded here.
    #[error("not a video (GIF, MP4, MOV, WebM, MKV, AVI, MPEG, FLV, OGG and ASF are understood)")]
    NotAVideo,
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
    /// The clip has no frames.
    #[error("the video has no frames")]
    NoFrames,
    /// Only the ffmpeg program can decode this container, and it was not found.
    #[error(
        "this video needs the ffmpeg program, which was not found; install it (Debian and Ubuntu: apt install ffmpeg, \
         Fedora: dnf install ffmpeg, macOS: brew install ffmpeg, Windows: winget install ffmpeg), or send a GIF"
    )]
    NoFfmpeg,
    /// Decoding took longer than the limit.
    #[error("decoding took longer than {seconds} s")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// Something outside the bytes failed: no temporary file, no process.
    #[error("cannot decode the video: {0}")]
    System(String),
}
