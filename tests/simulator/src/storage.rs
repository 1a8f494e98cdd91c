//! Shared storage as each host sees it: one metadata file and the lock manager's areas behind a path of its own for
//! each host, with the faults that real paths and real disks have.
//!
//! A request takes as long as the path says and acts on storage at its end: one that was sent before a stall lands
//! when the stall ends, whoever owns the block by then. That is the unkind order, and a real one.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use ha_broker::whiteboard::{
    Block, BlockRange, Identity, Permit, PutError, Reading, StorageError, Whiteboard, zero_block,
};
use metadata_format::{BLOCK_SIZE, CRITICAL_SIZE};
use rand::Rng;
use rustix::io::Errno;

use crate::world::{HostRef, State};

/// Blocks of the file: as set-up makes it.
const FILE_BLOCKS: u64 = 2001;
/// Versions of a block that are kept for stale reads.
const VERSIONS: usize = 8;

/// How long one request takes on a path, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// At least.
    pub least: u64,
    /// At most, most of the time.
    pub usual: u64,
    /// At most, once in a hundred.
    pub worst: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { least: 400, usual: 4_000, worst: 60_000 }
    }
}

/// One host's path to storage.
#[derive(Debug, Clone, Default)]
pub struct Path {
    /// How long requests take.
    pub latency: Latency,
    /// Added to each request.
    pub delay: Duration,
    /// The delay holds for the next request only.
    pub delay_once: bool,
    /// Grows each time that the path is mended: requests that are delayed are answered then.
    pub mended: u64,
    /// Requests hang until this ends.
    pub stalled: bool,
    /// Requests fail.
    pub errno: Option<Errno>,
    /// Writes fail.
    pub write_errno: Option<Errno>,
    /// Other hosts' blocks are seen as they were so long ago.
    pub stale: Option<Duration>,
    /// The next write of a block is cut after its first sector, and fails.
    pub tear_next: bool,
    /// The next write of a block lands in this one.
    pub misdirect_next: Option<u16>,
}

impl Path {
    /// Whether requests are answered well.
    pub fn is_good(&self) -> bool {
        !self.stalled && self.errno.is_none() && self.write_errno.is_none()
    }
}

/// The metadata file.
#[derive(Debug, Default)]
pub struct Disk {
    blocks: BTreeMap<u16, Cell>,
    /// Blocks that cannot be read.
    pub unreadable: std::collections::BTreeSet<u16>,
    /// Blocks that are rubbish again after each write.
    pub rotten: std::collections::BTreeSet<u16>,
}

#[derive(Debug)]
struct Cell {
    bytes: Box<Block>,
    /// Older contents with the moment at which each ended; the newest last.
    before: Vec<(Duration, Box<Block>)>,
}

impl Disk {
    /// The bytes of a block now; `None` when it was never written.
    pub fn block(&self, number: u16) -> Option<&Block> {
        self.blocks.get(&number).map(|cell| &*cell.bytes)
    }

    /// Puts bytes there.
    pub fn put(&mut self, now: Duration, number: u16, bytes: Box<Block>) {
        match self.blocks.get_mut(&number) {
            Some(cell) => {
                let old = std::mem::replace(&mut cell.bytes, bytes);
                if cell.before.len() == VERSIONS {
                    cell.before.remove(0);
                }
                cell.before.push((now, old));
            }
            None => {
                self.blocks.insert(number, Cell { bytes, before: Vec::new() });
            }
        }
    }

    /// A block as it was at `then`, as far as that is remembered.
    fn as_of(&self, number: u16, then: Duration) -> Option<&Block> {
        let cell = self.blocks.get(&number)?;
        let old = cell.before.iter().find(|(ended, _)| *ended > then);
        Some(old.map_or(&*cell.bytes, |(_, bytes)| bytes))
    }

    fn present(&self, range: BlockRange) -> impl Iterator<Item = u16> + '_ {
        let end = range.first.saturating_add(range.count);
        self.blocks.range(range.first..end).map(|(number, _)| *number)
    }
}

/// Rubbish for a block, as a never-zeroed volume or a failing disk gives it.
pub fn rubbish(rng: &mut impl Rng) -> Box<Block> {
    let mut block = Box::new(zero_block());
    rng.fill(&mut block[..]);
    block[0] = block[0].max(1);
    block
}

