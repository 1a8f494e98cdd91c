//! The steps that every kind of storage has.

use clock::{Clock as _, SystemClock};
use ha_config::hosted_engine::VM_LEASE_OFFSET;
use ha_config::{HaToml, conf_archive};

use super::{Role, conf, files};
use crate::deploy::preflight::{self, Severity};
use crate::deploy::{DeployError, FirstHost, Job, Request, Step, StepId, Storage, StorageKind, World};
use crate::setup::volume::MIB;
use crate::setup::{ClusterConf, LOCKSPACE_NAME, Leases, SetupError, VmSpec, grid_for};
use crate::shared_file::SharedFile;

/// Bytes of the metadata volume: a block of 4096 bytes for the cluster and for each of 2000 hosts, in whole MiB.
const METADATA_BYTES: u64 = 8 * MIB;
const _: () = assert!(METADATA_BYTES >= metadata_format::FILE_SIZE);

/// Mounts, logs in, or links. Of a further host it makes the cluster's volumes usable too.
#[derive(Debug, Clone, Copy)]
pub struct Connect;

/// The storage domain with empty volumes, not yet to be found by others.
#[derive(Debug, Clone, Copy)]
pub struct MakeDomain;

/// Empty lockspaces and the VM's free lease. They are areas of the domain and go with it.
#[derive(Debug, Clone, Copy)]
pub struct WriteLeases;

/// The configuration archive; with it the domain is complete, and others find it.
#[derive(Debug, Clone, Copy)]
pub struct ShareConfiguration;

fn first<'a>(world: &World<'a>) -> Result<&'a FirstHost, DeployError> {
    match world.request {
        Request::FirstHost(first) => Ok(first),
        Request::FurtherHost(_) => {
            Err(DeployError::Refused("only the first host makes a storage domain".to_owned()))
        }
    }
}

impl Step for Connect {
    fn id(&self) -> StepId {
        StepId::StorageConnection
    }

    fn title(&self) -> String {
        "Connecting Storage".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let backend = super::backend(job.world.request);
        backend.connect(job)?;
        match job.world.request {
            Request::FirstHost(first) => is_usable(&job.world, &first.storage),
            Request::FurtherHost(_) => backend.prepare(job),
        }
    }
}

/// What pre-flight could not ask before the storage was connected.
fn is_usable(world: &World<'_>, storage: &Storage) -> Result<(), DeployError> {
    match storage.kind {
        // Asked in pre-flight already, or without files.
        StorageKind::Directory | StorageKind::Iscsi | StorageKind::Fc => return Ok(()),
        StorageKind::Nfs | StorageKind::Nfs3 | StorageKind::Nfs4 | StorageKind::Glusterfs => {}
    }
    let found = preflight::connected_storage(world, &files::target(world.paths, storage));
    let (blockers, others): (Vec<_>, Vec<_>) =
        found.iter().partition(|finding| finding.severity == Severity::Blocker);
    for finding in others {
        world.report.warning(&finding.to_string());
    }
    if blockers.is_empty() {
        return Ok(());
    }
    let blockers: Vec<String> = blockers.iter().map(ToString::to_string).collect();
    Err(DeployError::Refused(blockers.join("\n")))
}

impl Step for MakeDomain {
    fn id(&self) -> StepId {
        StepId::StorageDomain
    }

    fn title(&self) -> String {
        "Creating Storage Domain".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let first = first(&job.world)?;
        let disk = first.vm.disk_gib.checked_mul(1 << 30).filter(|bytes| *bytes > 0).ok_or_else(|| {
            DeployError::Refused(format!("a disk of {} GiB cannot be made", first.vm.disk_gib))
        })?;
        leases(&job.world, first)?.check()?;
        let backend = super::backend(job.world.request);
        backend.make_domain(job)?;
        let area = grid_for(sector_size(&backend.ids(&job.world).path)?).align_bytes();
        for (role, bytes) in [
            (Role::Metadata, METADATA_BYTES),
            (Role::Lockspace, area),
            (Role::Configuration, MIB),
            (Role::Disk, disk),
        ] {
            backend.make_volume(job, role, bytes)?;
        }
        backend.prepare(job)
    }
}

impl Step for WriteLeases {
    fn id(&self) -> StepId {
        StepId::Leases
    }

