//! Local files, opened so that what was checked is what is read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nn::MediaKind;

use super::{BYTES_MAX, FileAccess, forbidden, too_large};
use crate::Fault;

/// A file, if it may be read.
pub fn read(path: &Path, files: &FileAccess, kind: MediaKind) -> Result<Vec<u8>, (Fault, String)> {
    let unusable = |reason: String| (Fault::Media(kind), reason);
    let cannot = |e: io::Error| unusable(format!("cannot read {}: {e}", path.display()));
    let file = match files {
        FileAccess::None => return Err(forbidden()),
        FileAccess::All => open(path).map_err(cannot)?,
        FileAccess::Below(folders) => folders.iter().find_map(|folder| open_below(folder, path).ok()).ok_or_else(forbidden)?,
    };
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(unusable(format!("{} is not a regular file", path.display())));
    }
    let (mut bytes, most) = (Vec::new(), BYTES_MAX as u64);
    if metadata.len() <= most {
        // It may grow while it is read.
        file.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    }
    match metadata.len().max(bytes.len() as u64) {
        length if length > most => Err((Fault::TooLarge, too_large(BYTES_MAX))),
        _ => Ok(bytes),
    }
}

/// A pipe that nobody writes to would be waited for.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// A file that lies in this folder once symbolic links are resolved. What was resolved has none, and none is followed that comes in
/// between.
fn open_below(folder: &Path, path: &Path) -> io::Result<File> {
    let (folder, path) = (folder.canonicalize()?, path.canonicalize()?);
    let below = path.strip_prefix(&folder).map_err(io::Error::other)?;
    // The folder itself, which is told from what may not be read.
    open_beneath(&folder, if below.as_os_str().is_empty() { Path::new(".") } else { below })
}

#[cfg(target_os = "linux")]
fn open_beneath(folder: &Path, below: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    use rustix::io::Errno;
    let root = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    match openat2(root, below, flags, Mode::empty(), resolve) {
        // A kernel or sandbox without the call.
        Err(Errno::NOSYS | Errno::PERM) => open_as_it_is(&folder.join(below)),
        opened => Ok(opened?.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(folder: &Path, below: &Path) -> io::Result<File> {
    open_as_it_is(&folder.join(below))
}

/// Not through a link that the file has been replaced with.
#[cfg(unix)]
fn open_as_it_is(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open_as_it_is(path: &Path) -> io::Result<File> {
    File::open(path)
}
