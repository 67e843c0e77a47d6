//! Why two runs could not be compared.
//!
//! Not responsible for: their differences (`finding`).

use gemel_machine::{EngineError, RunError, SnapshotError, Stop};

/// Trouble on the way; a difference is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the subject, its machine, its disks.
    #[error("{0}")]
    Subject(Box<dyn std::error::Error + Send + Sync>),
    /// A checkpoint could not be gone back to.
    #[error("cannot go back to a checkpoint: {0}")]
    Checkpoint(#[from] SnapshotError),
    /// The engine's host.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Somebody asked for the end.
    #[error("ended before the comparison was finished")]
    Quit,
    /// A file of the bundle.
    #[error("cannot write the evidence to {path}: {source}")]
    Bundle {
        /// The file.
        path: std::path::PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
}

impl Error {
    /// Of a subject's part.
    pub(crate) fn subject(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Subject(e.into())
    }
}

impl From<RunError> for Error {
    fn from(e: RunError) -> Self {
        match e {
            RunError::World(stop) => stop.into(),
            RunError::Engine(e) => Self::Engine(e),
        }
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Quit => Self::Quit,
            Stop::EndOfLog => Self::subject("the log ends before the run does"),
            Stop::Diverged(e) | Stop::Host(e) => Self::Subject(e),
        }
    }
}
