//! The run directory of one host's engine VM: the names in it, and how its files are read and written.
//!
//! Everything that a restarted agent or broker must know about the VM is here or in the kernel. The directory is
//! the owner's alone. Readers tell "not there" from "cannot be read".

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What to launch; read by the launcher.
pub const LAUNCH: &str = "launch.json";
/// Where the launcher says how it went.
pub const LAUNCH_SOCKET: &str = "launch.sock";
/// Held (flock) by the launcher and then by QEMU for as long as the process lives.
pub const LOCK: &str = "vm.lock";
/// Who the process is.
pub const PROCESS: &str = "process.json";
/// How the last VM ended, once that is known.
pub const EXIT: &str = "exit.json";
/// Held (flock) by whoever starts the VM, while it does.
pub const START_LOCK: &str = "start.lock";
/// How far a migration's hand-over of the lease is.
pub const HANDOVER: &str = "handover.json";
/// Held (flock) by whoever carries a hand-over on, while it does.
pub const HANDOVER_LOCK: &str = "handover.lock";
/// There while the VM is being destroyed: its end is then an orderly one.
pub const DESTROYING: &str = "destroying";
/// QEMU's own record of events.
pub const EVENTS_LOG: &str = "events.log";
/// What the events said that were cut off from the record's beginning.
pub const EVENTS_KEPT: &str = "events-kept.json";
/// The command that turns events on.
pub const EVENTS_INPUT: &str = "events.in";
/// QEMU's standard error.
pub const QEMU_LOG: &str = "qemu.log";
/// The serial console.
pub const SERIAL_SOCKET: &str = "serial.sock";
/// What came out of it, if that is wanted.
pub const SERIAL_LOG: &str = "serial.log";

/// Who speaks QMP. Each has a socket of its own, since QEMU serves one client on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QmpRole {
    /// The broker's engine-health monitor.
    Broker,
    /// The agent.
    Agent,
    /// The operator's command.
    Cli,
}

impl QmpRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Broker, Self::Agent, Self::Cli];

    /// The word in the socket's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Agent => "agent",
            Self::Cli => "cli",
        }
    }

    /// The socket's name in the run directory.
    pub const fn socket(self) -> &'static str {
        match self {
            Self::Broker => "qmp-broker.sock",
            Self::Agent => "qmp-agent.sock",
            Self::Cli => "qmp-cli.sock",
        }
    }
}

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// A run directory at `path`. Nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `name` in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the directory, for its owner only.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Reads a JSON file; `None` when it is not there.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(self.file(name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Replaces a JSON file: readers see the old text or the new one. The directory lives in memory, so nothing is
    /// synced.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let new = self.file(&format!(".{name}.{}.{number}.new", std::process::id()));
        let bytes = serde_json::to_vec_pretty(value)?;
        fs::write(&new, bytes)?;
        fs::rename(&new, self.file(name))
    }

    /// Removes a file; it is no error when it is not there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The last `limit` bytes of a text file, from a line's start; empty when it cannot be read.
    pub fn tail(&self, name: &str, limit: usize) -> String {
        let bytes = fs::read(self.file(name)).unwrap_or_default();
        let start = bytes.len().saturating_sub(limit);
        let text = String::from_utf8_lossy(&bytes[start..]);
        match text.split_once('\n') {
            Some((_, rest)) if start > 0 => rest.to_owned(),
            _ => text.into_owned(),
        }
    }

    /// A path for `name` that fits into a socket address, and the directory to keep open while it is used: the
    /// kernel takes at most 107 bytes, and a run directory may lie deep.
    pub fn socket(&self, name: &str) -> io::Result<(PathBuf, Option<File>)> {
        let path = self.file(name);
        if path.as_os_str().as_bytes().len() <= 107 {
            return Ok((path, None));
        }
        let directory = File::open(&self.0)?;
        Ok((PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name), Some(directory)))
    }
}
