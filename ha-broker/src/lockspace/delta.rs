//! What sanlock keeps on storage for each host id: a record in a sector of its own. Pure: bytes in, facts out.
//!
//! ```text
//! offset  bytes  little-endian
//!      0      4  magic 0x12212010
//!      4      4  version; the upper 16 bits are the major one, 3
//!     12      4  sector size in bytes: 512 or 4096
//!     32      8  host id
//!     40      8  generation: grows each time the id is taken
//!     56     48  name of the lockspace
//!    104     48  name of the host that holds the id (sanlock's -e)
//!    152      8  that host's monotonic seconds at its last renewal; 0 = free
//! ```
//! Record *n* is in sector *n* − 1. It is read here only to name an owner, and to see that nobody renews.

/// Marks a host id's record.
const MAGIC: u32 = 0x1221_2010;

/// One host id's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaRecord {
    /// Bytes per sector of this lockspace.
    pub sector_size: u32,
    /// The id.
    pub host_id: u64,
    /// Grows each time the id is taken.
    pub generation: u64,
    /// The lockspace's name.
    pub lockspace: String,
    /// The name of the host that has it, or had it last.
    pub owner: String,
    /// The owner's monotonic seconds at its last renewal; 0 when it was given up.
    pub timestamp: u64,
}

/// Bytes of a record that are looked at.
pub const RECORD_BYTES: usize = 160;

impl DeltaRecord {
    /// Reads a record; `None` when there is none.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD_BYTES] = sector.first_chunk()?;
        let u32_at = |at: usize| record[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let u64_at = |at: usize| record[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if u32_at(0)? != MAGIC {
            return None;
        }
        Some(Self {
            sector_size: u32_at(12)?,
            host_id: u64_at(32)?,
            generation: u64_at(40)?,
            lockspace: text(&record[56..104]),
            owner: text(&record[104..152]),
            timestamp: u64_at(152)?,
        })
    }

    /// Whether somebody holds the id, or held it when it died.
    pub const fn is_taken(&self) -> bool {
        self.timestamp != 0
    }
}

/// A NUL-padded name, with what cannot be printed escaped.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes[..end].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_read_and_anything_else_is_not() {
        let mut sector = [0; 512];
        assert_eq!(DeltaRecord::parse(&sector), None);
        sector[..4].copy_from_slice(&MAGIC.to_le_bytes());
        sector[12..16].copy_from_slice(&512_u32.to_le_bytes());
        sector[32] = 7;
        sector[40] = 3;
        sector[56..69].copy_from_slice(b"hosted-engine");
        sector[104..110].copy_from_slice(b"host\x1b7");
        sector[152..154].copy_from_slice(&[1, 1]);
        let record = DeltaRecord::parse(&sector).unwrap();
        assert_eq!((record.host_id, record.generation, record.timestamp), (7, 3, 257));
        assert_eq!(record.lockspace, "hosted-engine");
        assert_eq!(record.owner, "host\\x1b7", "a name from storage cannot play with the terminal");
        assert!(record.is_taken());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = DeltaRecord::parse(&bytes);
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                prop_assert_eq!(DeltaRecord::parse(&bytes).is_some(), bytes.len() >= RECORD_BYTES);
            }
        }
    }
}
