use std::path::PathBuf;
use std::str::FromStr;

use nn::Files;

use crate::hub::{Hub, OnProgress};
use crate::{Error, demo};

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The built-in model.
    Demo,
    /// A folder with a checkpoint.
    Folder(PathBuf),
    /// A model on the Hugging Face hub: `organisation/name`.
    Hub(String),
}

impl FromStr for ModelSource {
    type Err = Error;

    /// A folder that exists, or else a hub id.
    fn from_str(text: &str) -> Result<Self, Error> {
        let path = PathBuf::from(text);
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
        match text.split_once('/') {
            Some((organisation, name)) if is_name(organisation) && is_name(name) && !path.exists() => {
                Ok(Self::Hub(text.to_string()))
            }
            _ if path.exists() => {
                Err(Error::Source(format!("{text} is not a folder; a model is a folder with config.json and safetensors")))
            }
            _ => Err(Error::Source(format!("there is no folder {text}, and a hub id looks like organisation/name"))),
        }
    }
}

impl ModelSource {
    /// What clients call the model.
    pub fn id(&self) -> String {
        match self {
            Self::Demo => "demo".into(),
            Self::Folder(path) => {
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
            }
            Self::Hub(id) => id.clone(),
        }
    }

    /// The model's files, downloaded when need be.
    pub(crate) async fn files(&self, hub: &Hub, tell: &OnProgress) -> Result<Files, Error> {
        match self {
            Self::Demo => Ok(demo::files()),
            Self::Folder(path) => Ok(Files::Folder(path.clone())),
            Self::Hub(id) => Ok(Files::Folder(hub.folder(id, tell).await?)),
        }
    }
}
