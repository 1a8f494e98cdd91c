//! The simulated adapter: a metadata file in memory with the faults of real storage, switched at run time.
//!
//! It models what [`super::direct_io`] promises and how storage breaks it: failing calls, calls that hang, writes
//! that are lost after they were acknowledged, and a write that is cut after its first sector. No I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use metadata_format::{BLOCK_SIZE, CRITICAL_SIZE};
use rustix::io::Errno;
use tokio::sync::watch;

use super::error::{PutError, StorageError};
use super::{Block, BlockRange, Identity, Permit, Reading, Whiteboard, zero_block};

/// What storage does with the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Works.
    #[default]
    None,
    /// Fails at once.
    Fail(Errno),
    /// Hangs until the fault changes, then does what the new one says.
    Hang,
    /// Takes writes, and forgets them.
    LoseWrites,
    /// Writes only what lies outside the first sector, then fails.
    TornWrites,
}

/// The adapter.
#[derive(Debug)]
pub struct MemoryWhiteboard {
    state: Mutex<State>,
    /// What calls do; the receivers are the calls that hang.
    reads: watch::Sender<Fault>,
    writes: watch::Sender<Fault>,
}

#[derive(Debug)]
struct State {
    blocks: Vec<Block>,
    identity: u64,
    written: Vec<(u16, Box<Block>)>,
}

impl MemoryWhiteboard {
    /// A file with room for `blocks` empty blocks.
    pub fn new(blocks: u16) -> Self {
        let state = State { blocks: vec![zero_block(); blocks.into()], identity: 1, written: Vec::new() };
        Self {
            state: Mutex::new(state),
            reads: watch::Sender::new(Fault::None),
            writes: watch::Sender::new(Fault::None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what reads do from now on.
    pub fn set_reads(&self, fault: Fault) {
        self.reads.send_replace(fault);
    }

    /// Sets what writes do from now on.
    pub fn set_writes(&self, fault: Fault) {
        self.writes.send_replace(fault);
    }

    /// Calls that hang now.
    pub fn hanging(&self) -> usize {
        self.reads.receiver_count() + self.writes.receiver_count()
    }

    /// What storage holds of a block, whatever the faults say; an empty block beyond the end.
    pub fn peek(&self, block: u16) -> Block {
        self.lock().blocks.get(usize::from(block)).copied().unwrap_or_else(zero_block)
    }

    /// Puts a block there as another host would. Nothing happens beyond the end.
    pub fn poke(&self, block: u16, bytes: &[u8]) {
        let mut state = self.lock();
        if let Some(kept) = state.blocks.get_mut(usize::from(block)) {
            *kept = zero_block();
            kept[..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Changes the length, as a truncation or a repair would.
    pub fn resize(&self, blocks: u16) {
        self.lock().blocks.resize(blocks.into(), zero_block());
    }

    /// Puts another file in its place, with the same contents.
    pub fn replace(&self) {
        self.lock().identity += 1;
    }

    /// All writes that storage took, in their order.
    pub fn written(&self) -> Vec<(u16, Box<Block>)> {
        self.lock().written.clone()
    }

    fn os(&self, operation: String, errno: Errno) -> StorageError {
        StorageError::Os { file: self.name().into(), operation, errno }
    }
}

/// Waits out a hang; gives the fault that holds then.
async fn outlast_hang(faults: &watch::Sender<Fault>) -> Fault {
    let now = *faults.borrow();
    if now != Fault::Hang {
        return now;
    }
    let mut changes = faults.subscribe();
    // The sender lives as long as this borrow of it.
    changes.wait_for(|fault| *fault != Fault::Hang).await.map_or(now, |fault| *fault)
}

#[async_trait]
impl Whiteboard for MemoryWhiteboard {
    async fn read(&self, ranges: &[BlockRange]) -> Result<Reading, StorageError> {
        if let Fault::Fail(errno) = outlast_hang(&self.reads).await {
            return Err(self.os("read".to_owned(), errno));
        }
        let state = self.lock();
        let mut reading = Reading {
            file_blocks: state.blocks.len() as u64,
            identity: Identity { inode: state.identity, ..Identity::default() },
            ..Reading::default()
        };
        for range in ranges {
            let room = u16::try_from(state.blocks.len()).unwrap_or(u16::MAX).saturating_sub(range.first);
            let count = range.count.min(room);
            if count == 0 {
                continue;
            }
            reading.covered.push(BlockRange { first: range.first, count });
            reading.bytes += u64::from(count) * BLOCK_SIZE as u64;
            for block in range.first..range.first + count {
                let bytes = state.blocks[usize::from(block)];
                if bytes[0] != 0 {
                    reading.present.push((block, Box::new(bytes)));
                }
            }
        }
        Ok(reading)
    }

    async fn write(&self, block: u16, bytes: &Block, permit: &dyn Permit) -> Result<(), PutError> {
        let fault = outlast_hang(&self.writes).await;
        permit.ask().await?;
        let mut state = self.lock();
        let len = (state.blocks.len() * BLOCK_SIZE) as u64;
        let Some(kept) = state.blocks.get_mut(usize::from(block)) else {
            let end = metadata_format::block_offset(block + 1);
            return Err(StorageError::TooShort { file: self.name().into(), len, block, end }.into());
        };
        match fault {
            Fault::Fail(errno) => return Err(self.os(format!("write block {block} of"), errno).into()),
            Fault::LoseWrites => return Ok(()),
            Fault::TornWrites => {
                kept[CRITICAL_SIZE..].copy_from_slice(&bytes[CRITICAL_SIZE..]);
                return Err(self.os(format!("write block {block} of"), Errno::IO).into());
            }
            Fault::None | Fault::Hang => {
                *kept = *bytes;
                state.written.push((block, Box::new(*bytes)));
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}