    fn title(&self) -> String {
        "Initializing the lockspaces and the VM's lease".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = &job.world;
        let first = first(world)?;
        let backend = super::backend(world.request);
        let (sd, ids) = (first.ids.sd.to_string(), backend.ids(world));
        let grid = grid_for(sector_size(&ids.path)?);
        let leases = leases(world, first)?;
        leases.write_lockspace(LOCKSPACE_NAME, &backend.volume(world, Role::Lockspace), grid)?;
        if backend.writes_domain_leases() {
            return Ok(());
        }
        leases.write_lockspace(&sd, &ids.path, grid)?;
        let (disk, lease) = (first.ids.disk.volume.to_string(), backend.vm_lease(world)?);
        Ok(leases.write_lease(&sd, &disk, &lease.path, lease.offset, grid)?)
    }
}

impl Step for ShareConfiguration {
    fn id(&self) -> StepId {
        StepId::SharedConfiguration
    }

    fn title(&self) -> String {
        "Saving the cluster's configuration on the shared storage".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = &job.world;
        let backend = super::backend(world.request);
        let conf = cluster_conf(world, first(world)?)?;
        let now = u64::try_from(SystemClock.wall().0).unwrap_or(0);
        let archive = conf_archive::write(&conf.files(), now).map_err(SetupError::from)?;
        let volume = SharedFile::open(&backend.volume(world, Role::Configuration), true);
        volume.and_then(|volume| volume.write(0, &archive)).map_err(SetupError::from)?;
        backend.complete(job)
    }
}

/// The cluster's configuration files, from what is to be done.
fn cluster_conf(world: &World<'_>, first: &FirstHost) -> Result<ClusterConf, DeployError> {
    Ok(ClusterConf {
        hosted_engine_conf: hosted_engine_conf(world, first)?,
        vm_conf: vm_conf(world, first)?,
        broker_conf: include_str!("../../../../etc/broker.conf").to_owned(),
        ha_toml: first.ha_toml.clone(),
        answers: conf::answers(first),
    })
}

/// The cluster's hosted-engine.conf, once its storage is connected and its volumes are made.
///
/// # Errors
/// When the mount or the lease's place cannot be found out.
pub fn hosted_engine_conf(world: &World<'_>, first: &FirstHost) -> Result<String, DeployError> {
    let version = match first.storage.kind {
        StorageKind::Nfs | StorageKind::Nfs3 | StorageKind::Nfs4 => files::nfs_version(world)?,
        StorageKind::Glusterfs | StorageKind::Iscsi | StorageKind::Fc | StorageKind::Directory => None,
    };
    let mut hosted_engine_conf = conf::hosted_engine_conf(first, version.as_deref());
    // A file of its own starts with it; among others it has a place.
    let lease = super::backend(world.request).vm_lease(world)?.offset;
    if lease > 0 {
        hosted_engine_conf.extend([VM_LEASE_OFFSET, "=", &lease.to_string(), "\n"]);
    }
    Ok(hosted_engine_conf)
}

fn vm_conf(world: &World<'_>, first: &FirstHost) -> Result<String, DeployError> {
    let (vm, ids) = (&first.vm, &first.ids);
    let (kernel, initrd, kernel_args) = match &vm.kernel {
        Some((kernel, initrd, args)) => (Some(kernel.clone()), initrd.clone(), Some(args.clone())),
        None => (None, None, None),
    };
    let spec = VmSpec {
        id: ids.vm,
        memory_mb: vm.memory_mb,
        vcpus: vm.vcpus,
        mac: vm.mac.clone(),
        graphics: vm.console.clone(),
        machine: vm.machine.clone(),
        cpu: vm.cpu.clone(),
        kernel,
        initrd,
        kernel_args: kernel_args.filter(|args| !args.is_empty()),
        ..VmSpec::new()
    };
    spec.check()?;
    let path = world.paths.vm_conf();
    Ok(spec.conf(path, &first.network.bridge, ids.sd, ids.disk.image, ids.disk.volume).to_string())
}

fn leases(world: &World<'_>, first: &FirstHost) -> Result<Leases, DeployError> {
    Ok(Leases::new(world.paths, &HaToml::parse(world.paths, &first.ha_toml)?))
}

fn sector_size(path: &std::path::Path) -> Result<u32, DeployError> {
    let size = SharedFile::open(path, false).and_then(|file| file.sector_size());
    Ok(size.map_err(SetupError::from)?)
}
