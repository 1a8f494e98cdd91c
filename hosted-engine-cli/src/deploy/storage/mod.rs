//! Shared storage: reaching it, and making the storage domain on it.
//!
//! | backend | who makes volumes | for |
//! | --- | --- | --- |
//! | files | this program | NFS, `GlusterFS`, directories, without VDSM |
//! | block | this program, through LVM | iSCSI, Fibre Channel, without VDSM |
//! | vdsm | VDSM, by its verbs | hosts that VDSM manages |

pub mod block;
pub mod conf;
pub mod files;
pub mod find;
mod steps;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod vdsm;

use std::path::PathBuf;

use ha_config::HostedEngineConf;
use ha_config::ha_toml::Hypervisor;
use uuid::Uuid;

pub use steps::{Connect, MakeDomain, ShareConfiguration, WriteLeases, hosted_engine_conf};

use super::{DeployError, Job, Request, StorageKind, Tools, World};

/// What a volume of the cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The hosts' blocks: `hosted-engine.metadata`.
    Metadata,
    /// The lockspace `hosted-engine`.
    Lockspace,
    /// The configuration archive.
    Configuration,
    /// The VM's disk.
    Disk,
}

/// A storage domain with a hosted engine, found on storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDomain {
    /// The domain.
    pub sd_uuid: Uuid,
    /// Its configuration volume, readable on this host; on block storage once its volumes are active.
    pub configuration: PathBuf,
}

/// A place in a file or device that sanlock uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasePlace {
    /// File or device.
    pub path: PathBuf,
    /// Bytes from its start.
    pub offset: u64,
}

/// One way to keep a storage domain. Its methods are called in this order; each leaves what is there already as it is,
/// and makes everything through the job.
pub trait Backend {
    /// Mounts, logs in, or only looks: afterwards the storage can be used on this host.
    ///
    /// # Errors
    /// What stands in the way. The same for the others.
    fn connect(&self, job: &mut Job<'_>) -> Result<(), DeployError>;

    /// The domains with a hosted engine on this storage. Changes nothing.
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn find(&self, world: &World<'_>) -> Result<Vec<FoundDomain>, DeployError>;

    /// The same for a look at what is in them: what must be made for that on this host is made through the job.
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn look(&self, job: &mut Job<'_>) -> Result<Vec<FoundDomain>, DeployError> {
        self.find(&job.world)
    }

    /// Where the volumes of the hosts' blocks and of the lockspace that protects them can be read after [`Backend::look`].
    ///
    /// # Errors
    /// When the cluster's configuration does not name them.
    fn of_hosts(&self, conf: &HostedEngineConf) -> Result<[PathBuf; 2], DeployError> {
        Ok([conf.metadata_path()?, conf.lockspace_path()?])
    }

    /// Makes the domain with its own areas (`ids`, `leases`, `xleases`, …), not yet to be found by others where that
    /// can be had.
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn make_domain(&self, job: &mut Job<'_>) -> Result<(), DeployError>;

    /// Makes a volume of zeros, at least so many bytes long.
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn make_volume(&self, job: &mut Job<'_>, role: Role, bytes: u64) -> Result<(), DeployError>;

    /// Makes the volumes usable on this host: activates them, links `ha_agent/…` and prepared paths to them. After a
    /// boot too (`--connect-storage`).
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn prepare(&self, job: &mut Job<'_>) -> Result<(), DeployError>;

    /// Where a volume is on this host.
    fn volume(&self, world: &World<'_>, role: Role) -> PathBuf;

    /// The domain's own lockspace area.
    fn ids(&self, world: &World<'_>) -> LeasePlace;

    /// The lease of the VM's disk.
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn vm_lease(&self, world: &World<'_>) -> Result<LeasePlace, DeployError>;

    /// Whether making the domain and its volumes has written the domain's own lockspace and the lease of the VM's disk.
    fn writes_domain_leases(&self) -> bool {
        false
    }

    /// The domain is complete: from now on others find it.
    ///
    /// # Errors
    /// As [`Backend::connect`].
    fn complete(&self, job: &mut Job<'_>) -> Result<(), DeployError>;
}

/// Mounts or activates the storage of a deployed host without VDSM; false when it was there already.
///
/// # Errors
/// What stands in the way.
pub fn attach(conf: &HostedEngineConf, tools: &dyn Tools) -> Result<bool, DeployError> {
    if conf.domain_type()?.is_block() {
        return block::bring_up(conf, tools);
    }
    files::attach(conf, tools)
}

/// Makes the storage of a deployment under way usable again after a restart of the host.
///
/// # Errors
/// What stands in the way.
pub fn must_be_connected(world: &World<'_>) -> Result<(), DeployError> {
    let storage = match world.request {
        Request::FirstHost(first) => &first.storage,
        Request::FurtherHost(further) => &further.storage,
    };
    if world.request.hypervisor() == Hypervisor::Vdsm {
        return vdsm::attach(world);
    }
    match storage.kind {
        StorageKind::Iscsi | StorageKind::Fc => block::must_be_connected(world),
        StorageKind::Nfs
        | StorageKind::Nfs3
        | StorageKind::Nfs4
        | StorageKind::Glusterfs
        | StorageKind::Directory => files::must_be_connected(world),
    }
}

/// The opposite; false when there is nothing to do.
///
/// # Errors
/// What stands in the way.
pub fn detach(conf: &HostedEngineConf, tools: &dyn Tools) -> Result<bool, DeployError> {
    if conf.domain_type()?.is_block() {
        return block::take_down(conf, tools);
    }
    files::detach(conf, tools)
}

/// The backend for a deployment's storage.
pub fn backend(request: &Request) -> Box<dyn Backend> {
    let storage = match request {
        Request::FirstHost(first) => &first.storage,
        Request::FurtherHost(further) => &further.storage,
    };
    match request.hypervisor() {
        Hypervisor::Vdsm => return Box::new(vdsm::Vdsm),
        Hypervisor::Qemu | Hypervisor::Libvirt => {}
    }
    match storage.kind {
        StorageKind::Nfs
        | StorageKind::Nfs3
        | StorageKind::Nfs4
        | StorageKind::Glusterfs
        | StorageKind::Directory => Box::new(files::Files),
        StorageKind::Iscsi | StorageKind::Fc => Box::new(block::Block),
    }
}
