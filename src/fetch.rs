//! URLs → bytes, within limits and within what the caller allows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nn::MediaKind;
use reqwest::redirect::Policy;
use url::Url;

use crate::chat::MediaSource;
use crate::{Error, Fault};

/// Bytes of one media item.
const BYTES_MAX: usize = 64 << 20;
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

/// Fetches what requests point at.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    client: reqwest::Client,
    files: FileAccess,
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
    pub fn new(files: FileAccess) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
            .timeout(Duration::from_secs(FETCH_SECONDS))
            .redirect(Policy::limited(REDIRECTS_MAX))
            .build();
        let client = client.map_err(|e| Error::Source(format!("cannot set up HTTP: {e}")))?;
        Ok(Self { client, files })
    }

    pub async fn fetch(&self, source: &MediaSource, place: &Place<'_>) -> Result<Vec<u8>, Error> {
        let text = match source {
            MediaSource::Bytes(bytes) => return Ok(bytes.clone()),
            MediaSource::Url(text) => text.trim(),
        };
        match Url::parse(text) {
            Ok(url) if url.scheme() == "data" => data(text, place),
            Ok(url) if matches!(url.scheme(), "http" | "https") => self.download(url, place).await,
            Ok(url) if url.scheme() == "file" => match url.to_file_path() {
                Ok(path) => self.read(&path, place).await,
                Err(()) => Err(place.unusable("a file URL looks like file:///absolute/path")),
            },
            Ok(url) if url.scheme().len() > 1 => {
                let reason = format!("the scheme {:?} is not supported; use https, http, data or file", url.scheme());
                Err(place.unusable(reason))
            }
            _ => self.read(Path::new(text), place).await,
        }
    }

    async fn read(&self, path: &Path, place: &Place<'_>) -> Result<Vec<u8>, Error> {
        let (path, files, kind) = (path.to_path_buf(), self.files.clone(), place.kind);
        let read = tokio::task::spawn_blocking(move || read_file(&path, &files, kind));
        let read = read.await.map_err(|_| place.unusable("reading the file failed"))?;
        read.map_err(|(fault, reason)| place.fault(fault, reason))
    }

    async fn download(&self, url: Url, place: &Place<'_>) -> Result<Vec<u8>, Error> {
        let failed = |e: reqwest::Error| place.unusable(format!("cannot download it: {}", innermost(&e.without_url())));
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(place.unusable(format!("cannot download it: the server answered {}", response.status())));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > BYTES_MAX {
                return Err(place.fault(Fault::TooLarge, too_large()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn too_large() -> String {
    format!("it is larger than {} MiB", BYTES_MAX >> 20)
}

/// The reason at the bottom: what lies above repeats that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn read_file(path: &Path, files: &FileAccess, kind: MediaKind) -> Result<Vec<u8>, (Fault, String)> {
    let unusable = |reason: String| (Fault::Media(kind), reason);
    let forbidden = || (Fault::Forbidden, "local files may not be read from here".to_string());
    let path = match files {
        FileAccess::None => return Err(forbidden()),
        FileAccess::All => path.to_path_buf(),
        FileAccess::Below(folders) => {
            let real = path.canonicalize().map_err(|_| forbidden())?;
            let inside = |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
            if folders.iter().any(inside) { real } else { return Err(forbidden()) }
        }
    };
    let cannot = |e: std::io::Error| unusable(format!("cannot read {}: {e}", path.display()));
    let metadata = std::fs::metadata(&path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(unusable(format!("{} is not a regular file", path.display())));
    }
    if metadata.len() > BYTES_MAX as u64 {
        return Err((Fault::TooLarge, too_large()));
    }
    std::fs::read(&path).map_err(cannot)
}

/// `data:image/png;base64,…` The declared type is not looked at: the bytes say what they are.
fn data(text: &str, place: &Place<'_>) -> Result<Vec<u8>, Error> {
    let (head, body) = text.split_once(',').ok_or_else(|| place.unusable("a data URL looks like data:image/png;base64,..."))?;
    if !head.ends_with(";base64") {
        return Err(place.unusable("only base64 data URLs are supported (data:image/png;base64,...)"));
    }
    if body.len() / 4 * 3 > BYTES_MAX {
        return Err(place.fault(Fault::TooLarge, too_large()));
    }
    let body: Vec<u8> = body.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|e| place.unusable(format!("the data URL is not base64: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(files: FileAccess, url: &str) -> Result<Vec<u8>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = Place { param: "messages[0].content[0]", kind: MediaKind::Image };
        runtime.block_on(Fetcher::new(files).unwrap().fetch(&MediaSource::Url(url.into()), &place))
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
            ("http://127.0.0.1:9/a.png", "cannot download it"),
        ];
        for (url, expected) in cases {
            let message = fetch(FileAccess::All, url).unwrap_err().to_string();
            assert!(message.starts_with("messages[0].content[0]: ") && message.contains(expected), "{url}: {message}");
        }
        assert_eq!(fetch(FileAccess::None, "data:image/png;base64,aGk=").unwrap(), b"hi");
    }

    #[test]
    fn files_only_where_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        for side in [&inside, &outside] {
            std::fs::create_dir(side).unwrap();
            std::fs::write(side.join("a.txt"), "a").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(outside.join("a.txt"), inside.join("link.txt")).unwrap();
        let below = FileAccess::Below(vec![inside.clone()]);
        let cases = [
            (FileAccess::All, inside.join("a.txt"), true),
            (FileAccess::None, inside.join("a.txt"), false),
            (below.clone(), inside.join("a.txt"), true),
            (below.clone(), inside.join("../out/a.txt"), false),
            (below.clone(), inside.join("link.txt"), !cfg!(unix)),
            (below, outside.join("missing.txt"), false),
        ];
        for (files, path, allowed) in cases {
            let result = fetch(files.clone(), &format!("file://{}", path.display()));
            assert_eq!(result.is_ok(), allowed, "{files:?} {path:?}");
            let forbidden = matches!(result, Err(Error::Request { fault: Fault::Forbidden, .. }));
            assert_eq!(forbidden, !allowed, "{files:?} {path:?}");
        }
    }
}
