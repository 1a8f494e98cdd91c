//! The real adapter: a regular file or a block device, with `O_DIRECT | O_DSYNC` and aligned buffers.
//!
//! It opens the file for each call. That costs little, gives NFS its close-to-open consistency, and means that a
//! mount that went away, a replaced device or a restored file heals by itself. The sector size is found out once
//! for each file: a block device says it; on a file system a read of 512 bytes is tried, which storage with
//! 4096-byte sectors refuses.
//!
//! Its calls are system calls: they block the thread, for as long as storage hangs, and never wait otherwise.
//!
//! It touches one file. It never creates it, never makes it longer, never falls back to cached I/O.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use ha_config::AlignedBuffer;
use metadata_format::{BLOCK_SIZE, CRITICAL_SIZE, block_offset};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::error::{PutError, StorageError};
use super::{Block, BlockRange, Identity, Permit, Reading, Whiteboard};

/// Blocks per read request: 1 MiB, so that a full scan does not need the whole file in memory.
const BLOCKS_PER_REQUEST: u16 = 256;

/// With this many bad blocks and not one good one, the storage counts as failed, not the blocks.
const BAD_BLOCKS_AT_ONCE: usize = 3;

/// Nor are more bad blocks than this tried one by one in one reading: failing requests can be slow.
const MAX_BAD_BLOCKS: usize = 64;

/// Smallest unit of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes: the critical record is one sector.
    B512,
    /// 4096 bytes: a whole block is one sector.
    B4096,
}

/// The adapter.
#[derive(Debug)]
pub struct DirectIo {
    file: PathBuf,
    sector: Mutex<Option<(Identity, SectorSize)>>,
}

/// The file while it is open for one call.
struct Open<'a> {
    path: &'a Path,
    file: File,
    len: u64,
    identity: Identity,
    is_device: bool,
}

impl DirectIo {
    /// Works on `file`, which need not exist yet. No I/O.
    pub const fn new(file: PathBuf) -> Self {
        Self { file, sector: Mutex::new(None) }
    }

    /// The sector size that was found at the last call; `None` before the first write.
    pub fn sector_size(&self) -> Option<SectorSize> {
        self.sector.lock().unwrap_or_else(PoisonError::into_inner).map(|(_, size)| size)
    }

    fn open(&self, access: OFlags) -> Result<Open<'_>, StorageError> {
        // A stale NFS handle in the path's cache is dropped by the first try.
        match self.open_once(access) {
            Err(StorageError::Os { errno: Errno::STALE, .. }) => self.open_once(access),
            other => other,
        }
    }

    fn open_once(&self, access: OFlags) -> Result<Open<'_>, StorageError> {
        let fail = |operation: &str, errno| self.os(operation, errno);
        // NONBLOCK: a pipe under this name must not make us wait for its other end.
        let flags = access | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(&self.file, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => StorageError::Missing { file: self.file.clone() },
            Errno::ISDIR | Errno::INVAL if self.file.is_dir() => {
                StorageError::WrongKind { file: self.file.clone() }
            }
            errno => fail("open", errno),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| fail("look at", errno))?;
        let is_device = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => false,
            FileType::BlockDevice => true,
            _ => return Err(StorageError::WrongKind { file: self.file.clone() }),
        };
        let len =
            rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|errno| fail("find the length of", errno))?;
        let identity = Identity { device: stat.st_dev, inode: stat.st_ino, rdev: stat.st_rdev };
        Ok(Open { path: &self.file, file: File::from(fd), len, identity, is_device })
    }

    fn os(&self, operation: impl Into<String>, errno: Errno) -> StorageError {
        StorageError::Os { file: self.file.clone(), operation: operation.into(), errno }
    }

    fn sector_of(&self, open: &Open<'_>) -> Result<SectorSize, StorageError> {
        let mut known = self.sector.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((identity, size)) if identity == open.identity => Ok(size),
            _ => {
                let size =
                    open.probe_sector_size().map_err(|errno| self.os("find the sector size of", errno))?;
                *known = Some((open.identity, size));
                Ok(size)
            }
        }
    }
}

