//! Reading and changing the configuration volume, past the page cache, so that no change of another host gets lost.
//!
//! The format has no lock, and hosts with the existing release take none. A change is therefore:
//!
//! ```text
//!  try_lock ── read ── prepare (pure) ── keep a copy ── write ──┬─ wait ── is_in_place ── done
//!               ^                                               │              │ no
//!               │            read once more: not what it was ───┘              │
//!               └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! - The lock keeps hosts of this release apart on NFS; on block storage it reaches one host only.
//! - [`ConfVolume::write`] reads again right before it writes, and writes nothing over a change that it did not see.
//! - Two hosts that both read before either wrote are told apart by waiting: who writes, waits longer than another
//!   host takes from its second read to its write, and looks whether its change is still there.
//!
//! What remains: a writer that stalls longer than the wait between its second read and its write overwrites a change
//! that was called done meanwhile. The existing tools have the same gap without the wait, and so can overwrite ours.

use std::path::{Path, PathBuf};

use crate::conf_archive::{self, Archive, ArchiveError};
use crate::shared_file::{Lock, SharedFile, SharedFileError};

/// Why the configuration volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Storage fails, or is not there.
    #[error(transparent)]
    Storage(#[from] SharedFileError),
    /// What is in it is not usable, or would not be.
    #[error("{}: {source}", path.display())]
    Archive {
        /// The volume.
        path: PathBuf,
        /// What is wrong.
        source: ArchiveError,
    },
    /// The changed archive is longer than the volume.
    #[error("{}: the changed archive has {needed} bytes, and the volume only {size}", path.display())]
    Full {
        /// The volume.
        path: PathBuf,
        /// Bytes of the archive.
        needed: usize,
        /// Bytes of the volume.
        size: u64,
    },
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// It was written and read back.
    Done,
    /// Somebody else changed the volume since it was read: nothing was written. Begin again.
    Overtaken,
}

/// A configuration volume that is open for a change.
#[derive(Debug)]
pub struct ConfVolume {
    file: SharedFile,
}

/// Reads the archive of a volume.
pub fn read(path: &Path) -> Result<Archive, VolumeError> {
    archive_of(&SharedFile::open(path, false)?)
}

fn archive_of(file: &SharedFile) -> Result<Archive, VolumeError> {
    let bytes = file.read(0, conf_archive::MAX_BYTES)?;
    Archive::parse(&bytes).map_err(|source| unusable(file, source))
}

fn unusable(file: &SharedFile, source: ArchiveError) -> VolumeError {
    VolumeError::Archive { path: file.path().to_owned(), source }
}

impl ConfVolume {
    /// Opens a volume for a change.
    pub fn open(path: &Path) -> Result<Self, VolumeError> {
        Ok(Self { file: SharedFile::open(path, true)? })
    }

    /// Asks once to be alone with the volume, as far as its storage can do that: until this value is dropped.
    pub fn try_lock(&self) -> Result<Lock, VolumeError> {
        Ok(self.file.try_lock()?)
    }

    /// What is in it now. It must be complete: what the existing tools would refuse is not changed further.
    pub fn read(&self) -> Result<Archive, VolumeError> {
        let archive = archive_of(&self.file)?;
        archive.check_complete().map_err(|source| unusable(&self.file, source))?;
        Ok(archive)
    }

    /// Another content for the file `name` of the archive that was read; checked to fit.
    pub fn prepare(&self, old: &Archive, name: &str, content: &[u8]) -> Result<Archive, VolumeError> {
        let fail = |source| unusable(&self.file, source);
        let new = old.with_content(name, content).map_err(fail)?;
        let (needed, size) = (new.encode().map_err(fail)?.len(), self.file.size()?);
        if needed as u64 > size {
            return Err(VolumeError::Full { path: self.file.path().to_owned(), needed, size });
        }
        Ok(new)
    }

    /// Writes `new` if the volume still has the files of `old`, and reads it back.
    pub fn write(&self, old: &Archive, new: &Archive) -> Result<Write, VolumeError> {
        let bytes = new.encode().map_err(|source| unusable(&self.file, source))?;
        if !self.is_in_place(old)? {
            return Ok(Write::Overtaken);
        }
        self.file.write(0, &bytes)?;
        Ok(Write::Done)
    }

    /// Whether the volume has exactly these files.
    pub fn is_in_place(&self, archive: &Archive) -> Result<bool, VolumeError> {
        Ok(archive_of(&self.file)?.same_files(archive))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FILES: [(&str, &[u8]); 5] = [
        ("version", b"1"),
        ("fhanswers.conf", b""),
        ("hosted-engine.conf", b"a=1\n"),
        ("broker.conf", b""),
        ("vm.conf", b"vmId=x\n"),
    ];

    fn volume(size: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let mut bytes = conf_archive::write(&FILES, 7).unwrap();
        bytes.resize(size, 0xaa);
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn a_change_is_written_and_the_rest_of_the_volume_stays() {
        let (_dir, path) = volume(3 * conf_archive::RECORD);
        let volume = ConfVolume::open(&path).unwrap();
        assert_eq!(volume.try_lock().unwrap(), Lock::Held);
        let old = volume.read().unwrap();
        let new = volume.prepare(&old, "hosted-engine.conf", b"a=2\n").unwrap();
        assert_eq!(volume.write(&old, &new).unwrap(), Write::Done);
        assert!(volume.is_in_place(&new).unwrap() && !volume.is_in_place(&old).unwrap());
        assert_eq!(read(&path).unwrap().content("hosted-engine.conf"), Some(b"a=2\n".as_slice()));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 3 * conf_archive::RECORD);
        assert!(bytes[conf_archive::RECORD..].iter().all(|byte| *byte == 0xaa));
    }

    #[test]
    fn a_change_of_another_host_is_not_overwritten() {
        let (_dir, path) = volume(conf_archive::RECORD);
        let (ours, theirs) = (ConfVolume::open(&path).unwrap(), ConfVolume::open(&path).unwrap());
        let old = ours.read().unwrap();
        let new = ours.prepare(&old, "hosted-engine.conf", b"a=2\n").unwrap();
        let other = theirs.prepare(&old, "broker.conf", b"[email]\n").unwrap();
        assert_eq!(theirs.write(&old, &other).unwrap(), Write::Done);
        assert_eq!(ours.write(&old, &new).unwrap(), Write::Overtaken);
        assert!(ours.is_in_place(&other).unwrap());
        // Both had read twice: the second writer wins, and the first one finds out.
        let (ours_new, theirs_new) = (
            ours.prepare(&other, "hosted-engine.conf", b"a=3\n").unwrap(),
            theirs.prepare(&other, "hosted-engine.conf", b"a=4\n").unwrap(),
        );
        assert_eq!(ours.write(&other, &ours_new).unwrap(), Write::Done);
        theirs.file.write(0, &theirs_new.encode().unwrap()).unwrap();
        assert!(!ours.is_in_place(&ours_new).unwrap());
    }

    #[test]
    fn a_full_and_an_incomplete_volume_are_refused_unchanged() {
        let (_dir, path) = volume(conf_archive::RECORD);
        let volume = ConfVolume::open(&path).unwrap();
        let old = volume.read().unwrap();
        let error = volume.prepare(&old, "broker.conf", &vec![b'#'; conf_archive::RECORD]).unwrap_err();
        assert!(error.to_string().contains("the changed archive has 40960 bytes, and the volume only 20480"));
        fs::write(&path, conf_archive::write(&FILES[..4], 7).unwrap()).unwrap();
        let error = volume.read().unwrap_err().to_string();
        assert!(error.contains("vm.conf is not in it"), "{error}");
    }
}
