//! The simulated adapter: a metadata file in memory with the faults of real storage, switched at run time.
//!
//! It models what [`super::direct_io`] promises and how storage breaks it: failing calls, calls that hang, writes
//! that are lost after they were acknowledged, and a write that is cut after its first sector. No I/O.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use metadata_format::{BLOCK_SIZE, CRITICAL_SIZE};
use rustix::io::Errno;

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
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    blocks: Vec<Block>,
    reads: Fault,
    writes: Fault,
    identity: u64,
    hanging: usize,
    written: Vec<(u16, Box<Block>)>,
}

impl MemoryWhiteboard {
    /// A file with room for `blocks` empty blocks.
    pub fn new(blocks: u16) -> Self {
        let state = State {
            blocks: vec![zero_block(); blocks.into()],
            reads: Fault::None,
            writes: Fault::None,
            identity: 1,
            hanging: 0,
            written: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what reads do from now on.
    pub fn set_reads(&self, fault: Fault) {
        self.lock().reads = fault;
        self.changed.notify_all();
    }

    /// Sets what writes do from now on.
    pub fn set_writes(&self, fault: Fault) {
        self.lock().writes = fault;
        self.changed.notify_all();
    }

    /// Calls that hang now.
    pub fn hanging(&self) -> usize {
        self.lock().hanging
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

    /// Waits out a hang; gives the fault that holds then.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        fault: fn(&State) -> Fault,
    ) -> (MutexGuard<'a, State>, Fault) {
        while fault(&state) == Fault::Hang {
            state.hanging += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.hanging -= 1;
        }
        let fault = fault(&state);
        (state, fault)
    }
}

impl Whiteboard for MemoryWhiteboard {
    fn read(&self, ranges: &[BlockRange]) -> Result<Reading, StorageError> {
        let (state, fault) = self.wait(self.lock(), |state| state.reads);
        if let Fault::Fail(errno) = fault {
            return Err(self.os("read".to_owned(), errno));
        }
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

    fn write(&self, block: u16, bytes: &Block, permit: Permit<'_>) -> Result<(), PutError> {
        let (state, fault) = self.wait(self.lock(), |state| state.writes);
        drop(state);
        permit()?;
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