impl Open<'_> {
    fn probe_sector_size(&self) -> Result<SectorSize, Errno> {
        if self.is_device {
            return match rustix::fs::ioctl_blksszget(self.file.as_fd())? {
                512 => Ok(SectorSize::B512),
                4096 => Ok(SectorSize::B4096),
                _ => Err(Errno::NOTSUP),
            };
        }
        let mut buffer = AlignedBuffer::zeroed(CRITICAL_SIZE);
        match rustix::io::pread(&self.file, buffer.as_mut(), 0) {
            Ok(_) => Ok(SectorSize::B512),
            Err(Errno::INVAL) => Ok(SectorSize::B4096),
            Err(errno) => Err(errno),
        }
    }

    /// Fills the buffer from `offset`; gives how much was there.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.file, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                // A part of a sector is the end of the file: O_DIRECT could not go on from there anyway.
                Ok(n) if !n.is_multiple_of(CRITICAL_SIZE) => return Ok(done + n),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// One write of whole sectors. A short write is an error: the record would be torn.
    fn write_at(&self, bytes: &[u8], offset: u64, block: u16) -> Result<(), StorageError> {
        let buffer = AlignedBuffer::copy_of(bytes);
        let fail = |errno| StorageError::Os {
            file: self.path.to_owned(),
            operation: format!("write block {block} of"),
            errno,
        };
        loop {
            match rustix::io::pwrite(&self.file, buffer.as_ref(), offset) {
                Ok(n) if n == bytes.len() => return Ok(()),
                Ok(_) => return Err(fail(Errno::IO)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
    }

    const fn blocks(&self) -> u64 {
        self.len / BLOCK_SIZE as u64
    }
}

impl DirectIo {
    /// Reads a range that lies within the file, in pieces; a piece that fails is read block by block.
    fn read_range(&self, open: &Open<'_>, range: BlockRange, out: &mut Reading) -> Result<(), StorageError> {
        let mut buffer = AlignedBuffer::zeroed(usize::from(range.count.min(BLOCKS_PER_REQUEST)) * BLOCK_SIZE);
        let end = range.first + range.count;
        let mut first = range.first;
        while first < end {
            let count = (end - first).min(BLOCKS_PER_REQUEST);
            let piece = &mut buffer.as_mut()[..usize::from(count) * BLOCK_SIZE];
            match open.read_at(piece, block_offset(first)) {
                Ok(len) => take_present(first, &piece[..len], out),
                Err(errno) if is_medium_error(errno) => {
                    for block in first..first + count {
                        self.read_one(open, block, &mut piece[..BLOCK_SIZE], out)?;
                    }
                }
                Err(errno) => return Err(self.os(format!("read block {first} of"), errno)),
            }
            first += count;
        }
        Ok(())
    }

    fn read_one(
        &self,
        open: &Open<'_>,
        block: u16,
        piece: &mut [u8],
        out: &mut Reading,
    ) -> Result<(), StorageError> {
        match open.read_at(piece, block_offset(block)) {
            Ok(len) => take_present(block, &piece[..len], out),
            Err(errno) => {
                let error = self.os(format!("read block {block} of"), errno);
                let bad = out.unreadable.len() + 1;
                if !is_medium_error(errno)
                    || bad > MAX_BAD_BLOCKS
                    || (out.bytes == 0 && bad >= BAD_BLOCKS_AT_ONCE)
                {
                    return Err(error);
                }
                out.unreadable.push((block, error));
            }
        }
        Ok(())
    }
}

/// Errors that may concern one sector only.
const fn is_medium_error(errno: Errno) -> bool {
    matches!(errno, Errno::IO | Errno::NODATA | Errno::ILSEQ | Errno::BADMSG | Errno::REMOTEIO)
}

/// Keeps the blocks that are present in `bytes`, which start with block `first`. A part of a block at the end of
/// a file counts as absent.
fn take_present(first: u16, bytes: &[u8], out: &mut Reading) {
    out.bytes += bytes.len() as u64;
    let blocks = bytes.chunks_exact(BLOCK_SIZE).zip(first..);
    out.present.extend(blocks.filter(|(bytes, _)| bytes[0] != 0).map(|(bytes, block)| {
        let mut kept: Box<Block> = Box::new(super::zero_block());
        kept.copy_from_slice(bytes);
        (block, kept)
    }));
}

#[async_trait]
impl Whiteboard for DirectIo {
    async fn read(&self, ranges: &[BlockRange]) -> Result<Reading, StorageError> {
        let open = self.open(OFlags::RDONLY)?;
        let blocks = open.blocks();
        let covered = ranges.iter().filter_map(|range| {
            let room = u16::try_from(blocks.saturating_sub(range.first.into())).unwrap_or(u16::MAX);
            let count = range.count.min(room);
            (count > 0).then_some(BlockRange { first: range.first, count })
        });
        let mut reading = Reading {
            covered: covered.collect(),
            file_blocks: blocks,
            identity: open.identity,
            ..Reading::default()
        };
        for range in reading.covered.clone() {
            self.read_range(&open, range, &mut reading)?;
        }
        match reading.unreadable.pop() {
            Some((_, error)) if reading.bytes == 0 => return Err(error),
            Some(bad) => reading.unreadable.push(bad),
            None => {}
        }
        Ok(reading)
    }

    async fn write(&self, block: u16, bytes: &Block, permit: &dyn Permit) -> Result<(), PutError> {
        let open = self.open(OFlags::RDWR)?;
        let offset = block_offset(block);
        let end = offset + BLOCK_SIZE as u64;
        if end > open.len {
            return Err(StorageError::TooShort { file: self.file.clone(), len: open.len, block, end }.into());
        }
        match self.sector_of(&open)? {
            SectorSize::B512 => {
                permit.ask().await?;
                open.write_at(&bytes[CRITICAL_SIZE..], offset + CRITICAL_SIZE as u64, block)?;
                permit.ask().await?;
                open.write_at(&bytes[..CRITICAL_SIZE], offset, block)?;
            }
            SectorSize::B4096 => {
                permit.ask().await?;
                open.write_at(bytes, offset, block)?;
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}
