//! Reading and writing volumes on shared storage past the page cache: for the configuration volume, set-up and repair.
//!
//! The cache of this host must not stand between it and what other hosts wrote. A file system without direct I/O is
//! local to this machine, where there is one cache only.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};

use crate::aligned::{ALIGNMENT, AlignedBuffer};
use crate::error::ConfigError;

/// Everything is read and written in multiples of this; it suits sectors of 512 and of 4096 bytes.
pub const UNIT: usize = ALIGNMENT;

/// A volume or a part of one could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct SharedFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl From<SharedFileError> for ConfigError {
    fn from(SharedFileError { action, path, source }: SharedFileError) -> Self {
        Self::Io { action, path, source }
    }
}

/// What became of the wish to be alone with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Until this [`SharedFile`] is dropped.
    Held,
    /// Somebody else has it.
    Busy,
    /// The file system knows no locks.
    Unsupported,
}

/// An open volume.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    path: PathBuf,
}

impl SharedFile {
    /// Opens for reading, or for reading and synchronous writing.
    pub fn open(path: &Path, writable: bool) -> Result<Self, SharedFileError> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let sync = if writable { i32::try_from(rustix::fs::OFlags::DSYNC.bits()).unwrap_or(0) } else { 0 };
        let open = || {
            let open = |flags| OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path);
            match open(direct | sync) {
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                    open(sync)
                }
                other => other,
            }
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                as_owner_of(path, open).unwrap_or(Err(error))
            }
            other => other,
        };
        let file =
            file.map_err(|source| SharedFileError { action: "open", path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The volume.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file or device in bytes.
    pub fn size(&self) -> Result<u64, SharedFileError> {
        (&self.file).seek(io::SeekFrom::End(0)).map_err(|source| self.error("find the length of", source))
    }

    /// Asks once for the exclusive `flock` of the volume, which needs it open for writing. The NFS client turns it
    /// into a lock that all hosts see. On a block device and on file systems without shared locks it keeps only
    /// this host's own processes apart.
    pub fn try_lock(&self) -> Result<Lock, SharedFileError> {
        match self.file.try_lock() {
            Ok(()) => Ok(Lock::Held),
            Err(TryLockError::WouldBlock) => Ok(Lock::Busy),
            Err(TryLockError::Error(error)) => {
                let none = [rustix::io::Errno::NOLCK, rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::NOSYS];
                if none.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
                    Ok(Lock::Unsupported)
                } else {
                    Err(self.error("lock", error))
                }
            }
        }
    }

    /// Reads up to `len` bytes (rounded up to [`UNIT`]) from `offset`, a multiple of the storage's sector; fewer at the
    /// end.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, SharedFileError> {
        let wanted = len.next_multiple_of(UNIT);
        let mut buffer = AlignedBuffer::zeroed(wanted);
        let mut have = 0;
        while have < wanted {
            let got = self.file.read_at(&mut buffer.as_mut()[have..], offset + have as u64);
            match got.map_err(|source| self.error("read", source))? {
                0 => break,
                got => have += got,
            }
            if !have.is_multiple_of(UNIT) {
                break;
            }
        }
        Ok(buffer.as_mut()[..have].to_vec())
    }

    /// Writes `bytes`, padded with zeros to a multiple of [`UNIT`], at `offset`, and reads them back.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SharedFileError> {
        let mut buffer = AlignedBuffer::zeroed(bytes.len().next_multiple_of(UNIT));
        buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
        self.write_aligned(offset, &buffer)
    }

    /// Writes `bytes`, whole sectors of the storage, at `offset`, a multiple of the sector, and reads them back. What lies
    /// beside them is not touched: one sector is one atomic write.
    pub fn write_sectors(&self, offset: u64, bytes: &[u8]) -> Result<(), SharedFileError> {
        self.write_aligned(offset, &AlignedBuffer::copy_of(bytes))
    }

    fn write_aligned(&self, offset: u64, buffer: &AlignedBuffer) -> Result<(), SharedFileError> {
        let len = buffer.as_ref().len();
        self.file
            .write_all_at(buffer.as_ref(), offset)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| self.error("write", source))?;
        let back = self.read(offset, len)?;
        if back.get(..len) == Some(buffer.as_ref()) {
            return Ok(());
        }
        let source = io::Error::other("what was read back is not what was written");
        Err(self.error("write", source))
    }

    /// Sector size of the storage, 512 or 4096: whether it takes reads of 512 bytes.
    pub fn sector_size(&self) -> Result<u32, SharedFileError> {
        let mut buffer = AlignedBuffer::zeroed(512);
        match self.file.read_at(buffer.as_mut(), 512) {
            Ok(_) => Ok(512),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(4096),
            Err(source) => Err(self.error("read", source)),
        }
    }

    fn error(&self, action: &'static str, source: io::Error) -> SharedFileError {
        SharedFileError { action, path: self.path.clone(), source }
    }
}

