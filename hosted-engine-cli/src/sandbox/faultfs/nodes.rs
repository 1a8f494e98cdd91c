//! The files that the kernel knows, each by an `O_PATH` descriptor: it survives renames, and no path is ever put
//! together from parts.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FUSE_ROOT_ID, FileAttr, FileType};
use rustix::fs::{AtFlags, CWD, FileType as Kind, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

#[derive(Debug)]
struct Node {
    file: OwnedFd,
    /// How often the kernel was told this number and has not forgotten it yet.
    lookups: u64,
}

/// Inode number → file. The numbers are those of the folder's own file system, except for the root.
#[derive(Debug)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
    root_number: u64,
}

impl Nodes {
    /// Only the root.
    pub fn new(root: &Path) -> Result<Self, Errno> {
        let file = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let root_number = status(file.as_fd())?.st_ino;
        let nodes = HashMap::from([(FUSE_ROOT_ID, Node { file, lookups: 1 })]);
        Ok(Self { nodes, root_number })
    }

    /// The file with this number.
    pub fn get(&self, number: u64) -> Result<BorrowedFd<'_>, Errno> {
        self.nodes.get(&number).map(|node| node.file.as_fd()).ok_or(Errno::STALE)
    }

    /// Looks `name` up in the directory `parent`; the kernel knows the result from now on.
    pub fn look_up(&mut self, parent: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.get(parent)?, name, flags, Mode::empty())?;
        let attributes = self.attributes_of(&status(file.as_fd())?);
        self.nodes.entry(attributes.ino).or_insert(Node { file, lookups: 0 }).lookups += 1;
        Ok(attributes)
    }

    /// The kernel forgets `count` of its look-ups.
    pub fn forget(&mut self, number: u64, count: u64) {
        if number == FUSE_ROOT_ID {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 {
                self.nodes.remove(&number);
            }
        }
    }

    /// What `stat` says about it.
    pub fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        Ok(self.attributes_of(&status(self.get(number)?)?))
    }

    /// A path that leads to this very file, whatever its name is now.
    pub fn path(&self, number: u64) -> Result<PathBuf, Errno> {
        Ok(PathBuf::from(format!("/proc/self/fd/{}", self.get(number)?.as_raw_fd())))
    }

    /// The number under which the kernel knows the folder's own number.
    pub fn number(&self, own: u64) -> u64 {
        if own == self.root_number { FUSE_ROOT_ID } else { own }
    }

    fn attributes_of(&self, stat: &Stat) -> FileAttr {
        FileAttr {
            ino: self.number(stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            crtime: UNIX_EPOCH,
            kind: kind(Kind::from_raw_mode(stat.st_mode)),
            perm: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: u32::try_from(stat.st_rdev).unwrap_or(0),
            blksize: 4096,
            flags: 0,
        }
    }
}

fn status(file: BorrowedFd<'_>) -> Result<Stat, Errno> {
    statat(file, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

fn time(secs: i64, nanos: u64) -> SystemTime {
    let secs = u64::try_from(secs).unwrap_or(0);
    UNIX_EPOCH + Duration::new(secs, u32::try_from(nanos).unwrap_or(0))
}

/// The kernel's word for a kind of file.
pub fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::RegularFile | Kind::Unknown => FileType::RegularFile,
    }
}
