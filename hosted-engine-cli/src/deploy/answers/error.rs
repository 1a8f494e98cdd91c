//! Why an answer file was not taken.

use std::path::PathBuf;

/// Why an answer file was not taken. No text shows the value of a key that holds a password.
#[derive(Debug, thiserror::Error)]
pub enum AnswersError {
    /// The operating system.
    #[error("cannot read the answer file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It cannot be an answer file.
    #[error("{}: {why}", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A line that means nothing.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it, and what it must be.
        why: String,
    },
    /// A password where others can read it.
    #[error(
        "{}:{line}: {key} is a password, and others can read this file (mode {mode:04o}): chmod 600 {}",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The key.
        key: String,
        /// The file's permissions.
        mode: u32,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] ha_config::ConfigError),
}
