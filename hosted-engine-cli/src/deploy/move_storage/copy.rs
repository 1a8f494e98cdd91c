//! Copying the VM's disk, past the page cache on both sides: another host may have written the one a moment ago, and what
//! is read back of the other is what the storage has.

use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::deploy::vm::image::Target;
use crate::deploy::{DeployError, World};
use crate::setup::SetupError;
use crate::shared_file::SharedFile;

/// Read at once.
const CHUNK: usize = 4 << 20;

/// A volume from its start to `end`, and what was read so far.
struct Direct {
    file: SharedFile,
    at: u64,
    end: u64,
    chunk: Vec<u8>,
    used: usize,
    sum: Sha256,
}

impl Direct {
    fn open(path: &Path, end: Option<u64>) -> Result<Self, DeployError> {
        let file = SharedFile::open(path, false).map_err(SetupError::from)?;
        let size = file.size().map_err(SetupError::from)?;
        let end = end.unwrap_or(size);
        Ok(Self { file, at: 0, end, chunk: Vec::new(), used: 0, sum: Sha256::new() })
    }
}

impl Read for Direct {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.used == self.chunk.len() {
            let left = usize::try_from(self.end - self.at).unwrap_or(CHUNK).min(CHUNK);
            if left == 0 {
                return Ok(0);
            }
            self.chunk = self.file.read(self.at, left).map_err(io::Error::other)?;
            self.chunk.truncate(left);
            self.used = 0;
            if self.chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.sum.update(&self.chunk);
            self.at += self.chunk.len() as u64;
        }
        let rest = &self.chunk[self.used..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(count)
    }
}

/// Copies the volume `from` to the start of the volume `to`, which has at least as many bytes, and reads the copy back.
///
/// # Errors
/// What cannot be read or written; that the copy is another one.
pub(super) fn copy(world: &World<'_>, from: &Path, to: &Path) -> Result<(), DeployError> {
    let mut source = Direct::open(from, None)?;
    let (target, total) = (Target::open(to)?, source.end);
    if target.bytes() < total {
        return Err(DeployError::Refused(format!(
            "{} has {} bytes, and the VM's disk {total}",
            to.display(),
            target.bytes()
        )));
    }
    let report = world.report;
    target.wipe(|done, total| report.progress("Emptying the new disk", done, total))?;
    target.fill(&mut source, from, |done| report.progress("Copying the VM's disk", done, total))?;
    target.finish()?;
    let mut copied = Direct::open(to, Some(total))?;
    io::copy(&mut Told { read: &mut copied, done: 0, total, world }, &mut io::sink())
        .map_err(DeployError::io("read back", to))?;
    if copied.sum.finalize() == source.sum.finalize() {
        return Ok(());
    }
    Err(DeployError::Refused(format!(
        "the copy {} reads back as something else than {}: the storage does not keep what is written, or the disk was \
         written meanwhile; nothing was changed on the former storage",
        to.display(),
        from.display()
    )))
}

/// Tells how far it is.
struct Told<'a> {
    read: &'a mut Direct,
    done: u64,
    total: u64,
    world: &'a World<'a>,
}

impl Read for Told<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.read.read(into)?;
        self.done += count as u64;
        self.world.report.progress("Reading the copy back", self.done, self.total);
        Ok(count)
    }
}
