//! The index of an xleases volume.
//!
//! The volume is divided into slots of the lease area's alignment: 1 MiB with 512-byte sectors, 1 to 8 MiB with 4096.
//!
//! ```text
//! slot 0   lockspace        not used by VDSM, whose lockspace is the volume `ids`
//! slot 1   index            below
//! slot 2   reserved         for sanlock
//! slot 3…  one lease each   record n of the index describes slot 3 + n
//! ```
//!
//! The index is 253 952 bytes: metadata of 512 bytes, then records of 64. All numbers but the magic are decimal text, so
//! that people can read a dump; a NUL ends each field.
//!
//! ```text
//! metadata                                      record
//!    0   4  magic 0x12152016, big-endian           0  48  name of the lease, NUL-padded; empty: free
//!    4   1  NUL                                   48   1  NUL
//!    5   4  version, "0001"                       49  11  offset in the volume, for people: the place of
//!    9   1  NUL                                           the record in the index is what counts
//!   10  48  lockspace, NUL-padded                 60   1  NUL
//!   58   1  NUL                                   61   1  'u' while being changed (old releases), else '-'
//!   59  10  time of the last change, s            62   1  reserved, '-'
//!   69   1  NUL                                   63   1  newline
//!   70   1  'u' while being changed, else '-'
//!   71 440  NUL
//!  511   1  newline
//! ```
//!
//! A record never crosses a sector, so that changing one is one atomic write of a sector.

use std::fmt;

use sanlock_client::GridSize;

/// Bytes of the index that are read and written.
pub const INDEX_BYTES: usize = 62 * 4096;
/// Bytes of the metadata at its start, whatever the sector size.
pub const METADATA_BYTES: usize = 512;
/// Bytes of one record.
pub const RECORD_BYTES: usize = 64;
/// Records in an index, free ones included.
pub const MAX_RECORDS: u16 = 3960;
/// Slots before the first lease.
pub const RESERVED_SLOTS: u64 = 3;
/// First bytes of an index.
pub const MAGIC: u32 = 0x1215_2016;
/// The format that this crate reads and writes.
pub const VERSION: u32 = 1;

const NAME_BYTES: usize = 48;
const OFFSET_FIELD: std::ops::Range<usize> = 49..60;
const FLAG_AT: usize = 61;
const UPDATING: u8 = b'u';
const STILL: u8 = b'-';

const _: () = assert!(METADATA_BYTES + MAX_RECORDS as usize * RECORD_BYTES == INDEX_BYTES);
const _: () = assert!(512 % RECORD_BYTES == 0, "a record must not cross a sector");

/// A record's number in the index, from 0 to [`MAX_RECORDS`] - 1. It is also the place of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Record `number`; `None` beyond the last.
    pub const fn new(number: u16) -> Option<Self> {
        if number < MAX_RECORDS { Some(Self(number)) } else { None }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_RECORDS).map(Self)
    }

    /// The record's number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Byte offset of the lease in the volume.
    pub fn lease_offset(self, grid: GridSize) -> u64 {
        (RESERVED_SLOTS + u64::from(self.0)) * grid.align_bytes()
    }

    /// The record's bytes in the index.
    fn bytes(self) -> std::ops::Range<usize> {
        let start = METADATA_BYTES + usize::from(self.0) * RECORD_BYTES;
        start..start + RECORD_BYTES
    }
}

/// A name that fits into a record: 1 to 48 bytes of printable ASCII without spaces, usually a VM's uuid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseName(String);

