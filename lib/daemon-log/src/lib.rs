//! Where the daemons' logs go: a file of their own, and standard error (the journal, under systemd).
//!
//! A file that cannot be written is said once and does not keep a daemon from starting.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What was given as the log level is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log-level {given:?}: {source}; known are error, warn, info, debug, trace, and filters such as name=debug"
)]
pub struct LevelError {
    given: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging to `file` and to standard error what `level` lets through. Once for a process.
pub fn start(file: &Path, level: &str) -> Result<(), LevelError> {
    let filter =
        EnvFilter::try_new(level).map_err(|source| LevelError { given: level.to_owned(), source })?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    let opened = std::fs::create_dir_all(directory)
        .and_then(|()| OpenOptions::new().append(true).create(true).open(file));
    let (log, error) = match opened {
        Ok(log) => (Some(log), None),
        Err(error) => (None, Some(error)),
    };
    let layer = |log: File| tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Mutex::new(log));
    tracing_subscriber::registry()
        .with(filter)
        .with(log.map(layer))
        .with(
            tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(std::io::stderr),
        )
        .init();
    if let Some(error) = error {
        tracing::warn!("cannot write {}: {error}; logging to standard error only", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_wrong_level_is_named() {
        let error = super::start(std::path::Path::new("/nowhere/log"), "a=b=c").unwrap_err().to_string();
        assert!(error.contains("a=b=c") && error.contains("known are"), "{error}");
    }
}
