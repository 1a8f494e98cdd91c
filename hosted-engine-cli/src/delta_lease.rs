//! Reading, never writing, the records of host ids in a sanlock lockspace, straight from storage.
//!
//! A daemon answers questions about other hosts only in a lockspace that it has joined. Set-up and repair must know
//! before that whether a host id is in use.

use std::collections::BTreeMap;

use metadata_format::{HostId, MAX_HOST_ID};
use sanlock_client::{DeltaRecord, GridSize};

use crate::shared_file::{SharedFile, SharedFileError, UNIT};

/// Reads the record of `host` from the lockspace at the start of `file`. `None` when there is none.
pub fn read(file: &SharedFile, host: HostId) -> Result<Option<DeltaRecord>, SharedFileError> {
    let Some(sector) = sector_size(file)? else { return Ok(None) };
    let offset = sector * (usize::from(host.get()) - 1);
    let start = offset / UNIT * UNIT;
    let bytes = file.read(start as u64, UNIT)?;
    Ok(bytes.get(offset - start..).and_then(DeltaRecord::parse))
}

/// Reads the records of all hosts from the lockspace at the start of `file`.
pub fn read_all(file: &SharedFile) -> Result<BTreeMap<HostId, DeltaRecord>, SharedFileError> {
    let Some(sector) = sector_size(file)? else { return Ok(BTreeMap::new()) };
    let bytes = file.read(0, sector * usize::from(MAX_HOST_ID))?;
    let ids = (1..=MAX_HOST_ID).filter_map(|id| HostId::new(id).ok());
    Ok(ids
        .zip(bytes.chunks(sector))
        .filter_map(|(id, record)| Some((id, DeltaRecord::parse(record)?)))
        .collect())
}

/// Sector size of a lockspace. `None` when there is no lockspace.
fn sector_size(file: &SharedFile) -> Result<Option<usize>, SharedFileError> {
    Ok(layout(file)?.map(|grid| if grid.sector_bytes() == 4096 { 4096 } else { 512 }))
}

/// Layout of the lockspace at the start of `file`, from its first record; where that is damaged, from the first one that
/// is where its own sector size puts it. `None` when there is no record.
pub fn layout(file: &SharedFile) -> Result<Option<GridSize>, SharedFileError> {
    if let Some(first) = DeltaRecord::parse(&file.read(0, UNIT)?) {
        return Ok(Some(first.grid()));
    }
    let bytes = file.read(0, 4096 * usize::from(MAX_HOST_ID))?;
    Ok([512_u16, 4096].into_iter().find_map(|size| {
        let sectors = bytes.chunks_exact(usize::from(size)).take(usize::from(MAX_HOST_ID));
        let mut records = sectors.filter_map(DeltaRecord::parse);
        records.find(|record| record.sector_size == u32::from(size)).map(|record| record.grid())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(timestamp: u64) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[..4].copy_from_slice(&0x1221_2010_u32.to_le_bytes());
        sector[12..16].copy_from_slice(&512_u32.to_le_bytes());
        sector[152..160].copy_from_slice(&timestamp.to_le_bytes());
        sector
    }

    #[test]
    fn the_right_sector_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lockspace");
        let mut bytes = vec![0; 1 << 20];
        bytes[..512].copy_from_slice(&sector(0));
        bytes[9 * 512..10 * 512].copy_from_slice(&sector(99));
        std::fs::write(&path, &bytes).unwrap();
        let file = SharedFile::open(&path, false).unwrap();
        let read = |id| read(&file, HostId::new(id).unwrap()).unwrap();
        assert!(!read(1).unwrap().is_taken());
        assert_eq!(read(2), None);
        assert_eq!(read(10).unwrap().timestamp, 99);
        let all = read_all(&file).unwrap();
        assert_eq!(all.keys().map(|id| id.get()).collect::<Vec<_>>(), [1, 10]);
        assert_eq!(all[&HostId::new(10).unwrap()], read(10).unwrap());

        // A damaged first sector hides no other host.
        bytes[..512].fill(b'x');
        std::fs::write(&path, &bytes).unwrap();
        let file = SharedFile::open(&path, false).unwrap();
        let ten = HostId::new(10).unwrap();
        assert_eq!(super::read(&file, ten).unwrap(), all.get(&ten).cloned());
        assert_eq!(read_all(&file).unwrap().into_keys().collect::<Vec<_>>(), [ten]);
        assert_eq!(layout(&file).unwrap(), Some(GridSize::Sector512Align1M));
        bytes.fill(b'x');
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(layout(&SharedFile::open(&path, false).unwrap()).unwrap(), None);
    }
}