impl LeaseName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`IndexError::BadName`]
    pub fn new(name: &str) -> Result<Self, IndexError> {
        let fits = (1..=NAME_BYTES).contains(&name.len());
        // As sanlock-client has it for its resources, whose name this becomes.
        let plain = name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b':' | b'\\'));
        if fits && plain { Ok(Self(name.to_owned())) } else { Err(IndexError::BadName(name.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands at the head of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The lockspace of all leases: the storage domain's uuid.
    pub lockspace: String,
    /// Time of the last change of the whole index, seconds since 1970.
    pub modified: u64,
    /// A format or rebuild has begun and not ended: the records may be anything.
    pub is_updating: bool,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// No lease here.
    Free,
    /// A lease.
    Used(LeaseName),
    /// A lease that an old release began to make or to remove: to be treated as missing.
    HalfMade(LeaseName),
}

/// A record that cannot be read. It costs this one lease only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {slot} of the lease index is damaged: {reason}", slot = slot.0)]
pub struct RecordError {
    /// Which.
    pub slot: Slot,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// An index that cannot be used, or a request that it cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Too few bytes.
    #[error(
        "the lease index has {0} bytes instead of {INDEX_BYTES}: the volume is cut off, or is not an xleases volume"
    )]
    Short(usize),
    /// Nothing but zeros.
    #[error("the xleases volume has never been formatted: it holds no leases")]
    Blank,
    /// Not an index, or a damaged one.
    #[error(
        "the head of the lease index is damaged ({0}): format it anew, or rebuild it from the leases on the volume"
    )]
    BadHead(&'static str),
    /// A later format.
    #[error("the lease index has format version {found}; this release reads {VERSION}: use a newer release")]
    TooNew {
        /// The version in it.
        found: u32,
    },
    /// The name cannot be a lease's.
    #[error(
        "{0:?} cannot be the name of a lease: use 1 to 48 printable ASCII characters without space, ':' and '\\'"
    )]
    BadName(String),
    /// The lockspace's name does not fit.
    #[error("{0:?} cannot be the lockspace of a lease index: use 1 to 48 printable ASCII characters")]
    BadLockspace(String),
}

/// An index, as it is on storage.
#[derive(Clone, PartialEq, Eq)]
pub struct Index {
    bytes: Vec<u8>,
    metadata: Metadata,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Index {
    /// An index without leases.
    ///
    /// # Errors
    /// [`IndexError::BadLockspace`]
    pub fn empty(metadata: Metadata) -> Result<Self, IndexError> {
        let mut index = Self { bytes: vec![0; INDEX_BYTES], metadata: metadata.clone() };
        index.set_metadata(metadata)?;
        for slot in Slot::all() {
            index.set(slot, None, GridSize::Sector512Align1M);
        }
        Ok(index)
    }

    /// Reads an index. Damaged records are found later, one by one.
    ///
    /// # Errors
    /// When it is too short or its head cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let bytes = bytes.get(..INDEX_BYTES).ok_or(IndexError::Short(bytes.len()))?.to_vec();
        let metadata = parse_metadata(&bytes[..METADATA_BYTES])?;
        Ok(Self { bytes, metadata })
    }

    /// All of it, as it goes to storage.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its head.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Changes its head.
    ///
    /// # Errors
    /// [`IndexError::BadLockspace`]
    pub fn set_metadata(&mut self, metadata: Metadata) -> Result<(), IndexError> {
        let name = metadata.lockspace.as_bytes();
        if name.is_empty() || name.len() > NAME_BYTES || !name.iter().all(u8::is_ascii_graphic) {
            return Err(IndexError::BadLockspace(metadata.lockspace));
        }
        let head = &mut self.bytes[..METADATA_BYTES];
        head.fill(0);
        head[..4].copy_from_slice(&MAGIC.to_be_bytes());
        head[5..9].copy_from_slice(format!("{VERSION:04}").as_bytes());
        head[10..10 + name.len()].copy_from_slice(name);
        // Ten digits reach to the year 2286.
        head[59..69].copy_from_slice(format!("{:010}", metadata.modified % 10_000_000_000).as_bytes());
        head[70] = if metadata.is_updating { UPDATING } else { STILL };
        head[511] = b'\n';
        self.metadata = metadata;
        Ok(())
    }