/// Opens with the rights of the file's owner, in a thread of its own, when we are root: NFS servers take root for
/// nobody. Who opened a file of NFS is who reads and writes it. `None` when there is nothing to gain.
fn as_owner_of(path: &Path, open: impl FnOnce() -> io::Result<File> + Send) -> Option<io::Result<File>> {
    let meta = std::fs::metadata(path).ok().filter(|meta| meta.uid() != 0)?;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    Some(as_user(meta.uid(), meta.gid(), open))
}

/// Does something with files in a thread of its own, with a user's rights and nobody else's: for NFS servers that take
/// root for nobody. Only root may ask for that.
///
/// # Errors
/// Of the work, or of becoming that user.
pub fn as_user<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let become_user = move || -> io::Result<()> {
        rustix::thread::set_thread_groups(&[gid])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
    };
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || become_user().and_then(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_padded_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::write(&path, vec![0xff; 3 * UNIT]).unwrap();
        let file = SharedFile::open(&path, true).unwrap();
        file.write(UNIT as u64, b"abc").unwrap();
        let all = file.read(0, 4 * UNIT).unwrap();
        assert_eq!(all.len(), 3 * UNIT);
        assert_eq!(&all[UNIT..UNIT + 4], b"abc\0");
        assert!(all[..UNIT].iter().chain(&all[2 * UNIT..]).all(|byte| *byte == 0xff));
        assert!(matches!(file.sector_size().unwrap(), 512 | 4096));
    }

    #[test]
    fn a_sector_is_written_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::write(&path, vec![0xff; 2 * UNIT]).unwrap();
        let file = SharedFile::open(&path, true).unwrap();
        let sector = file.sector_size().unwrap() as usize;
        file.write_sectors(sector as u64, &vec![1; sector]).unwrap();
        let all = file.read(0, 2 * UNIT).unwrap();
        assert!(all[sector..2 * sector].iter().all(|byte| *byte == 1));
        assert!(all[..sector].iter().chain(&all[2 * sector..]).all(|byte| *byte == 0xff));
        let last = 2 * UNIT - sector;
        file.write_sectors(last as u64, &vec![2; sector]).unwrap();
        assert_eq!(file.read(last as u64, sector).unwrap()[0], 2, "a read up to the end of the file");
    }

    #[test]
    fn one_at_a_time_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::write(&path, vec![0; UNIT]).unwrap();
        let (first, second) =
            (SharedFile::open(&path, true).unwrap(), SharedFile::open(&path, true).unwrap());
        assert_eq!(first.try_lock().unwrap(), Lock::Held);
        assert_eq!(second.try_lock().unwrap(), Lock::Busy);
        drop(first);
        assert_eq!(second.try_lock().unwrap(), Lock::Held);
        assert_eq!(second.size().unwrap(), UNIT as u64);
    }

    #[test]
    fn root_opens_with_the_owners_rights_where_its_own_do_not_count() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::write(&path, vec![0; UNIT]).unwrap();
        if !rustix::process::geteuid().is_root() {
            assert!(as_owner_of(&path, || File::open(&path)).is_none());
            return;
        }
        assert!(as_owner_of(&path, || File::open(&path)).is_none(), "it is root's own");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&path, Some(36), Some(36)).unwrap();
        for (mode, opens) in [(0o600, true), (0o000, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(as_owner_of(&path, || File::open(&path)).unwrap().is_ok(), opens, "{mode:o}");
        }
        assert!(rustix::process::geteuid().is_root(), "only that thread changed");
    }

    #[test]
    fn errors_name_the_file() {
        let error = SharedFile::open(Path::new("/no/such/volume"), false).unwrap_err().to_string();
        assert!(error.contains("/no/such/volume"), "{error}");
    }
}
