//! What quantising goes by: a file of llama.cpp's, or a text that the model reads first.

use std::path::{Path, PathBuf};

use models::{Loaded, ModelError};
use nn::{Calibration, Files, Importance, LoadSettings};
use text::{Piece, TextError, Tokenizer};

use crate::Error;
use crate::hub::{OnProgress, Progress, Task};
use crate::load::read_named;

/// Where it is known from what errors of a weight cost, input by input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportanceSource {
    /// An importance matrix of llama.cpp (`.gguf` or `.dat`).
    Matrix(PathBuf),
    /// A text. The model reads all of it before it is quantised, which takes the memory of the model as it is in its files.
    Text(PathBuf),
}

/// Tokens that are read together; each such part is a text of its own to the model.
const CHUNK: usize = 512;

impl ImportanceSource {
    /// Reads the matrix, or lets the model that would be loaded with `settings` read the text.
    pub(crate) fn read(
        &self,
        files: &Files,
        tokenizer: &Tokenizer,
        settings: &LoadSettings,
        tell: &OnProgress,
    ) -> Result<Importance, Error> {
        let path = match self {
            Self::Matrix(path) => return Ok(Importance::read(path).map_err(ModelError::Nn)?),
            Self::Text(path) => path,
        };
        let (begin, tokens) = tokens(path, tokenizer)?;
        let (mut calibration, watched) = Calibration::new(settings);
        let Loaded { model, dtype, context_max, .. } = models::load(files, watched)?;
        let own = CHUNK.min(context_max.unwrap_or(CHUNK)).saturating_sub(begin.len()).max(1);
        let progress = |done| tell(Progress { task: Task::Calibrate, done, total: tokens.len() });
        for (i, chunk) in tokens.chunks(own).enumerate() {
            progress(i * own);
            calibration.read(model.as_ref(), dtype, &[&begin, chunk].concat()).map_err(ModelError::Nn)?;
        }
        progress(tokens.len());
        Ok(calibration.finish(path.display().to_string()).map_err(ModelError::Nn)?)
    }
}

/// What the tokenizer puts in front of every text, and the tokens of this one.
fn tokens(path: &Path, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let (name, text) = read_named(path)?;
    let encode = |text: String| -> Result<Vec<u32>, TextError> { Ok(tokenizer.encode(&[Piece::Text(text)])?.ids) };
    let begin = encode(String::new()).map_err(ModelError::Text)?;
    let mut tokens = encode(tokenizer.guard().protect(&text)).map_err(ModelError::Text)?;
    tokens.drain(..begin.len());
    if tokens.is_empty() {
        return Err(Error::Source(format!("{name}: a calibration file needs some text")));
    }
    Ok((begin, tokens))
}
