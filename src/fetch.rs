//! URLs → bytes, within limits and within what the caller allows.

mod folder;
mod local;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use nn::MediaKind;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use url::Url;

use crate::chat::MediaSource;
use crate::reach::{OutOfReach, Reach};
use crate::{Error, Fault};

/// Bytes of one media item.
const BYTES_MAX: usize = 64 << 20;
/// Frames of one clip that are given as pictures.
const FRAMES_MAX: usize = 768;
const FRAMES_AT_ONCE: usize = 8;
/// Bytes of all frames of one clip together.
const FRAMES_BYTES_MAX: usize = 256 << 20;
const CONNECT_SECONDS: u64 = 5;
const FETCH_SECONDS: u64 = 30;
const REDIRECTS_MAX: usize = 3;

/// Which local files may be named in requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAccess {
    /// Any file that this process can read.
    All,
    /// What lies in these folders, symbolic links resolved.
    Below(Vec<PathBuf>),
    /// None.
    None,
}

/// What a request points at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fetched {
    /// A file.
    File(Vec<u8>),
    /// The frames of a clip, each a file, and when they are shown, if that was said.
    Frames(Vec<Vec<u8>>, Option<Vec<f64>>),
}

impl Fetched {
    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        match self {
            Self::File(file) => file.len(),
            Self::Frames(files, _) => files.iter().map(Vec::len).sum(),
        }
    }
}

/// What is at a URL.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its content type, as the server calls it.
    pub kind: String,
    pub bytes: Vec<u8>,
}

/// Why nothing was downloaded.
enum Refused {
    /// It is out of reach.
    Forbidden,
    Unusable(String),
}

/// Fetches what requests point at.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    client: reqwest::Client,
    files: FileAccess,
    reach: Reach,
}

/// Where an item stands in a request, for messages.
pub(crate) struct Place<'a> {
    pub param: &'a str,
    pub kind: MediaKind,
}

impl Place<'_> {
    pub fn fault(&self, fault: Fault, reason: impl ToString) -> Error {
        Error::request(self.param, fault, reason)
    }

    fn unusable(&self, reason: impl ToString) -> Error {
        self.fault(Fault::Media(self.kind), reason)
    }
}

