//! A folder of pictures as the frames of a clip.

use std::path::{Path, PathBuf};

use nn::MediaKind;

use super::{FRAMES_BYTES_MAX, FileAccess, forbidden, local, too_large};
use crate::Fault;

const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];
/// Files of a folder that are looked at.
const FILES_MAX: usize = 36_000;

/// The folder's pictures by their names.
pub fn read(folder: &Path, files: &FileAccess) -> Result<Vec<Vec<u8>>, (Fault, String)> {
    let unusable = |reason: String| (Fault::Media(MediaKind::Video), reason);
    if *files == FileAccess::None {
        return Err(forbidden());
    }
    // Where only some folders may be read, whether this one is there is told by its files.
    let cannot = |e: std::io::Error| match files {
        FileAccess::All => unusable(format!("cannot read {}: {e}", folder.display())),
        _ => forbidden(),
    };
    let mut pictures: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)?.take(FILES_MAX) {
        let path = entry.map_err(cannot)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        if EXTENSIONS.contains(&extension.as_str()) {
            pictures.push(path);
        }
    }
    pictures.sort_by_cached_key(|path| natural(&path.file_name().unwrap_or_default().to_string_lossy()));
    if pictures.is_empty() {
        return Err(match files {
            FileAccess::All => unusable(format!("there are no pictures in the folder {}", folder.display())),
            _ => forbidden(),
        });
    }
    let (mut frames, mut bytes) = (Vec::new(), 0);
    for path in pictures {
        let frame = local::read(&path, files, MediaKind::Video)?;
        bytes += frame.len();
        if bytes > FRAMES_BYTES_MAX {
            return Err((Fault::TooLarge, too_large(FRAMES_BYTES_MAX)));
        }
        frames.push(frame);
    }
    Ok(frames)
}

/// A name such that numbers in it sort as numbers: text and numbers in turn, numbers by their length without zeros first.
fn natural(name: &str) -> (Vec<(String, usize, String)>, String) {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let number = tail[..end].trim_start_matches('0');
        parts.push((text.to_lowercase(), number.len(), number.to_string()));
        rest = &tail[end..];
    }
    (parts, name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let sorted = ["a1.png", "a2.png", "A3.png", "a010.png", "a10b.png", "a11.png", "a99999999999999999999999.png", "b0.png"];
        let mut names = sorted.to_vec();
        names.reverse();
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, sorted);
    }

    #[test]
    fn a_folder_is_read_where_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        for side in [&inside, &outside] {
            std::fs::create_dir(side).unwrap();
        }
        for (name, content) in [("f10.png", "c"), ("f9.png", "b"), ("f2.JPG", "a"), ("notes.txt", "no")] {
            std::fs::write(inside.join(name), content).unwrap();
        }
        let below = FileAccess::Below(vec![inside.clone()]);
        let frames = || Ok(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(read(&inside, &FileAccess::All), frames());
        assert_eq!(read(&inside, &below), frames());
        let fault = |folder: &Path, files: &FileAccess| read(folder, files).unwrap_err().0;
        assert_eq!(fault(&inside, &FileAccess::None), Fault::Forbidden);
        assert_eq!(fault(&outside, &below), Fault::Forbidden);
        assert_eq!(fault(&outside, &FileAccess::All), Fault::Media(MediaKind::Video));
        assert_eq!(fault(&folder.path().join("nowhere"), &below), Fault::Forbidden);
        #[cfg(unix)]
        {
            std::fs::write(outside.join("secret.png"), "secret").unwrap();
            assert_eq!(fault(&outside, &below), Fault::Forbidden);
            std::os::unix::fs::symlink(outside.join("secret.png"), inside.join("f11.png")).unwrap();
            assert_eq!(fault(&inside, &below), Fault::Forbidden);
        }
    }
}
