//! Answers: from bytes to our types. Nothing here trusts the sender: each read is checked, each count is bounded
//! by the bytes that are there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{
    DISK_OFFSET, HEADER_LEN, HOST_LEN, HOST_STATE_MASK, Header, LOCKSPACE_LEN, LS_DISK, LS_FLAG_ADD,
    LS_FLAG_REM, LS_FLAGS, LS_HOST_ID, MAGIC, MAX_BODY, PROTOCOL, RES_FLAG_SHARED, RES_FLAGS, RES_LVER,
    RES_NAME, RESOURCE_LEN, WireError, grid_of,
};
use crate::model::{
    Disk, HostState, HostStatus, Lockspace, LockspacePhase, LockspaceRecord, Owner, ResourceOwners,
    ResourceRecord, Version,
};
use crate::names::{DiskPath, LockspaceName, NAME_LEN, PATH_LEN, ResourceName};

fn short(what: &str, bytes: &[u8], at: usize) -> WireError {
    WireError(format!("{what} ends after {} bytes, before its field at {at}", bytes.len()))
}

pub(super) fn u32_at(what: &str, bytes: &[u8], at: usize) -> Result<u32, WireError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(|| short(what, bytes, at))?;
    Ok(u32::from_le_bytes(*field))
}

fn u64_at(what: &str, bytes: &[u8], at: usize) -> Result<u64, WireError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(|| short(what, bytes, at))?;
    Ok(u64::from_le_bytes(*field))
}

/// The bytes before the first NUL of a field of `len` bytes at `at`.
fn text_at<'a>(what: &str, bytes: &'a [u8], at: usize, len: usize) -> Result<&'a [u8], WireError> {
    let field = bytes.get(at..at + len).ok_or_else(|| short(what, bytes, at))?;
    let end = field.iter().position(|b| *b == 0).unwrap_or(len);
    Ok(&field[..end])
}

fn name_at<'a>(what: &str, bytes: &'a [u8], at: usize) -> Result<&'a str, WireError> {
    let field = text_at(what, bytes, at, NAME_LEN)?;
    std::str::from_utf8(field)
        .map_err(|_| WireError(format!("{what} has a name that is not text: {}", field.escape_ascii())))
}

fn disk_at(what: &str, bytes: &[u8], at: usize) -> Result<Disk, WireError> {
    let path = text_at(what, bytes, at, PATH_LEN)?;
    let path = DiskPath::new(OsStr::from_bytes(path)).map_err(|e| WireError(format!("{what}: {e}")))?;
    Ok(Disk { path, offset: u64_at(what, bytes, at + DISK_OFFSET)? })
}

/// Reads and checks the header of an answer.
pub fn header(bytes: &[u8; HEADER_LEN]) -> Result<Header, WireError> {
    const WHAT: &str = "the header";
    let magic = u32_at(WHAT, bytes, 0)?;
    if magic != MAGIC {
        return Err(WireError(format!("it starts with {magic:#010x} instead of {MAGIC:#010x}")));
    }
    let header = Header {
        version: u32_at(WHAT, bytes, 4)?,
        command: u32_at(WHAT, bytes, 8)?,
        flags: u32_at(WHAT, bytes, 12)?,
        length: u32_at(WHAT, bytes, 16)?,
        data: u32_at(WHAT, bytes, 24)?,
        data2: u32_at(WHAT, bytes, 28)?,
    };
    if header.version >> 16 != PROTOCOL >> 16 {
        return Err(WireError(format!("its protocol is {:#x}, ours is {PROTOCOL:#x}", header.version)));
    }
    Ok(header)
}

impl Header {
    /// Reads and checks the header of an answer.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        header(bytes)
    }

    /// Bytes of the body that follows, if they are believable.
    pub fn body_len(&self) -> Result<usize, WireError> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        match length.checked_sub(HEADER_LEN) {
            Some(body) if body <= MAX_BODY => Ok(body),
            Some(_) | None => Err(WireError(format!(
                "its length is {length}, not {HEADER_LEN} to {}",
                HEADER_LEN + MAX_BODY
            ))),
        }
    }
}

/// The result in a header: `Err` with the daemon's negative number.
pub fn result_of(header: &Header) -> Result<u32, i32> {
    let result = header.data.cast_signed();
    if result < 0 { Err(result) } else { Ok(header.data) }
}

/// The daemon's release, from the header of its answer.
pub fn version(header: &Header) -> Version {
    let [major, minor, patch, _build] = header.data2.to_be_bytes();
    Version { major, minor, patch, protocol: header.version }
}

