//! Making the storage domain alone, by the steps of deployment, on storage that is mounted already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine_vm::EngineVm;
use ha_config::hosted_engine::escape_connection;
use ha_config::{DomainType, HostedEngineConf, Paths};
use uuid::Uuid;

use super::find::ClusterConf;
use super::leases::grid_for;
use super::report::Report;
use super::volume::copy;
use super::{ClusterSpec, SetupError, io};
use crate::deploy::services::{ServiceState, Services};
use crate::deploy::storage::{MakeDomain, Role, ShareConfiguration, WriteLeases};
use crate::deploy::{
    self, DeployError, FirstHost, Ids, Installed, Job, Journal, Request, Secrets, Step, StepId, StorageKind,
    World,
};

/// Where the VM's disk comes from.
#[derive(Debug, Clone)]
pub enum DiskSource {
    /// A new disk of so many bytes in whole GiB, all zeros, space taken as it is used.
    Empty(u64),
    /// A copy of a raw image, made at least so many bytes long.
    Copy(PathBuf, u64),
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

/// Makes a new storage domain with all volumes and leases on storage that is mounted on this host. It is there
/// completely or not at all.
pub fn create_storage(
    paths: &Paths,
    storage: &StorageSpec,
    cluster: &ClusterSpec,
    time: u64,
    report: &dyn Report,
) -> Result<ClusterConf, SetupError> {
    let paths = &super::absolute(paths)?;
    cluster.vm.check()?;
    let request = request(storage, cluster)?;
    let path = paths.setup_state_dir().join("storage.journal");
    std::fs::create_dir_all(paths.setup_state_dir()).map_err(io("create the directory", &path))?;
    let secrets = Secrets::default();
    let open_vm = |_: &HostedEngineConf| -> anyhow::Result<Arc<dyn EngineVm>> {
        anyhow::bail!("no VM is started here")
    };
    let world = World {
        paths,
        tools: &Installed,
        report,
        secrets: &secrets,
        request: &request,
        services: &NoServices,
        open_vm: &open_vm,
    };
    let made = make(storage, world, &path, time);
    made.map_err(|error| match error {
        DeployError::Setup(error) => error,
        other => SetupError::Refused(other.to_string()),
    })
}

fn make(storage: &StorageSpec, world: World<'_>, path: &Path, time: u64) -> Result<ClusterConf, DeployError> {
    if let Some(mut journal) = Journal::open(path)?
        && journal.story().outcome.is_none()
    {
        let request = journal.story().request.clone();
        deploy::undo(World { request: &request, ..world }, &mut journal)?;
    }
    let at = i64::try_from(time).unwrap_or(0);
    let mut journal = Journal::begin(path, at, world.request.clone())?;
    let mut steps: Vec<Box<dyn Step>> =
        vec![Box::new(MakeDomain), Box::new(WriteLeases), Box::new(ShareConfiguration)];
    if let DiskSource::Copy(image, bytes) = &storage.disk {
        steps.insert(1, Box::new(CopyDisk { image: image.clone(), bytes: *bytes }));
    }
    if let Err(error) = deploy::run(&steps, world, &mut journal) {
        deploy::undo(world, &mut journal)?;
        return Err(error);
    }
    let volume = deploy::storage::backend(world.request).volume(&world, Role::Configuration);
    Ok(ClusterConf::read(&volume)?)
}

fn request(storage: &StorageSpec, cluster: &ClusterSpec) -> Result<Request, SetupError> {
    let refused = |text: String| Err(SetupError::Refused(text));
    let kind = match storage.domain_type {
        DomainType::Nfs => StorageKind::Nfs,
        DomainType::Nfs3 => StorageKind::Nfs3,
        DomainType::Nfs4 => StorageKind::Nfs4,
        DomainType::Glusterfs => StorageKind::Glusterfs,
        DomainType::Posixfs => StorageKind::Directory,
        DomainType::Iscsi | DomainType::Fc => {
            return refused(format!(
                "storage of the type {} needs VDSM to make its volumes; here use nfs, glusterfs or posixfs",
                storage.domain_type.word()
            ));
        }
    };
    let bytes = match &storage.disk {
        DiskSource::Empty(bytes) => *bytes,
        DiskSource::Copy(image, bytes) => {
            std::fs::metadata(image).map_err(io("look at", image))?.len().max(*bytes)
        }
    };
    let gateway = cluster.gateway.as_deref().map(|text| {
        text.parse().map_err(|_| SetupError::Refused(format!("the gateway {text:?} is no IP address")))
    });
    let (vm, ids) = (&cluster.vm, Ids { vm: cluster.vm.id, ..Ids::draw() });
    let kernel = vm.kernel.clone();
    Ok(Request::FirstHost(Box::new(FirstHost {
        hypervisor: ha_config::ha_toml::Hypervisor::Qemu,
        family: deploy::Family::Auto,
        storage: deploy::Storage {
            kind,
            connection: storage.storage.clone(),
            mount_options: String::new(),
            iscsi: None,
            lun: None,
        },
        domain_name: storage.name.clone(),
        datacenter: "hosted_datacenter".to_owned(),
        network: deploy::Network {
            bridge: cluster.bridge.clone(),
            origin: deploy::BridgeOrigin::Adopted,
            gateway: gateway.transpose()?,
            test: cluster.network_test.clone(),
            tcp_target: cluster.tcp_target.clone(),
            open_firewall: false,
        },
        vm: deploy::Vm {
            boot: deploy::Boot::Disk(None),
            disk_gib: bytes.div_ceil(1 << 30),
            memory_mb: vm.memory_mb,
            vcpus: vm.vcpus,
            mac: vm.mac.clone(),
            console: vm.graphics.clone(),
            machine: vm.machine.clone(),
            cpu: vm.cpu.clone(),
            kernel: kernel
                .map(|kernel| (kernel, vm.initrd.clone(), vm.kernel_args.clone().unwrap_or_default())),
            seed: None,
        },
        engine: deploy::Engine { fqdn: cluster.fqdn.clone(), host_name: "hosted_engine_1".to_owned() },
        host: deploy::HostIdentity { id: 1, name: String::new() },
        ids,
        ha_toml: cluster.ha_toml.clone(),
        moves: None,
    })))
}

/// Fills the VM's disk from a raw image.
struct CopyDisk {
    image: PathBuf,
    bytes: u64,
}

impl Step for CopyDisk {
    fn id(&self) -> StepId {
        StepId::Disk
    }

    fn title(&self) -> String {
        format!("Copying {}", self.image.display())
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let disk = deploy::storage::backend(job.world.request).volume(&job.world, Role::Disk);
        Ok(copy(&self.image, &disk, self.bytes)?)
    }
}

/// Set-up of the storage alone starts nothing.
struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }

    fn set(&self, service: &str, _: ServiceState) -> Result<(), DeployError> {
        self.restart(service)
    }

    fn restart(&self, service: &str) -> Result<(), DeployError> {
        Err(DeployError::Refused(format!("set-up of the storage does not start {service}")))
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
