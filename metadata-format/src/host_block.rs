//! Reading a host block: what a host says about itself. Total: any bytes give a block, an absence or an error.
//!
//! ```text
//! field  0 parse version   oldest reader that can read this; its digits come first whatever the format
//!        1 feature version newest feature in it
//!        2 host timestamp  writer's monotonic seconds
//!        3 host id         must be the block's own number
//!        4 score
//!        5 engine status   JSON object, or the plain text of 2013
//!        6 hostname        the 2013 form ends here
//!        7 local maintenance 0/1      8 stopped cleanly 0/1
//!        9 CRC-32          8 hexadecimal digits over the record with this field as 00000000
//!       10 configuration on shared storage 0/1, 11 last vm.conf refresh (only together)
//!       12 … more fields of newer releases are ignored
//! ```

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::text::{excerpt, printable};
use crate::{BLOCK_SIZE, CRITICAL_SIZE, EngineStatus, FORMAT_VERSION, HostId, MAX_HOST_ID, Score};

/// The checksum field's value while the checksum is computed.
pub(crate) const EMPTY_CRC: &str = "00000000";
/// Fields of the shortest valid record.
const MIN_FIELDS: usize = 7;
/// Characters of a foreign value that an error message shows.
const SHOWN: usize = 40;

/// One host's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostBlock {
    /// Oldest format version that a reader must know to read it.
    pub parse_version: u32,
    /// Newest format version that it uses.
    pub feature_version: u32,
    /// The writer's monotonic seconds at the start of its collection; comparable only with its own.
    pub host_ts: i64,
    /// Whose block it is.
    pub host_id: HostId,
    /// Its score.
    pub score: Score,
    /// What it says about the engine VM; [`EngineStatus::unknown`] when that field cannot be read.
    pub engine_status: EngineStatus,
    /// Its name, with anything unprintable made visible.
    pub hostname: String,
    /// Local maintenance; false in the 2013 form, which does not say.
    pub maintenance: bool,
    /// Its agent stopped cleanly; false where the block does not say.
    pub stopped: bool,
    /// The checksum, verified; `None` in blocks older than it.
    pub crc32: Option<u32>,
    /// Whether the configuration is on shared storage.
    pub conf_on_shared_storage: Option<bool>,
    /// The writer's monotonic seconds of its last good vm.conf refresh.
    pub local_conf_timestamp: Option<i64>,
    /// The part for people, up to its first NUL, with anything unprintable except newline and tab made visible.
    pub extra: String,
}

/// Why a host block cannot be used. Costs that host's row only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block ends inside its critical record.
    #[error(
        "the block of host {host} has only {len} bytes, at least {CRITICAL_SIZE} are needed: the metadata file is \
         truncated; its host writes the block again within seconds if its agent runs"
    )]
    Truncated {
        /// Whose block.
        host: HostId,
        /// Bytes there are.
        len: usize,
    },
    /// It is not text: remains of other data, as on a volume that was never zeroed.
    #[error(
        "the block of host {host} is not a host record (it starts with {start:?}); if no such host exists, remove it \
         with: hosted-engine --clean-metadata --host-id={host} --force-cleanup"
    )]
    NotARecord {
        /// Whose block.
        host: HostId,
        /// Its beginning, made printable.
        start: String,
    },
    /// Written by a release that says we cannot read it.
    #[error(
        "the block of host {host} has format version {version}, too new for this release (it reads up to \
         {FORMAT_VERSION}): update this host"
    )]
    TooNew {
        /// Whose block.
        host: HostId,
        /// What it says, possibly shortened to the largest number.
        version: u64,
    },
    /// Written by a release whose blocks are not understood any more.
    #[error(
        "the block of host {host} has feature version {version}, too old for this release (it reads from \
         {FORMAT_VERSION}): update host {host}"
    )]
    TooOld {
        /// Whose block.
        host: HostId,
        /// What it says.
        version: i64,
    },
    /// Fields are missing.
    #[error("the block of host {host} has {fields} fields, at least {MIN_FIELDS} are needed")]
    MissingFields {
        /// Whose block.
        host: HostId,
        /// How many there are.
        fields: usize,
    },
    /// A field's value is not of its kind.
    #[error("the block of host {host}: {field} is {value:?}, expected {expected}")]
    Field {
        /// Whose block.
        host: HostId,
        /// Which field.
        field: &'static str,
        /// Its value, made printable.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The checksum is not that of the record.
    #[error(
        "the block of host {host} is damaged: it says checksum {stored:?}, its fields give {computed:08x}; its host \
         writes the block again within seconds if its agent runs"
    )]
    Checksum {
        /// Whose block.
        host: HostId,
        /// What the block says, made printable.
        stored: String,
        /// What its fields give.
        computed: u32,
    },
    /// The block of another host in this host's place.
    #[error(
        "the block of host {host} says that it belongs to host {found}: it was written to the wrong place"
    )]
    WrongPlace {
        /// Whose block.
        host: HostId,
        /// Who it says it is.
        found: i64,
    },
}

