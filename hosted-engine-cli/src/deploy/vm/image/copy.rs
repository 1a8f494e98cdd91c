//! The volume that an image is copied to, a file or a block device that is there already.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::deploy::DeployError;

/// Copied at once.
const CHUNK: usize = 1 << 20;
/// What can stay a hole or be left unwritten: the usual block of file systems.
const BLOCK: usize = 4096;
/// A block of them.
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// A device is zeroed in such pieces, so that progress can be told.
const PIECE: u64 = 1 << 30;

/// A volume that is open for writing.
#[derive(Debug)]
pub(in crate::deploy) struct Target {
    file: File,
    path: PathBuf,
    bytes: u64,
    is_device: bool,
}

impl Target {
    /// Opens a volume that is there.
    ///
    /// # Errors
    /// It is not there, or may not be written.
    pub fn open(path: &Path) -> Result<Self, DeployError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(DeployError::io("open the VM's disk", path))?;
        let kind = file.metadata().map_err(DeployError::io("look at the VM's disk", path))?.file_type();
        let bytes = file.seek(SeekFrom::End(0)).map_err(DeployError::io("find the size of", path))?;
        Ok(Self { file, path: path.to_owned(), bytes, is_device: kind.is_block_device() })
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it all zeros, whatever an earlier try left: a file of holes, a device by its own means where it has any.
    /// `progress` is told bytes done and all bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn wipe(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), DeployError> {
        if !self.is_device {
            let emptied = self.file.set_len(0).and_then(|()| self.file.set_len(self.bytes));
            return emptied.map_err(DeployError::io("empty the VM's disk", &self.path));
        }
        let mut at = 0;
        while at < self.bytes {
            let part = PIECE.min(self.bytes - at);
            fallocate(&self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, part)
                .map_err(|error| DeployError::io("zero the VM's disk", &self.path)(error.into()))?;
            at += part;
            progress(at, self.bytes);
        }
        Ok(())
    }

    /// Copies a raw disk to a wiped volume: what is zero is left out. `progress` is told the bytes read. Gives their
    /// number.
    ///
    /// # Errors
    /// Reading `source`, which error texts call `name`, or writing.
    pub fn fill(
        &self,
        source: &mut dyn Read,
        name: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, DeployError> {
        let mut chunk = vec![0; CHUNK];
        let mut at = 0_u64;
        loop {
            let got = read_full(source, &mut chunk).map_err(DeployError::io("read the disk image", name))?;
            if got == 0 {
                return Ok(at);
            }
            for (offset, run) in runs_of_data(&chunk[..got]) {
                let place = at + offset as u64;
                self.file
                    .write_all_at(run, place)
                    .map_err(DeployError::io("write the VM's disk", &self.path))?;
            }
            at += got as u64;
            progress(at);
        }
    }

    /// Waits until everything is on the storage.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> Result<(), DeployError> {
        self.file.sync_all().map_err(DeployError::io("sync the VM's disk", &self.path))
    }
}

/// Runs of blocks that are not all zero, with their offsets.
fn runs_of_data(chunk: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, &[u8])> = Vec::new();
    let mut start = None;
    for (index, block) in chunk.chunks(BLOCK).enumerate() {
        let at = index * BLOCK;
        match (*block != ZEROS[..block.len()], start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                runs.push((from, &chunk[from..at]));
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        runs.push((from, &chunk[from..]));
    }
    runs
}

fn read_full(source: &mut dyn Read, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut have = 0;
    while have < chunk.len() {
        match source.read(&mut chunk[have..]) {
            Ok(0) => break,
            Ok(got) => have += got,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_copy_is_equal_keeps_holes_and_forgets_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        std::fs::write(&path, vec![9; 8 << 20]).unwrap();
        let mut disk = vec![0; 6 << 20];
        disk[5 << 20] = 7;
        disk[(1 << 20) - 1] = 8;
        let target = Target::open(&path).unwrap();
        assert_eq!(target.bytes(), 8 << 20);
        target.wipe(|_, _| ()).unwrap();
        let mut told = Vec::new();
        let copied = target.fill(&mut disk.as_slice(), Path::new("disk"), |done| told.push(done >> 20));
        assert_eq!((copied.unwrap(), told), (6 << 20, vec![1, 2, 3, 4, 5, 6]));
        target.finish().unwrap();
        disk.resize(8 << 20, 0);
        assert!(std::fs::read(&path).unwrap() == disk);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn zeros_between_data_are_left_out() {
        let mut chunk = vec![0; 4 * BLOCK + 10];
        chunk[0] = 1;
        chunk[BLOCK] = 1;
        chunk[4 * BLOCK + 9] = 1;
        let runs: Vec<_> = runs_of_data(&chunk).iter().map(|(at, run)| (*at, run.len())).collect();
        assert_eq!(runs, [(0, 2 * BLOCK), (4 * BLOCK, 10)]);
        assert!(runs_of_data(&[0; 5000]).is_empty());
    }
}
