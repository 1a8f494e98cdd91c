//! The bytes on sanlock's socket, as pure functions: no I/O, no allocation beyond the answer's own bounded size.
//!
//! Every message is a [`Header`] and a body; all integers are in the machine's order, which is little-endian on
//! every machine that sanlock's disk format serves, and is written so here. The structures are the C ones with
//! their padding spelled out. Offsets in bytes:
//!
//! ```text
//! header (32)           disk (1040)              lockspace (1104)       resource (128 + disks)
//!  0  u32 magic          0    path[1024], NUL-    0   name[48]           0   lockspace name[48]
//!  4  u32 version              terminated         48  u64 host id        48  name[48]
//!  8  u32 command        1024 u64 offset          56  u32 flags          96  u64 lver
//! 12  u32 flags          1032 u32 pad             60  u32 padding        104 u64 data64
//! 16  u32 length,        1036 u32 pad             64  disk               112 u32 data32 (new num_hosts)
//!         header included                                                116 u32 unused
//! 20  u32 sequence      host (32)                options (56)            120 u32 flags
//! 24  u32 data           0  u64 host id           0   owner name[48]     124 u32 number of disks
//!         (result)       8  u64 generation        48  u32 flags          128 disk × n (requests only)
//! 28  u32 data2          16 u64 timestamp         52  u32 length, 0
//!         (count, pid)   24 u32 io time-out      kill path (256)
//!                        28 u32 flags             0   path[128]
//!                                                 128 arguments[128]
//! ```
//!
//! An answer's body is trusted only as far as its header's length, which is bounded by [`MAX_BODY`].

mod daemon;
mod decode;
mod encode;
mod state;

pub use daemon::{STATE_DAEMON, STATE_LEN, STATE_TEXT, daemon_settings, state_text_len};
pub use decode::{
    hosts, lockspace_record, lockspaces, owners, read_lockspace, resource_record, result_of, version,
};
pub use encode::{
    acquire_body, kill_path_body, lockspace_body, named_lockspace_body, release_body, resource_body,
};
pub use state::resources_held;

use crate::model::GridSize;
use crate::names::{NAME_LEN, PATH_LEN};

/// First field of every header.
pub const MAGIC: u32 = 0x0428_2010;
/// Protocol that we speak; the upper 16 bits must agree.
pub const PROTOCOL: u32 = 1;
/// Bytes of a header.
pub const HEADER_LEN: usize = 32;
/// Bytes of a disk.
pub const DISK_LEN: usize = 1040;
/// Bytes of a lockspace.
pub const LOCKSPACE_LEN: usize = 1104;
/// Bytes of a resource without its disks.
pub const RESOURCE_LEN: usize = 128;
/// Bytes of a host.
pub const HOST_LEN: usize = 32;
/// Bytes of an acquire's options.
pub const OPTIONS_LEN: usize = 56;
/// Bytes of a kill path, and again of its arguments, the closing NUL included.
pub const HELPER_LEN: usize = 128;
/// Greatest body of an answer that is read: the daemon's own send buffer has 1 MiB, and an inquiry's text of a
/// process with 200 leases stays below it.
pub const MAX_BODY: usize = 1 << 20;
/// Most resources in one acquire or release.
pub const MAX_RESOURCES: usize = 8;
/// Most disks of one resource.
pub const MAX_DISKS: usize = 4;

const LS_HOST_ID: usize = NAME_LEN;
const LS_FLAGS: usize = LS_HOST_ID + 8;
const LS_DISK: usize = LS_FLAGS + 8;
const RES_NAME: usize = NAME_LEN;
const RES_LVER: usize = RES_NAME + NAME_LEN;
const RES_FLAGS: usize = RES_LVER + 24;
const RES_NUM_DISKS: usize = RES_FLAGS + 4;
const DISK_OFFSET: usize = PATH_LEN;

