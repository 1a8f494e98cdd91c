//! The file system itself: each request becomes the same call on the shared folder, or fails as the fault says.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    FileAttr, Filesystem, KernelConfig, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, consts,
};
use rustix::fs::{self, AtFlags, FallocateFlags, Gid, Mode as Permissions, OFlags, Timestamps, Uid};
use rustix::io::Errno;

use super::fault::{Fault, Mode};
use super::nodes::{Nodes, kind};

/// Nothing is kept by the kernel: other hosts change the same files.
const NO_CACHE: Duration = Duration::ZERO;

/// The shared folder as one host sees it.
#[derive(Debug)]
pub struct PassThrough {
    nodes: Nodes,
    files: HashMap<u64, File>,
    next_handle: u64,
    fault: Arc<Fault>,
}

impl PassThrough {
    /// The folder `source`, with the faults that `fault` says.
    pub fn new(source: &Path, fault: Arc<Fault>) -> Result<Self, Errno> {
        Ok(Self { nodes: Nodes::new(source)?, files: HashMap::new(), next_handle: 1, fault })
    }

    fn may_read(&self) -> Result<(), Errno> {
        match self.fault.mode() {
            Mode::Eio => Err(Errno::IO),
            // A request that is here was taken before the hang began, and still ends.
            Mode::Ok | Mode::ReadOnly | Mode::Hang | Mode::Delay(_) => Ok(()),
        }
    }

    fn may_write(&self) -> Result<(), Errno> {
        self.may_read()?;
        if self.fault.mode() == Mode::ReadOnly { Err(Errno::ROFS) } else { Ok(()) }
    }

    fn file(&self, handle: u64) -> Result<&File, Errno> {
        self.files.get(&handle).ok_or(Errno::BADF)
    }

    fn keep(&mut self, file: File) -> u64 {
        let handle = self.next_handle;
        self.next_handle += 1;
        self.files.insert(handle, file);
        handle
    }

    /// Opens a known file. The folder's own cache is kept even for `O_DIRECT`: all hosts of the sandbox share it,
    /// and it outlives them, as a file server's cache does.
    fn open_file(&mut self, number: u64, flags: i32) -> Result<u64, Errno> {
        self.may_read()?;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let writes = !(flags & OFlags::RWMODE).is_empty();
        if writes {
            self.may_write()?;
        }
        let keep = flags & (OFlags::SYNC | OFlags::DSYNC | OFlags::TRUNC);
        let file = OpenOptions::new()
            .read((flags & OFlags::RWMODE) != OFlags::WRONLY)
            .write(writes)
            .custom_flags((keep | OFlags::CLOEXEC).bits().cast_signed())
            .open(self.nodes.path(number)?)
            .map_err(|error| errno(&error))?;
        Ok(self.keep(file))
    }

    fn create_file(
        &mut self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(FileAttr, u64), Errno> {
        self.may_write()?;
        let wanted = OFlags::from_bits_retain(flags.cast_unsigned());
        let wanted =
            (wanted - OFlags::DIRECT - OFlags::APPEND) | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self.nodes.get(parent)?, name, wanted, Permissions::from_raw_mode(mode))?;
        let attributes = self.nodes.look_up(parent, name)?;
        Ok((attributes, self.keep(file.into())))
    }

    fn set_attributes(&self, number: u64, change: &Change) -> Result<FileAttr, Errno> {
        self.may_write()?;
        let path = self.nodes.path(number)?;
        if let Some(mode) = change.mode {
            fs::chmod(&path, Permissions::from_raw_mode(mode & 0o7777))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            fs::chownat(self.nodes.get(number)?, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = change.size {
            let file = OpenOptions::new().write(true).open(&path).map_err(|error| errno(&error))?;
            file.set_len(size).map_err(|error| errno(&error))?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timestamp(change.atime),
                last_modification: timestamp(change.mtime),
            };
            fs::utimensat(fs::CWD, &path, &times, AtFlags::empty())?;
        }
        self.nodes.attributes(number)
    }

    fn list(&self, number: u64, offset: i64, reply: &mut ReplyDirectory) -> Result<(), Errno> {
        self.may_read()?;
        let directory = fs::openat(
            self.nodes.get(number)?,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Permissions::empty(),
        )?;
        let skip = usize::try_from(offset).unwrap_or(0);
        for (index, entry) in fs::Dir::new(directory)?.enumerate().skip(skip) {
            let entry = entry?;
            let next = i64::try_from(index + 1).unwrap_or(i64::MAX);
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if reply.add(self.nodes.number(entry.ino()), next, kind(entry.file_type()), name) {
                break;
            }
        }
        Ok(())
    }
}

/// What `setattr` is asked to change.
#[derive(Debug)]
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn timestamp(time: Option<TimeOrNow>) -> fs::Timespec {
    match time {
        None => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            fs::Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since.subsec_nanos()),
            }
        }
    }
}

fn offset(value: i64) -> Result<u64, Errno> {
    u64::try_from(value).map_err(|_| Errno::INVAL)
}

/// Answers with the attributes of a new or found entry, or with the error.
fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&NO_CACHE, &attributes, 0),
        Err(error) => reply.error(error.raw_os_error()),
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.raw_os_error()),
    }
}

fn attributes(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
        Err(error) => reply.error(error.raw_os_error()),
    }
}

