//! Containers, decoded by the ffmpeg program in a process of its own.
//!
//! The file is hostile input, so the program may open nothing but it (`-protocol_whitelist file`, no playlists through
//! `-format_whitelist`), is bounded in pixels, threads, memory, processor time and written bytes, and is killed when its
//! time is over or when nobody waits for it any more. Frames come over a pipe as PPM: each says its size.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::{Budget, VideoInfo};
use crate::{Image, Limits, MediaError};

const FORMATS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf";
const DAMAGED: MediaError = MediaError::Damaged { format: "video" };

/// Whether the bytes begin like a container that ffmpeg is allowed to read.
pub fn is_container(bytes: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let mpegts = bytes.first() == Some(&0x47) && [188, 376].iter().all(|&next| bytes.get(next) == Some(&0x47));
    at(4, b"ftyp")
        || at(4, b"moov")
        || at(4, b"mdat")
        || at(0, &[0x1A, 0x45, 0xDF, 0xA3]) // Matroska, WebM
        || at(0, b"RIFF") && at(8, b"AVI ")
        || at(0, b"FLV\x01")
        || at(0, b"OggS")
        || at(0, &[0x30, 0x26, 0xB2, 0x75]) // ASF
        || at(0, &[0, 0, 1, 0xBA]) // MPEG program stream
        || mpegts
}

/// A clip in a temporary file, which lives as long as this value.
#[derive(Debug)]
pub struct Container {
    file: NamedTempFile,
}

impl Container {
    pub fn new(bytes: &[u8]) -> Result<Self, MediaError> {
        let mut file = tempfile::Builder::new().prefix("clip-").tempfile().map_err(system)?;
        file.write_all(bytes).and_then(|()| file.flush()).map_err(system)?;
        Ok(Self { file })
    }

    /// Counts packets of the first video stream (a frame each) without decoding them.
    pub fn probe(&self, limits: &Limits) -> Result<VideoInfo, MediaError> {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-select_streams", "v:0", "-count_packets"]);
        command.args([
            "-show_entries",
            "stream=avg_frame_rate,nb_read_packets,width,height",
            "-of",
            "default=noprint_wrappers=1",
        ]);
        let mut process = self.start(command, &[], limits)?;
        let mut report = String::new();
        process.output().take(1 << 16).read_to_string(&mut report).map_err(|e| failed(e, limits))?;
        let field = |name: &str| report.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let size = |name: &str| field(name).and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
        limits.check_size(size("width"), size("height"), limits.frame_pixels_max)?;
        let frames = size("nb_read_packets");
        if frames > limits.frames_walked_max {
            let allowed = format!("{} frames", limits.frames_walked_max);
            return Err(MediaError::TooLarge { what: "the video", found: format!("{frames} frames"), allowed });
        }
        let fps = field("avg_frame_rate").and_then(ratio).ok_or(DAMAGED)?;
        Ok(VideoInfo { frames, fps })
    }

    pub fn frames(&self, indices: &[usize], limits: &Limits) -> Result<Vec<Image>, MediaError> {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-threads", "2"]);
        let wanted: Vec<String> = indices.iter().map(|i| format!("eq(n,{i})")).collect();
        let select = format!("select='{}'", wanted.join("+"));
        let last = indices.last().map_or(0, |i| i + 1).to_string();
        let after = ["-map", "0:v:0", "-an", "-sn", "-dn", "-vf", &select, "-fps_mode", "passthrough", "-frames:v", &last];
        let mut process = self.start(command, &[&after[..], &["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]].concat(), limits)?;
        let mut budget = Budget::new(limits);
        let mut kept = Vec::with_capacity(indices.len());
        let mut output = process.output();
        while kept.len() < indices.len() {
            match read_ppm(&mut output, limits, &mut budget)? {
                Some(frame) => kept.push(frame),
                None => break,
            }
        }
        Ok(kept)
    }

    fn start(&self, mut command: Command, after_input: &[&str], limits: &Limits) -> Result<Process, MediaError> {
        let mut input = std::ffi::OsString::from("file:");
        input.push(self.file.path());
        command.args(["-protocol_whitelist", "file", "-format_whitelist", FORMATS]);
        command.args(["-max_pixels", &limits.frame_pixels_max.to_string()]).arg("-i").arg(input).args(after_input);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => MediaError::NoFfmpeg,
            _ => system(e),
        })?;
        let process = Process { child, deadline: Instant::now() + Duration::from_secs(limits.video_seconds_max) };
        process.restrain(limits);
        Ok(process)
    }
}

/// A running ffmpeg or ffprobe; killed and collected when dropped.
struct Process {
    child: Child,
    deadline: Instant,
}

impl Process {
    fn output(&mut self) -> BufReader<Output> {
        BufReader::with_capacity(1 << 16, Output { pipe: self.child.stdout.take(), deadline: self.deadline })
    }

    /// Bounds on memory, processor time and written bytes. The child lives at most a moment without them.
    #[cfg(target_os = "linux")]
    fn restrain(&self, limits: &Limits) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        let memory = (limits.decoded_bytes_max as u64).saturating_mul(4);
        let bounds = [(Resource::As, memory), (Resource::Cpu, limits.video_seconds_max * 2), (Resource::Fsize, 0)];
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

/// The child's standard output, readable until the deadline.
struct Output {
    pipe: Option<ChildStdout>,
    deadline: Instant,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        let left = self.deadline.saturating_duration_since(Instant::now());
        wait_readable(pipe, left)?;
        pipe.read(buffer)
    }
}

#[cfg(unix)]
fn wait_readable(pipe: &ChildStdout, left: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn wait_readable(_pipe: &ChildStdout, left: Duration) -> io::Result<()> {
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
}

/// One binary PPM (`P6 width height 255`), or nothing at the end of the stream.
fn read_ppm(from: &mut impl BufRead, limits: &Limits, budget: &mut Budget) -> Result<Option<Image>, MediaError> {
    let mut header = Vec::new();
    for _ in 0..3 {
        let mut line = Vec::new();
        from.by_ref().take(64).read_until(b'\n', &mut line).map_err(|e| failed(e, limits))?;
        header.extend(line);
    }
    if header.is_empty() {
        return Ok(None);
    }
    let header = String::from_utf8(header).map_err(|_| DAMAGED)?;
    let mut words = header.split_ascii_whitespace();
    let mut number = || words.next().and_then(|w| w.trim_start_matches('P').parse::<usize>().ok()).ok_or(DAMAGED);
    let (kind, width, height, depth) = (number()?, number()?, number()?, number()?);
    if (kind, depth) != (6, 255) {
        return Err(DAMAGED);
    }
    limits.check_size(width, height, limits.frame_pixels_max)?;
    budget.take(width, height)?;
    let mut rgb = vec![0; width * height * 3];
    from.read_exact(&mut rgb).map_err(|e| failed(e, limits))?;
    Ok(Image::new(width, height, rgb))
}

fn ratio(text: &str) -> Option<f64> {
    let (over, under) = text.split_once('/')?;
    let value = over.parse::<f64>().ok()? / under.parse::<f64>().ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

fn failed(error: io::Error, limits: &Limits) -> MediaError {
    match error.kind() {
        io::ErrorKind::TimedOut => MediaError::TooSlow { seconds: limits.video_seconds_max },
        _ => DAMAGED,
    }
}

fn system(error: io::Error) -> MediaError {
    MediaError::System(error.kind().to_string())
}
