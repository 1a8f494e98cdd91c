//! What sanlock keeps on storage for each host id: a record in a sector of its own. Pure: bytes in, facts out;
//! nothing here ever writes one.
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
//!     32      8  host id
//!     40      8  generation: grows each time the id is taken
//!     56     48  name of the lockspace
//!    104     48  name of the host that holds the id (sanlock's -e)
//!    152      8  that host's monotonic seconds at its last renewal; 0 = given up in order, or never taken
//!    174      2  the owner's I/O time-out N in seconds
//! ```

use crate::GridSize;

/// Marks a host id's record.
const MAGIC: u32 = 0x1221_2010;

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

impl DeltaRecord {
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

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = DeltaRecord::parse(&bytes);
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                prop_assert_eq!(DeltaRecord::parse(&bytes).is_some(), bytes.len() >= DELTA_RECORD_BYTES);
            }
        }
    }
}
