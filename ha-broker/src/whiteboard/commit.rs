//! One write, from the last look at the lease to the comparison of what storage gives back. Runs on the write
//! lane, whose thread the port may block. It works on the port only.

use super::cluster::Change;
use super::error::{PutError, StorageError};
use super::{Block, BlockRange, CLUSTER_BLOCK, Permit, Whiteboard, zero_block};

/// How often a change of the cluster block is tried again when another host writes between our write and our
/// look at it.
const CLUSTER_TRIES: u32 = 3;

/// What is to be written to one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The whole of a host's block.
    Host(Box<Block>),
    /// Lines of the cluster's block.
    Cluster(Change),
}

/// Writes `payload` to `block` and reads it back. Gives the block as storage holds it.
///
/// # Errors
/// What `permit` said (asked before each write, and once more before success), or why storage failed.
pub async fn commit(
    port: &dyn Whiteboard,
    block: u16,
    payload: &Payload,
    permit: &dyn Permit,
) -> Result<Box<Block>, PutError> {
    permit.ask().await?;
    let stored = match payload {
        Payload::Host(bytes) => commit_host(port, block, bytes, permit).await?,
        Payload::Cluster(change) => commit_cluster(port, change, permit).await?,
    };
    permit.ask().await?;
    Ok(stored)
}

async fn commit_host(
    port: &dyn Whiteboard,
    block: u16,
    bytes: &Block,
    permit: &dyn Permit,
) -> Result<Box<Block>, PutError> {
    port.write(block, bytes, permit).await?;
    let stored = read_one(port, block).await?;
    match stored.iter().zip(bytes).position(|(stored, ours)| stored != ours) {
        None => Ok(stored),
        Some(at) => Err(StorageError::ReadBack { file: port.name(), block, at }.into()),
    }
}

async fn commit_cluster(
    port: &dyn Whiteboard,
    change: &Change,
    permit: &dyn Permit,
) -> Result<Box<Block>, PutError> {
    let mut conflict = String::new();
    for _ in 0..CLUSTER_TRIES {
        let before = read_one(port, CLUSTER_BLOCK).await?;
        let wanted = change.apply(&before)?;
        port.write(CLUSTER_BLOCK, &wanted, permit).await?;
        let stored = read_one(port, CLUSTER_BLOCK).await?;
        match change.missing_in(&stored) {
            None => return Ok(stored),
            // Nobody else wrote: storage itself did not keep it.
            Some(_) if stored == before => {
                let at = stored.iter().zip(&wanted).position(|(stored, ours)| stored != ours).unwrap_or(0);
                return Err(StorageError::ReadBack { file: port.name(), block: CLUSTER_BLOCK, at }.into());
            }
            Some(key) => key.clone_into(&mut conflict),
        }
    }
    Err(StorageError::Conflict { file: port.name(), key: conflict }.into())
}

/// The bytes of one block; all NUL when it is absent.
///
/// # Errors
/// When it cannot be read.
pub async fn read_one(port: &dyn Whiteboard, block: u16) -> Result<Box<Block>, StorageError> {
    let mut reading = port.read(&[BlockRange { first: block, count: 1 }]).await?;
    if let Some((_, error)) = reading.unreadable.pop() {
        return Err(error);
    }
    Ok(reading.present.pop().map_or_else(|| Box::new(zero_block()), |(_, bytes)| bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::io::Errno;

    use super::super::memory::{Fault, MemoryWhiteboard};
    use super::*;

    fn host_block(text: &str) -> Box<Block> {
        let mut block = zero_block();
        block[..text.len()].copy_from_slice(text.as_bytes());
        Box::new(block)
    }

    fn change(text: &str) -> Payload {
        Payload::Cluster(Change::parse(text.as_bytes()).unwrap())
    }

    #[tokio::test]
    async fn a_write_is_compared_with_what_storage_gives_back() {
        let port = MemoryWhiteboard::new(10);
        let payload = Payload::Host(host_block("1|1|5"));
        assert_eq!(commit(&port, 3, &payload, &|| Ok(())).await.unwrap(), host_block("1|1|5"));
        port.set_writes(Fault::LoseWrites);
        let lost = Payload::Host(host_block("1|1|6"));
        let error = commit(&port, 3, &lost, &|| Ok(())).await.unwrap_err();
        assert!(
            matches!(error, PutError::Storage(StorageError::ReadBack { block: 3, at: 4, .. })),
            "{error}"
        );
        let error = commit(&port, 0, &change("maintenance=1"), &|| Ok(())).await.unwrap_err();
        assert!(matches!(error, PutError::Storage(StorageError::ReadBack { block: 0, .. })), "{error}");
    }

    #[tokio::test]
    async fn a_lease_lost_before_the_write_prevents_it_and_one_lost_after_it_prevents_the_ok() {
        let gone = || PutError::NotHeld("host id 3 is not held".to_owned());
        let port = MemoryWhiteboard::new(10);
        let payload = Payload::Host(host_block("1|1|5"));
        assert_eq!(commit(&port, 3, &payload, &|| Err(gone())).await, Err(gone()));
        assert_eq!(port.peek(3), zero_block());
        let asked = AtomicU32::new(0);
        let until_written = || {
            asked.fetch_add(1, Ordering::Relaxed);
            if port.written().is_empty() { Ok(()) } else { Err(gone()) }
        };
        assert_eq!(commit(&port, 3, &payload, &until_written).await, Err(gone()));
        assert_eq!(asked.load(Ordering::Relaxed), 3, "before, directly before the write, and before the ok");
    }

    #[tokio::test]
    async fn a_short_file_is_refused_and_not_extended() {
        let port = MemoryWhiteboard::new(2);
        let error =
            commit(&port, 3, &Payload::Host(host_block("x")), &|| Ok(())).await.unwrap_err().to_string();
        assert!(error.contains("8192 bytes long") && error.contains("16384"), "{error}");
    }

    #[tokio::test]
    async fn a_change_of_the_cluster_block_keeps_the_other_lines() {
        let port = MemoryWhiteboard::new(10);
        port.poke(0, b"owner=x\nmaintenance=0\n");
        let stored = commit(&port, 0, &change("maintenance=1"), &|| Ok(())).await.unwrap();
        assert_eq!(stored, host_block("owner=x\nmaintenance=1"));
        port.set_writes(Fault::Fail(Errno::ROFS));
        let error = commit(&port, 0, &change("maintenance=0"), &|| Ok(())).await.unwrap_err().to_string();
        assert!(error.contains("EROFS") && error.contains("read-only"), "{error}");
    }
}