impl HostBlock {
    /// Reads the block in host `expected`'s place. `bytes` may be shorter or longer than a block. `Ok(None)` when
    /// there is none: no bytes, or the first one is NUL.
    pub fn parse(expected: HostId, bytes: &[u8]) -> Result<Option<Self>, BlockError> {
        if bytes.first().is_none_or(|byte| *byte == 0) {
            return Ok(None);
        }
        let Some((critical, rest)) = bytes.split_at_checked(CRITICAL_SIZE) else {
            return Err(BlockError::Truncated { host: expected, len: bytes.len() });
        };
        let used = critical.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let record = &critical[..used];
        let parse_version = parse_version(expected, record)?;
        let fields = Fields { host: expected, fields: record.split(|byte| *byte == b'|').collect() };
        let mut block = fields.read(parse_version)?;
        let people = &rest[..rest.len().min(BLOCK_SIZE - CRITICAL_SIZE)];
        let end = people.iter().position(|byte| *byte == 0).unwrap_or(people.len());
        block.extra = printable(&people[..end], &['\n', '\t']);
        Ok(Some(block))
    }
}

/// Reads all host blocks of a file or of its beginning. `file` starts with block 0, which is skipped; absent blocks
/// have no entry; a bad one has its error and costs nobody else.
pub fn parse_blocks(file: &[u8]) -> BTreeMap<HostId, Result<HostBlock, BlockError>> {
    let ids = (1..=MAX_HOST_ID).filter_map(|id| HostId::new(id).ok());
    ids.zip(file.chunks(BLOCK_SIZE).skip(1))
        .filter_map(|(id, bytes)| HostBlock::parse(id, bytes).transpose().map(|parsed| (id, parsed)))
        .collect()
}

/// The leading digits, checked before anything else of the format is trusted.
fn parse_version(host: HostId, record: &[u8]) -> Result<u32, BlockError> {
    let digits = record.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(record.len());
    let not_a_record = || BlockError::NotARecord { host, start: excerpt(record, SHOWN) };
    if digits == 0 {
        return Err(not_a_record());
    }
    let version =
        std::str::from_utf8(&record[..digits]).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    match u32::try_from(version) {
        Ok(version @ 0..=FORMAT_VERSION) => Ok(version),
        // Every release writes text; random bytes that happen to start with a digit are no newer release.
        _ if !is_text(record) => Err(not_a_record()),
        _ => Err(BlockError::TooNew { host, version }),
    }
}

fn is_text(record: &[u8]) -> bool {
    std::str::from_utf8(record)
        .is_ok_and(|text| !text.contains(|c: char| c.is_control() && !"\n\t".contains(c)))
}

/// A record's fields, and whose they are for the errors.
struct Fields<'a> {
    host: HostId,
    fields: Vec<&'a [u8]>,
}

impl Fields<'_> {
    fn read(&self, parse_version: u32) -> Result<HostBlock, BlockError> {
        let host = self.host;
        if self.fields.len() < MIN_FIELDS {
            return Err(BlockError::MissingFields { host, fields: self.fields.len() });
        }
        let feature: i64 = self.number(1, "feature version", "a whole number")?;
        let feature_version = match u32::try_from(feature) {
            Ok(version) if version >= FORMAT_VERSION => version,
            Err(_) if feature > 0 => u32::MAX,
            _ => return Err(BlockError::TooOld { host, version: feature }),
        };
        // Before the other fields: a damaged record shall be called damaged.
        let crc32 = self.fields.get(9).map(|stored| self.checksum(stored)).transpose()?;
        let found = self.number(3, "host id", "a whole number")?;
        if found != i64::from(host.get()) {
            return Err(BlockError::WrongPlace { host, found });
        }
        let conf_known = self.fields.len() >= 12;
        Ok(HostBlock {
            parse_version,
            feature_version,
            host_ts: self.number(2, "host timestamp", "whole seconds")?,
            host_id: host,
            score: Score(self.number(4, "score", "a whole number, 0 or more")?),
            engine_status: EngineStatus::parse(&String::from_utf8_lossy(self.fields[5])),
            hostname: printable(self.fields[6], &[]),
            maintenance: self.flag(7, "local maintenance")?.unwrap_or(false),
            stopped: self.flag(8, "stopped")?.unwrap_or(false),
            crc32,
            conf_on_shared_storage: if conf_known { self.flag(10, "conf_on_shared_storage")? } else { None },
            local_conf_timestamp: conf_known
                .then(|| self.number(11, "local_conf_timestamp", "whole seconds"))
                .transpose()?,
            extra: String::new(),
        })
    }

    fn number<T: FromStr>(
        &self,
        at: usize,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, BlockError> {
        let value = self.fields[at];
        std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            BlockError::Field { host: self.host, field, value: excerpt(value, SHOWN), expected }
        })
    }

    /// A number above 0 is true, as existing readers take it. `None` when the record ends before the field.
    fn flag(&self, at: usize, field: &'static str) -> Result<Option<bool>, BlockError> {
        if at >= self.fields.len() {
            return Ok(None);
        }
        self.number::<i64>(at, field, "0 or 1").map(|number| Some(number > 0))
    }

    fn checksum(&self, stored: &[u8]) -> Result<u32, BlockError> {
        let mut hasher = crc32fast::Hasher::new();
        for (at, field) in self.fields.iter().enumerate() {
            if at > 0 {
                hasher.update(b"|");
            }
            hasher.update(if at == 9 { EMPTY_CRC.as_bytes() } else { field });
        }
        let computed = hasher.finalize();
        if format!("{computed:08x}").as_bytes() == stored {
            Ok(computed)
        } else {
            Err(BlockError::Checksum { host: self.host, stored: excerpt(stored, SHOWN), computed })
        }
    }
}
