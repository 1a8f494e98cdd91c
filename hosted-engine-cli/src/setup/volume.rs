//! Volumes of a file storage domain, in the layout that VDSM uses: `images/<image>/<volume>` with a `.meta` beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use ha_config::Paths;
use uuid::Uuid;

use super::{SetupError, io as io_error};

pub(crate) const BLANK_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Description of the volume with the hosts' blocks.
pub(crate) const METADATA: &str = "hosted-engine.metadata";
/// Description of the volume with the `hosted-engine` lockspace.
pub(crate) const LOCKSPACE: &str = "hosted-engine.lockspace";
/// Description of the volume with the cluster's configuration files.
pub(crate) const CONFIGURATION: &str = "HostedEngineConfigurationImage";
/// Description of the VM's disk.
pub(crate) const DISK: &str = "HostedEngine";

/// Where a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VolumeId {
    pub image: Uuid,
    pub volume: Uuid,
}

impl VolumeId {
    pub fn path(&self, sd: &Path) -> PathBuf {
        sd.join("images").join(self.image.to_string()).join(self.volume.to_string())
    }
}

/// Owner of everything that set-up makes on the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// That of the mounted directory. Where it is root, on a true host the daemons' user and group, `vdsm` and `kvm`.
    pub fn of(mount: &Path, paths: &Paths) -> io::Result<Self> {
        let meta = fs::metadata(mount)?;
        let is_for_daemons = meta.uid() == 0 && paths.is_real_host();
        Ok(if is_for_daemons { Self::DAEMONS } else { Self { uid: meta.uid(), gid: meta.gid() } })
    }

    /// `vdsm:kvm`, the same numbers on every host.
    const DAEMONS: Self = Self { uid: 36, gid: 36 };

    /// Does something with the owner's rights, and where those do not suffice with our own: on NFS root may be nobody, on
    /// other storage the owner need not be able to reach its directory.
    pub fn act<T: Send>(self, work: impl Fn() -> io::Result<T> + Sync) -> io::Result<T> {
        if self.uid == 0 || !rustix::process::geteuid().is_root() {
            return work();
        }
        match ha_config::shared_file::as_user(self.uid, self.gid, &work) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => work(),
            other => other,
        }
    }

    /// Gives an open file or directory to the owner. Not possible for a user other than root, who owns it then.
    pub fn give(self, file: &File, path: &Path) -> Result<(), SetupError> {
        let now = file.metadata().map_err(io_error("look at", path))?;
        if (now.uid(), now.gid()) == (self.uid, self.gid) {
            return Ok(());
        }
        match fchown(file, Some(self.uid), Some(self.gid)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.map_err(io_error("set the owner of", path)),
        }
    }
}

/// Makes a directory and gives it to the owner.
pub(crate) fn directory(path: &Path, owner: Owner) -> Result<(), SetupError> {
    owner.act(|| fs::create_dir(path)).map_err(io_error("create the directory", path))?;
    let dir = owner.act(|| File::open(path)).map_err(io_error("open", path))?;
    owner.give(&dir, path)
}

/// Makes a file with this text.
pub(crate) fn text_file(path: &Path, text: &str, owner: Owner) -> Result<(), SetupError> {
    let mut file = create(path, owner)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

/// Makes a new file of zeros, with all of its space reserved when `reserve`.
pub(crate) fn zeros(path: &Path, bytes: u64, reserve: bool, owner: Owner) -> Result<(), SetupError> {
    let mut file = create(path, owner)?;
    if reserve {
        // Written, not only reserved: sanlock and the broker read and write it with direct I/O from now on.
        let chunk = vec![0; usize::try_from(MIB).unwrap_or(1 << 20)];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(MIB);
            let part_len = usize::try_from(part).unwrap_or(chunk.len());
            file.write_all(&chunk[..part_len]).map_err(io_error("write", path))?;
            left -= part;
        }
    } else {
        file.set_len(bytes).map_err(io_error("set the size of", path))?;
    }
    file.sync_all().map_err(io_error("sync", path))
}

fn create(path: &Path, owner: Owner) -> Result<File, SetupError> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(0o660).open(path);
    let file = owner.act(open).map_err(io_error("create", path))?;
    owner.give(&file, path)?;
    Ok(file)
}

/// What VDSM keeps about a volume beside it.
pub(crate) fn write_meta(
    sd: &Path,
    sd_uuid: Uuid,
    id: VolumeId,
    description: &str,
    bytes: u64,
    time: u64,
    owner: Owner,
) -> Result<(), SetupError> {
    let path = id.path(sd).with_extension("meta");
    let allocation = if description == DISK { "SPARSE" } else { "PREALLOCATED" };
    let text = format!(
        "CAP={bytes}\nCTIME={time}\nDESCRIPTION={description}\nDISKTYPE=DATA\nDOMAIN={sd_uuid}\nFORMAT=RAW\nGEN=0\n\
         IMAGE={}\nLEGALITY=LEGAL\nPUUID={BLANK_UUID}\nTYPE={allocation}\nVOLTYPE=LEAF\nEOF\n",
        id.image
    );
    text_file(&path, &text, owner)
}
