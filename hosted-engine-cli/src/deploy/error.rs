//! Why a deployment stopped.

use std::path::{Path, PathBuf};

use super::tools::ToolError;
use crate::setup::SetupError;

/// Why a deployment stopped. Each text names the thing and its value, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The request cannot be carried out.
    #[error("{0}")]
    Refused(String),
    /// A program could not be run, or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file, volume, lease or configuration.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] ha_config::ConfigError),
    /// The journal is not what was written.
    #[error("{}, line {line}: {why}; the journal is not changed. Keep a copy of it, and repair or remove that line", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl DeployError {
    /// Makes [`DeployError::Io`]; for `map_err`.
    pub fn io<'p>(action: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> Self + use<'p> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
