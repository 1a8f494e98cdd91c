//! What sanlock keeps on storage for each host id: a record in a sector of its own. Pure: bytes in, facts or bytes out.
//!
//! A daemon answers questions only about lockspaces that it has joined. Whoever must know before that whether an
//! id is in use, and by whom, reads the record of host *n* from sector *n* − 1. Numbers are little-endian:
//!
//! ```text
//! offset  bytes
//!      0      4  magic 0x12212010
//!      4      4  version; the upper 16 bits are the major one, 3
//!      8      4  flags: 0x10, 0x20, 0x40, 0x80 for an area of 1, 2, 4, 8 MiB
//!     12      4  sector size in bytes: 512 or 4096
//!     24      8  1: one host has a host id
//!     32      8  host id; 0 until somebody takes it for the first time
//!     40      8  generation: grows each time the id is taken
//!     56     48  name of the lockspace
//!    104     48  name of the host that holds the id (sanlock's -e)
//!    152      8  that host's monotonic seconds at its last renewal; 0 = given up in order, or never taken
//!    168      4  CRC-32C of the 168 bytes before it, begun with 0xfffffffe and not inverted at its end
//!    174      2  the owner's I/O time-out N in seconds; of an id that nobody took, that of the lockspace
//! ```
//! From byte 256 on there are requests of other hosts, which no checksum covers.

use crate::{GridSize, LockspaceName};

/// Marks a host id's record.
const MAGIC: u32 = 0x1221_2010;
/// Major and minor version, as sanlock 3 writes them.
const VERSION: u32 = 0x0003_0004;
/// What the checksum covers; it lies behind that.
const CHECKSUMMED: usize = 168;
const NAME_BYTES: usize = 48;

/// Bytes of a record that are looked at.
pub const DELTA_RECORD_BYTES: usize = 176;

/// One host id's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaRecord {
    flags: u32,
    /// Bytes per sector of this lockspace.
    pub sector_size: u32,
    /// The id.
    pub host_id: u64,
    /// Grows each time the id is taken.
    pub generation: u64,
    /// The lockspace's name, made printable.
    pub lockspace: String,
    /// The name of the host that has the id, or had it last, made printable.
    pub owner: String,
    /// The owner's monotonic seconds at its last renewal; 0 when nobody has the id.
    pub timestamp: u64,
    /// The owner's I/O time-out N in seconds.
    pub io_timeout: u16,
}

/// What proves that a host id's sector is no use: the daemon refuses it for the same reason, but for the host id, which
/// it does not look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Another magic, or half a sector.
    #[error("no record of a host id is there")]
    Foreign,
    /// Of another release of the format.
    #[error("its version is {0}, not 3")]
    Version(u32),
    /// Another lockspace's, by its name made printable.
    #[error("it belongs to the lockspace {0:?}")]
    Lockspace(String),
    /// Other sectors than the lockspace has.
    #[error("it is for sectors of {0} bytes")]
    SectorSize(u32),
    /// What is covered by the checksum is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It was written to another place than its own.
    #[error("it is that of host id {0}")]
    HostId(u64),
}

