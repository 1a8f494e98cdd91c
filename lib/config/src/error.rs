//! Why a configuration file cannot be used: which file, which line, which value, and what would be right.

use std::path::PathBuf;

/// A configuration file that cannot be read, understood or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `rename` and so on.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A line that is not of the file's form.
    #[error("{}:{line}: {reason} (the line reads {text:?})", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line, or the part of it that is wrong.
        text: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A key's value is not what the key needs.
    #[error("{}:{line}: {key}={value:?} is not usable: it must be {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The key.
        key: String,
        /// Its value as found.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A key that is needed is not there.
    #[error("{}: the key {key} is missing or empty; it must be {expected}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it must be.
        expected: String,
    },
    /// Values that are right one by one and do not fit together.
    #[error("{}: {reason}", path.display())]
    Relation {
        /// The file.
        path: PathBuf,
        /// The values, the rule they break, and what to do.
        reason: String,
    },
}

impl ConfigError {
    /// True when the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Result of this crate.
pub type Result<T, E = ConfigError> = std::result::Result<T, E>;

/// Makes the [`ConfigError::Io`] for `action` on `path`; for `map_err`.
pub(crate) fn io(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> ConfigError {
    let path = path.into();
    move |source| ConfigError::Io { action, path, source }
}
