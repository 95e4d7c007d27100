//! Containers, decoded by the ffmpeg program: which frames there are, where decoding has to begin for some of them, and those.
//!
//! Frames are counted by their packets, without decoding, where every packet is known to be a frame. Where each of them also
//! says when it is shown, and the container has an index of its keyframes, decoding begins at keyframes rather than at the
//! beginning. That gives the same frames:
//!
//! * Only keyframes of the index are begun at, and only frames that are shown after the keyframe are taken from there. Nothing that
//!   is shown after a keyframe refers to what was decoded before it (what is shown before and decoded after may).
//! * Frames are selected by their own time stamps, not by counting from where decoding began.
//! * Frames that a decoder gives before it has all that they refer to (a picture that is refreshed bit by bit) are not taken.
//! * A run in which the first decoded frame is shown later than its keyframe gives no frame at all. Then the program began
//!   somewhere else, and everything is decoded from the beginning instead.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};

use tempfile::NamedTempFile;

use super::VideoInfo;
use crate::ffmpeg::{Medium, Output, Process, Terms, system};
use crate::{Image, Interest, Limits, MediaError};

const DAMAGED: MediaError = MediaError::Damaged { format: "video" };
/// Codecs of which every packet is one frame, if that is no pair of fields.
const FRAME_PER_PACKET: [&str; 7] = ["h264", "hevc", "vp9", "av1", "mjpeg", "prores", "png"];
/// Containers that seek exactly to the keyframes of their index, by the names that ffprobe gives them.
const INDEXED: [&str; 2] = ["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"];
/// Of a clip that does not tell.
const FPS_UNKNOWN: f64 = 24.0;
/// What could be decoded in the time that another start of the program takes, in pixels (measured: docs/performance.md).
const PIXELS_PER_START: usize = 50_000_000;

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
    info: VideoInfo,
    /// Width times height.
    pixels: usize,
    timeline: Option<Timeline>,
}

/// When frames are shown, and at which of them decoding may begin.
#[derive(Debug, Default, PartialEq)]
struct Timeline {
    /// Seconds that a time stamp counts.
    unit: f64,
    /// Time stamps in the order in which frames are shown.
    stamps: Vec<i64>,
    /// Places of keyframes among them, ascending; the first is 0.
    keys: Vec<usize>,
}

/// What ffprobe is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Every packet, which takes reading the file.
    Packets,
    /// The number of frames, which takes decoding it.
    Frames,
}

/// What ffprobe says of the first video stream.
#[derive(Debug, Default)]
struct Report {
    /// Time stamp and flags of each packet that is shown, in the order of the file.
    packets: Vec<(Option<i64>, bool)>,
    fields: Vec<(String, String)>,
}

/// One start of the program.
#[derive(Debug, PartialEq)]
struct Run {
    /// Numbers of the frames that are taken, ascending.
    wanted: Vec<usize>,
    from: From,
}

/// Where a run begins, and what frames are selected by.
#[derive(Debug, PartialEq)]
enum From {
    /// At the beginning, by their numbers.
    Beginning,
    /// At the keyframe with this number, by their time stamps.
    Key(usize),
}

impl Container {
    pub fn open(bytes: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let mut file = tempfile::Builder::new().prefix("clip-").tempfile().map_err(system)?;
        file.write_all(bytes).and_then(|()| file.flush()).map_err(system)?;
        let terms = Terms::new(Medium::Video, limits, &Interest::default());
        let report = Report::of(&file, Question::Packets, &terms)?;
        let side = |name: &str| report.number(name).unwrap_or(0);
        limits.check_size(side("width"), side("height"), limits.frame_pixels_max)?;
        let fps = ["avg_frame_rate", "r_frame_rate"].into_iter().find_map(|name| report.field(name).and_then(ratio));
        let (frames, timeline) = match report.has_frame_per_packet() {
            true => (report.packets.len(), report.timeline()),
            false => {
                let counted = Report::of(&file, Question::Frames, &terms)?;
                (counted.number("nb_read_frames").ok_or(DAMAGED)?, None)
            }
        };
        Ok(Self {
            file,
            info: VideoInfo { frames, fps: fps.unwrap_or(FPS_UNKNOWN) },
            pixels: side("width") * side("height"),
            timeline,
        })
    }

    pub fn info(&self) -> VideoInfo {
        self.info
    }