impl DeltaRecord {
    /// Reads the record of `host_id` in a lockspace of that name and layout from its sector.
    ///
    /// # Errors
    /// Why the sector is provably bad.
    pub fn check(
        sector: &[u8],
        lockspace: &LockspaceName,
        host_id: u64,
        grid: GridSize,
    ) -> Result<Self, BadRecord> {
        let record = Self::parse(sector).ok_or(BadRecord::Foreign)?;
        let u32_at = |at: usize| sector[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let version = u32_at(4) >> 16;
        if version != VERSION >> 16 {
            return Err(BadRecord::Version(version));
        }
        if sector[56..56 + NAME_BYTES] != padded(lockspace) {
            return Err(BadRecord::Lockspace(record.lockspace));
        }
        if u32_at(CHECKSUMMED) != checksum(&sector[..CHECKSUMMED]) {
            return Err(BadRecord::Checksum);
        }
        if record.sector_size != grid.sector_bytes() {
            return Err(BadRecord::SectorSize(record.sector_size));
        }
        if record.host_id != host_id && (record.host_id != 0 || record.is_taken()) {
            return Err(BadRecord::HostId(record.host_id));
        }
        Ok(record)
    }

    /// The sector of a host id that nobody ever took, byte for byte as the daemon writes it to a new lockspace.
    pub fn unused(lockspace: &LockspaceName, grid: GridSize, io_timeout: u8) -> Vec<u8> {
        let mut sector = vec![0; grid.sector_bytes() as usize];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(4, &VERSION.to_le_bytes());
        put(8, &flags(grid).to_le_bytes());
        put(12, &grid.sector_bytes().to_le_bytes());
        put(24, &1_u64.to_le_bytes());
        put(56, &padded(lockspace));
        put(174, &u16::from(io_timeout).to_le_bytes());
        let checksum = checksum(&sector[..CHECKSUMMED]);
        sector[CHECKSUMMED..CHECKSUMMED + 4].copy_from_slice(&checksum.to_le_bytes());
        sector
    }

    /// Reads a record from the start of its sector; `None` when there is none.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let record: &[u8; DELTA_RECORD_BYTES] = sector.first_chunk()?;
        let u32_at = |at: usize| record[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let u64_at = |at: usize| record[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if u32_at(0)? != MAGIC {
            return None;
        }
        Some(Self {
            flags: u32_at(8)?,
            sector_size: u32_at(12)?,
            host_id: u64_at(32)?,
            generation: u64_at(40)?,
            lockspace: text(&record[56..104]),
            owner: text(&record[104..152]),
            timestamp: u64_at(152)?,
            io_timeout: u16::from_le_bytes([record[174], record[175]]),
        })
    }

    /// Whether somebody holds the id, or held it when it died.
    pub const fn is_taken(&self) -> bool {
        self.timestamp != 0
    }

    /// True when `later`, read from the same place, shows that the owner renewed, or somebody joined, in between.
    pub fn renewed_until(&self, later: &Self) -> bool {
        later.is_taken() && (self.timestamp, self.generation) != (later.timestamp, later.generation)
    }

    /// Layout of the lockspace. Records older than the flags are of 1 MiB with sectors of 512 bytes, and of 8 MiB
    /// with those of 4096.
    pub const fn grid(&self) -> GridSize {
        grid(self.sector_size, self.flags)
    }
}

/// Layout of an area by its record's sector size and flags.
pub(crate) const fn grid(sector_size: u32, flags: u32) -> GridSize {
    match (sector_size, flags & 0xf0) {
        (4096, 0x10) => GridSize::Sector4kAlign1M,
        (4096, 0x20) => GridSize::Sector4kAlign2M,
        (4096, 0x40) => GridSize::Sector4kAlign4M,
        (4096, _) => GridSize::Sector4kAlign8M,
        _ => GridSize::Sector512Align1M,
    }
}

/// The flags of an area.
const fn flags(grid: GridSize) -> u32 {
    match grid {
        GridSize::Sector512Align1M | GridSize::Sector4kAlign1M => 0x10,
        GridSize::Sector4kAlign2M => 0x20,
        GridSize::Sector4kAlign4M => 0x40,
        GridSize::Sector4kAlign8M => 0x80,
    }
}

fn padded(name: &LockspaceName) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    bytes
}

/// Sanlock's checksum: bitwise, for a lockspace has no more than 2000 of them.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xffff_fffe, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum: u32, _| {
            (sum >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(sum & 1))
        })
    })
}

