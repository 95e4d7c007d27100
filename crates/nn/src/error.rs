use thiserror::Error;

/// Why a checkpoint cannot be loaded, or a step not be computed.
#[derive(Debug, Error)]
pub enum NnError {
    /// A file cannot be read.
    #[error("cannot read {file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// The reason.
        reason: String,
    },
    /// A configuration file does not hold what it should.
    #[error("{file}: {reason}")]
    Config {
        /// Its name.
        file: String,
        /// Key and reason.
        reason: String,
    },
    /// The checkpoint lacks a tensor.
    #[error("{checkpoint} has no tensor {name:?}")]
    Missing {
        /// Folder or file that was searched.
        checkpoint: String,
        /// Full name of the tensor.
        name: String,
    },
    /// A tensor is not shaped as config.json says.
    #[error("{file}: tensor {name:?} is {found:?}; config.json calls for {expected:?}")]
    Shape {
        /// File of the tensor.
        file: String,
        /// Full name of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape expected.
        expected: Vec<usize>,
    },
    /// An importance matrix is not one, or not one of this model.
    #[error("{file}: {reason}")]
    Importance {
        /// The matrix, or the text that it was to be made from.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Only experts were to be quantised.
    #[error("only experts are to be quantised (moqe), but this model has none; without that, all its matrices are quantised")]
    NoExperts,
    /// A quantised checkpoint that cannot be loaded as is wanted.
    #[error("{0}")]
    Blocks(String),
    /// A rule of a [`crate::Topology`] that cannot be followed.
    #[error("topology, {rule}: {reason}")]
    Topology {
        /// As it was written.
        rule: String,
        /// Why not.
        reason: String,
    },
    /// A media input is not what the model's encoder takes.
    #[error("the encoder was given no usable array {0:?}")]
    Input(&'static str),
    /// [`crate::Pause`] said to stop.
    #[error("interrupted")]
    Interrupted,
    /// A tensor operation failed.
    #[error("computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}
