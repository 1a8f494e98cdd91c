//! Writing new lockspaces and the VM's lease, and finding out whether a host id is free.

use std::path::Path;

use ha_config::ha_toml::LeaseAdapter;
use ha_config::{HaToml, Paths};
use sanlock_client::{
    Client, Disk, DiskPath, GridSize, Lockspace, LockspaceName, Resource, ResourceName, WriteLockspaceOptions,
};

use super::SetupError;

/// The lockspace that protects the hosts' blocks.
pub const LOCKSPACE_NAME: &str = "hosted-engine";

/// The lock manager that writes leases.
#[derive(Debug, Clone)]
pub enum Leases {
    /// The sanlock daemon of this host, with the I/O time-out in seconds that goes into the records.
    Sanlock {
        /// Its socket.
        client: Client,
        /// N, the same on all hosts.
        io_timeout: u32,
    },
    /// File locks: nothing to write.
    File,
}

impl Leases {
    /// What ha.toml asks for on this host.
    pub fn new(paths: &Paths, toml: &HaToml) -> Self {
        match toml.lease.adapter {
            LeaseAdapter::Sanlock => Self::Sanlock {
                client: Client::new(paths.sanlock_socket()),
                io_timeout: toml.lease.io_timeout,
            },
            LeaseAdapter::File => Self::File,
        }
    }

    /// Fails when the lock manager cannot be asked: better before anything is made than in the middle.
    pub(crate) fn check(&self) -> Result<(), SetupError> {
        let Self::Sanlock { client, .. } = self else { return Ok(()) };
        client.version().map(drop).map_err(|source| SetupError::Sanlock {
            what: "the lock manager is needed to write the leases".to_owned(),
            source,
        })
    }

    /// Writes an empty lockspace at the start of `path` and reads its name back.
    pub(crate) fn write_lockspace(&self, name: &str, path: &Path, grid: GridSize) -> Result<(), SetupError> {
        let Self::Sanlock { client, io_timeout } = self else { return Ok(()) };
        let failed = |source| SetupError::Sanlock {
            what: format!("writing the lockspace {name} to {}", path.display()),
            source,
        };
        let write = || {
            let lockspace = Lockspace { name: LockspaceName::new(name)?, host_id: 1, disk: disk(path)? };
            let options = WriteLockspaceOptions { io_timeout: Some(*io_timeout), grid: Some(grid) };
            client.write_lockspace(&lockspace, grid.max_hosts(), options)?;
            client.read_lockspace(&lockspace)
        };
        let (found, _) = write().map_err(failed)?;
        if found.name.as_str() == name {
            return Ok(());
        }
        Err(SetupError::Refused(format!(
            "{}: the lockspace reads back as {:?}, not {name:?}",
            path.display(),
            found.name.as_str()
        )))
    }

    /// Writes a free lease at `offset` in `path` and reads it back.
    pub(crate) fn write_lease(
        &self,
        lockspace: &str,
        name: &str,
        path: &Path,
        offset: u64,
        grid: GridSize,
    ) -> Result<(), SetupError> {
        let Self::Sanlock { client, .. } = self else { return Ok(()) };
        let write = || {
            let resource = Resource {
                lockspace: LockspaceName::new(lockspace)?,
                name: ResourceName::new(name)?,
                disks: vec![Disk { path: DiskPath::new(path)?, offset }],
            };
            client.write_resource(&resource, grid.max_hosts(), 0, Some(grid))?;
            client.read_resource(&resource).map(drop)
        };
        write().map_err(|source| SetupError::Sanlock {
            what: format!("writing the lease {name} to {}", path.display()),
            source,
        })
    }
}

fn disk(path: &Path) -> Result<Disk, sanlock_client::SanlockError> {
    Ok(Disk { path: DiskPath::new(path)?, offset: 0 })
}

/// The layout of lease areas on storage with sectors of this size.
pub(crate) const fn grid_for(sector: u32) -> GridSize {
    if sector == 4096 { GridSize::Sector4kAlign8M } else { GridSize::Sector512Align1M }
}
