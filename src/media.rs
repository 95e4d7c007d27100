//! Fetched media → model input, remembered for later questions.

use std::ops::AddAssign;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ::media::{Interest, Limits, MediaError, Timing, Video, VideoOptions, decode_image};
use engine::Recent;
use models::{Media, ModelError, Processed, Processor};
use nn::MediaKind;

use crate::fetch::Fetched;
use crate::{Error, Fault};

/// Frames per second of a list or folder that does not say when its frames are shown.
const FPS_OF_FRAMES: f64 = 2.0;

/// A fetched item of a request.
pub(crate) struct Raw {
    /// Its place, as error messages name it.
    pub param: String,
    pub kind: MediaKind,
    pub content: Fetched,
    pub options: VideoOptions,
}

/// Where the time went between bytes and model input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for decoded pictures and frames.
    pub decode: Duration,
    /// Resizing, cutting and normalising them.
    pub process: Duration,
    /// Pictures and frames.
    pub pictures: usize,
    /// Items that an earlier request had brought: nothing was spent on them.
    pub remembered: usize,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.decode += other.decode;
        self.process += other.process;
        self.pictures += other.pictures;
        self.remembered += other.remembered;
    }
}

/// Makes media into model input, and keeps what was asked for last. No lock is held while it works: two requests that bring
/// the same item at the same time both process it.
pub(crate) struct MediaCache {
    /// Drawn anew by every process, so that nobody can make two items that share a place.
    secret: [u8; 32],
    processed: Mutex<Recent<Processed>>,
}

impl MediaCache {
    pub fn new(bytes_max: usize) -> Result<Self, Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| Error::Source(format!("the system has no random numbers: {e}")))?;
        Ok(Self { secret, processed: Mutex::new(Recent::new(bytes_max)) })
    }

    /// An item as model input. Found again only by requests with the same salt.
    pub fn process(
        &self,
        processor: &dyn Processor,
        raw: Raw,
        salt: Option<&str>,
        interest: &Interest,
    ) -> Result<(Processed, Spent), Error> {
        let key = self.key(&raw, salt);
        // A lock that a panic has poisoned is a memory that is lost, no more.
        if let Some(found) = self.processed.lock().ok().and_then(|mut processed| processed.get(&key)) {
            return Ok((found, Spent { remembered: 1, ..Spent::default() }));
        }
        let (param, kind) = (raw.param.clone(), raw.kind);
        let (item, spent) = process(processor, raw, interest).map_err(|e| {
            let fault = match e {
                ModelError::Media(MediaError::TooLarge { .. }) => Fault::TooLarge,
                ModelError::Media(MediaError::Option(_)) => Fault::Invalid,
                _ => Fault::Media(kind),
            };
            Error::request(param, fault, e)
        })?;
        if let Ok(mut processed) = self.processed.lock() {
            let bytes = item.input.arrays.values().map(|array| array.data.len() * 4).sum();
            processed.insert(key, item.clone(), bytes);
        }
        Ok((item, spent))
    }

    /// Covers everything that an item's model input depends on, and who may know of it.
    fn key(&self, raw: &Raw, salt: Option<&str>) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_keyed(&self.secret);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        let VideoOptions { fps, max_frames, start, end } = raw.options;
        add(format!("{salt:?} {} {fps:?} {max_frames:?} {start:?} {end:?}", raw.kind).as_bytes());
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
fn process(processor: &dyn Processor, raw: Raw, interest: &Interest) -> Result<(Processed, Spent), ModelError> {
    let limits = Limits::default();
    let began = Instant::now();
    let spent = |decode: Duration, pictures| Spent { decode, process: began.elapsed() - decode, pictures, remembered: 0 };
    let video = match (raw.kind, raw.content) {
        (MediaKind::Video, Fetched::File(bytes)) => Video::open(bytes, &limits)?,
        (_, Fetched::File(bytes)) => {
            let image = decode_image(&bytes, &limits)?;
            let decode = began.elapsed();
            let processed = processor.process(Media::Image(image))?;
            return Ok((processed, spent(decode, 1)));
        }
        (_, Fetched::Frames(files, timestamps)) => {
            let timing = timestamps.map_or(Timing::Fps(raw.options.fps.unwrap_or(FPS_OF_FRAMES)), Timing::At);
            Video::of_pictures(files, timing, &limits)?
        }
    };
    let video = video.with_interest(interest);
    let opened = began.elapsed();
    let clip = video.clip(&raw.options, |part| processor.sample(part, &raw.options))?;
    let frames = clip.times.len();
    let processed = processor.process(Media::Video(clip))?;
    Ok((processed, spent(opened + video.waited(), frames)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_found_by_all_that_it_depends_on() {
        let cache = MediaCache::new(0).unwrap();
        let file = |bytes: &[u8]| Fetched::File(bytes.to_vec());
        let frames = |files: &[&[u8]], at| Fetched::Frames(files.iter().map(|file| file.to_vec()).collect(), at);
        let base = VideoOptions::default();
        let item = |kind, content, options, salt| cache.key(&Raw { param: String::new(), kind, content, options }, salt);
        let keys = [
            item(MediaKind::Image, file(b"ab"), base, None),
            item(MediaKind::Video, file(b"ab"), base, None),
            item(MediaKind::Image, file(b"abc"), base, None),
            item(MediaKind::Image, file(b"ab"), base, Some("")),
            item(MediaKind::Image, file(b"ab"), base, Some("me")),
            item(MediaKind::Video, file(b"ab"), VideoOptions { fps: Some(1.0), ..base }, None),
            item(MediaKind::Video, file(b"ab"), VideoOptions { start: Some(1.0), ..base }, None),
            item(MediaKind::Video, file(b"ab"), VideoOptions { end: Some(1.0), ..base }, None),
            item(MediaKind::Video, file(b"ab"), VideoOptions { max_frames: Some(1), ..base }, None),
            item(MediaKind::Video, frames(&[b"ab"], None), base, None),
            item(MediaKind::Video, frames(&[b"a", b"b"], None), base, None),
            item(MediaKind::Video, frames(&[b"ab", b""], None), base, None),
            item(MediaKind::Video, frames(&[b"ab"], Some(vec![1.0])), base, None),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "key {i} is not the first of its kind");
        }
        assert_eq!(keys[0], item(MediaKind::Image, file(b"ab"), base, None));
        let other = MediaCache::new(0).unwrap();
        let again = Raw { param: String::new(), kind: MediaKind::Image, content: file(b"ab"), options: base };
        assert_ne!(keys[0], other.key(&again, None), "keys are a secret of the process");
    }
}