const _: () = {
    assert!(DISK_LEN == DISK_OFFSET + 8 + 4 + 4);
    assert!(LOCKSPACE_LEN == LS_DISK + DISK_LEN);
    assert!(RESOURCE_LEN == RES_NUM_DISKS + 4);
    assert!(OPTIONS_LEN == NAME_LEN + 4 + 4);
    assert!(HOST_LEN == 8 + 8 + 8 + 4 + 4);
    // The daemon lists at most 2000 hosts, so a full list always fits.
    assert!(2000 * HOST_LEN <= MAX_BODY);
};

/// Commands, by sanlock's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are sanlock's own")]
pub enum Command {
    Register = 1,
    AddLockspace = 2,
    RemLockspace = 3,
    Status = 5,
    Acquire = 7,
    Release = 8,
    Inquire = 9,
    InqLockspace = 16,
    KillPath = 17,
    WriteLockspace = 18,
    WriteResource = 19,
    ReadLockspace = 20,
    ReadResource = 21,
    GetLockspaces = 22,
    GetHosts = 23,
    ReadResourceOwners = 24,
    Version = 28,
    RegEvent = 30,
    EndEvent = 31,
    SetEvent = 32,
}

/// Do not wait for the join to end.
pub const ADD_ASYNC: u32 = 1;
/// Do not wait for the leaving to end.
pub const REM_ASYNC: u32 = 1;
/// Refuse to leave while leases are held.
pub const REM_UNUSED: u32 = 2;
/// Write that there is no resource.
pub const WRITE_CLEAR: u32 = 1;
/// Do not wait for a silent owner to be dead.
pub const ACQUIRE_OWNER_NOWAIT: u32 = 8;
/// Release all that the process holds.
pub const RELEASE_ALL: u32 = 1;
/// Give the process id to the kill path program as its last argument.
pub const KILL_PATH_PID: u32 = 1;

const LS_FLAG_ADD: u32 = 1;
const LS_FLAG_REM: u32 = 2;
const RES_FLAG_SHARED: u32 = 4;
const HOST_STATE_MASK: u32 = 0xf;

/// The flag bits of a grid size; the same for lockspaces and resources.
pub const fn grid_flags(grid: GridSize) -> u32 {
    match grid {
        GridSize::Sector512Align1M => 0x100 | 0x10,
        GridSize::Sector4kAlign1M => 0x200 | 0x10,
        GridSize::Sector4kAlign2M => 0x200 | 0x20,
        GridSize::Sector4kAlign4M => 0x200 | 0x40,
        GridSize::Sector4kAlign8M => 0x200 | 0x80,
    }
}

fn grid_of(flags: u32) -> Option<GridSize> {
    [
        GridSize::Sector512Align1M,
        GridSize::Sector4kAlign1M,
        GridSize::Sector4kAlign2M,
        GridSize::Sector4kAlign4M,
        GridSize::Sector4kAlign8M,
    ]
    .into_iter()
    .find(|grid| flags & 0x3f0 == grid_flags(*grid))
}

/// The 32 bytes before each body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Protocol of the sender.
    pub version: u32,
    /// Command; an answer repeats it.
    pub command: u32,
    /// The command's flags.
    pub flags: u32,
    /// Bytes of header and body.
    pub length: u32,
    /// First argument; in an answer the result: 0, or a negative number.
    pub data: u32,
    /// Second argument; in an answer a count.
    pub data2: u32,
}

impl Header {
    /// A request with a body of `body` bytes.
    pub fn request(command: Command, flags: u32, body: usize, data: u32, data2: u32) -> Self {
        // A request's body is at most 8 resources of 4 disks, 34 KiB: it always fits.
        let length = u32::try_from(HEADER_LEN + body).unwrap_or(u32::MAX);
        Self { version: PROTOCOL, command: command as u32, flags, length, data, data2 }
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let fields = [MAGIC, self.version, self.command, self.flags, self.length, 0, self.data, self.data2];
        let mut bytes = [0; HEADER_LEN];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

/// What is wrong with an answer: which field, its value, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub String);

#[cfg(test)]
mod tests;
