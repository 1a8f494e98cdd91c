//! Reading, never writing, the record of one host id in a sanlock lockspace, straight from storage.
//!
//! A daemon answers questions about other hosts only in a lockspace that it has joined. Set-up and repair must know
//! before that whether a host id is in use. The record of host id n is the sector n − 1 of the lockspace; all numbers
//! are little-endian:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic 0x12212010 |
//! | 8 | 4 | flags: 0x10, 0x20, 0x40, 0x80 for an area of 1, 2, 4, 8 MiB |
//! | 12 | 4 | sector size |
//! | 32 | 8 | host id |
//! | 40 | 8 | generation: grows with each join |
//! | 56 | 48 | lockspace |
//! | 104 | 48 | owner's name |
//! | 152 | 8 | time of the last renewal by the owner's own monotonic clock, 0 when given up in order |
//! | 174 | 2 | I/O time-out in seconds |

use std::collections::BTreeMap;

use metadata_format::{HostId, MAX_HOST_ID};
use sanlock_client::GridSize;

use crate::shared_file::{SharedFile, SharedFileError, UNIT};

const MAGIC: u32 = 0x1221_2010;
const OFFSET_FLAGS: usize = 8;
const OFFSET_SECTOR_SIZE: usize = 12;
const OFFSET_GENERATION: usize = 40;
const OFFSET_LOCKSPACE: usize = 56;
const OFFSET_OWNER: usize = 104;
const OFFSET_TIMESTAMP: usize = 152;
const OFFSET_IO_TIMEOUT: usize = 174;
const NAME_LEN: usize = 48;

/// One host id's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaLease {
    /// Grows with each join.
    pub generation: u64,
    /// The lockspace's name.
    pub lockspace: String,
    /// Who has, or had, the id: the name that its sanlock daemon was started with.
    pub owner: String,
    /// Changes with each renewal; 0 when nobody has the id.
    pub timestamp: u64,
    /// The owner's I/O time-out N in seconds.
    pub io_timeout: u16,
}

impl DeltaLease {
    /// True when the id was given up in order, or never taken.
    pub const fn is_free(&self) -> bool {
        self.timestamp == 0
    }

    /// True when `later` shows that the owner renewed, or somebody joined, between the two.
    pub fn renewed_until(&self, later: &Self) -> bool {
        !later.is_free() && (self.timestamp, self.generation) != (later.timestamp, later.generation)
    }

    /// Reads a record; `None` when the sector holds none.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        if u32_at(sector, 0)? != MAGIC {
            return None;
        }
        Some(Self {
            generation: u64_at(sector, OFFSET_GENERATION)?,
            lockspace: name_at(sector, OFFSET_LOCKSPACE)?,
            owner: name_at(sector, OFFSET_OWNER)?,
            timestamp: u64_at(sector, OFFSET_TIMESTAMP)?,
            io_timeout: u16::from_le_bytes(
                sector.get(OFFSET_IO_TIMEOUT..OFFSET_IO_TIMEOUT + 2)?.try_into().ok()?,
            ),
        })
    }

    /// Reads the record of `host` from the lockspace at the start of `file`. `None` when there is none.
    pub fn read(file: &SharedFile, host: HostId) -> Result<Option<Self>, SharedFileError> {
        let Some(sector) = sector_size(&file.read(0, UNIT)?) else { return Ok(None) };
        let offset = sector * (usize::from(host.get()) - 1);
        let start = offset / UNIT * UNIT;
        let bytes = file.read(start as u64, UNIT)?;
        Ok(bytes.get(offset - start..).and_then(Self::parse))
    }

    /// Reads the records of all hosts from the lockspace at the start of `file`.
    pub fn read_all(file: &SharedFile) -> Result<BTreeMap<HostId, Self>, SharedFileError> {
        let Some(sector) = sector_size(&file.read(0, UNIT)?) else { return Ok(BTreeMap::new()) };
        let bytes = file.read(0, sector * usize::from(MAX_HOST_ID))?;
        let ids = (1..=MAX_HOST_ID).filter_map(|id| HostId::new(id).ok());
        Ok(ids
            .zip(bytes.chunks(sector))
            .filter_map(|(id, record)| Some((id, Self::parse(record)?)))
            .collect())
    }
}

