//! The shared metadata file: the only part of the product that reads or writes it.
//!
//! ```text
//! Broker ── put ──▶ queue ──▶ commit ──▶ lane "write" ─┐
//!                                                      ├─▶ Whiteboard (port) ──▶ direct_io | memory
//!        ◀ snapshot ── service ◀── plan ── lane "read" ┘
//! ```
//!
//! - [`plan`] and [`queue`] decide without doing I/O: what to read in a cycle, what to write next.
//! - [`commit`] is one write from the last look at the lease to the comparison of what was read back.
//! - [`lane`] runs blocking I/O on a dedicated thread under a deadline, so that stuck storage blocks nobody.
//! - [`gated`] keeps I/O off the file while the way to storage is being made.
//! - [`permit`] is asked before each byte that goes to storage.
//! - [`service`] holds it together, and keeps what was read last.
//!
//! It never parses a host's record, never decides, never extends or truncates the file, and never exits.

pub mod cluster;
pub mod commit;
mod counters;
pub mod direct_io;
pub mod error;
pub mod gated;
pub mod lane;
pub mod memory;
pub mod permit;
pub mod plan;
pub mod queue;
pub mod service;
pub mod snapshot;
mod timing;

use async_trait::async_trait;
use metadata_format::BLOCK_SIZE;

pub use error::{Connecting, PutError, StorageError};
pub use permit::{BlockLease, Permit};
pub use plan::BlockRange;
pub use service::Service;
pub use snapshot::{Seen, Snapshot};
pub use timing::Timing;

/// The bytes of one block.
pub type Block = [u8; BLOCK_SIZE];

/// Number of the cluster's block. It has many writers; block *n* > 0 has one, the holder of host id *n*.
pub const CLUSTER_BLOCK: u16 = 0;

/// What one look at the file gave.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The ranges that were asked for, cut at the end of the file.
    pub covered: Vec<BlockRange>,
    /// The blocks in them that are present: first byte not NUL.
    pub present: Vec<(u16, Box<Block>)>,
    /// Blocks in them that could not be read although others could, with the reason.
    pub unreadable: Vec<(u16, StorageError)>,
    /// Whole blocks that the file or device has room for.
    pub file_blocks: u64,
    /// Bytes read from storage for this.
    pub bytes: u64,
    /// Which file it was, so that a replaced one is noticed.
    pub identity: Identity,
}

/// Tells one file or device from another that later stands under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// Device that holds the file.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Device that the file *is*, for block devices.
    pub rdev: u64,
}

/// The port: access to the file, one call at a time from each [`lane::Lane`].
///
/// A call may hang for as long as storage hangs, and may block its thread meanwhile, as the real adapter's calls
/// do: it is made on a lane's thread only, and that is never one that others wait for.
#[async_trait]
pub trait Whiteboard: Send + Sync + 'static {
    /// Reads `ranges`. A failing sector costs only its own block.
    ///
    /// # Errors
    /// When nothing could be read; a block beyond the end of the file is no error, and absent.
    async fn read(&self, ranges: &[BlockRange]) -> Result<Reading, StorageError>;

    /// Writes one block: its first 512 bytes (with storage of 4096-byte sectors: all of it) in one write of
    /// whole sectors, after the rest. Returns when it is on stable storage. `permit` is asked before each
    /// write.
    ///
    /// # Errors
    /// What `permit` said, or why storage did not take it. The file is never made longer.
    async fn write(&self, block: u16, bytes: &Block, permit: &dyn Permit) -> Result<(), PutError>;

    /// Name of the file for messages.
    fn name(&self) -> String;
}

/// An empty block.
pub const fn zero_block() -> Block {
    [0; BLOCK_SIZE]
}
