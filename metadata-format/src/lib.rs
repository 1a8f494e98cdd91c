//! The on-disk formats of the hosted-engine metadata file as types. No I/O, no async, no clock.
//!
//! ```text
//! byte 0        block 0: the cluster's own lines, written by any host      -> GlobalBlock
//! byte 4096·n   block n: what host n says about itself (n = 1 … 2000)
//!   +0   … 511  the critical record: fields joined by `|`, NUL-padded      -> HostBlock, HostRecord
//!   +512 … 4095 lines for people, NUL-padded to a multiple of 512          -> HostBlock::extra
//! ```
//!
//! The critical record has the size of one sector, so that a write of it is whole or not there at all. Whatever
//! stands in a block, parsing it never panics, and a bad block costs only its own host's row.

pub mod engine_status;
pub mod fencing;
pub mod global_block;
pub mod host_block;
pub mod host_record;
pub mod ids;
pub mod python;
pub mod text;

pub use engine_status::{EngineStatus, Health, VmState};
pub use fencing::{FencingEntry, FencingPhase};
pub use global_block::{GlobalBlock, GlobalError};
pub use host_block::{BlockError, HostBlock, parse_blocks};
pub use host_record::{EncodeError, HostRecord, ctime};
pub use ids::{HostId, HostIdError, MAX_HOST_ID, Score};

/// Bytes from the start of one block to the start of the next.
pub const BLOCK_SIZE: usize = 4096;

/// Bytes of a host block's critical record; also the unit that the part for people is padded to.
pub const CRITICAL_SIZE: usize = 512;

/// Format version that we write, and the highest parse version that we understand.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a file that has room for every host.
pub const FILE_SIZE: u64 = block_offset(MAX_HOST_ID) + BLOCK_SIZE as u64;

const _: () = assert!(BLOCK_SIZE.is_multiple_of(CRITICAL_SIZE) && BLOCK_SIZE > CRITICAL_SIZE);

/// Where block `n` starts in the file, in bytes. Block 0 is the cluster's, block *n* is host *n*'s.
pub const fn block_offset(n: u16) -> u64 {
    n as u64 * BLOCK_SIZE as u64
}
