//! One file of a tar archive on a volume, without reading the rest.
//!
//! The engine writes the archive at the volume's start: `info.json`, `ID.ovf` for each VM, `metadata.json`, as plain ustar
//! with octal sizes. It may have the VMs of a whole data centre in it and be longer than memory should hold, so headers
//! are walked over and only the wanted file is read. What follows the archive's end on the volume has no meaning.

use crate::xml;

/// Bytes of one tar block.
const BLOCK: usize = 512;
/// Longest archive that is walked over; the engine makes volumes of 128 MiB.
const MAX_ARCHIVE: u64 = 1 << 30;
/// Most files.
const MAX_FILES: usize = 100_000;
/// Longest file, as XML is read.
const MAX_FILE: u64 = xml::MAX_BYTES as u64;

/// Where the bytes are.
pub trait Bytes {
    /// `len` bytes from `offset`; fewer at the end. Or why storage fails, with the path.
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String>;
}

/// Why the file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Storage fails.
    #[error("{0}")]
    Storage(String),
    /// The volume was never written.
    #[error("it is empty: the engine has not written to it yet")]
    Empty,
    /// Not a tar archive, or a damaged one.
    #[error("it is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no such file in it.
    #[error("{0} is not in it")]
    Missing(String),
}

/// The content of the file `name`. Of two with that name the last one counts, as with tar itself.
pub fn read<B: Bytes>(bytes: &B, name: &str) -> Result<Vec<u8>, ArchiveError> {
    let mut offset = 0;
    let mut found = None;
    for _ in 0..MAX_FILES {
        let damaged = |reason| ArchiveError::Damaged { offset, reason };
        let header = block(bytes, offset)?;
        let Some(header) = header.filter(|header| header.iter().any(|byte| *byte != 0)) else {
            let Some((start, len)) = found else {
                return Err(if offset == 0 {
                    ArchiveError::Empty
                } else {
                    ArchiveError::Missing(name.to_owned())
                });
            };
            return content(bytes, start, len);
        };
        if octal(&header[148..156]) != Some(checksum(&header)) {
            return Err(damaged("the checksum of a file's header is wrong"));
        }
        let size = octal(&header[124..136]).ok_or_else(|| damaged("a file's size is no number"))?;
        let start = offset + BLOCK as u64;
        let end = start.checked_add(size).filter(|end| *end <= MAX_ARCHIVE);
        let end = end.ok_or_else(|| damaged("a file reaches beyond 1 GiB"))?;
        let known = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        if matches!(header[156], b'0' | 0) && known == name.as_bytes() {
            if size > MAX_FILE {
                return Err(damaged("the file is longer than 4 MiB"));
            }
            found = Some((start, size));
        }
        offset = end.next_multiple_of(BLOCK as u64);
    }
    Err(ArchiveError::Damaged { offset, reason: "there are more than 100000 files" })
}

/// `None` at the end.
fn block<B: Bytes>(bytes: &B, offset: u64) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
    let read = bytes.read(offset, BLOCK).map_err(ArchiveError::Storage)?;
    Ok(read.first_chunk().copied())
}

fn content<B: Bytes>(bytes: &B, start: u64, len: u64) -> Result<Vec<u8>, ArchiveError> {
    let wanted = usize::try_from(len).unwrap_or(usize::MAX);
    let mut content = bytes.read(start, wanted).map_err(ArchiveError::Storage)?;
    if content.len() < wanted {
        return Err(ArchiveError::Damaged { offset: start, reason: "the volume ends inside the file" });
    }
    content.truncate(wanted);
    Ok(content)
}

/// The sum of a header's bytes with its checksum field taken as spaces.
fn checksum(header: &[u8]) -> u64 {
    let field = 148..156;
    let bytes = header.iter().enumerate();
    bytes.map(|(at, byte)| if field.contains(&at) { u64::from(b' ') } else { u64::from(*byte) }).sum()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_config::conf_archive;
    use proptest::prelude::*;

    impl Bytes for Vec<u8> {
        fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
            let from = usize::try_from(offset).unwrap().min(self.len());
            Ok(self[from..(from + len).min(self.len())].to_vec())
        }
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        conf_archive::write(files, 0).unwrap()
    }

    #[test]
    fn one_file_of_many_is_read() {
        let mut bytes =
            archive(&[("info.json", b"{}"), ("a.ovf", b"old"), ("b.ovf", &[7; 600]), ("a.ovf", b"new")]);
        // An older, longer archive was here before.
        bytes.extend_from_slice(&[b'x'; 4096]);
        assert_eq!(read(&bytes, "a.ovf"), Ok(b"new".to_vec()));
        assert_eq!(read(&bytes, "b.ovf"), Ok(vec![7; 600]));
        let missing = read(&bytes, "c.ovf").unwrap_err();
        assert_eq!(missing.to_string(), "c.ovf is not in it");
        assert_eq!(read(&vec![0; 4096], "a.ovf"), Err(ArchiveError::Empty));
        assert_eq!(read(&Vec::new(), "a.ovf"), Err(ArchiveError::Empty));
    }

    #[test]
    fn damage_is_placed() {
        let good = archive(&[("a.ovf", b"text"), ("b.ovf", b"more")]);
        let mut flipped = good.clone();
        flipped[1024] ^= 1;
        assert!(matches!(read(&flipped, "b.ovf"), Err(ArchiveError::Damaged { offset: 1024, .. })));
        let cut = good[..1024 + 512 + 2].to_vec();
        let error = read(&cut, "b.ovf").unwrap_err().to_string();
        assert_eq!(error, "it is damaged at byte 1536: the volume ends inside the file");
        assert!(matches!(read(&vec![b'x'; 512], "a"), Err(ArchiveError::Damaged { offset: 0, .. })));
    }

    #[test]
    fn what_tar_writes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let name = "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be113.ovf";
        std::fs::write(dir.path().join(name), "<ovf/>").unwrap();
        let output = std::process::Command::new("tar")
            .args(["-cf", "-", "-C"])
            .arg(dir.path())
            .arg(name)
            .output()
            .unwrap();
        assert_eq!(read(&output.stdout, name), Ok(b"<ovf/>".to_vec()));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1600), at in 0_usize..1500, byte: u8) {
            let _ = read(&bytes, "a");
            let mut damaged = archive(&[("a", b"0123456789")]);
            damaged[at] = byte;
            let _ = read(&damaged, "a");
        }
    }
}
