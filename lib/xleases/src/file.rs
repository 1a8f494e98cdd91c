//! The volume as a file or block device of this host, read and written past its page cache.

use std::io;
use std::path::Path;

use ha_config::shared_file::SharedFile;
use sanlock_client::{GridSize, Owner, PaxosRecord};

use crate::index::{INDEX_BYTES, Index, IndexError, LeaseName, MAGIC, METADATA_BYTES, RESERVED_SLOTS};
use crate::volume::{LeasesVolume, Resources, Storage, VolumeError};

const MIB: u64 = 1 << 20;

impl Storage for SharedFile {
    fn size(&self) -> io::Result<u64> {
        Self::size(self).map_err(io::Error::other)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Self::read(self, offset, len).map_err(io::Error::other)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_sectors(offset, bytes).map_err(io::Error::other)
    }
}

/// For whoever only looks: nothing is made or cleared.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOnly;

impl ReadOnly {
    fn refuse<T>() -> Result<T, String> {
        Err("the volume was opened to read only".to_owned())
    }
}

impl Resources for ReadOnly {
    fn write(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
        Self::refuse()
    }

    fn clear(&self, _lockspace: &str, _offset: u64) -> Result<(), String> {
        Self::refuse()
    }

    fn may_hold(&self, _lockspace: &str, _owner: Owner) -> Result<bool, String> {
        Ok(true)
    }

    fn take(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
        Self::refuse()
    }

    fn give_back(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
        Self::refuse()
    }
}

/// The grid that an existing index stands in; `None` when there is no index anywhere. `hint` is the grid of the domain's
/// lockspace, which its leases share; without it a volume of 1 MiB slots is told by its first lease, else by the
/// storage's sectors.
///
/// # Errors
/// The volume cannot be read.
pub fn grid_of_index(file: &SharedFile, hint: Option<GridSize>) -> io::Result<Option<GridSize>> {
    let size = Storage::size(file)?;
    let sector = file.sector_size().map_err(io::Error::other)?;
    for (align, grid) in [
        (MIB, GridSize::Sector4kAlign1M),
        (2 * MIB, GridSize::Sector4kAlign2M),
        (4 * MIB, GridSize::Sector4kAlign4M),
        (8 * MIB, GridSize::Sector4kAlign8M),
    ] {
        if align + METADATA_BYTES as u64 > size {
            break;
        }
        let head = Storage::read(file, align, METADATA_BYTES)?;
        if !head.starts_with(&MAGIC.to_be_bytes()) {
            continue;
        }
        if align > MIB {
            return Ok(Some(grid));
        }
        if let Some(hint) = hint.filter(|hint| hint.align_bytes() == align) {
            return Ok(Some(hint));
        }
        let first = Storage::read(file, RESERVED_SLOTS * align, METADATA_BYTES)?;
        let told = PaxosRecord::parse(&first).map(|record| record.grid);
        let by_sector = if sector == 4096 { grid } else { GridSize::Sector512Align1M };
        return Ok(Some(told.unwrap_or(by_sector)));
    }
    Ok(None)
}

/// Opens a volume to look at it.
///
/// # Errors
/// It cannot be read, was never formatted ([`IndexError::Blank`]), or its index cannot be used.
pub fn open_to_read(
    path: &Path,
    hint: Option<GridSize>,
) -> Result<LeasesVolume<SharedFile, ReadOnly>, VolumeError> {
    let failed = |source| VolumeError::Io { action: "read", source };
    let file = SharedFile::open(path, false).map_err(|error| failed(io::Error::other(error)))?;
    match grid_of_index(&file, hint).map_err(failed)? {
        Some(grid) => LeasesVolume::open(file, ReadOnly, grid),
        None => Err(no_index(&file)),
    }
}

/// Why there is no index: nothing was ever written in its place, or something else was.
fn no_index(file: &SharedFile) -> VolumeError {
    match Storage::read(file, MIB, INDEX_BYTES).map(|bytes| Index::parse(&bytes)) {
        Ok(Err(error)) => VolumeError::Index(error),
        Ok(Ok(_)) => VolumeError::Index(IndexError::Blank),
        Err(source) => VolumeError::Io { action: "read", source },
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
