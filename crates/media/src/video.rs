//! Clips: how many frames, how fast, and some of them as pictures, one at a time.

mod animation;
mod container;
mod options;
mod pictures;

use std::cell::Cell;
use std::time::{Duration, Instant};

use animation::Animation;
use container::Container;
pub(crate) use container::is_container;
use pictures::Pictures;

pub use options::VideoOptions;
pub use pictures::Timing;

use crate::{Image, Interest, Limits, MediaError};

/// What a sampling rule needs to know of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoInfo {
    /// Number of frames.
    pub frames: usize,
    /// Average frames per second.
    pub fps: f64,
}

impl VideoInfo {
    /// Length in seconds.
    pub fn duration(&self) -> f64 {
        self.frames as f64 / self.fps
    }
}

/// A clip that was probed but not decoded.
#[derive(Debug)]
pub struct Video {
    info: VideoInfo,
    source: Source,
    limits: Limits,
    interest: Interest,
    waited: Cell<Duration>,
}

#[derive(Debug)]
enum Source {
    /// Decoded here.
    Animation(Animation),
    /// Frames that somebody has chosen already.
    Pictures(Pictures),
    /// Decoded by the ffmpeg program.
    Container(Container),
}

/// Frames as they are decoded.
type Frames<'a> = Box<dyn Iterator<Item = Result<Image, MediaError>> + 'a>;

/// Frames of a clip that are looked at. They are decoded while [`Self::each`] asks for them, so that only what is made of them has
/// to be kept.
pub struct Clip<'a> {
    /// The whole clip that they are taken from.
    pub info: VideoInfo,
    /// When each of them is shown, in seconds from the beginning of the whole clip; ascending, and at least one.
    pub times: Vec<f64>,
    /// How many of them are taken per second.
    pub fps: f64,
    frames: Frames<'a>,
    video: &'a Video,
}

impl Video {
    /// Recognises the container by its first bytes and counts its frames.
    ///
    /// # Errors
    /// [`MediaError::NotAVideo`], what the limits forbid, [`MediaError::NoFfmpeg`] where only that program can help, or damage.
    pub fn open(bytes: Vec<u8>, limits: &Limits) -> Result<Self, MediaError> {
        let (info, source) = if let Some(animation) = Animation::recognise(&bytes)? {
            let animation = Animation::new(animation, bytes);
            (animation.probe(limits)?, Source::Animation(animation))
        } else if container::is_container(&bytes) {
            let container = Container::open(&bytes, limits)?;
            (container.info(), Source::Container(container))
        } else {
            return Err(MediaError::NotAVideo);
        };
        Self::new(info, source, limits)
    }

    /// Pictures (as files) that are the frames of a clip, in order. All of them are looked at, unless options leave some out.
    ///
    /// # Errors
    /// [`MediaError::NoFrames`], or a timing that does not fit.
    pub fn of_pictures(files: Vec<Vec<u8>>, timing: Timing, limits: &Limits) -> Result<Self, MediaError> {
        let pictures = Pictures::new(files, timing)?;
        Self::new(pictures.info(), Source::Pictures(pictures), limits)
    }

    fn new(info: VideoInfo, source: Source, limits: &Limits) -> Result<Self, MediaError> {
        if info.frames == 0 {
            return Err(MediaError::NoFrames);
        }
        Ok(Self { info, source, limits: *limits, interest: Interest::default(), waited: Cell::default() })
    }

    /// Frames and speed.
    pub fn info(&self) -> VideoInfo {
        self.info
    }

    /// The same clip, decoded only as long as there is interest.
    pub fn with_interest(self, interest: &Interest) -> Self {
        Self { interest: interest.clone(), ..self }
    }

    /// Time for which clips of it have waited for decoded frames, so far.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// The frames that are looked at. `rule` chooses among those that the options leave: it is given how many frames they are, and
    /// how fast, and says which ones it takes, ascending. Frames that somebody chose beforehand are all taken, or every so many
    /// where there are more than `max_frames`.
    ///
    /// # Errors
    /// [`MediaError::Option`] for options that do not fit the clip, [`MediaError::TooLarge`] for more frames than are allowed.
    pub fn clip(&self, options: &VideoOptions, rule: impl FnOnce(&VideoInfo) -> Vec<usize>) -> Result<Clip<'_>, MediaError> {
        options.check()?;
        let fps = self.info.fps;
        let (indices, times, part): (Vec<usize>, Vec<f64>, usize) = match &self.source {
            Source::Pictures(pictures) => {
                let part = pictures.part(options)?;
                let indices = pictures::spread(part.clone(), options.max_frames);
                let times = indices.iter().map(|&i| pictures.time(i)).collect();
                (indices, times, part.len())
            }
            _ => {
                let part = options.part(&self.info)?;
                let chosen = rule(&VideoInfo { frames: part.len(), fps });
                let indices: Vec<usize> = chosen.into_iter().map(|i| part.start + i).collect();
                let times = indices.iter().map(|&i| i as f64 / fps).collect();
                (indices, times, part.len())
            }
        };
        let allowed = self.limits.frames_kept_max;
        if indices.len() > allowed {
            let found = format!("{} frames", indices.len());
            return Err(MediaError::TooLarge { what: "the video's sample", found, allowed: format!("{allowed} frames") });
        }
        let fps = fps * indices.len() as f64 / part as f64;
        let frames: Frames = match &self.source {
            Source::Animation(animation) => Box::new(animation.frames(indices, &self.limits)?),
            Source::Pictures(pictures) => Box::new(pictures.frames(indices, &self.limits)),
            Source::Container(container) => Box::new(container.frames(&indices, &self.limits, &self.interest)?),
        };
        Ok(Clip { info: self.info, times, fps, frames, video: self })
    }
}

impl Clip<'_> {
    /// What `make` makes of each frame; all frames have the same size. One frame is held at a time, and all that is made.
    ///
    /// # Errors
    /// Decoding failed, frames differ in size, what is made takes more memory than is allowed, or `make` failed.
    pub fn each<E: From<MediaError>>(self, mut make: impl FnMut(Image) -> Result<Image, E>) -> Result<Vec<Image>, E> {
        let count = self.times.len();
        let mut made = Vec::with_capacity(count);
        let mut first = None;
        let waited = &self.video.waited;
        let mut frames = self.frames;
        while made.len() < count {
            self.video.interest.check()?;
            let began = Instant::now();
            let frame = frames.next().ok_or(MediaError::Damaged { format: "video" })??;
            waited.set(waited.get() + began.elapsed());
            let size = (frame.width(), frame.height());
            let expected = *first.get_or_insert(size);
            if size != expected {
                return Err(MediaError::Unequal { frame: made.len(), size, expected }.into());
            }
            let image = make(frame)?;
            if made.is_empty() {
                check_memory(count, &image, self.video.limits.decoded_bytes_max)?;
            }
            made.push(image);
        }
        Ok(made)
    }
}

/// Refuses as many frames as this one, if they would take too much.
fn check_memory(count: usize, image: &Image, bytes_max: usize) -> Result<(), MediaError> {
    let bytes = image.rgb().len().saturating_mul(count);
    if bytes <= bytes_max {
        return Ok(());
    }
    let found = format!("{} MiB ({count} frames of {}x{} pixels)", bytes >> 20, image.width(), image.height());
    Err(MediaError::TooLarge { what: "the video's sample", found, allowed: format!("{} MiB", bytes_max >> 20) })
}
