//! Hub ids → folders of the standard Hugging Face cache.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hf_hub::api::tokio::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::Error;

/// Where models are downloaded from and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Folder that holds `models--org--name`.
    pub cache: PathBuf,
    /// Address of the hub, when it is not the usual one.
    pub endpoint: Option<String>,
    /// Access token for models that need one.
    pub token: Option<String>,
    /// Use only what is in the cache.
    pub offline: bool,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub task: Task,
    /// Bytes that are done; tokens of a calibration.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// What takes its time before a model is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Task {
    /// Downloading this file.
    Download(String),
    /// Reading the text that quantising goes by.
    Calibrate,
    /// Reading, quantising and packing weights.
    Load,
    /// Quantising weights and writing them to files.
    Quantise,
}

/// Told about every step of the way.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

#[derive(Clone)]
struct Report {
    tell: OnProgress,
    state: Progress,
}

impl hf_hub::api::tokio::Progress for Report {
    async fn init(&mut self, size: usize, filename: &str) {
        self.state = Progress { task: Task::Download(filename.to_string()), done: 0, total: size };
        (self.tell)(self.state.clone());
    }

    async fn update(&mut self, size: usize) {
        self.state.done += size;
        (self.tell)(self.state.clone());
    }

    async fn finish(&mut self) {
        self.state.done = self.state.total;
        (self.tell)(self.state.clone());
    }
}

impl Hub {
    /// The hub as HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE say, with a cache folder that goes before them.
    /// `variable` reads one; `home` is the user's folder.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>, home: PathBuf, cache: Option<PathBuf>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let usual = || set("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("huggingface");
        let home = set("HF_HOME").map_or_else(usual, PathBuf::from);
        let token_file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token_in_file = || std::fs::read_to_string(token_file).ok().map(|token| token.trim().to_string());
        let offline =
            set("HF_HUB_OFFLINE").is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        Self {
            cache: cache.or_else(|| set("HF_HUB_CACHE").map(PathBuf::from)).unwrap_or_else(|| home.join("hub")),
            endpoint: set("HF_ENDPOINT").map(|address| address.trim_end_matches('/').to_string()),
            token: set("HF_TOKEN").or_else(token_in_file).filter(|token| !token.is_empty()),
            offline,
        }
    }

    /// The folder of a model's files, downloading what is not in the cache yet. When the hub cannot be reached, what the
    /// cache holds is used.
    ///
    /// # Errors
    /// The model does not exist, needs a token, or is neither in the cache nor reachable.
    pub async fn folder(&self, id: &str, tell: &OnProgress) -> Result<PathBuf, Error> {
        let repo = Repo::new(id.to_string(), RepoType::Model);
        let cached = Cache::new(self.cache.clone()).repo(repo.clone()).get("config.json");
        let cached = cached.and_then(|file| file.parent().map(PathBuf::from));
        if self.offline {
            let missing =
                || Error::Source(format!("{id} is not in the cache {} and the hub is switched off", self.cache.display()));
            return cached.ok_or_else(missing);
        }
        match (self.download(repo, tell).await, cached) {
            (Ok(folder), _) => Ok(folder),
            (Err(ApiError::RequestError(e)), Some(cached)) if e.is_connect() || e.is_timeout() => Ok(cached),
            (Err(e), _) => Err(Error::Source(self.explain(id, &e))),
        }
    }

    /// Whether the hub answers, within three seconds. It is not asked where it is switched off.
    pub async fn is_reachable(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(3);
        if self.offline {
            return false;
        }
        let Ok(client) = reqwest::Client::builder().timeout(PATIENCE).build() else { return false };
        client.head(self.address()).send().await.is_ok()
    }

    /// Where the hub is.
    pub fn address(&self) -> &str {
        self.endpoint.as_deref().unwrap_or("https://huggingface.co")
    }

    async fn download(&self, repo: Repo, tell: &OnProgress) -> Result<PathBuf, ApiError> {
        let mut builder =
            ApiBuilder::from_cache(Cache::new(self.cache.clone())).with_progress(false).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build()?.repo(repo.clone());
        let info = api.info().await?;
        let folder = Cache::new(self.cache.clone()).repo(repo).pointer_path(&info.sha);
        let names = info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).filter(|name| is_needed(name));
        for name in names {
            if !folder.join(name).exists() {
                self.file(&api, name, tell).await?;
            }
        }
        Ok(folder)
    }

    async fn file(&self, api: &ApiRepo, name: &str, tell: &OnProgress) -> Result<(), ApiError> {
        let state = Progress { task: Task::Download(name.to_string()), done: 0, total: 0 };
        api.download_with_progress(name, Report { tell: tell.clone(), state }).await.map(drop)
    }

    fn explain(&self, id: &str, error: &ApiError) -> String {
        let endpoint = self.address();
        let ApiError::RequestError(request) = error else { return format!("cannot download {id} from {endpoint}: {error}") };
        match request.status().map(|status| status.as_u16()) {
            Some(401 | 403) => format!("{endpoint} does not give out {id} without a token that may read it; set HF_TOKEN"),
            Some(404) => format!("there is no model {id} at {endpoint}, and no folder of that name here"),
            Some(status) => format!("cannot download {id}: {endpoint} answered {status}"),
            None => format!("cannot reach {endpoint} to download {id}, and it is not in the cache {}", self.cache.display()),
        }
    }
}

/// Configuration, tokenizer, templates and safetensors of the top folder, and adapters, which have a folder each; not the other formats
/// that repositories carry along.
fn is_needed(name: &str) -> bool {
    if let Some((folder, file)) = name.split_once('/') {
        return !folder.is_empty() && ["adapter_config.json", "adapter_model.safetensors"].contains(&file);
    }
    let weights = name.starts_with("model") && name.ends_with(".safetensors");
    weights || name.ends_with(".json") || name.ends_with(".jinja")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and values.
    type Variables = &'static [(&'static str, &'static str)];

    #[test]
    fn variables_say_where_the_hub_is() {
        let found = |set: &[(&str, &str)], cache: Option<&str>| {
            let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
            Hub::of_environment(variable, "/home/me".into(), cache.map(PathBuf::from))
        };
        let caches: [(Variables, Option<&str>, &str); 6] = [
            (&[], None, "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/cache")], None, "/cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/cache"), ("HF_HOME", "/hf")], None, "/hf/hub"),
            (&[("HF_HOME", "")], None, "/home/me/.cache/huggingface/hub"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")], None, "/models"),
            (&[("HF_HUB_CACHE", "/models")], Some("/mine"), "/mine"),
        ];
        for (set, cache, expected) in caches {
            assert_eq!(found(set, cache).cache, PathBuf::from(expected), "{set:?}");
        }
        let hub = found(&[("HF_TOKEN", "secret"), ("HF_ENDPOINT", "https://hub.example/"), ("HF_HUB_OFFLINE", "YES")], None);
        assert_eq!(
            (hub.token.as_deref(), hub.endpoint.as_deref(), hub.offline),
            (Some("secret"), Some("https://hub.example"), true)
        );
        assert_eq!((found(&[], None).token, found(&[("HF_HUB_OFFLINE", "0")], None).offline), (None, false));
    }
}