/// Sector size of a lockspace, from its first record. `None` when there is no lockspace.
fn sector_size(first: &[u8]) -> Option<usize> {
    match (u32_at(first, 0)?, u32_at(first, OFFSET_SECTOR_SIZE)?) {
        (MAGIC, 4096) => Some(4096),
        (MAGIC, _) => Some(512),
        _ => None,
    }
}

/// Layout of a lockspace, from its first record. `None` when there is no lockspace. Records older than the flags are
/// of 1 MiB with sectors of 512 bytes and of 8 MiB with those of 4096.
pub fn grid(first: &[u8]) -> Option<GridSize> {
    let flags = u32_at(first, OFFSET_FLAGS)?;
    Some(match (sector_size(first)?, flags & 0xf0) {
        (4096, 0x10) => GridSize::Sector4kAlign1M,
        (4096, 0x20) => GridSize::Sector4kAlign2M,
        (4096, 0x40) => GridSize::Sector4kAlign4M,
        (4096, _) => GridSize::Sector4kAlign8M,
        _ => GridSize::Sector512Align1M,
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

fn name_at(bytes: &[u8], offset: usize) -> Option<String> {
    let field = bytes.get(offset..offset + NAME_LEN)?;
    let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    Some(String::from_utf8_lossy(name).chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sector(timestamp: u64) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[..4].copy_from_slice(&MAGIC.to_le_bytes());
        sector[12..16].copy_from_slice(&512_u32.to_le_bytes());
        sector[40..48].copy_from_slice(&7_u64.to_le_bytes());
        sector[56..69].copy_from_slice(b"hosted-engine");
        sector[104..106].copy_from_slice(b"h3");
        sector[152..160].copy_from_slice(&timestamp.to_le_bytes());
        sector[174..176].copy_from_slice(&10_u16.to_le_bytes());
        sector
    }

    #[test]
    fn the_right_sector_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lockspace");
        let mut bytes = vec![0; 1 << 20];
        bytes[..512].copy_from_slice(&sector(0));
        bytes[9 * 512..10 * 512].copy_from_slice(&sector(99));
        std::fs::write(&path, &bytes).unwrap();
        let file = SharedFile::open(&path, false).unwrap();
        let read = |id| DeltaLease::read(&file, HostId::new(id).unwrap()).unwrap();
        assert!(read(1).unwrap().is_free());
        assert_eq!(read(2), None);
        let all = DeltaLease::read_all(&file).unwrap();
        assert_eq!(all.keys().map(|id| id.get()).collect::<Vec<_>>(), [1, 10]);
        assert_eq!(all[&HostId::new(10).unwrap()], read(10).unwrap());
        let tenth = read(10).unwrap();
        assert_eq!((tenth.timestamp, tenth.generation, tenth.io_timeout), (99, 7, 10));
        assert_eq!((tenth.owner.as_str(), tenth.lockspace.as_str()), ("h3", "hosted-engine"));
        assert!(!tenth.renewed_until(&tenth));
        assert!(tenth.renewed_until(&DeltaLease { timestamp: 100, ..tenth.clone() }));
        assert!(!tenth.renewed_until(&DeltaLease { timestamp: 0, ..tenth.clone() }));
    }

    #[test]
    fn the_layout_is_read_from_the_first_record() {
        let mut first = sector(0);
        assert_eq!(grid(&first), Some(GridSize::Sector512Align1M));
        first[12..16].copy_from_slice(&4096_u32.to_le_bytes());
        assert_eq!(grid(&first), Some(GridSize::Sector4kAlign8M));
        first[8] = 0x20;
        assert_eq!(grid(&first), Some(GridSize::Sector4kAlign2M));
        assert_eq!(grid(&[0; 512]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = (DeltaLease::parse(&bytes), grid(&bytes));
        }
    }
}