    /// The frames at `indices`, ascending.
    pub fn frames(&self, indices: &[usize], limits: &Limits, interest: &Interest) -> Result<Reading<'_>, MediaError> {
        let runs = self.runs(indices);
        let walked: usize = runs.iter().map(Run::frames).sum();
        let allowed = limits.frames_walked_max;
        if walked > allowed {
            let found = format!("{walked} frames");
            return Err(MediaError::TooLarge { what: "the video's part to decode", found, allowed: format!("{allowed} frames") });
        }
        let terms = Terms::new(Medium::Video, limits, interest);
        Ok(Reading { container: self, runs: runs.into(), running: None, terms })
    }

    /// Starts of the program: a new one wherever the next keyframe is so far ahead that a start takes less time than decoding all
    /// that lies between.
    fn runs(&self, indices: &[usize]) -> Vec<Run> {
        let Some(Timeline { keys, .. }) = &self.timeline else { return vec![Run::whole(indices.to_vec())] };
        let mut runs: Vec<Run> = Vec::new();
        for &index in indices {
            let key = keys[keys.partition_point(|key| *key <= index).saturating_sub(1)];
            let decoded = runs.last().and_then(|run| run.wanted.last()).map_or(0, |last| last + 1);
            let is_near = key.saturating_sub(decoded).saturating_mul(self.pixels) < PIXELS_PER_START;
            match runs.last_mut() {
                Some(run) if is_near => run.wanted.push(index),
                None if is_near => runs.push(Run { wanted: vec![index], from: From::Key(0) }),
                _ => runs.push(Run { wanted: vec![index], from: From::Key(key) }),
            }
        }
        runs
    }

    fn start(&self, run: &Run, terms: &Terms) -> Result<(Process, BufReader<Output>), MediaError> {
        let (seek, select) = match (&run.from, &self.timeline) {
            (From::Key(key), Some(Timeline { unit, stamps, .. })) => {
                let key = stamps[*key];
                let seek = (key != stamps[0]).then(|| format!("{:.6}", key as f64 * unit));
                let wanted = any(&run.wanted, &|i| format!("eq(pts,{})", stamps[i]));
                (seek, format!("lte(start_pts,{key})*{wanted}"))
            }
            _ => (None, any(&run.wanted, &|i| format!("eq(n,{i})"))),
        };
        let mut before = vec!["-nostdin", "-threads", "2", "-copyts", "-flags", "-output_corrupt"];
        if let Some(seconds) = &seek {
            // An absolute time, and everything from the keyframe on: what is taken, the filter says.
            before.extend(["-seek_timestamp", "1", "-noaccurate_seek", "-ss", seconds]);
        }
        // Frames get times of a clip without gaps, so that none is repeated to fill one. (There is an option for that, but its
        // name changed between versions of the program.)
        let filter = format!("select='{select}',settb=1/25,setpts=N");
        let count = run.wanted.len().to_string();
        let after = ["-map", "0:V:0", "-an", "-sn", "-dn", "-vf", &filter, "-r", "25", "-frames:v", &count];
        let after = [&after[..], &["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]].concat();
        Process::start("ffmpeg", self.file.path(), [&before, &after], terms)
    }
}

impl Run {
    fn whole(wanted: Vec<usize>) -> Self {
        Self { wanted, from: From::Beginning }
    }

    /// How many frames are decoded.
    fn frames(&self) -> usize {
        let first = match self.from {
            From::Beginning => 0,
            From::Key(key) => key,
        };
        self.wanted.last().map_or(0, |last| last + 1 - first)
    }
}

/// An expression that is not 0 where it is for one of the frames. As a balanced tree: the program takes no expression that is a hundred
/// terms deep, and the sum of a hundred in a row would be.
fn any(wanted: &[usize], is: &impl Fn(usize) -> String) -> String {
    match wanted {
        [] => "0".into(),
        [one] => is(*one),
        _ => {
            let (first, second) = wanted.split_at(wanted.len() / 2);
            format!("({}+{})", any(first, is), any(second, is))
        }
    }
}

/// Frames on their way, over a pipe, as PPM: each says its size.
pub struct Reading<'a> {
    container: &'a Container,
    runs: VecDeque<Run>,
    /// The first of them, and how many frames it has given.
    running: Option<(Process, BufReader<Output>, usize)>,
    terms: Terms,
}

