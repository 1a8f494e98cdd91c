//! Reading and writing volumes on shared storage past the page cache, for set-up and repair only.
//!
//! The cache of this host must not stand between it and what other hosts wrote. A file system without direct I/O is
//! local to this machine, where there is one cache only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Everything is read and written in multiples of this; it suits sectors of 512 and of 4096 bytes.
pub const UNIT: usize = 4096;

/// A volume or a part of one could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct SharedFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// An open volume.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    path: PathBuf,
}

/// Bytes that start at a multiple of [`UNIT`] in memory.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + UNIT];
        // `align_offset` may decline to answer; direct I/O then fails with a clear error of the kernel.
        let start = bytes.as_ptr().align_offset(UNIT).min(UNIT);
        Self { bytes, start, len }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl SharedFile {
    /// Opens for reading, or for reading and synchronous writing.
    pub fn open(path: &Path, writable: bool) -> Result<Self, SharedFileError> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let sync = if writable { i32::try_from(rustix::fs::OFlags::DSYNC.bits()).unwrap_or(0) } else { 0 };
        let open = |flags| OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path);
        let file = match open(direct | sync) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => open(sync),
            other => other,
        };
        let file =
            file.map_err(|source| SharedFileError { action: "open", path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Reads up to `len` bytes (rounded up to [`UNIT`]) from `offset`, a multiple of [`UNIT`]; fewer at the end.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, SharedFileError> {
        let mut buffer = Aligned::zeroed(len.next_multiple_of(UNIT));
        let mut have = 0;
        while have < buffer.len {
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
        let mut buffer = Aligned::zeroed(bytes.len().next_multiple_of(UNIT));
        buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
        self.file
            .write_all_at(buffer.as_mut(), offset)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| self.error("write", source))?;
        let back = self.read(offset, buffer.len)?;
        if back == buffer.as_mut() {
            return Ok(());
        }
        let source = io::Error::other("what was read back is not what was written");
        Err(self.error("write", source))
    }

    /// Bytes in the volume.
    pub fn size(&self) -> Result<u64, SharedFileError> {
        // Not the metadata's: a block device has none.
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::End(0))
            .map_err(|error| self.error("tell the size of", error.into()))
    }

    /// Sector size of the storage, 512 or 4096: whether it takes reads of 512 bytes.
    pub fn sector_size(&self) -> Result<u32, SharedFileError> {
        let mut buffer = Aligned::zeroed(512);
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
        assert_eq!(file.size().unwrap(), 3 * UNIT as u64);
    }

    #[test]
    fn errors_name_the_file() {
        let error = SharedFile::open(Path::new("/no/such/volume"), false).unwrap_err().to_string();
        assert!(error.contains("/no/such/volume"), "{error}");
    }
}
