//! The configuration volume on shared storage: a tar archive with the cluster's configuration files.
//!
//! The existing tools write 20480 bytes at the start of the volume: `version`, `fhanswers.conf`, `hosted-engine.conf`,
//! `broker.conf`, `vm.conf`. Written here is the same with `ha.toml` added, plain ustar. Reads any tar of regular files
//! with short names. Pure: no I/O.

use std::collections::BTreeMap;

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
    /// More than [`MAX_BYTES`], or a name of more than 100 bytes.
    #[error("{0:?} does not fit into the configuration volume")]
    TooLong(String),
}

/// Reads the files in an archive.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let mut files = BTreeMap::new();
    let mut offset = 0;
    while let Some(header) = bytes.get(offset..offset + BLOCK) {
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
        if matches!(header[156], b'0' | 0) {
            let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
            files.insert(String::from_utf8_lossy(name).into_owned(), content.to_vec());
        }
        offset = end.next_multiple_of(BLOCK);
    }
    if files.is_empty() { Err(ArchiveError::Empty) } else { Ok(files) }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tar_itself_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("conf.tar");
        let archive = write(&[("version", b"1.0"), ("vm.conf", b"vmId=x\n")], 1_700_000_000).unwrap();
        assert_eq!(archive.len(), RECORD);
        std::fs::write(&path, &archive).unwrap();
        let output =
            std::process::Command::new("tar").arg("-xOf").arg(&path).arg("vm.conf").output().unwrap();
        assert_eq!(output.stdout, b"vmId=x\n");
    }

    #[test]
    fn reads_what_tar_writes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hosted-engine.conf"), "host_id=1\n").unwrap();
        let output = std::process::Command::new("tar")
            .args(["--record-size=20480", "-cf", "-", "-C"])
            .arg(dir.path())
            .arg("hosted-engine.conf")
            .output()
            .unwrap();
        assert_eq!(read(&output.stdout).unwrap()["hosted-engine.conf"], b"host_id=1\n");
    }

    #[test]
    fn empty_and_damaged_volumes_are_told_apart() {
        assert_eq!(read(&[0; 4096]), Err(ArchiveError::Empty));
        let mut archive = write(&[("a", b"b")], 0).unwrap();
        archive[0] ^= 1;
        assert!(matches!(read(&archive), Err(ArchiveError::Damaged { offset: 0, .. })));
    }

    proptest! {
        #[test]
        fn writing_then_reading_is_identity(content in prop::collection::vec(any::<u8>(), 0..2000)) {
            let archive = write(&[("a.conf", &content), ("b", b"")], 7).unwrap();
            let files = read(&archive).unwrap();
            prop_assert_eq!(&files["a.conf"], &content);
            prop_assert_eq!(files.len(), 2);
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1600), at in 0_usize..1500, byte: u8) {
            let _ = read(&bytes);
            let mut archive = write(&[("a.conf", b"0123456789")], 7).unwrap();
            archive[at] = byte;
            let _ = read(&archive);
        }
    }
}