impl HostRef {
    /// One request to shared storage. The caller acts on storage when it comes back well.
    pub async fn io(&self, write: bool) -> Result<(), Errno> {
        let (wait, delay, mended, changed) = {
            let mut state = self.world.state();
            let State { rng, hosts, .. } = &mut *state;
            let host = &mut hosts[self.index()];
            let path = &mut host.path;
            let Latency { least, usual, worst } = path.latency;
            let most = if rng.random_ratio(1, 100) { worst } else { usual };
            let wait = Duration::from_micros(rng.random_range(least..=most.max(least)));
            let delay = path.delay;
            if std::mem::take(&mut path.delay_once) {
                path.delay = Duration::ZERO;
            }
            (wait, delay, path.mended, std::sync::Arc::clone(&host.path_changed))
        };
        tokio::time::sleep(wait).await;
        if !delay.is_zero() {
            let is_mended = || self.world.state().hosts[self.index()].path.mended != mended;
            let back = async {
                while !is_mended() {
                    changed.notified().await;
                }
            };
            // Either way the request is answered now.
            let _ = tokio::time::timeout(delay, back).await;
        }
        loop {
            let mut change = std::pin::pin!(changed.notified());
            change.as_mut().enable();
            {
                let state = self.world.state();
                let path = &state.hosts[self.index()].path;
                if !path.stalled {
                    let errno = path.errno.or(path.write_errno.filter(|_| write));
                    return errno.map_or(Ok(()), Err);
                }
            }
            change.await;
        }
    }
}

/// The broker's port to the file, on one host.
pub struct SimWhiteboard(pub HostRef);

const NAME: &str = "hosted-engine.metadata";

fn os(operation: String, errno: Errno) -> StorageError {
    StorageError::Os { file: NAME.into(), operation, errno }
}

#[async_trait]
impl Whiteboard for SimWhiteboard {
    async fn read(&self, ranges: &[BlockRange]) -> Result<Reading, StorageError> {
        self.0.io(false).await.map_err(|errno| os("read".to_owned(), errno))?;
        let now = self.0.world.now();
        let state = self.0.world.state();
        let mut reading = Reading {
            covered: ranges.to_vec(),
            file_blocks: FILE_BLOCKS,
            identity: Identity::default(),
            bytes: ranges.iter().map(|range| u64::from(range.count) * BLOCK_SIZE as u64).sum(),
            ..Reading::default()
        };
        let stale_by = state.hosts[self.0.index()].path.stale;
        for number in ranges.iter().flat_map(|range| state.disk.present(*range)) {
            if state.disk.unreadable.contains(&number) {
                reading.unreadable.push((number, os(format!("read block {number} of"), Errno::IO)));
                continue;
            }
            // A host always sees its own writes.
            let seen = match stale_by.filter(|_| number != self.0.id.get()) {
                Some(age) => state.disk.as_of(number, now.saturating_sub(age)),
                None => state.disk.block(number),
            };
            if let Some(bytes) = seen.filter(|bytes| bytes[0] != 0) {
                reading.present.push((number, Box::new(*bytes)));
            }
        }
        Ok(reading)
    }

    async fn write(&self, block: u16, bytes: &Block, permit: &dyn Permit) -> Result<(), PutError> {
        permit.ask().await?;
        self.0.world.block_sent(self.0.id, block);
        let operation = || format!("write block {block} of");
        self.0.io(true).await.map_err(|errno| os(operation(), errno))?;
        let now = self.0.world.now();
        let mut state = self.0.world.state();
        let path = &mut state.hosts[self.0.index()].path;
        let (torn, target) =
            (std::mem::take(&mut path.tear_next), path.misdirect_next.take().unwrap_or(block));
        let mut landed = Box::new(*bytes);
        if torn && let Some(old) = state.disk.block(block) {
            landed[CRITICAL_SIZE..].copy_from_slice(&old[CRITICAL_SIZE..]);
        }
        if state.disk.rotten.contains(&target) {
            landed = rubbish(&mut state.rng);
        }
        state.disk.put(now, target, landed);
        drop(state);
        self.0.world.block_written(self.0.id, block, target);
        if torn { Err(os(operation(), Errno::IO).into()) } else { Ok(()) }
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }
}
