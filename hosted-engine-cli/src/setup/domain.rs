//! A storage domain of files: where it is on a host, and its own description.

use std::path::PathBuf;

use ha_config::hosted_engine::escape_connection;
use ha_config::{DomainType, Paths};
use uuid::Uuid;

use super::leases::grid_for;

/// Where the VM's disk comes from.
#[derive(Debug, Clone)]
pub enum DiskSource {
    /// A new disk of so many bytes in whole GiB, all zeros, space taken as it is used.
    Empty(u64),
}

/// The storage to set up.
#[derive(Debug, Clone)]
pub struct StorageSpec {
    /// A kind of file storage.
    pub domain_type: DomainType,
    /// Its connection, for example `server:/path`. It must be mounted already.
    pub storage: String,
    /// The storage domain's name; usually `hosted_storage`.
    pub name: String,
    /// The VM's disk.
    pub disk: DiskSource,
}

impl StorageSpec {
    /// Where this storage must be mounted on a host.
    pub fn mount_dir(&self, paths: &Paths) -> PathBuf {
        let mounts = paths.storage_mounts();
        let name = escape_connection(&self.storage);
        if self.domain_type == DomainType::Glusterfs {
            mounts.join("glusterSD").join(name)
        } else {
            mounts.join(name)
        }
    }
}

/// The storage domain's own description, with VDSM's keys. VDSM's checksum over it is left out: a domain made here is
/// not in any engine's database, and an engine that imports it has it written anew.
pub(crate) fn domain_metadata(
    kind: DomainType,
    name: &str,
    connection: &str,
    sd_uuid: Uuid,
    sector: u32,
) -> String {
    let kind = match kind {
        DomainType::Nfs | DomainType::Nfs3 | DomainType::Nfs4 => "NFS",
        DomainType::Glusterfs => "GLUSTERFS",
        DomainType::Posixfs => "POSIXFS",
        DomainType::Iscsi => "ISCSI",
        DomainType::Fc => "FCP",
    };
    format!(
        "ALIGNMENT={}\nBLOCK_SIZE={sector}\nCLASS=Data\nDESCRIPTION={name}\nMASTER_VERSION=0\nPOOL_UUID=\n\
         REMOTE_PATH={connection}\nROLE=Regular\nSDUUID={sd_uuid}\nTYPE={kind}\nVERSION=5\n",
        grid_for(sector).align_bytes(),
    )
}
