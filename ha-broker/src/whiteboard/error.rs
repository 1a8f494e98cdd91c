//! What can go wrong with the shared metadata file, in words that name the file, the cause and what to do.

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

/// Storage did not do what was asked. Cheap to clone: one failure may answer several callers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// There is no such file.
    #[error(
        "{} does not exist: is the storage domain mounted, and was the host deployed? The broker goes on trying",
        file.display()
    )]
    Missing {
        /// The metadata file.
        file: PathBuf,
    },
    /// It is a directory, a socket, …
    #[error("{} is neither a regular file nor a block device: the metadata file must be one of them", file.display())]
    WrongKind {
        /// The metadata file.
        file: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {operation} {}: {} ({}); {}", file.display(), errno, name_of(*errno), advice(*errno))]
    Os {
        /// The metadata file.
        file: PathBuf,
        /// What was being done: "open", "read block 3 of", …
        operation: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The block lies beyond the end of the file.
    #[error(
        "{} is {len} bytes long and block {block} ends at byte {end}: it was truncated or made too small. \
         It is never extended silently; set-up makes it large enough for every host",
        file.display()
    )]
    TooShort {
        /// The metadata file.
        file: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The block.
        block: u16,
        /// First byte after the block.
        end: u64,
    },
    /// Blocks that were there are beyond the end of the file now.
    #[error(
        "{file} was truncated: it has room for {file_blocks} blocks, and block {block} was there before. \
         The rows that are gone are kept as last seen; restore the file's length on storage"
    )]
    Truncated {
        /// The metadata file.
        file: String,
        /// Whole blocks in it now.
        file_blocks: u64,
        /// The highest block that is gone.
        block: u16,
    },
    /// Storage says that it was written, and gives something else back.
    #[error(
        "block {block} of {file} was written but reads back differently from byte {at} on: the storage loses or \
         caches writes, or another host writes the same block"
    )]
    ReadBack {
        /// The metadata file.
        file: String,
        /// The block.
        block: u16,
        /// First byte that differs, from the start of the block.
        at: usize,
    },
    /// Another host changed the cluster block at the same moment, more than once.
    #[error(
        "another host changed `{key}` in the cluster block of {file} at the same moment: look at the status, and \
         set it again if it is not as you want it"
    )]
    Conflict {
        /// The metadata file.
        file: String,
        /// The line's key.
        key: String,
    },
    /// The storage domain is not connected yet, or not any more. Nothing was tried on the file.
    #[error("{0}")]
    Connecting(Connecting),
    /// A request has not come back within its deadline.
    #[error(
        "storage stuck since {}: to {operation} has not come back after \
         {deadline_ms} ms. The broker resumes by itself when it does; a write that was under way may still happen",
        utc(*since)
    )]
    Stuck {
        /// Wall clock, seconds since 1970, when the request was sent.
        since: i64,
        /// What was being done.
        operation: String,
        /// The deadline that passed, in milliseconds.
        deadline_ms: u64,
    },
}

/// A time for people who may sit anywhere: `2026-11-21 14:03:20 UTC`.
pub(crate) fn utc(secs: i64) -> String {
    let time = jiff::Timestamp::from_second(secs);
    time.map_or_else(|_| format!("{secs} s since 1970"), |time| time.strftime("%F %T UTC").to_string())
}

/// How far the way to storage is, while it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connecting {
    /// Wall clock, seconds since 1970, since when.
    pub since: i64,
    /// What is waited for; stands after "waiting for".
    pub step: String,
    /// Why the last try failed, and what to do.
    pub error: Option<String>,
    /// Wall clock, seconds since 1970, of the next try; `None` while one is under way.
    pub next_try: Option<i64>,
}

impl fmt::Display for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "storage is being connected through VDSM, waiting for {}", self.step)?;
        match &self.error {
            Some(error) => write!(f, "; the last try failed: {error}"),
            None => Ok(()),
        }
    }
}

/// Why a block was not written, or not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// Not ours to write: the lease is not held.
    #[error("{0}")]
    NotHeld(String),
    /// Storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The text for the cluster block is not one.
    #[error("{0}")]
    BadText(String),
    /// The caller was told that it failed before the write began; it must not happen later.
    #[error("given up before it was written")]
    Abandoned,
    /// Too many callers wait for the same block.
    #[error("{waiting} writes already wait for block {block}: the caller must slow down")]
    Busy {
        /// The block.
        block: u16,
        /// How many wait.
        waiting: usize,
    },
    /// The broker is stopping.
    #[error("the broker is stopping; nothing was written")]
    Stopping,
}

/// The errno's symbol, which people search for.
fn name_of(errno: Errno) -> &'static str {
    match errno {
        Errno::IO => "EIO",
        Errno::STALE => "ESTALE",
        Errno::NOENT => "ENOENT",
        Errno::ACCESS => "EACCES",
        Errno::PERM => "EPERM",
        Errno::ROFS => "EROFS",
        Errno::INVAL => "EINVAL",
        Errno::NXIO => "ENXIO",
        Errno::NODEV => "ENODEV",
        Errno::NOTCONN => "ENOTCONN",
        Errno::NOSPC => "ENOSPC",
        Errno::DQUOT => "EDQUOT",
        Errno::TIMEDOUT => "ETIMEDOUT",
        Errno::LOOP => "ELOOP",
        Errno::NOTDIR => "ENOTDIR",
        _ => "see errno(3)",
    }
}

/// What an operator can do about it.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::IO => "the storage or the path to it fails: look at the kernel's log",
        Errno::STALE | Errno::NOTCONN => {
            "the mount went away or was replaced on the server: it is opened anew each time, and remounting helps"
        }
        Errno::ACCESS | Errno::PERM => {
            "the broker's user may not use it: owner and mode should be vdsm:kvm 0660, with no root squash in the way"
        }
        Errno::ROFS => "the storage is mounted read-only: remount it once it is sound",
        Errno::INVAL => "does this file system support O_DIRECT?",
        Errno::NXIO | Errno::NODEV => "the device is gone: check the paths to the storage",
        Errno::NOSPC | Errno::DQUOT => "the storage is full",
        Errno::TIMEDOUT => "the storage server does not answer: check the network to it",
        Errno::LOOP | Errno::NOTDIR => "the link under ha_agent/ is wrong: it should lead to ../images/…",
        _ => "the broker goes on trying",
    }
}
