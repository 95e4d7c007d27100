//! What is in the Hugging Face cache.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::{Error, Hub};

const PREFIX: &str = "models--";

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `organisation/name`.
    pub id: String,
    /// What its files take, those of all revisions together.
    pub bytes: u64,
    /// When a file of it was last written.
    pub written: Option<SystemTime>,
}

impl Hub {
    /// The models in the cache, by name.
    ///
    /// # Errors
    /// The cache cannot be read. One that is not there has none.
    pub fn cached(&self) -> Result<Vec<CachedModel>, Error> {
        let refused = |e: std::io::Error| Error::Source(format!("cannot read {}: {e}", self.cache.display()));
        let entries = match fs::read_dir(&self.cache) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(refused(e)),
        };
        let mut models = Vec::new();
        for entry in entries {
            let entry = entry.map_err(refused)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix(PREFIX).filter(|_| entry.path().is_dir()) else { continue };
            let (bytes, written) = size(&entry.path()).map_err(refused)?;
            models.push(CachedModel { id: id.replacen("--", "/", 1), bytes, written });
        }
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(models)
    }

    /// Deletes a model from the cache, and says what it was.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be deleted.
    pub fn delete(&self, id: &str) -> Result<CachedModel, Error> {
        let found = self.cached()?.into_iter().find(|model| model.id == id);
        let missing = || Error::Source(format!("there is no {id} in the cache {}", self.cache.display()));
        let model = found.ok_or_else(missing)?;
        let folder = self.cache.join(format!("{PREFIX}{}", model.id.replacen('/', "--", 1)));
        fs::remove_dir_all(&folder).map_err(|e| Error::Source(format!("cannot delete {}: {e}", folder.display())))?;
        Ok(model)
    }
}

/// Bytes of the files below a folder, and when one of them was last written. Revisions link to files that they share.
fn size(folder: &Path) -> std::io::Result<(u64, Option<SystemTime>)> {
    let (mut bytes, mut written) = (0, None);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let (more, time) = match metadata.is_dir() {
            true => size(&entry.path())?,
            false if metadata.is_file() => (metadata.len(), metadata.modified().ok()),
            false => (0, None),
        };
        bytes += more;
        written = written.max(time);
    }
    Ok((bytes, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_and_deleted_by_their_ids() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub { cache: folder.path().into(), endpoint: None, token: None, offline: true };
        let put = |path: &str, bytes: usize| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        put("models--org--one--more/blobs/a", 5);
        put("models--org--one--more/snapshots/1/config.json", 2);
        put("models--gpt/blobs/a", 1);
        put("datasets--org--two/blobs/a", 5);
        put("version.txt", 1);
        let list = || hub.cached().unwrap().into_iter().map(|model| (model.id, model.bytes)).collect::<Vec<_>>();
        assert_eq!(list(), [("gpt".to_string(), 1), ("org/one--more".to_string(), 7)]);
        assert_eq!(hub.delete("org/one--more").unwrap().bytes, 7);
        assert_eq!(list(), [("gpt".to_string(), 1)]);
        for id in ["org/two", "../models--gpt", "org/one--more", ""] {
            assert!(hub.delete(id).is_err(), "{id}");
        }
        assert!(folder.path().join("datasets--org--two/blobs/a").exists());
        let nowhere = Hub { cache: folder.path().join("nowhere"), ..hub };
        assert_eq!(nowhere.cached().unwrap(), []);
    }
}