    /// What record `slot` says.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn get(&self, slot: Slot) -> Result<Record, RecordError> {
        let record = &self.bytes[slot.bytes()];
        let bad = |reason| RecordError { slot, reason };
        let name = text(&record[..NAME_BYTES]).ok_or_else(|| bad("the name is not text"))?;
        let offset = text(&record[OFFSET_FIELD]).ok_or_else(|| bad("the offset is not text"))?;
        if offset.is_empty() || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad("the offset is no number"));
        }
        if name.is_empty() {
            return Ok(Record::Free);
        }
        let name =
            LeaseName::new(name).map_err(|_| bad("the name has characters that no lease's can have"))?;
        Ok(if record[FLAG_AT] == UPDATING { Record::HalfMade(name) } else { Record::Used(name) })
    }

    /// Writes record `slot`: a lease's name, or `None` for a free one.
    pub fn set(&mut self, slot: Slot, lease: Option<&LeaseName>, grid: GridSize) {
        let record = &mut self.bytes[slot.bytes()];
        record.fill(0);
        let mut offset = 0;
        if let Some(name) = lease {
            record[..name.0.len()].copy_from_slice(name.0.as_bytes());
            offset = slot.lease_offset(grid);
        }
        // 3963 slots of 8 MiB have 11 digits.
        record[OFFSET_FIELD].copy_from_slice(format!("{offset:011}").as_bytes());
        record[FLAG_AT] = STILL;
        record[62] = STILL;
        record[63] = b'\n';
    }

    /// The sector with record `slot`: its offset in the index, and its bytes.
    pub fn sector(&self, slot: Slot, grid: GridSize) -> (usize, &[u8]) {
        let sector = grid.sector_bytes() as usize;
        let start = slot.bytes().start / sector * sector;
        (start, &self.bytes[start..start + sector])
    }

    /// Where a lease is, half-made ones included. The first, should there be two.
    pub fn find(&self, name: &LeaseName) -> Option<(Slot, Record)> {
        Slot::all().find_map(|slot| match self.get(slot) {
            Ok(record @ (Record::Used(_) | Record::HalfMade(_))) if record.name() == Some(name) => {
                Some((slot, record))
            }
            Ok(_) | Err(_) => None,
        })
    }

    /// The first free record whose lease lies within a volume of `size` bytes.
    pub fn first_free(&self, size: u64, grid: GridSize) -> Option<Slot> {
        Slot::all()
            .take_while(|slot| slot.fits(size, grid))
            .find(|slot| matches!(self.get(*slot), Ok(Record::Free)))
    }
}

impl Slot {
    /// Whether the lease lies within a volume of `size` bytes.
    pub fn fits(self, size: u64, grid: GridSize) -> bool {
        self.lease_offset(grid) + grid.align_bytes() <= size
    }
}

impl Record {
    /// The lease's name.
    pub fn name(&self) -> Option<&LeaseName> {
        match self {
            Self::Free => None,
            Self::Used(name) | Self::HalfMade(name) => Some(name),
        }
    }
}

/// A NUL-padded ASCII field.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    std::str::from_utf8(&field[..end]).ok().filter(|text| text.is_ascii())
}

fn parse_metadata(head: &[u8]) -> Result<Metadata, IndexError> {
    if head.iter().all(|byte| *byte == 0) {
        return Err(IndexError::Blank);
    }
    if head[..4] != MAGIC.to_be_bytes() {
        return Err(IndexError::BadHead("it does not begin with the magic number"));
    }
    let number = |field: &[u8], what| {
        let digits = text(field).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(IndexError::BadHead(what))
    };
    let version = number(&head[5..9], "the version is no number")?;
    if version != u64::from(VERSION) {
        // Four digits.
        return Err(IndexError::TooNew { found: u32::try_from(version).unwrap_or(u32::MAX) });
    }
    let lockspace = text(&head[10..58])
        .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or(IndexError::BadHead("the lockspace's name is not text"))?;
    Ok(Metadata {
        lockspace: lockspace.to_owned(),
        modified: number(&head[59..69], "the time is no number")?,
        is_updating: head[70] == UPDATING,
    })
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
