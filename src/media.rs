//! Fetched media → model input, remembered for later questions.

use std::ops::AddAssign;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ::media::{ImageOptions, Interest, Limits, MediaError, OptionError, Timing, Video, decode_audio, decode_image};
use engine::Recent;
use models::{Media, ModelError, Processed, Processor};
use nn::MediaKind;

use crate::chat::Wanted;
use crate::fetch::Fetched;
use crate::{Error, Fault};

/// Frames per second of a list or folder that does not say when its frames are shown.
const FPS_OF_FRAMES: f64 = 2.0;

/// A fetched item of a request.
pub(crate) struct Raw {
    /// Its place, as error messages name it.
    pub param: String,
    pub content: Fetched,
    pub wanted: Wanted,
}

/// Where the time went between bytes and model input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for decoded pictures, sounds and frames.
    pub decode: Duration,
    /// Resizing, cutting and normalising pictures and frames; the spectrograms of sounds.
    pub process: Duration,
    /// Pictures and frames.
    pub pictures: usize,
    /// Length of all sounds.
    pub sound: Duration,
    /// Items that an earlier request had brought: nothing was spent on them.
    pub remembered: usize,
}

/// What became of a media item.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Its place in the request.
    pub param: String,
    /// What it was taken for.
    pub kind: MediaKind,
    /// Bytes before decoding.
    pub bytes: usize,
    /// Tokens that stand for it.
    pub tokens: usize,
    /// How much there was of it.
    pub extent: Extent,
    /// Width and height, in pixels, of each picture, tile or frame that the model looks at.
    pub views: Vec<(usize, usize)>,
    /// What it took.
    pub spent: Spent,
}

/// How much there is of a media item.
#[derive(Debug, Clone, PartialEq)]
pub enum Extent {
    /// A picture, turned as it is meant to be seen.
    Picture {
        /// In pixels.
        width: usize,
        /// In pixels.
        height: usize,
    },
    /// A sound, or the part of it that is wanted.
    Sound {
        /// Its length.
        seconds: f64,
    },
    /// A clip, or the part of it that is wanted.
    Clip {
        /// When the frames are shown that are looked at, in seconds.
        times: Vec<f64>,
    },
}

/// An item as model input, and what it was before.
#[derive(Clone)]
pub(crate) struct Made {
    pub item: Processed,
    pub extent: Extent,
    /// Sizes of the views.
    pub shown: Vec<(usize, usize)>,
}

impl Made {
    fn new(item: Processed, extent: Extent) -> Self {
        let shown = item.views.iter().map(|view| (view.width(), view.height())).collect();
        Self { item, extent, shown }
    }

    fn without_views(&self) -> Self {
        let Processed { input, pieces, .. } = &self.item;
        let item = Processed { input: input.clone(), pieces: pieces.clone(), views: Vec::new() };
        Self { item, extent: self.extent.clone(), shown: self.shown.clone() }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.decode += other.decode;
        self.process += other.process;
        self.pictures += other.pictures;
        self.sound += other.sound;
        self.remembered += other.remembered;
    }
}

/// Makes media into model input, and keeps what was asked for last. No lock is held while it works: two requests that bring
/// the same item at the same time both process it.
pub(crate) struct MediaCache {
    /// Drawn anew by every process, so that nobody can make two items that share a place.
    secret: [u8; 32],
    made: Mutex<Recent<Made>>,
}

impl MediaCache {
    pub fn new(bytes_max: usize) -> Result<Self, Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| Error::Source(format!("the system has no random numbers: {e}")))?;
        Ok(Self { secret, made: Mutex::new(Recent::new(bytes_max)) })
    }

    /// An item as model input. Found again only by requests with the same salt, and without its views then.
    pub fn process(
        &self,
        processor: &dyn Processor,
        raw: Raw,
        salt: Option<&str>,
        interest: &Interest,
    ) -> Result<(Made, Spent), Error> {
        let key = self.key(&raw, salt);
        // A lock that a panic has poisoned is a memory that is lost, no more.
        if let Some(found) = self.made.lock().ok().and_then(|mut made| made.get(&key)) {
            return Ok((found, Spent { remembered: 1, ..Spent::default() }));
        }
        let (param, kind) = (raw.param.clone(), raw.wanted.kind());
        let (made, spent) = process(processor, raw, interest).map_err(|e| {
            let fault = match &e {
                ModelError::Media(e) => Fault::of(e, Fault::Media(kind)),
                _ => Fault::Media(kind),
            };
            Error::request(param, fault, e)
        })?;
        if let Ok(mut all) = self.made.lock() {
            let bytes = made.item.input.arrays.values().map(|array| array.data.len() * 4).sum();
            all.insert(key, made.without_views(), bytes);
        }
        Ok((made, spent))
    }

    /// Covers everything that an item's model input depends on, and who may know of it.
    fn key(&self, raw: &Raw, salt: Option<&str>) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_keyed(&self.secret);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        add(format!("{salt:?} {:?}", raw.wanted).as_bytes());
        match &raw.content {
            Fetched::File(bytes) => add(bytes),
            Fetched::Frames(files, timestamps) => {
                add(format!("{timestamps:?}").as_bytes());
                files.iter().for_each(|file| add(file));
            }
        }
        hash.finalize().into()
    }
}