/// A NUL-padded name, with what cannot be printed escaped.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes[..end].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sector() -> [u8; 512] {
        let mut sector = [0; 512];
        sector[..4].copy_from_slice(&MAGIC.to_le_bytes());
        sector[12..16].copy_from_slice(&512_u32.to_le_bytes());
        sector[32] = 7;
        sector[40] = 3;
        sector[56..69].copy_from_slice(b"hosted-engine");
        sector[104..110].copy_from_slice(b"host\x1b7");
        sector[152..154].copy_from_slice(&[1, 1]);
        sector[174] = 10;
        sector
    }

    #[test]
    fn a_record_is_read_and_anything_else_is_not() {
        assert_eq!(DeltaRecord::parse(&[0; 512]), None);
        let record = DeltaRecord::parse(&sector()).unwrap();
        assert_eq!((record.host_id, record.generation, record.timestamp), (7, 3, 257));
        assert_eq!((record.lockspace.as_str(), record.io_timeout), ("hosted-engine", 10));
        assert_eq!(record.owner, "host\\x1b7", "a name from storage cannot play with the terminal");
        assert!(record.is_taken());
    }

    #[test]
    fn a_renewal_is_seen_and_giving_up_is_none() {
        let record = DeltaRecord::parse(&sector()).unwrap();
        assert!(!record.renewed_until(&record));
        assert!(record.renewed_until(&DeltaRecord { timestamp: 258, ..record.clone() }));
        assert!(!record.renewed_until(&DeltaRecord { timestamp: 0, ..record.clone() }));
    }

    #[test]
    fn the_layout_is_read_from_the_sector_size_and_the_flags() {
        let grid = |size: u32, flags: u8| {
            let mut sector = sector();
            sector[12..16].copy_from_slice(&size.to_le_bytes());
            sector[8] = flags;
            DeltaRecord::parse(&sector).unwrap().grid()
        };
        assert_eq!(grid(512, 0), GridSize::Sector512Align1M);
        assert_eq!(grid(4096, 0), GridSize::Sector4kAlign8M);
        assert_eq!(grid(4096, 0x20), GridSize::Sector4kAlign2M);
    }

    fn name() -> LockspaceName {
        LockspaceName::new("hosted-engine").unwrap()
    }

    /// The sum is that of sanlock 3.8.5 for this lockspace with N = 10.
    #[test]
    fn an_unused_sector_is_that_of_the_daemon() {
        let sector = DeltaRecord::unused(&name(), GridSize::Sector512Align1M, 10);
        assert_eq!(sector.len(), 512);
        assert_eq!(sector[168..172], 0x32ea_5cd9_u32.to_le_bytes());
        let record = DeltaRecord::check(&sector, &name(), 9, GridSize::Sector512Align1M).unwrap();
        assert_eq!((record.generation, record.is_taken(), record.io_timeout), (0, false, 10));
        for grid in [GridSize::Sector4kAlign1M, GridSize::Sector4kAlign8M] {
            let sector = DeltaRecord::unused(&name(), grid, 10);
            assert_eq!(sector.len(), 4096);
            assert_eq!(DeltaRecord::check(&sector, &name(), 1, grid).unwrap().grid(), grid);
        }
    }

    #[test]
    fn what_is_bad_in_a_sector_is_named() {
        let check = |change: &dyn Fn(&mut Vec<u8>), seal: bool| {
            let mut sector = DeltaRecord::unused(&name(), GridSize::Sector512Align1M, 10);
            change(&mut sector);
            if seal {
                let sum = checksum(&sector[..168]);
                sector[168..172].copy_from_slice(&sum.to_le_bytes());
            }
            DeltaRecord::check(&sector, &name(), 7, GridSize::Sector512Align1M).map(|record| record.host_id)
        };
        assert_eq!(check(&|sector| sector[32] = 7, true), Ok(7));
        assert_eq!(check(&|sector| sector[300] = 1, false), Ok(0), "a request to the host");
        assert_eq!(check(&|sector| sector[0] = 0, true), Err(BadRecord::Foreign));
        assert_eq!(check(&|sector| sector.truncate(100), false), Err(BadRecord::Foreign));
        assert_eq!(check(&|sector| sector[6] = 4, true), Err(BadRecord::Version(4)));
        assert_eq!(check(&|sector| sector[40] = 1, false), Err(BadRecord::Checksum));
        assert_eq!(check(&|sector| sector[13] = 16, true), Err(BadRecord::SectorSize(4096)));
        assert_eq!(check(&|sector| sector[32] = 8, true), Err(BadRecord::HostId(8)));
        assert_eq!(check(&|sector| sector[152] = 8, true), Err(BadRecord::HostId(0)), "taken by nobody");
        let other = Err(BadRecord::Lockspace("hosted-enginx".to_owned()));
        assert_eq!(check(&|sector| sector[68] = b'x', true), other);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = DeltaRecord::parse(&bytes);
            let _ = DeltaRecord::check(&bytes, &name(), 1, GridSize::Sector512Align1M);
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                prop_assert_eq!(DeltaRecord::parse(&bytes).is_some(), bytes.len() >= DELTA_RECORD_BYTES);
            }
        }
    }
}
