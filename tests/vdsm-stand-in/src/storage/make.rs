//! Making a storage domain of files, in VDSM's layout, and removing one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use ha_config::hosted_engine::{escape_connection, normal_connection};
use ha_config::{KeyValueFile, Paths};
use sanlock_client::{
    Client, Disk, DiskPath, GridSize, Lockspace, LockspaceName, Resource, ResourceName, WriteLockspaceOptions,
};
use xleases::{Index, Metadata};

use super::domain::Domain;
use super::{BLANK, block, is_plain};
use crate::Failure;

pub(super) const MIB: u64 = 1 << 20;

/// What `StorageDomain.create` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewDomain {
    pub id: String,
    pub domain_type: i64,
    /// `server:/path`, or the UUID of a volume group.
    pub connection: String,
    pub name: String,
    pub class: i64,
    pub version: i64,
    /// 0 for what the storage has.
    pub block_size: i64,
}

/// Where a connection's files are on this host, by VDSM's number of the type.
pub(super) fn mount_point(paths: &Paths, domain_type: i64, connection: &str) -> Option<PathBuf> {
    let name = escape_connection(connection);
    match domain_type {
        1 | 6 => Some(paths.storage_mounts().join(name)),
        7 => Some(paths.storage_mounts().join("glusterSD").join(name)),
        _ => None,
    }
}

/// Makes it: the description last, as what has none is no domain.
pub(super) fn make(
    paths: &Paths,
    sanlock: Option<&Client>,
    io_timeout: Option<u32>,
    new: &NewDomain,
) -> Result<(), Failure> {
    let failed =
        |detail: &dyn std::fmt::Display| Failure::domain_creation(&format!("sdUUID={}: {detail}", new.id));
    if !is_plain(&new.id) || uuid::Uuid::parse_str(&new.id).is_err() {
        return Err(Failure::invalid_parameter("sdUUID", &new.id));
    }
    if new.class != 1 || new.version != 5 || ![0, 512].contains(&new.block_size) {
        return Err(failed(&"only data domains of version 5 with blocks of 512 bytes are made here"));
    }
    if matches!(new.domain_type, 2 | 3) {
        return block::make(paths, sanlock, io_timeout, new);
    }
    let (mount, kind) = match (mount_point(paths, new.domain_type, &new.connection), new.domain_type) {
        (Some(mount), 1) => (mount, "NFS"),
        (Some(mount), 6) => (mount, "POSIXFS"),
        (Some(mount), _) => (mount, "GLUSTERFS"),
        (None, other) => return Err(Failure::domain_type(other)),
    };
    if Domain::find(paths, &new.id).is_ok() {
        return Err(Failure::domain_exists(&new.id));
    }
    let entries = fs::read_dir(&mount).map_err(|_| Failure::not_mounted(&mount.display().to_string()))?;
    if entries.flatten().any(|entry| entry.path().join("dom_md/metadata").exists()) {
        return Err(Failure::domain_not_empty(&mount.display().to_string()));
    }
    let directory = mount.join(&new.id);
    let owner = fs::metadata(&mount).map_err(|error| failed(&error))?;
    let own = Own { uid: owner.uid(), gid: owner.gid() };
    let build = || -> anyhow::Result<()> {
        for path in [directory.clone(), directory.join("dom_md"), directory.join("images")] {
            fs::create_dir(&path)?;
            own.give(&path)?;
        }
        let area = |name: &str| directory.join("dom_md").join(name);
        for (name, mib) in [("ids", 1), ("inbox", 16), ("leases", 2), ("outbox", 16), ("xleases", 1024)] {
            own.file(&area(name))?.set_len(mib * MIB)?;
        }
        if let Some(sanlock) = sanlock {
            write_leases(sanlock, io_timeout, &new.id, &area("ids"), &area("leases"))?;
        }
        let head = Metadata { lockspace: new.id.clone(), modified: 0, is_updating: false };
        let index = Index::empty(head).map_err(|error| anyhow::anyhow!("{error}"))?;
        OpenOptions::new().write(true).open(area("xleases"))?.write_all_at(index.bytes(), MIB)?;
        let text = format!(
            "ALIGNMENT={MIB}\nBLOCK_SIZE=512\nCLASS=Data\nDESCRIPTION={}\nMASTER_VERSION=0\nPOOL_UUID=\n\
             REMOTE_PATH={}\nROLE=Regular\nSDUUID={}\nTYPE={kind}\nVERSION=5\n",
            new.name.replace(['\r', '\n'], " "),
            normal_connection(&new.connection),
            new.id
        );
        let mut file = own.file(&area("metadata"))?;
        file.write_all(text.as_bytes())?;
        Ok(file.sync_all()?)
    };
    build().map_err(|error| failed(&error))
}

