use std::path::PathBuf;

use super::*;
use crate::index::Slot;

/// A lock manager that nobody uses: it writes records as sanlock does, straight into the file.
struct Alone(PathBuf, GridSize);

impl Alone {
    fn record(&self, magic: u32, lockspace: &str, name: &str, offset: u64) -> Result<(), String> {
        let mut sector = vec![0; self.1.sector_bytes() as usize];
        sector[..4].copy_from_slice(&magic.to_le_bytes());
        let flags = u32::try_from(self.1.align_bytes() >> 16).unwrap();
        sector[8..12].copy_from_slice(&flags.to_le_bytes());
        sector[12..16].copy_from_slice(&self.1.sector_bytes().to_le_bytes());
        sector[56..56 + lockspace.len()].copy_from_slice(lockspace.as_bytes());
        sector[104..104 + name.len()].copy_from_slice(name.as_bytes());
        let file = SharedFile::open(&self.0, true).map_err(|error| error.to_string())?;
        file.write_sectors(offset, &sector).map_err(|error| error.to_string())
    }
}

impl Resources for Alone {
    fn write(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String> {
        self.record(0x0615_2010, lockspace, name.as_str(), offset)
    }

    fn clear(&self, lockspace: &str, offset: u64) -> Result<(), String> {
        self.record(0x1128_2016, lockspace, "", offset)
    }

    fn may_hold(&self, _lockspace: &str, _owner: Owner) -> Result<bool, String> {
        Ok(false)
    }

    fn take(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
        Ok(())
    }

    fn give_back(&self, _lockspace: &str, _name: &LeaseName, _offset: u64) -> Result<(), String> {
        Ok(())
    }
}

fn blank(bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("xleases");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    (dir, path)
}

#[test]
fn every_grid_is_found_again_and_its_leases_in_their_places() {
    for grid in [
        GridSize::Sector512Align1M,
        GridSize::Sector4kAlign1M,
        GridSize::Sector4kAlign2M,
        GridSize::Sector4kAlign4M,
        GridSize::Sector4kAlign8M,
    ] {
        let (_dir, path) = blank(6 * grid.align_bytes());
        assert!(matches!(open_to_read(&path, None), Err(VolumeError::Index(IndexError::Blank))));
        let file = SharedFile::open(&path, true).unwrap();
        let alone = Alone(path.clone(), grid);
        let mut volume = LeasesVolume::format(file, alone, grid, "sd", 7).unwrap();
        let [a, b] = ["a", "b"].map(|name| LeaseName::new(name).unwrap());
        volume.add(&a).unwrap();
        volume.add(&b).unwrap();
        volume.remove(&a).unwrap();
        volume.add(&a).unwrap();
        for hint in [None, Some(grid)] {
            let found = open_to_read(&path, hint).unwrap();
            assert_eq!(found.lookup(&b).unwrap().offset, 4 * grid.align_bytes(), "{grid:?}, hint {hint:?}");
            let (leases, damaged) = found.list().unwrap();
            assert_eq!((leases.len(), damaged.len()), (2, 0));
        }
        let file = SharedFile::open(&path, false).unwrap();
        assert_eq!(grid_of_index(&file, None).unwrap(), Some(grid));
        assert!(Slot::new(2).unwrap().fits(6 * grid.align_bytes(), grid));
    }
}

#[test]
fn something_else_in_its_place_is_not_called_blank() {
    let (_dir, path) = blank(4 << 20);
    let file = SharedFile::open(&path, true).unwrap();
    file.write(1 << 20, b"rubbish").unwrap();
    assert!(matches!(open_to_read(&path, None), Err(VolumeError::Index(IndexError::BadHead(_)))));
    let (_dir, path) = blank(100);
    assert!(matches!(open_to_read(&path, None), Err(VolumeError::Index(IndexError::Short(_)))));
}
