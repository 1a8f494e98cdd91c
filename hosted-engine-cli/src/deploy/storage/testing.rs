//! Requests and a host for tests.

use ha_config::Paths;

use crate::cli::OpenVm;
use crate::deploy::services::{ServiceState, Services};
use crate::deploy::{
    Boot, BridgeOrigin, DeployError, Engine, Family, FirstHost, Hands, HostIdentity, Ids, Journal, Network,
    Request, Secrets, Step, Storage, StorageKind, Tools, Vm, World,
};
use crate::setup::Report;

/// A first host with file leases, on this storage.
pub(crate) fn first_host(kind: StorageKind, connection: &str) -> FirstHost {
    FirstHost {
        hypervisor: ha_config::ha_toml::Hypervisor::Qemu,
        family: Family::Auto,
        storage: storage(kind, connection),
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
        ha_toml: "[lease]\nadapter = \"file\"\n".to_owned(),
        moves: None,
    }
}

/// Storage without options.
pub(crate) fn storage(kind: StorageKind, connection: &str) -> Storage {
    Storage { kind, connection: connection.to_owned(), mount_options: String::new(), iscsi: None, lun: None }
}

/// A host with a directory for storage, `srv/he` below its root.
pub(crate) struct Site {
    pub dir: tempfile::TempDir,
    pub paths: Paths,
    pub secrets: Secrets,
    pub open_vm: Box<OpenVm>,
}

impl Site {
    pub fn new() -> Self {
        // In memory where that can be had: the tests make many domains.
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        std::fs::create_dir_all(dir.path().join("srv/he")).unwrap();
        let paths = Paths::new(dir.path());
        let open_vm: Box<OpenVm> = Box::new(|_| anyhow::bail!("no VM is started here"));
        Self { dir, paths, secrets: Secrets::default(), open_vm }
    }

    pub fn world<'a>(
        &'a self,
        request: &'a Request,
        tools: &'a dyn Tools,
        report: &'a dyn Report,
    ) -> World<'a> {
        World {
            paths: &self.paths,
            tools,
            report,
            secrets: &self.secrets,
            request,
            services: &NoServices,
            open_vm: self.open_vm.as_ref(),
        }
    }

    pub fn hands<'a>(&'a self, tools: &'a dyn Tools, report: &'a dyn Report) -> Hands<'a> {
        let open_vm = self.open_vm.as_ref();
        Hands { paths: &self.paths, tools, report, services: &NoServices, open_vm }
    }

    /// The storage's steps of a first host.
    pub fn steps() -> Vec<Box<dyn Step>> {
        vec![
            Box::new(super::Connect),
            Box::new(super::MakeDomain),
            Box::new(super::WriteLeases),
            Box::new(super::ShareConfiguration),
        ]
    }
}

struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }
    fn set(&self, service: &str, _: ServiceState) -> Result<(), DeployError> {
        panic!("{service} is not storage's");
    }
    fn restart(&self, service: &str) -> Result<(), DeployError> {
        panic!("{service} is not storage's");
    }
}

/// Undoes what was made, of a complete deployment too.
pub(crate) fn take_back(world: World<'_>, journal: &mut Journal) -> Result<(), DeployError> {
    if journal.story().outcome.is_some() {
        journal.undeploy(0)?;
    }
    crate::deploy::undo(world, journal)
}