pub(super) fn write_leases(
    sanlock: &Client,
    io_timeout: Option<u32>,
    domain: &str,
    ids: &Path,
    leases: &Path,
) -> anyhow::Result<()> {
    let grid = GridSize::Sector512Align1M;
    let disk = |path: &Path, offset| anyhow::Ok(Disk { path: DiskPath::new(path)?, offset });
    let name = LockspaceName::new(domain)?;
    let lockspace = Lockspace { name: name.clone(), host_id: 1, disk: disk(ids, 0)? };
    let options = WriteLockspaceOptions { io_timeout, grid: Some(grid) };
    sanlock.write_lockspace(&lockspace, grid.max_hosts(), options)?;
    let disks = vec![disk(leases, MIB)?];
    let manager = Resource { lockspace: name, name: ResourceName::new("SDM")?, disks };
    Ok(sanlock.write_resource(&manager, grid.max_hosts(), 0, Some(grid))?)
}

/// Who owns what is on the storage.
#[derive(Debug, Clone, Copy)]
struct Own {
    uid: u32,
    gid: u32,
}

impl Own {
    fn give(self, path: &Path) -> io::Result<()> {
        match chown(path, Some(self.uid), Some(self.gid)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    fn file(self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o660).open(path)?;
        self.give(path)?;
        Ok(file)
    }
}

impl Domain {
    /// The pool that it is in.
    pub(super) fn pool(&self) -> Result<Option<String>, Failure> {
        let metadata = self.metadata()?;
        let pool = metadata.get("POOL_UUID").unwrap_or_default();
        Ok(Some(pool.to_owned()).filter(|pool| !pool.is_empty() && pool != BLANK))
    }

    /// Makes it the master of a pool, or of none.
    pub(super) fn set_pool(&self, pool: Option<&str>) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::domain_action(&format!("sdUUID={}: {error}", self.id));
        match &self.group {
            None if pool.is_some() => {
                for name in ["master/tasks", "master/vms"] {
                    fs::create_dir_all(self.directory.join(name)).map_err(failed)?;
                }
            }
            // VDSM does it when it takes the domain's own lease for that.
            Some(group) if pool.is_some() => self.refresh(group).map_err(failed)?,
            None | Some(_) => {}
        }
        self.set("ROLE", if pool.is_some() { "Master" } else { "Regular" })?;
        self.set("POOL_UUID", pool.unwrap_or_default())
    }

    /// Changes one key of its description.
    pub(super) fn set(&self, key: &str, value: &str) -> Result<(), Failure> {
        let path = self.metadata_file();
        let failed =
            |error: &dyn std::fmt::Display| Failure::domain_action(&format!("sdUUID={}: {error}", self.id));
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let known = KeyValueFile::parse(&path, &text).get(key).is_some();
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| match line.split_once('=') {
                Some((name, _)) if name == key => format!("{key}={value}"),
                Some(_) | None => line.to_owned(),
            })
            .collect();
        if !known {
            lines.push(format!("{key}={value}"));
        }
        let new = path.with_extension("new");
        fs::write(&new, lines.join("\n") + "\n")
            .and_then(|()| {
                let owner = fs::metadata(&path)?;
                Own { uid: owner.uid(), gid: owner.gid() }.give(&new)
            })
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| failed(&error))
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self, paths: &Paths) -> Result<(), Failure> {
        let removed = match self.group {
            None => fs::remove_dir_all(&self.directory),
            Some(_) => self.remove_on(paths),
        };
        removed.map_err(|error| Failure::cleanup(&format!("{}: {error}", self.directory.display())))
    }
}