impl Fetcher {
    pub fn new(files: FileAccess, reach: Reach) -> Result<Self, Error> {
        let hops = reach.clone();
        let redirect = Policy::custom(move |attempt| match hops.check(attempt.url()) {
            _ if attempt.previous().len() > REDIRECTS_MAX => attempt.error("it redirects too often"),
            Ok(()) => attempt.follow(),
            Err(e) => attempt.error(e),
        });
        let mut client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
            .timeout(Duration::from_secs(FETCH_SECONDS))
            .redirect(redirect)
            .dns_resolver(Arc::new(reach.clone()));
        if reach != Reach::Anywhere {
            // A proxy would resolve names by itself.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| Error::Source(format!("cannot set up HTTP: {e}")))?;
        Ok(Self { client, files, reach })
    }

    /// An item, or the frames of one.
    pub async fn fetch(&self, source: &MediaSource, place: &Place<'_>) -> Result<Fetched, Error> {
        match source {
            MediaSource::Url(text) => match self.local(text, place)? {
                Some(path) => self.read(&path, place).await,
                None => Ok(Fetched::File(self.remote(text.trim(), place).await?)),
            },
            MediaSource::Bytes(bytes) => Ok(Fetched::File(bytes.clone())),
            MediaSource::Frames { .. } if place.kind != MediaKind::Video => {
                Err(place.unusable(format!("a list of pictures is a video, not {} input", place.kind)))
            }
            MediaSource::Frames { frames, .. } if frames.len() > FRAMES_MAX => {
                Err(place.fault(Fault::TooLarge, format!("it has {} frames; at most {FRAMES_MAX} are allowed", frames.len())))
            }
            MediaSource::Frames { frames, timestamps } => {
                Ok(Fetched::Frames(self.frames(frames, place).await?, timestamps.clone()))
            }
        }
    }

    /// Some at a time.
    async fn frames(&self, sources: &[MediaSource], place: &Place<'_>) -> Result<Vec<Vec<u8>>, Error> {
        let mut files = Vec::new();
        let mut bytes = 0;
        for some in sources.chunks(FRAMES_AT_ONCE) {
            let first = files.len();
            let fetch = some.iter().enumerate().map(|(i, source)| self.frame(first + i, source, place));
            for file in try_join_all(fetch).await? {
                bytes += file.len();
                if bytes > FRAMES_BYTES_MAX {
                    return Err(place.fault(Fault::TooLarge, too_large(FRAMES_BYTES_MAX)));
                }
                files.push(file);
            }
        }
        Ok(files)
    }

    async fn frame(&self, index: usize, source: &MediaSource, place: &Place<'_>) -> Result<Vec<u8>, Error> {
        let param = format!("{}, frame {index}", place.param);
        let place = Place { param: &param, kind: place.kind };
        let no_frame = || place.unusable("a frame is a picture");
        match source {
            MediaSource::Url(text) => match self.local(text, &place)? {
                Some(path) => match self.read(&path, &place).await? {
                    Fetched::File(bytes) => Ok(bytes),
                    Fetched::Frames(..) => Err(no_frame()),
                },
                None => self.remote(text.trim(), &place).await,
            },
            MediaSource::Bytes(bytes) => Ok(bytes.clone()),
            MediaSource::Frames { .. } => Err(no_frame()),
        }
    }

    /// The path that a URL means, if it is a local one.
    fn local(&self, text: &str, place: &Place<'_>) -> Result<Option<PathBuf>, Error> {
        match Url::parse(text.trim()) {
            Ok(url) if url.scheme() == "file" => {
                url.to_file_path().map(Some).map_err(|()| place.unusable("a file URL looks like file:///absolute/path"))
            }
            // A single letter is a drive.
            Ok(url) if url.scheme().len() > 1 => Ok(None),
            _ => Ok(Some(text.trim().into())),
        }
    }

    async fn remote(&self, text: &str, place: &Place<'_>) -> Result<Vec<u8>, Error> {
        if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            return data(text, place);
        }
        let url = web_url(text).map_err(|reason| place.unusable(reason))?;
        let page = self.download(url, BYTES_MAX).await.map_err(|refused| match refused {
            Refused::Forbidden => place.fault(Fault::Forbidden, OutOfReach),
            Refused::Unusable(reason) => place.unusable(format!("cannot download it: {reason}")),
        })?;
        if page.bytes.len() > BYTES_MAX {
            return Err(place.fault(Fault::TooLarge, too_large(BYTES_MAX)));
        }
        Ok(page.bytes)
    }

    /// A page of the web, up to so many bytes of it.
    pub async fn page(&self, text: &str, bytes_max: usize) -> Result<Page, String> {
        let mut page = self.download(web_url(text.trim())?, bytes_max).await.map_err(|refused| match refused {
            Refused::Forbidden => OutOfReach.to_string(),
            Refused::Unusable(reason) => reason,
        })?;
        page.bytes.truncate(bytes_max);
        Ok(page)
    }

    async fn read(&self, path: &Path, place: &Place<'_>) -> Result<Fetched, Error> {
        let (path, files, kind) = (path.to_path_buf(), self.files.clone(), place.kind);
        let read = tokio::task::spawn_blocking(move || match kind {
            MediaKind::Video if path.is_dir() => folder::read(&path, &files).map(|frames| Fetched::Frames(frames, None)),
            _ => local::read(&path, &files, kind).map(Fetched::File),
        });
        let read = read.await.map_err(|_| place.unusable("reading the file failed"))?;
        read.map_err(|(fault, reason)| place.fault(fault, reason))
    }

    /// What is at a URL, up to the piece with which it has more than so many bytes.
    async fn download(&self, url: Url, bytes_max: usize) -> Result<Page, Refused> {
        self.reach.check(&url).map_err(|_| Refused::Forbidden)?;
        let failed = |e: reqwest::Error| match OutOfReach::is_in(&e) {
            true => Refused::Forbidden,
            false => Refused::Unusable(innermost(&e.without_url())),
        };
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(Refused::Unusable(format!("the server answered {}", response.status())));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_string();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > bytes_max {
                break;
            }
        }
        Ok(Page { kind, bytes })
    }
}