/// Decodes and processes.
fn process(processor: &dyn Processor, raw: Raw, interest: &Interest) -> Result<(Made, Spent), ModelError> {
    let limits = Limits::default();
    let began = Instant::now();
    let spent = |decode: Duration| Spent { decode, process: began.elapsed() - decode, ..Spent::default() };
    match (raw.wanted, raw.content) {
        (Wanted::Image(options), Fetched::File(bytes)) => {
            let image = decode_image(&bytes, &limits)?;
            let (decode, extent) = (began.elapsed(), Extent::Picture { width: image.width(), height: image.height() });
            let item = processor.process(Media::Image(image, options))?;
            check_tokens(&item, &options)?;
            Ok((Made::new(item, extent), Spent { pictures: 1, ..spent(decode) }))
        }
        (Wanted::Audio(options), Fetched::File(bytes)) => {
            let audio = decode_audio(bytes, &options, &limits, interest)?;
            let (decode, seconds) = (began.elapsed(), audio.seconds());
            let item = processor.process(Media::Audio(audio))?;
            let sound = Duration::from_secs_f64(seconds);
            Ok((Made::new(item, Extent::Sound { seconds }), Spent { sound, ..spent(decode) }))
        }
        (Wanted::Video(options), content) => {
            let video = match content {
                Fetched::File(bytes) => Video::open(bytes, &limits)?,
                Fetched::Frames(files, timestamps) => {
                    let timing = timestamps.map_or(Timing::Fps(options.fps.unwrap_or(FPS_OF_FRAMES)), Timing::At);
                    Video::of_pictures(files, timing, &limits)?
                }
            };
            let video = video.with_interest(interest);
            let opened = began.elapsed();
            let clip = video.clip(&options, |part| processor.sample(part, &options))?;
            let times = clip.times.clone();
            let item = processor.process(Media::Video(clip))?;
            let spent = Spent { pictures: times.len(), ..spent(opened + video.waited()) };
            Ok((Made::new(item, Extent::Clip { times }), spent))
        }
        // Nobody fetches such a thing: a folder or list is asked for as a clip alone.
        (wanted, Fetched::Frames(..)) => Err(ModelError::Unusable(format!("a list of pictures is no {} input", wanted.kind()))),
    }
}

/// Some pictures cannot be shown with so few tokens.
fn check_tokens(item: &Processed, options: &ImageOptions) -> Result<(), ModelError> {
    let tokens = item.tokens();
    match options.max_tokens.filter(|most| tokens > *most) {
        None => Ok(()),
        Some(most) => {
            let reason = format!("is {most}, but no fewer than {tokens} tokens can stand for this picture");
            Err(MediaError::from(OptionError { field: "max_tokens", reason }).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use ::media::{AudioOptions, VideoOptions};

    use super::*;

    /// M13 of docs/reliability.md.
    #[test]
    fn an_item_is_found_by_all_that_it_depends_on() {
        let cache = MediaCache::new(0).unwrap();
        let file = |bytes: &[u8]| Fetched::File(bytes.to_vec());
        let frames = |files: &[&[u8]], at| Fetched::Frames(files.iter().map(|file| file.to_vec()).collect(), at);
        let base = VideoOptions::default();
        let audio = AudioOptions::default();
        let image = ImageOptions::default();
        let item = |wanted, content, salt| cache.key(&Raw { param: String::new(), content, wanted }, salt);
        let clip = |content, options| item(Wanted::Video(options), content, None);
        let keys = [
            item(Wanted::Image(image), file(b"ab"), None),
            item(Wanted::Image(image), file(b"abc"), None),
            item(Wanted::Image(image), file(b"ab"), Some("")),
            item(Wanted::Image(image), file(b"ab"), Some("me")),
            item(Wanted::Image(ImageOptions { max_edge: Some(1), ..image }), file(b"ab"), None),
            item(Wanted::Audio(audio), file(b"ab"), None),
            item(Wanted::Audio(AudioOptions { start: Some(1.0), ..audio }), file(b"ab"), None),
            item(Wanted::Audio(AudioOptions { end: Some(1.0), ..audio }), file(b"ab"), None),
            clip(file(b"ab"), base),
            clip(file(b"ab"), VideoOptions { fps: Some(1.0), ..base }),
            clip(file(b"ab"), VideoOptions { start: Some(1.0), ..base }),
            clip(file(b"ab"), VideoOptions { end: Some(1.0), ..base }),
            clip(file(b"ab"), VideoOptions { max_frames: Some(1), ..base }),
            clip(frames(&[b"ab"], None), base),
            clip(frames(&[b"a", b"b"], None), base),
            clip(frames(&[b"ab", b""], None), base),
            clip(frames(&[b"ab"], Some(vec![1.0])), base),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "key {i} is not the first of its kind");
        }
        assert_eq!(keys[0], item(Wanted::Image(image), file(b"ab"), None));
        let other = MediaCache::new(0).unwrap();
        let again = Raw { param: String::new(), content: file(b"ab"), wanted: Wanted::Image(image) };
        assert_ne!(keys[0], other.key(&again, None), "keys are a secret of the process");
    }
}
