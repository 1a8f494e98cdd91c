//! Unix sockets at paths of any length.
//!
//! The kernel takes at most 107 bytes. A longer path (a deep `--root`) is reached through its directory's
//! descriptor under `/proc/self/fd`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// Longest path that fits into a socket address, without the final NUL.
const MAX_PATH: usize = 107;

/// A path that fits into a socket address, and the directory that must stay open while it is used.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl ShortPath {
    /// Shortens `path` if it must. Opens its directory then, which can fail.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= MAX_PATH {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path of a socket must end in a name",
            ));
        };
        let directory = File::open(parent)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    /// The path to bind or connect to, as long as `self` lives.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let short = ShortPath::new(path)?;
    UnixStream::connect(short.as_path()).await
}
