//! What sanlock keeps on storage for each resource: a record in the first sector of its area, which names the owner.
//! Pure: bytes in, facts out; nothing here ever writes one.
//!
//! A daemon reads a resource only for those who know its names. Whoever must find out what is in a place reads the
//! record itself. Numbers are little-endian; the layout is that of a host id's record ([`crate::DeltaRecord`]):
//!
//! ```text
//! offset  bytes
//!      0      4  magic 0x06152010; 0x11282016 where a resource was cleared
//!      8      4  flags: 0x10, 0x20, 0x40, 0x80 for an area of 1, 2, 4, 8 MiB
//!     12      4  sector size in bytes: 512 or 4096
//!     32      8  host id of the owner
//!     40      8  the owner's generation when it took the lease
//!     48      8  version of the lease (lver)
//!     56     48  name of the lockspace
//!    104     48  name of the resource
//!    152      8  the owner's monotonic seconds when it took the lease; 0 = free
//! ```

use crate::delta;
use crate::{GridSize, Owner};

/// Marks a resource's record.
const MAGIC: u32 = 0x0615_2010;

/// Bytes of a record that are looked at.
pub const PAXOS_RECORD_BYTES: usize = 160;

/// One resource's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaxosRecord {
    /// The lockspace's name, made printable.
    pub lockspace: String,
    /// The resource's name, made printable; empty where an old VDSM cleared it.
    pub resource: String,
    /// Grows by one with each new exclusive owner.
    pub lver: u64,
    /// Who has the lease, or had it when it died; `None` when it is free.
    pub owner: Option<Owner>,
    /// Sectors and alignment.
    pub grid: GridSize,
}

impl PaxosRecord {
    /// Reads a record from the start of its area; `None` when there is none, or a cleared one.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let record: &[u8; PAXOS_RECORD_BYTES] = sector.first_chunk()?;
        let u32_at = |at: usize| record[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let u64_at = |at: usize| record[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if u32_at(0)? != MAGIC {
            return None;
        }
        let timestamp = u64_at(152)?;
        let owner = Owner { host_id: u64_at(32)?, generation: u64_at(40)?, timestamp };
        Some(Self {
            lockspace: delta::text(&record[56..104]),
            resource: delta::text(&record[104..152]),
            lver: u64_at(48)?,
            owner: (timestamp != 0).then_some(owner),
            grid: delta::grid(u32_at(12)?, u32_at(8)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(magic: u32, timestamp: u64) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[..4].copy_from_slice(&magic.to_le_bytes());
        sector[8..12].copy_from_slice(&0x10_u32.to_le_bytes());
        sector[12..16].copy_from_slice(&512_u32.to_le_bytes());
        sector[32] = 2;
        sector[40] = 7;
        sector[48] = 9;
        sector[56..58].copy_from_slice(b"sd");
        sector[104..106].copy_from_slice(b"vm");
        sector[152..160].copy_from_slice(&timestamp.to_le_bytes());
        sector
    }

    #[test]
    fn an_owned_and_a_free_resource() {
        let owned = PaxosRecord::parse(&sector(MAGIC, 55)).unwrap();
        assert_eq!(owned.owner, Some(Owner { host_id: 2, generation: 7, timestamp: 55 }));
        assert_eq!((owned.lockspace.as_str(), owned.resource.as_str(), owned.lver), ("sd", "vm", 9));
        assert_eq!(owned.grid, GridSize::Sector512Align1M);
        assert_eq!(PaxosRecord::parse(&sector(MAGIC, 0)).unwrap().owner, None);
    }

    #[test]
    fn a_cleared_one_a_host_ids_and_rubbish_are_none() {
        for magic in [0x1128_2016, 0x1221_2010, 0, u32::MAX] {
            assert_eq!(PaxosRecord::parse(&sector(magic, 1)), None, "{magic:#x}");
        }
        assert_eq!(PaxosRecord::parse(&[0; 100]), None);
    }
}
