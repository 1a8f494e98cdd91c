//! Copies of what is about to be overwritten on shared storage.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clock::{Clock, SystemClock};
use ha_config::Paths;

/// No copy could be kept, and so nothing may be overwritten.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The operating system refused.
    #[error("Nothing was changed: cannot {action} in {}: {source}", directory.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The backup directory.
        directory: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A thousand copies of this second are there.
    #[error("Nothing was changed: no free name for a copy in {}", .0.display())]
    NoName(PathBuf),
}

/// Keeps a copy of what is about to be overwritten, readable by its owner only. Gives its path.
pub fn backup(paths: &Paths, name: &str, bytes: &[u8]) -> Result<PathBuf, BackupError> {
    let directory = paths.backup_dir();
    let fail =
        |action, source: std::io::Error| BackupError::Io { action, directory: directory.clone(), source };
    fs::create_dir_all(&directory).map_err(|error| fail("make the directory", error))?;
    // A second copy within the same second gets a name of its own.
    for attempt in 0..1000 {
        let path = directory.join(format!("{name}.{}.{attempt}", SystemClock.wall().0));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match file {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            other => other.map_err(|error| fail("keep a copy", error))?,
        };
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| fail("keep a copy", error))?;
        return Ok(path);
    }
    Err(BackupError::NoName(directory))
}
