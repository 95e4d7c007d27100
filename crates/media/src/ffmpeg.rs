//! The ffmpeg programs, each start a process of its own that can do little but decode.
//!
//! A file is hostile input, so a program may open nothing but it (`-protocol_whitelist file`, no playlists through
//! `-format_whitelist`), is bounded in pixels, threads, memory, processor time and written bytes, and is killed when its time is
//! over or when nobody waits for it any more. What it complains of is thrown away, so that it cannot fill anything.

use std::ffi::OsString;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Interest, Limits, MediaError};

const FORMATS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,\
    wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,amr,ape,tta,wv";
/// How often a process is asked whether anybody still waits for it.
const ATTENTION: Duration = Duration::from_millis(200);

/// What is decoded, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Audio,
    Video,
    Pdf,
}

impl Medium {
    fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Pdf => "PDF",
        }
    }

    fn needs_program(self) -> MediaError {
        let instead = match self {
            Self::Audio => "WAV, MP3, FLAC, OGG Vorbis or M4A",
            Self::Video => "an animated GIF, WebP or PNG",
            Self::Pdf => "its pages as pictures",
        };
        MediaError::NoFfmpeg { what: self.name(), instead }
    }
}

/// Who starts a program, for what, and how long it may take.
#[derive(Debug, Clone)]
pub struct Terms {
    medium: Medium,
    pub limits: Limits,
    pub interest: Interest,
    deadline: Instant,
}

impl Terms {
    /// The time begins now. What is started later on the same terms has what is left of it.
    pub fn new(medium: Medium, limits: &Limits, interest: &Interest) -> Self {
        let deadline = Instant::now() + Duration::from_secs(limits.decoding_seconds_max);
        Self { medium, limits: *limits, interest: interest.clone(), deadline }
    }

    /// What a failure to read from a program means.
    pub fn failed(&self, error: io::Error) -> MediaError {
        match error.kind() {
            io::ErrorKind::TimedOut => MediaError::TooSlow { seconds: self.limits.decoding_seconds_max },
            io::ErrorKind::ConnectionAborted => MediaError::Abandoned,
            _ => MediaError::Damaged { format: self.medium.name() },
        }
    }
}

/// A running program; killed and collected when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// `ffmpeg` or `ffprobe` over a file, its output a pipe.
    pub fn start(
        program: &str,
        file: &Path,
        options: [&[&str]; 2],
        terms: &Terms,
    ) -> Result<(Self, BufReader<Output>), MediaError> {
        let [before_input, after_input] = options;
        let mut input = OsString::from("file:");
        input.push(file);
        let mut command = Command::new(program);
        command.args(["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS]);
        command.args(["-max_pixels", &terms.limits.frame_pixels_max.to_string()]);
        command.args(before_input).arg("-i").arg(input).args(after_input);
        // With this variable set, the program writes a report beside itself.
        command.env_remove("FFREPORT");
        Self::run(command, terms).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => terms.medium.needs_program(),
            _ => system(e),
        })
    }

    /// Any program, its output a pipe.
    pub fn run(mut command: Command, terms: &Terms) -> io::Result<(Self, BufReader<Output>)> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let pipe = child.stdout.take();
        let process = Self { child };
        process.restrain(&terms.limits);
        Ok((process, BufReader::with_capacity(1 << 16, Output { pipe, terms: terms.clone() })))
    }

    /// Bounds on memory, processor time and written bytes. The child lives at most a moment without them.
    #[cfg(target_os = "linux")]
    fn restrain(&self, limits: &Limits) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        let memory = (limits.decoded_bytes_max as u64).saturating_mul(4);
        let bounds = [(Resource::As, memory), (Resource::Cpu, limits.decoding_seconds_max * 2), (Resource::Fsize, 0)];
        for (resource, most) in bounds {
            // A child that has already ended needs no bounds.
            let _ = prlimit(Some(pid), resource, Rlimit { current: Some(most), maximum: Some(most) });
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn restrain(&self, _limits: &Limits) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program's standard output, readable until the deadline and while there is interest.
pub struct Output {
    pipe: Option<ChildStdout>,
    terms: Terms,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        loop {
            self.terms.interest.check().map_err(|_| io::ErrorKind::ConnectionAborted)?;
            let left = self.terms.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if is_readable(pipe, left.min(ATTENTION))? {
                return pipe.read(buffer);
            }
        }
    }
}

#[cfg(unix)]
fn is_readable(pipe: &ChildStdout, within: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
    match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Elsewhere a read waits as long as it takes.
#[cfg(not(unix))]
fn is_readable(_pipe: &ChildStdout, _within: Duration) -> io::Result<bool> {
    Ok(true)
}

/// Something of the system's failed, which is not the file's fault.
pub fn system(error: io::Error) -> MediaError {
    MediaError::System(error.kind().to_string())
}

/// The ffmpeg program of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ffmpeg {
    /// As it calls itself.
    pub version: String,
    /// Whether the ffprobe program is there too. Both are needed.
    pub ffprobe: bool,
    /// Names of all codecs that it decodes.
    pub decodes: Vec<String>,
}

impl Ffmpeg {
    /// How it gets onto a machine, system by system.
    pub const INSTALL: &'static str = "Debian and Ubuntu: apt install ffmpeg, Fedora: dnf install ffmpeg-free, Arch: pacman -S \
        ffmpeg, Alpine: apk add ffmpeg, macOS: brew install ffmpeg, Windows: winget install ffmpeg";

    /// Asks the programs. `None` when there is no ffmpeg.
    pub fn find() -> Option<Self> {
        let ask = |program: &str, question: &str| {
            let output = Command::new(program).arg(question).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        // "ffmpeg version 5.1.9 Copyright (c) …"
        let version = ask("ffmpeg", "-version")?.split_whitespace().nth(2)?.to_string();
        // " DEV.LS h264   H.264 / AVC …": the D says that it is decoded.
        let codec = |line: &str| {
            let (flags, name) = line.trim_start().split_once(' ')?;
            (flags.len() == 6 && flags.starts_with('D')).then(|| name.split_whitespace().next().map(str::to_string))?
        };
        let decodes = ask("ffmpeg", "-codecs")?.lines().filter_map(codec).filter(|name| name != "=").collect();
        Some(Self { version, ffprobe: ask("ffprobe", "-version").is_some(), decodes })
    }
}
