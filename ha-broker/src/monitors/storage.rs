//! Does the storage domain answer? One `O_DIRECT` read of its first block, which must come back within 10 s.
//!
//! A read of stuck storage cannot be cancelled: it runs in a thread of its own, at most one of them, and no other
//! starts before it is back. The kernel's queue of such reads cannot grow, nothing else waits for it, and when
//! storage answers again the next look is a fresh one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Monotonic};
use futures_util::future::BoxFuture;
use rustix::fs::OFlags;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};
use tokio::time;

use super::options::{MonitorError, Options};
use super::probe::{Probe, Reading, python_bool};
use crate::spawner::Spawner;
use crate::verbs::MonitorOptions;

/// The longest read that counts as good.
pub const MAX_DELAY: Duration = Duration::from_secs(10);

/// One read of the domain; runs in a thread that it may block.
pub type ReadOnce = Box<dyn Fn() -> BoxFuture<'static, io::Result<()>> + Send + Sync>;

/// A block that an `O_DIRECT` read may fill: aligned for sectors of 4096 bytes.
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Reads the first 4096 bytes of `path` past all caches. A shorter file is read to its end.
pub fn read_direct(path: &Path) -> io::Result<()> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
    let mut block = Block([0; 4096]);
    file.read_at(&mut block.0, 0).map(drop)
}

/// Lets one read at a time through, whoever asks: it outlives monitors that are stopped and started while
/// storage is stuck.
#[derive(Debug, Default)]
pub struct Gate {
    /// Held by the reading thread until its read is back.
    reading: Arc<AsyncMutex<()>>,
    /// When the read that is out, or the last one, began.
    begun: Mutex<Monotonic>,
}

impl Gate {
    fn begun(&self) -> Monotonic {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, now: Monotonic) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// The monitor.
pub struct StorageDomain {
    path: PathBuf,
    read: ReadOnce,
    clock: Arc<dyn Clock>,
    gate: Arc<Gate>,
    spawner: Arc<dyn Spawner>,
}

impl StorageDomain {
    /// Reads `path`, a file of the domain that the option `sd_uuid` names.
    pub fn from_options(
        given: &MonitorOptions,
        path: PathBuf,
        clock: Arc<dyn Clock>,
        gate: Arc<Gate>,
        spawner: Arc<dyn Spawner>,
    ) -> Result<Self, MonitorError> {
        Options::new("storage-domain", given).needed("sd_uuid", "the storage domain's id")?;
        let target = path.clone();
        let read: ReadOnce = Box::new(move || {
            let target = target.clone();
            Box::pin(async move { read_direct(&target) })
        });
        Ok(Self::new(path, read, clock, gate, spawner))
    }

    /// Calls `read` for each look, on a thread that `spawner` gives; `path` is what it reads, for messages.
    pub fn new(
        path: PathBuf,
        read: ReadOnce,
        clock: Arc<dyn Clock>,
        gate: Arc<Gate>,
        spawner: Arc<dyn Spawner>,
    ) -> Self {
        Self { path, read, clock, gate, spawner }
    }

    /// Starts a read in a thread of its own, which keeps the gate shut until the read is back.
    fn begin(&self, reading: OwnedMutexGuard<()>) -> Result<oneshot::Receiver<io::Result<()>>, String> {
        let (done, answer) = oneshot::channel();
        let read = (self.read)();
        self.gate.begin(self.clock.monotonic());
        let work = async move {
            let result = read.await;
            drop(reading);
            // Nobody waits any more when the monitor was stopped.
            let _ = done.send(result);
        };
        self.spawner
            .thread("storage-domain", Box::pin(work))
            .map_err(|e| format!("cannot start a thread to read {}: {e}", self.path.display()))?;
        Ok(answer)
    }

    fn since_begin(&self) -> Duration {
        self.clock.monotonic().saturating_since(self.gate.begun())
    }

    fn stuck(&self) -> Reading {
        let since = self.since_begin().as_secs();
        let note = format!("a read of {} has not come back for {since} s", self.path.display());
        Reading::noted(python_bool(false), Some(note))
    }
}

#[async_trait]
impl Probe for StorageDomain {
    async fn measure(&mut self) -> Result<Reading, String> {
        let gate = Arc::clone(&self.gate.reading);
        let Ok(reading) = time::timeout(MAX_DELAY, gate.lock_owned()).await else { return Ok(self.stuck()) };
        let answer = self.begin(reading)?;
        let Ok(answer) = time::timeout(MAX_DELAY, answer).await else { return Ok(self.stuck()) };
        let answer = answer.unwrap_or_else(|_| Err(io::Error::other("the reading thread ended early")));
        let delay = self.since_begin();
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