/// A URL of the web.
fn web_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("this is no URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme {:?} is not supported; use https, http, data or file", url.scheme()));
    }
    // Others read such a URL otherwise than this parser does.
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("a URL has no spaces, control characters or backslashes".into());
    }
    Ok(url)
}

fn too_large(bytes_max: usize) -> String {
    format!("it is larger than {} MiB", bytes_max >> 20)
}

/// The reason at the bottom: what lies above repeats that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The same for all that may not be read, so that nothing is learnt of what is there.
fn forbidden() -> (Fault, String) {
    (Fault::Forbidden, "local files may not be read from here".to_string())
}

/// `data:image/png;base64,…` The declared type is not looked at: the bytes say what they are.
fn data(text: &str, place: &Place<'_>) -> Result<Vec<u8>, Error> {
    let (head, body) = text.split_once(',').ok_or_else(|| place.unusable("a data URL looks like data:image/png;base64,..."))?;
    if !head.ends_with(";base64") {
        return Err(place.unusable("only base64 data URLs are supported (data:image/png;base64,...)"));
    }
    if body.len() / 4 * 3 > BYTES_MAX {
        return Err(place.fault(Fault::TooLarge, too_large(BYTES_MAX)));
    }
    let body: Vec<u8> = body.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|e| place.unusable(format!("the data URL is not base64: {e}")))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn fetch(files: FileAccess, url: &str, kind: MediaKind) -> Result<Fetched, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = Place { param: "messages[0].content[0]", kind };
        runtime.block_on(Fetcher::new(files, Reach::Anywhere).unwrap().fetch(&MediaSource::Url(url.into()), &place))
    }

    #[test]
    fn says_what_is_wrong_with_a_url() {
        let cases = [
            ("data:image/png;base64,@@", "not base64"),
            ("data:image/png,abc", "only base64"),
            ("data:image/png;base64", "looks like data:"),
            ("ftp://example.com/a.png", "scheme \"ftp\" is not supported"),
            ("/nowhere/a.png", "cannot read /nowhere/a.png"),
            ("file:///nowhere/a%20b.png", "cannot read /nowhere/a b.png"),
            ("/", "not a regular file"),
            ("http://example.com\\@127.0.0.1/", "backslashes"),
            ("http://example.com/a b", "no spaces"),
            ("http://127.0.0.1:9/a.png", "cannot download it"),
        ];
        for (url, expected) in cases {
            let message = fetch(FileAccess::All, url, MediaKind::Image).unwrap_err().to_string();
            assert!(message.starts_with("messages[0].content[0]: ") && message.contains(expected), "{url}: {message}");
        }
        let here = fetch(FileAccess::None, "data:image/png;base64,aGk=", MediaKind::Image);
        assert_eq!(here.unwrap(), Fetched::File(b"hi".to_vec()));
    }

    #[test]
    fn r7_files_only_where_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        for side in [&inside, &outside, &folder.path().join("inside")] {
            std::fs::create_dir_all(side.join("deep")).unwrap();
            std::fs::write(side.join("deep/a #1.txt"), "a").unwrap();
        }
        std::fs::File::create(inside.join("large")).unwrap().set_len(8 << 30).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink(outside.join("deep/a #1.txt"), inside.join("link.txt")).unwrap();
            symlink(inside.join("deep/a #1.txt"), inside.join("good.txt")).unwrap();
            symlink("/dev/zero", inside.join("zero")).unwrap();
            symlink(inside.join("nothing"), inside.join("dangling")).unwrap();
            let pipe = std::process::Command::new("mkfifo").arg(inside.join("pipe")).status().unwrap();
            assert!(pipe.success());
        }
        let below = FileAccess::Below(vec![outside.join("missing root"), inside.clone()]);
        let file = "deep/a%20%231.txt";
        let url = |path: &str| format!("file://{}/{path}", folder.path().display());
        let none = [url(&format!("in/{file}")), url("in/missing"), url("in"), "file:///dev/zero".into()];
        for url in none {
            assert_eq!(fault(FileAccess::None, &url), Some((Fault::Forbidden, FORBIDDEN.into())), "{url}");
        }
        let cases = [
            (url(&format!("in/{file}")), None),
            (url("in/good.txt"), None),
            (url(&format!("out/{file}")), Some(Fault::Forbidden)),
            (url(&format!("inside/{file}")), Some(Fault::Forbidden)),
            (url(&format!("in/../out/{file}")), Some(Fault::Forbidden)),
            (url(&format!("in/%2e%2e/out/{file}")), Some(Fault::Forbidden)),
            (url("in/link.txt"), Some(Fault::Forbidden)),
            (url("in/zero"), Some(Fault::Forbidden)),
            (url("in/dangling"), Some(Fault::Forbidden)),
            (url("in/missing"), Some(Fault::Forbidden)),
            ("file:///proc/self/environ".into(), Some(Fault::Forbidden)),
            (url("in"), Some(Fault::Media(MediaKind::Image))),
            (url("in/pipe"), Some(Fault::Media(MediaKind::Image))),
            (url("in/large"), Some(Fault::TooLarge)),
        ];
        let cases = cases.into_iter().filter(|(url, _)| cfg!(unix) || !url.contains("good"));
        for (url, expected) in cases {
            let found = fault(below.clone(), &url);
            assert_eq!(found.as_ref().map(|(fault, _)| *fault), expected, "{url}");
            // Nothing is learnt of what is there.
            assert!(expected != Some(Fault::Forbidden) || found.unwrap().1 == FORBIDDEN, "{url}");
        }
        assert_eq!(fault(FileAccess::All, &url(&format!("out/{file}"))), None);
        assert_eq!(fault(FileAccess::All, &url("in/pipe")).unwrap().0, Fault::Media(MediaKind::Image));
    }

    const FORBIDDEN: &str = "local files may not be read from here";

    fn fault(files: FileAccess, url: &str) -> Option<(Fault, String)> {
        match fetch(files, url, MediaKind::Image) {
            Err(Error::Request { fault, reason, .. }) => Some((fault, reason)),
            other => other.map(|_| ()).err().map(|e| panic!("{url}: {e}")),
        }
    }

    /// A server that answers every request with this, and counts them.
    fn origin(answer: String) -> (u16, Arc<AtomicUsize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, hits) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counted = hits.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (port, hits)
    }

    #[test]
    fn r1_r2_only_what_is_within_reach_is_asked() {
        let (inner, inner_hits) = origin("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".into());
        let redirect = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://localhost:{inner}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let (outer, outer_hits) = origin(redirect);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fetch = |and: &[String], url: String| {
            let fetcher = Fetcher::new(FileAccess::None, Reach::Public { and: and.to_vec() }).unwrap();
            let place = Place { param: "here", kind: MediaKind::Image };
            runtime.block_on(fetcher.fetch(&MediaSource::Url(url), &place))
        };
        let is_forbidden = |result| matches!(result, Err(Error::Request { fault: Fault::Forbidden, .. }));
        let (first, second) = (format!("127.0.0.1:{outer}"), format!("localhost:{inner}"));
        assert!(is_forbidden(fetch(&[], format!("http://{first}/a.png"))));
        assert!(is_forbidden(fetch(&[], format!("http://{second}/a.png"))));
        assert!(is_forbidden(fetch(&["localhost:1".into()], format!("http://{second}/a.png"))));
        assert_eq!((outer_hits.load(Ordering::SeqCst), inner_hits.load(Ordering::SeqCst)), (0, 0), "no connection is made");
        assert!(
            is_forbidden(fetch(std::slice::from_ref(&first), format!("http://{first}/a.png"))),
            "where it redirects to counts"
        );
        assert_eq!((outer_hits.load(Ordering::SeqCst), inner_hits.load(Ordering::SeqCst)), (1, 0));
        let both = fetch(&[first.clone(), second], format!("http://{first}/a.png"));
        assert_eq!(both.unwrap(), Fetched::File(b"hi".to_vec()));
    }

    #[test]
    fn r6_downloads_that_lie_or_fail_are_refused() {
        let cases = [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "the server answered 404"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhi", "cannot download it"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n", "cannot download it"),
            ("nonsense\r\n\r\n", "cannot download it"),
        ];
        for (answer, expected) in cases {
            let (port, _) = origin(answer.into());
            let message =
                fetch(FileAccess::None, &format!("http://127.0.0.1:{port}/a.png"), MediaKind::Image).unwrap_err().to_string();
            assert!(message.contains(expected), "{answer:?}: {message}");
        }
    }
}
