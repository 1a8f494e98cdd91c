//! The socket file: made, replaced when stale, removed at the end.
//!
//! A lock file beside it (`broker.socket.lock`) decides between two of our brokers; a broker that knows no lock
//! (Python's) is found by connecting. The file appears under its name only once it listens and has its mode.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use broker_api::unix_path::ShortPath;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// Everybody may connect; what they may do is decided by who they are. (Python's broker leaves 0755, so that only
/// its own user and root can connect; the mode of the directory can still restrict that here.)
const SOCKET_MODE: u32 = 0o666;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody serves it already.
    #[error("another broker is serving {path}; stop it first (systemctl stop ovirt-ha-broker)")]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something that is no socket has its name.
    #[error("{path} exists and is not a socket; remove it, or correct the path")]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}; does the directory exist, and may this user write to it?")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

/// A listening socket with its file. Dropping it removes the file, if it is still ours.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that we made.
    identity: (u64, u64),
    /// Held as long as we serve. The file stays: removing a lock file would let two brokers hold two of them.
    _lock: File,
}

impl BoundSocket {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

/// Makes the socket file and listens, replacing a stale one. Must be called inside a tokio runtime.
pub fn bind(path: &Path) -> Result<BoundSocket, SocketError> {
    let lock = lock(path)?;
    remove_stale(path)?;

    let new = beside(path, &format!(".{}.new", std::process::id()));
    let (listener, identity) = listen(&new).inspect_err(|_| remove_quietly(&new))?;
    if let Err(source) = std::fs::rename(&new, path) {
        remove_quietly(&new);
        return Err(SocketError::Io { action: "put in place", path: path.to_owned(), source });
    }
    Ok(BoundSocket { listener, path: path.to_owned(), identity, _lock: lock })
}

fn lock(path: &Path) -> Result<File, SocketError> {
    let file = beside(path, ".lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(|source| SocketError::Io { action: "open the lock file", path: file.clone(), source })?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(errno) => Err(SocketError::Io { action: "lock", path: file, source: errno.into() }),
    }
}

/// Checks that whatever has the socket's name is a socket that nobody listens on. The new one will replace it.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { action: "look at", path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    // A blocking connect would wait for a live broker whose queue is full.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let short = ShortPath::new(path).map_err(failed)?;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| failed(errno.into()))?;
    let address = SocketAddrUnix::new(short.as_path()).map_err(|errno| failed(errno.into()))?;
    match rustix::net::connect(&probe, &address) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn listen(path: &Path) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let failed = |action| move |source| SocketError::Io { action, path: path.to_owned(), source };
    remove_quietly(path);
    let short = ShortPath::new(path).map_err(failed("create the socket"))?;
    let listener = UnixListener::bind(short.as_path()).map_err(failed("create the socket"))?;
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed("set the mode of"))?;
    let metadata = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
    Ok((listener, (metadata.dev(), metadata.ino())))
}

/// A file of ours may be left from a crash, or not; what matters fails later, with its reason.
fn remove_quietly(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