/// Splits a list body into `count` items of `size` bytes; fewer or more bytes are an error.
fn items<'a>(
    what: &str,
    body: &'a [u8],
    size: usize,
    count: u32,
) -> Result<std::slice::ChunksExact<'a, u8>, WireError> {
    let items = body.chunks_exact(size);
    let fits = items.remainder().is_empty() && u32::try_from(items.len()) == Ok(count);
    if !fits {
        return Err(WireError(format!(
            "{what} announces {count} items of {size} bytes and carries {} bytes",
            body.len()
        )));
    }
    Ok(items)
}

/// The lockspaces in the body of a list.
pub fn lockspaces(body: &[u8], count: u32) -> Result<Vec<LockspaceRecord>, WireError> {
    items("the list of lockspaces", body, LOCKSPACE_LEN, count)?.map(lockspace_record).collect()
}

/// One lockspace of a list.
pub fn lockspace_record(bytes: &[u8]) -> Result<LockspaceRecord, WireError> {
    const WHAT: &str = "a lockspace";
    let flags = u32_at(WHAT, bytes, LS_FLAGS)?;
    let phase = match (flags & LS_FLAG_ADD != 0, flags & LS_FLAG_REM != 0) {
        (_, true) => LockspacePhase::Leaving,
        (true, false) => LockspacePhase::Joining,
        (false, false) => LockspacePhase::Joined,
    };
    let name = LockspaceName::new(name_at(WHAT, bytes, 0)?).map_err(|e| WireError(e.to_string()))?;
    let host_id = u64_at(WHAT, bytes, LS_HOST_ID)?;
    Ok(LockspaceRecord {
        lockspace: Lockspace { name, host_id, disk: disk_at(WHAT, bytes, LS_DISK)? },
        phase,
    })
}

/// A lockspace as read from storage.
pub fn read_lockspace(bytes: &[u8]) -> Result<Lockspace, WireError> {
    lockspace_record(bytes).map(|record| record.lockspace)
}

fn host_state(flags: u32) -> HostState {
    match flags & HOST_STATE_MASK {
        2 => HostState::Free,
        3 => HostState::Live,
        4 => HostState::Fail,
        5 => HostState::Dead,
        // 1 says unknown; any other word is one that we do not know, which comes to the same.
        _ => HostState::Unknown,
    }
}

/// The hosts in the body of a list.
pub fn hosts(body: &[u8], count: u32) -> Result<Vec<HostStatus>, WireError> {
    const WHAT: &str = "a host";
    items("the list of hosts", body, HOST_LEN, count)?
        .map(|host| {
            Ok(HostStatus {
                host_id: u64_at(WHAT, host, 0)?,
                generation: u64_at(WHAT, host, 8)?,
                timestamp: u64_at(WHAT, host, 16)?,
                io_timeout: u32_at(WHAT, host, 24)?,
                state: host_state(u32_at(WHAT, host, 28)?),
            })
        })
        .collect()
}

/// A resource's record as read from storage.
pub fn resource_record(bytes: &[u8]) -> Result<ResourceRecord, WireError> {
    const WHAT: &str = "a resource";
    Ok(ResourceRecord {
        lockspace: LockspaceName::new(name_at(WHAT, bytes, 0)?).map_err(|e| WireError(e.to_string()))?,
        name: ResourceName::new(name_at(WHAT, bytes, RES_NAME)?).map_err(|e| WireError(e.to_string()))?,
        lver: u64_at(WHAT, bytes, RES_LVER)?,
        grid: grid_of(u32_at(WHAT, bytes, RES_FLAGS)?),
    })
}

/// The owners in the body of an answer: a resource, then `count` hosts.
pub fn owners(body: &[u8], count: u32) -> Result<ResourceOwners, WireError> {
    const WHAT: &str = "the resource";
    let (resource, list) = body.split_at_checked(RESOURCE_LEN).ok_or_else(|| short(WHAT, body, 0))?;
    let owners = hosts(list, count)?
        .into_iter()
        .map(|host| Owner { host_id: host.host_id, generation: host.generation, timestamp: host.timestamp })
        .collect();
    let shared = u32_at(WHAT, resource, RES_FLAGS)? & RES_FLAG_SHARED != 0;
    Ok(ResourceOwners { lver: u64_at(WHAT, resource, RES_LVER)?, shared, owners })
}