impl Iterator for Reading<'_> {
    type Item = Result<Image, MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.read().transpose();
        if !matches!(frame, Some(Ok(_))) {
            self.runs.clear();
            self.running = None;
        }
        frame
    }
}

impl Reading<'_> {
    fn read(&mut self) -> Result<Option<Image>, MediaError> {
        while let Some(run) = self.runs.front() {
            let (_, output, given) = match &mut self.running {
                Some(running) => running,
                none => {
                    let (process, output) = self.container.start(run, &self.terms)?;
                    none.insert((process, output, 0))
                }
            };
            let frame = read_ppm(output, &self.terms)?;
            *given += 1;
            let (all, first) = (*given == run.wanted.len(), *given == 1);
            match frame {
                Some(frame) => {
                    if all {
                        self.runs.pop_front();
                        self.running = None;
                    }
                    return Ok(Some(frame));
                }
                None if first && run.from != From::Beginning => {
                    let rest = self.runs.drain(..).flat_map(|run| run.wanted).collect();
                    self.runs.push_back(Run::whole(rest));
                    self.running = None;
                }
                None => return Err(DAMAGED),
            }
        }
        Ok(None)
    }
}

impl Report {
    /// Runs ffprobe, which prints a line per packet (if asked to) and one for the stream and the file each.
    fn of(file: &NamedTempFile, question: Question, terms: &Terms) -> Result<Self, MediaError> {
        let entries: &[&str] = match question {
            Question::Packets => &[
                "-show_entries",
                "packet=pts,flags:stream=codec_name,field_order,time_base,avg_frame_rate,r_frame_rate,width,height:format=format_name",
            ],
            Question::Frames => &["-count_frames", "-show_entries", "stream=nb_read_frames"],
        };
        let before = [&["-select_streams", "V:0", "-of", "compact"], entries].concat();
        let (_process, mut output) = Process::start("ffprobe", file.path(), [&before, &[]], terms)?;
        let mut report = Self::default();
        let mut line = String::new();
        loop {
            line.clear();
            let read = output.by_ref().take(4096).read_line(&mut line).map_err(|e| terms.failed(e))?;
            if read == 0 {
                return Ok(report);
            }
            report.add(&line);
            let allowed = terms.limits.frames_max;
            if report.packets.len() > allowed {
                let (found, allowed) = (format!("over {allowed} frames"), format!("{allowed} frames"));
                return Err(MediaError::TooLarge { what: "the video", found, allowed });
            }
        }
    }

    /// "packet|pts=512|flags=K_" or "stream|codec_name=h264|…"
    fn add(&mut self, line: &str) {
        let mut parts = line.trim_end().split('|');
        let is_packet = parts.next() == Some("packet");
        let fields: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        if !is_packet {
            self.fields.extend(fields.into_iter().map(|(name, value)| (name.to_string(), value.to_string())));
            return;
        }
        let field = |name: &str| fields.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value);
        let flags = field("flags");
        // Decoded but not shown.
        if !flags.contains('D') {
            self.packets.push((field("pts").parse().ok(), flags.contains('K')));
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.field(name)?.parse().ok()
    }

    /// Whether packets can be counted instead of frames: every one is a whole frame, and decoding can begin at the first.
    fn has_frame_per_packet(&self) -> bool {
        let codec = self.field("codec_name").is_some_and(|codec| FRAME_PER_PACKET.contains(&codec));
        let fields = !matches!(self.field("field_order"), None | Some("progressive" | "unknown"));
        let first = self.packets.first().is_some_and(|(stamp, key)| {
            let is_shown_first = self.packets.iter().all(|(other, _)| other.is_none() || other >= stamp);
            *key && is_shown_first
        });
        codec && !fields && first
    }

    /// When frames are shown, where every one of them says so and the container can be relied on to find them.
    fn timeline(&self) -> Option<Timeline> {
        let unit = self.field("time_base").and_then(ratio)?;
        if !self.field("format_name").is_some_and(|name| INDEXED.contains(&name)) {
            return None;
        }
        let mut frames: Vec<(i64, bool)> = self.packets.iter().map(|&(stamp, key)| Some((stamp?, key))).collect::<Option<_>>()?;
        frames.sort_unstable();
        let distinct = frames.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let keys = frames.iter().enumerate().filter(|(_, (_, key))| *key).map(|(i, _)| i).collect();
        let stamps = frames.into_iter().map(|(stamp, _)| stamp).collect();
        distinct.then_some(Timeline { unit, stamps, keys })
    }
}

