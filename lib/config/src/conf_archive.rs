//! The configuration volume on shared storage: a tar archive with the cluster's configuration files.
//!
//! The existing tools write 20480 bytes at the start of the volume: `version`, `fhanswers.conf`, `hosted-engine.conf`,
//! `broker.conf`, `vm.conf`. Written here is the same with `ha.toml` added, plain ustar. Reads any tar of regular files
//! with short names. Pure: no I/O.
//!
//! The existing tools write only archives of one record and read longer ones; the engine reads the first record.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes of one tar block.
const BLOCK: usize = 512;
/// The existing tools expect the archive's size to be a multiple of this.
pub const RECORD: usize = 20480;
/// No archive is longer than this.
pub const MAX_BYTES: usize = 1 << 20;

/// Why an archive cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The volume was never written.
    #[error("the configuration volume is empty: nothing was deployed on this storage yet")]
    Empty,
    /// Not a tar archive, or a damaged one.
    #[error("the configuration volume is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Where.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Files that must be there are not.
    #[error("the configuration volume is not complete: {0} is not in it")]
    Incomplete(String),
    /// More than [`MAX_BYTES`], or a name of more than 100 bytes.
    #[error("{0:?} does not fit into the configuration volume")]
    TooLong(String),
}

/// The files that every archive of the existing tools has; they refuse one that lacks any.
pub const MEMBERS: [&str; 5] = ["version", "fhanswers.conf", HOSTED_ENGINE_CONF, BROKER_CONF, VM_CONF];
/// hosted-engine.conf in the archive.
pub const HOSTED_ENGINE_CONF: &str = "hosted-engine.conf";
/// broker.conf in the archive.
pub const BROKER_CONF: &str = "broker.conf";
/// vm.conf in the archive, as deploy wrote it.
pub const VM_CONF: &str = "vm.conf";

/// Reads the files in an archive.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let archive = Archive::parse(bytes)?;
    let files = archive.members.into_iter().filter(Member::is_file);
    Ok(files.map(|member| (member.name, member.content)).collect())
}

/// An archive with everything in it, in its order, so that one file can be changed and the rest stays byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Archive {
    members: Vec<Member>,
    /// Bytes on the volume that were the archive's.
    len: usize,
}

#[derive(Clone, PartialEq, Eq)]
struct Member {
    header: [u8; BLOCK],
    name: String,
    content: Vec<u8>,
}

impl Member {
    /// A regular file; what is not is kept and not looked into.
    const fn is_file(&self) -> bool {
        matches!(self.header[156], b'0' | 0)
    }
}

/// Names only: the files have passwords in them.
impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.members.iter().map(|member| (&member.name, member.content.len()));
        f.debug_map().entries(members).finish()
    }
}

impl Archive {
    /// Reads an archive. What follows its end on the volume has no meaning.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut members = Vec::new();
        let mut offset = 0;
        let mut any_file = false;
        while let Some(header) = bytes.get(offset..).and_then(<[u8]>::first_chunk::<BLOCK>) {
            if header.iter().all(|byte| *byte == 0) {
                break;
            }
            let damaged = |reason| ArchiveError::Damaged { offset, reason };
            let stored = octal(&header[148..156]).ok_or_else(|| damaged("the checksum is no number"))?;
            if stored != checksum(header) {
                return Err(damaged("the checksum of a file's header is wrong"));
            }
            let size = octal(&header[124..136]).ok_or_else(|| damaged("a file's size is no number"))?;
            let start = offset + BLOCK;
            let end = start
                .checked_add(size)
                .filter(|_| size <= MAX_BYTES)
                .ok_or_else(|| damaged("a file is too long"))?;
            let content = bytes.get(start..end).ok_or_else(|| damaged("the archive ends inside a file"))?;
            let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            let member = Member { header: *header, name, content: content.to_vec() };
            any_file |= member.is_file();
            members.push(member);
            offset = end.next_multiple_of(BLOCK);
        }
        if !any_file {
            return Err(ArchiveError::Empty);
        }
        Ok(Self { members, len: (offset + 2 * BLOCK).next_multiple_of(RECORD) })
    }

    /// Whether the existing tools will read it: all of [`MEMBERS`] must be there.
    pub fn check_complete(&self) -> Result<(), ArchiveError> {
        let missing: Vec<&str> = MEMBERS.into_iter().filter(|name| self.content(name).is_none()).collect();
        if missing.is_empty() { Ok(()) } else { Err(ArchiveError::Incomplete(missing.join(", "))) }
    }

    /// A file's content. Of two with the same name the last one counts.
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        let found = self.members.iter().rev().find(|member| member.is_file() && member.name == name);
        found.map(|member| member.content.as_slice())
    }

    /// The same archive with another content of the file `name`, which must be there. Its owner, mode and time, and
    /// every other file, known or not, stay as they are.
    pub fn with_content(&self, name: &str, content: &[u8]) -> Result<Self, ArchiveError> {
        let mut changed = self.clone();
        let last = changed.members.iter_mut().rev().find(|member| member.is_file() && member.name == name);
        let member = last.ok_or_else(|| ArchiveError::Incomplete(name.to_owned()))?;
        if content.len() > MAX_BYTES {
            return Err(ArchiveError::TooLong(name.to_owned()));
        }
        member.content = content.to_vec();
        member.header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        let sum = checksum(&member.header);
        member.header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Ok(changed)
    }

    /// The bytes to write: padded to whole records, and with zeros over what the archive was before when it shrank.
    pub fn encode(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::with_capacity(self.len);
        for member in &self.members {
            bytes.extend_from_slice(&member.header);
            bytes.extend_from_slice(&member.content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        let needed = (bytes.len() + 2 * BLOCK).next_multiple_of(RECORD);
        if needed > MAX_BYTES {
            return Err(ArchiveError::TooLong("the archive".to_owned()));
        }
        bytes.resize(needed.max(self.len.min(MAX_BYTES)), 0);
        Ok(bytes)
    }

    /// Whether `other` has the same files with the same bytes, wherever their archives end.
    pub fn same_files(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

/// Writes an archive, padded to a multiple of [`RECORD`]. `time` is the files' time in seconds since 1970.
pub fn write(files: &[(&str, &[u8])], time: u64) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Vec::with_capacity(RECORD);
    for (name, content) in files {
        if name.len() > 100 || content.len() > MAX_BYTES {
            return Err(ArchiveError::TooLong((*name).to_owned()));
        }
        let mut header = [0_u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000640\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(format!("{:011o}\0", time & 0o77_777_777_777).as_bytes());
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum = checksum(&header);
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize((archive.len() + 2 * BLOCK).next_multiple_of(RECORD), 0);
    if archive.len() > MAX_BYTES { Err(ArchiveError::TooLong("the archive".to_owned())) } else { Ok(archive) }
}

/// The sum of a header's bytes with its checksum field taken as spaces.
fn checksum(header: &[u8]) -> usize {
    header
        .iter()
        .enumerate()
        .map(|(index, byte)| if (148..156).contains(&index) { usize::from(b' ') } else { usize::from(*byte) })
        .sum()
}

fn octal(field: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { usize::from_str_radix(text, 8).ok() }
}

#[cfg(test)]
#[path = "conf_archive_tests.rs"]
mod tests;
