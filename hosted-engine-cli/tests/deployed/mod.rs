//! Hosts in directories, deployed by the product's own steps as far as files and storage go: no bridge, no service, no VM.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::path::Path;

use ha_config::Paths;
use ha_config::ha_toml::Hypervisor;
use hosted_engine_cli::cli::OpenVm;
use hosted_engine_cli::deploy::services::{ServiceState, Services};
use hosted_engine_cli::deploy::{
    Boot, BridgeOrigin, DeployError, Engine, Family, FirstHost, FurtherHost, HostIdentity, Ids, Installed,
    Journal, Network, Request, Secrets, StepId, Storage, StorageKind, Vm, World, run, steps, undo,
};
use hosted_engine_cli::setup::Quiet;

/// What of a deployment is done here.
const STEPS: [StepId; 7] = [
    StepId::Directories,
    StepId::StorageConnection,
    StepId::StorageDomain,
    StepId::Leases,
    StepId::SharedConfiguration,
    StepId::HostConfiguration,
    StepId::MainConfiguration,
];

/// A first host, named `h1`, with a small VM.
pub fn first_host(kind: StorageKind, connection: &str, ha_toml: &str) -> FirstHost {
    FirstHost {
        hypervisor: Hypervisor::Qemu,
        family: Family::Auto,
        storage: Storage {
            kind,
            connection: connection.to_owned(),
            mount_options: String::new(),
            iscsi: None,
            lun: None,
        },
        domain_name: "hosted_storage".to_owned(),
        datacenter: "hosted_datacenter".to_owned(),
        network: Network {
            bridge: "ovirtmgmt".to_owned(),
            origin: BridgeOrigin::Adopted,
            gateway: None,
            test: "none".to_owned(),
            tcp_target: None,
            open_firewall: false,
        },
        vm: Vm {
            boot: Boot::Disk(None),
            disk_gib: 1,
            memory_mb: 128,
            vcpus: 1,
            mac: "00:16:3e:00:00:01".to_owned(),
            console: "vnc".to_owned(),
            machine: None,
            cpu: None,
            kernel: None,
            seed: None,
        },
        engine: Engine { fqdn: "engine.example.com".to_owned(), host_name: "hosted_engine_1".to_owned() },
        host: HostIdentity { id: 1, name: "h1".to_owned() },
        ids: Ids::draw(),
        ha_toml: ha_toml.to_owned(),
        moves: None,
    }
}

/// A further host of the same cluster.
pub fn further_host(first: &FirstHost, id: u16, name: &str) -> FurtherHost {
    FurtherHost {
        hypervisor: first.hypervisor,
        storage: first.storage.clone(),
        network: first.network.clone(),
        host: HostIdentity { id, name: name.to_owned() },
        sd_uuid: first.ids.sd,
        moves: None,
    }
}

/// Storage starts nothing.
pub struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }
    fn set(&self, service: &str, _: ServiceState) -> Result<(), DeployError> {
        panic!("{service} is not to be touched");
    }
    fn restart(&self, service: &str) -> Result<(), DeployError> {
        panic!("{service} is not to be touched");
    }
}

/// Does something with the world of one host.
pub fn on_host<T>(paths: &Paths, request: &Request, work: impl FnOnce(World<'_>) -> T) -> T {
    let (secrets, open_vm): (_, Box<OpenVm>) =
        (Secrets::default(), Box::new(|_| anyhow::bail!("no VM is started here")));
    work(World {
        paths,
        tools: &Installed,
        report: &Quiet,
        secrets: &secrets,
        request,
        services: &NoServices,
        open_vm: open_vm.as_ref(),
    })
}

/// Makes this host a member; what was begun is taken back when that fails.
pub fn deploy(paths: &Paths, request: &Request) -> Result<(), DeployError> {
    std::fs::create_dir_all(paths.setup_state_dir()).unwrap();
    let mut journal = Journal::begin(&paths.deploy_journal(), 0, request.clone())?;
    let mut steps = steps(request);
    steps.retain(|step| STEPS.contains(&step.id()));
    on_host(paths, request, |world| {
        run(&steps, world, &mut journal).inspect_err(|_| undo(world, &mut journal).unwrap())
    })
}

/// Makes host 1 with its storage in `/storage` below its root.
pub fn alone(root: &Path, ha_toml: &str) -> (Paths, FirstHost) {
    let paths = Paths::new(root);
    std::fs::create_dir_all(paths.resolve("/storage")).unwrap();
    let first = first_host(StorageKind::Directory, "/storage", ha_toml);
    deploy(&paths, &Request::FirstHost(Box::new(first.clone()))).unwrap();
    (paths, first)
}