/// One binary PPM (`P6 width height 255`), or nothing at the end of the stream.
fn read_ppm(from: &mut impl BufRead, terms: &Terms) -> Result<Option<Image>, MediaError> {
    let mut header = Vec::new();
    for _ in 0..3 {
        let mut line = Vec::new();
        from.by_ref().take(64).read_until(b'\n', &mut line).map_err(|e| terms.failed(e))?;
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
    terms.limits.check_size(width, height, terms.limits.frame_pixels_max)?;
    let mut rgb = vec![0; width * height * 3];
    from.read_exact(&mut rgb).map_err(|e| terms.failed(e))?;
    Ok(Image::new(width, height, rgb))
}

fn ratio(text: &str) -> Option<f64> {
    let (over, under) = text.split_once('/')?;
    let value = over.parse::<f64>().ok()? / under.parse::<f64>().ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(container: &Container, indices: &[usize]) -> Vec<Image> {
        let frames = container.frames(indices, &Limits::default(), &Interest::default()).unwrap();
        frames.map(|frame| frame.unwrap()).collect()
    }

    #[test]
    fn frames_from_keyframes_on_are_those_from_the_beginning_on() {
        let every_12 = Some(vec![0, 12, 24, 36, 48]);
        let cases = [
            ("keys_h264.mp4", 60, every_12.clone()),
            ("keys_hevc_open.mp4", 60, every_12.clone()),
            ("keys_vp9.webm", 60, every_12),
            ("keys_h264_refresh.mkv", 60, Some(vec![0, 12, 24, 39, 51])),
            ("many_h264.mp4", 150, Some(vec![0])),
            ("cut_h264.mp4", 45, None),
            ("hidden_vp8.webm", 60, None),
        ];
        for (name, count, keys) in cases {
            let bytes = std::fs::read(fixtures::root().join("media").join(name)).unwrap();
            let mut container = match Container::open(&bytes, &Limits::default()) {
                Err(MediaError::NoFfmpeg { .. }) => {
                    println!("SKIPPED {name}: the ffmpeg program is missing");
                    continue;
                }
                container => container.unwrap(),
            };
            assert_eq!(container.info, VideoInfo { frames: count, fps: 15.0 }, "{name}");
            let timeline = container.timeline.take();
            assert_eq!(timeline.as_ref().map(|timeline| timeline.keys.clone()), keys, "{name}");
            let whole = frames(&container, &(0..count).collect::<Vec<_>>());
            // As if the frames were so large that every start is worth it.
            (container.timeline, container.pixels) = (timeline, usize::MAX);
            let indices: Vec<usize> = (5..count).step_by(13).collect();
            assert_eq!(container.runs(&indices).len() > 1, keys.is_some_and(|keys| keys.len() > 1), "{name}");
            let expected: Vec<Image> = indices.iter().map(|&i| whole[i].clone()).collect();
            assert!(frames(&container, &indices) == expected, "{name}");
        }
    }

    #[test]
    fn a_run_begins_anew_where_decoding_all_between_takes_longer() {
        let timeline = Timeline { unit: 0.1, stamps: (0..100).collect(), keys: vec![0, 40, 80] };
        let file = NamedTempFile::new().unwrap();
        let info = VideoInfo { frames: 100, fps: 10.0 };
        let mut container = Container { file, info, pixels: 0, timeline: Some(timeline) };
        let key = |key, wanted: &[usize]| Run { wanted: wanted.to_vec(), from: From::Key(key) };
        let cases: [(usize, &[usize], Vec<Run>); 4] = [
            (1, &[3, 50, 90], vec![key(0, &[3, 50, 90])]),
            (PIXELS_PER_START, &[3, 50, 90], vec![key(0, &[3]), key(40, &[50]), key(80, &[90])]),
            (PIXELS_PER_START, &[39, 40, 79, 85], vec![key(0, &[39, 40, 79, 85])]),
            (PIXELS_PER_START / 20, &[41, 55, 80], vec![key(40, &[41, 55]), key(80, &[80])]),
        ];
        for (pixels, indices, expected) in cases {
            container.pixels = pixels;
            assert_eq!(container.runs(indices), expected, "{indices:?} of {pixels} pixels");
        }
    }
}
