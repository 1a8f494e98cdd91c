//! Does the storage domain answer? One O_DIRECT read of its first block, which must come back within 10 s.
//!
//! A read of stuck storage cannot be cancelled: it runs in a thread of its own, at most one of them, and no other
//! starts before it is back. The kernel's queue of such reads cannot grow, nothing else waits for it, and when
//! storage answers again the next look is a fresh one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Monotonic};
use rustix::fs::OFlags;
use tokio::sync::oneshot;
use tokio::time;

use super::options::{MonitorError, Options};
use super::probe::{Probe, Reading, python_bool};
use crate::verbs::MonitorOptions;

/// The longest read that counts as good.
pub const MAX_DELAY: Duration = Duration::from_secs(10);

/// One read of the domain; runs in a thread that it may block.
pub type ReadOnce = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A block that an O_DIRECT read may fill: aligned for sectors of 4096 bytes.
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Reads the first 4096 bytes of `path` past all caches. A shorter file is read to its end.
pub fn read_direct(path: &Path) -> io::Result<()> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
    let mut block = Block([0; 4096]);
    file.read_at(&mut block.0, 0).map(drop)
}

struct Pending {
    begun: Monotonic,
    answer: oneshot::Receiver<io::Result<()>>,
}

/// The monitor.
pub struct StorageDomain {
    path: PathBuf,
    read: ReadOnce,
    clock: Arc<dyn Clock>,
    pending: Option<Pending>,
}

impl StorageDomain {
    /// Reads `path`, a file of the domain that the option `sd_uuid` names.
    pub fn from_options(
        given: &MonitorOptions,
        path: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MonitorError> {
        Options::new("storage-domain", given).needed("sd_uuid", "the storage domain's id")?;
        let target = path.clone();
        Ok(Self { path, read: Arc::new(move || read_direct(&target)), clock, pending: None })
    }

    fn begin(&self) -> Result<Pending, String> {
        let (done, answer) = oneshot::channel();
        let read = Arc::clone(&self.read);
        std::thread::Builder::new()
            .name("storage-domain".to_owned())
            .spawn(move || {
                // Nobody waits any more when the monitor was stopped.
                let _ = done.send(read());
            })
            .map_err(|e| format!("cannot start a thread to read {}: {e}", self.path.display()))?;
        Ok(Pending { begun: self.clock.monotonic(), answer })
    }

    /// Waits for a read; puts it back when it does not return in time.
    async fn wait(&mut self, mut read: Pending) -> Option<(Duration, io::Result<()>)> {
        let answer = time::timeout(MAX_DELAY, &mut read.answer).await;
        let delay = self.clock.monotonic().saturating_since(read.begun);
        match answer {
            Ok(answer) => Some((
                delay,
                answer.unwrap_or_else(|_| Err(io::Error::other("the reading thread ended early"))),
            )),
            Err(_) => {
                self.pending = Some(read);
                None
            }
        }
    }

    fn stuck(&self) -> Reading {
        let since = self
            .pending
            .as_ref()
            .map_or(Duration::ZERO, |read| self.clock.monotonic().saturating_since(read.begun));
        let note = format!("a read of {} has not come back for {} s", self.path.display(), since.as_secs());
        Reading::noted(python_bool(false), Some(note))
    }
}

#[async_trait]
impl Probe for StorageDomain {
    async fn measure(&mut self) -> Result<Reading, String> {
        if let Some(read) = self.pending.take()
            && self.wait(read).await.is_none()
        {
            return Ok(self.stuck());
        }
        let read = self.begin()?;
        let Some((delay, answer)) = self.wait(read).await else { return Ok(self.stuck()) };
        let path = self.path.display();
        let note = match answer {
            Ok(()) if delay <= MAX_DELAY => None,
            Ok(()) => Some(format!("a read of {path} took {:.1} s", delay.as_secs_f64())),
            Err(e) => Some(format!("cannot read {path}: {e}; check the mount and the storage behind it")),
        };
        Ok(Reading::noted(python_bool(note.is_none()), note))
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