impl Filesystem for PassThrough {
    fn init(&mut self, _: &Request<'_>, config: &mut KernelConfig) -> Result<(), i32> {
        // Asynchronous direct I/O is what sanlock uses: without this its submit call itself would block.
        let _ = config.add_capabilities(consts::FUSE_ASYNC_DIO | consts::FUSE_PARALLEL_DIROPS);
        let _ = config.set_max_write(128 * 1024);
        Ok(())
    }

    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        entry(self.may_read().and_then(|()| self.nodes.look_up(parent, name)), reply);
    }

    fn forget(&mut self, _: &Request<'_>, number: u64, count: u64) {
        self.nodes.forget(number, count);
    }

    fn getattr(&mut self, _: &Request<'_>, number: u64, _: Option<u64>, reply: ReplyAttr) {
        attributes(self.may_read().and_then(|()| self.nodes.attributes(number)), reply);
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        number: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<u64>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        attributes(self.set_attributes(number, &Change { mode, uid, gid, size, atime, mtime }), reply);
    }

    fn readlink(&mut self, _: &Request<'_>, number: u64, reply: ReplyData) {
        let target = self
            .may_read()
            .and_then(|()| fs::readlinkat(self.nodes.get(number)?, "", Vec::with_capacity(256)));
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn mkdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let result = self.may_write().and_then(|()| {
            fs::mkdirat(self.nodes.get(parent)?, name, Permissions::from_raw_mode(mode))?;
            self.nodes.look_up(parent, name)
        });
        entry(result, reply);
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        let done =
            self.may_write().and_then(|()| fs::unlinkat(self.nodes.get(parent)?, name, AtFlags::empty()));
        empty(done, reply);
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        let done =
            self.may_write().and_then(|()| fs::unlinkat(self.nodes.get(parent)?, name, AtFlags::REMOVEDIR));
        empty(done, reply);
    }

    fn symlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let result = self.may_write().and_then(|()| {
            fs::symlinkat(target, self.nodes.get(parent)?, name)?;
            self.nodes.look_up(parent, name)
        });
        entry(result, reply);
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: u32,
        reply: ReplyEmpty,
    ) {
        let done = self.may_write().and_then(|()| {
            let flags = fs::RenameFlags::from_bits_retain(flags);
            fs::renameat_with(self.nodes.get(parent)?, name, self.nodes.get(new_parent)?, new_name, flags)
        });
        empty(done, reply);
    }

    fn open(&mut self, _: &Request<'_>, number: u64, flags: i32, reply: ReplyOpen) {
        match self.open_file(number, flags) {
            Ok(handle) => reply.opened(handle, consts::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_file(parent, name, mode, flags) {
            Ok((attributes, handle)) => {
                reply.created(&NO_CACHE, &attributes, 0, handle, consts::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        handle: u64,
        at: i64,
        size: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyData,
    ) {
        let result = self.may_read().and_then(|()| {
            let (file, start) = (self.file(handle)?, offset(at)?);
            let mut data = vec![0; usize::try_from(size).map_err(|_| Errno::INVAL)?];
            let mut length = 0;
            while length < data.len() {
                let position = start + u64::try_from(length).map_err(|_| Errno::INVAL)?;
                match file.read_at(&mut data[length..], position).map_err(|error| errno(&error))? {
                    0 => break,
                    more => length += more,
                }
            }
            data.truncate(length);
            Ok(data)
        });
        match result {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        handle: u64,
        at: i64,
        data: &[u8],
        _write_flags: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyWrite,
    ) {
        let result = self.may_write().and_then(|()| {
            self.file(handle)?.write_all_at(data, offset(at)?).map_err(|error| errno(&error))?;
            u32::try_from(data.len()).map_err(|_| Errno::INVAL)
        });
        match result {
            Ok(length) => reply.written(length),
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        // Nothing is kept back that a close could flush. After this answer the kernel does not ask again, so that
        // a killed process's close does not wait for stalled storage.
        reply.error(Errno::NOSYS.raw_os_error());
    }

    fn release(
        &mut self,
        _: &Request<'_>,
        _: u64,
        handle: u64,
        _flags: i32,
        _lock_owner: Option<u64>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(&handle);
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, handle: u64, datasync: bool, reply: ReplyEmpty) {
        let done = self.may_read().and_then(|()| {
            let file = self.file(handle)?;
            if datasync { file.sync_data() } else { file.sync_all() }.map_err(|error| errno(&error))
        });
        empty(done, reply);
    }

    fn readdir(&mut self, _: &Request<'_>, number: u64, _: u64, offset: i64, mut reply: ReplyDirectory) {
        match self.list(number, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn fsyncdir(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        empty(self.may_read(), reply);
    }

    fn statfs(&mut self, _: &Request<'_>, _: u64, reply: ReplyStatfs) {
        let result = self.may_read().and_then(|()| fs::fstatvfs(self.nodes.get(fuser::FUSE_ROOT_ID)?));
        match result {
            Ok(s) => {
                let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                reply.statfs(
                    s.f_blocks,
                    s.f_bfree,
                    s.f_bavail,
                    s.f_files,
                    s.f_ffree,
                    small(s.f_bsize),
                    small(s.f_namemax),
                    small(s.f_frsize),
                );
            }
            Err(error) => reply.error(error.raw_os_error()),
        }
    }

    fn fallocate(
        &mut self,
        _: &Request<'_>,
        _: u64,
        handle: u64,
        at: i64,
        length: i64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.may_write().and_then(|()| {
            let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
            fs::fallocate(self.file(handle)?, flags, offset(at)?, offset(length)?)
        });
        empty(done, reply);
    }
}
