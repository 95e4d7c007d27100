use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::NnError;

/// The files of a model as they lie in a Hugging Face repository: a folder, or bytes compiled into the program.
#[derive(Debug, Clone)]
pub enum Files {
    /// A folder (a local checkpoint, or a snapshot in the Hugging Face cache).
    Folder(PathBuf),
    /// File names and contents.
    Embedded {
        /// What to call the model in messages.
        name: &'static str,
        /// (name, bytes)
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl Files {
    /// How messages call a file of the model.
    pub fn label(&self, file: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(file).display().to_string(),
            Self::Embedded { name, .. } => format!("{name}/{file}"),
        }
    }

    /// The folder or name.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Embedded { name, .. } => name.to_string(),
        }
    }

    /// The path of a file; embedded files have none.
    pub fn path(&self, file: &str) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join(file)),
            Self::Embedded { .. } => None,
        }
    }

    /// A file's content, or `None` when the model has no such file.
    ///
    /// # Errors
    /// [`NnError::File`] when it is there but cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>, NnError> {
        match self {
            Self::Folder(folder) => match std::fs::read(folder.join(file)) {
                Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                Err(e) if e.kind() == ErrorKind::NotFound && folder.is_dir() => Ok(None),
                Err(e) => Err(NnError::File { file: self.label(file), reason: reason(&e, folder) }),
            },
            Self::Embedded { files, .. } => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
        }
    }

    /// A file's text, or `None` when the model has no such file.
    ///
    /// # Errors
    /// [`NnError::File`] when it cannot be read or is not UTF-8.
    pub fn text(&self, file: &str) -> Result<Option<String>, NnError> {
        let not_text = |_| NnError::File { file: self.label(file), reason: "it is not UTF-8 text".into() };
        self.read(file)?.map(|bytes| String::from_utf8(bytes.into_owned()).map_err(not_text)).transpose()
    }

    /// A JSON file, or `None` when the model has no such file.
    ///
    /// # Errors
    /// [`NnError::Config`] names the key that is missing or has the wrong type.
    pub fn json<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, NnError> {
        let Some(bytes) = self.read(file)? else { return Ok(None) };
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut json).map(Some).map_err(|e| {
            let at = e.path().to_string();
            let inner = e.into_inner();
            let reason = match inner.classify() {
                Category::Data if at != "." => format!("{at}: {inner}"),
                Category::Data => inner.to_string(),
                _ => format!("not JSON: {inner}"),
            };
            NnError::Config { file: self.label(file), reason }
        })
    }

    /// A JSON file that the model must have.
    ///
    /// # Errors
    /// As [`Files::json`], and [`NnError::File`] when it is missing.
    pub fn required_json<T: DeserializeOwned>(&self, file: &str) -> Result<T, NnError> {
        let missing = || NnError::File { file: self.label(file), reason: "there is no such file".into() };
        self.json(file)?.ok_or_else(missing)
    }
}

fn reason(error: &std::io::Error, folder: &Path) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("there is no folder {}", folder.display()),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::NotADirectory => format!("{} is not a folder", folder.display()),
        _ => error.to_string(),
    }
}
