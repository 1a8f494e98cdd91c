//! A complete request and a world around it, for tests.

use std::sync::Arc;

use engine_vm::EngineVm;
use ha_config::ha_toml::Hypervisor;
use ha_config::{HostedEngineConf, Paths};
use tempfile::TempDir;

use super::services::{ServiceState, Services};
use super::{
    Boot, BridgeOrigin, DeployError, Engine, Family, FirstHost, HostIdentity, Ids, Network, Request, Secrets,
    Storage, StorageKind, Tools, Vm, World,
};
use crate::cli::OpenVm;
use crate::setup::Report;

/// A first host on storage of its own.
pub(crate) fn first_host() -> FirstHost {
    FirstHost {
        hypervisor: Hypervisor::Qemu,
        family: Family::Auto,
        storage: Storage {
            kind: StorageKind::Nfs,
            connection: "nas.example.com:/exports/engine".to_owned(),
            mount_options: String::new(),
            iscsi: None,
            lun: None,
        },
        domain_name: "hosted_storage".to_owned(),
        datacenter: "hosted_datacenter".to_owned(),
        network: Network {
            bridge: "ovirtmgmt".to_owned(),
            origin: BridgeOrigin::Over("eth0".to_owned()),
            gateway: Some([10, 0, 0, 254].into()),
            test: "ping".to_owned(),
            tcp_target: None,
            open_firewall: true,
        },
        vm: Vm {
            boot: Boot::Pxe,
            disk_gib: 25,
            memory_mb: 4096,
            vcpus: 2,
            mac: "00:16:3e:00:00:01".to_owned(),
            console: "vnc".to_owned(),
            machine: None,
            cpu: None,
            kernel: None,
            seed: None,
        },
        engine: Engine { fqdn: "engine.example.com".to_owned(), host_name: "hosted_engine_1".to_owned() },
        host: HostIdentity { id: 1, name: "host1.example.com".to_owned() },
        ids: Ids::draw(),
        ha_toml: String::new(),
    }
}

/// What a [`World`] borrows.
pub(crate) struct Fixture {
    pub paths: Paths,
    pub request: Request,
    secrets: Secrets,
    open_vm: Box<OpenVm>,
    _root: TempDir,
}

struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }

    fn set(&self, service: &str, _: ServiceState) -> Result<(), DeployError> {
        Err(DeployError::Refused(format!("there is no service {service} here")))
    }

    fn restart(&self, service: &str) -> Result<(), DeployError> {
        Err(DeployError::Refused(format!("there is no service {service} here")))
    }
}

impl Fixture {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.setup_state_dir()).unwrap();
        let open_vm = |_: &HostedEngineConf| -> anyhow::Result<Arc<dyn EngineVm>> {
            anyhow::bail!("no hypervisor here")
        };
        let request = Request::FirstHost(Box::new(first_host()));
        Self { paths, request, secrets: Secrets::default(), open_vm: Box::new(open_vm), _root: root }
    }

    pub fn first(&mut self) -> &mut FirstHost {
        match &mut self.request {
            Request::FirstHost(first) => first,
            Request::FurtherHost(_) => unreachable!("made as a first host"),
        }
    }

    pub fn set_network(&mut self, network: Network) {
        self.first().network = network;
    }

    pub fn world<'a>(&'a self, tools: &'a dyn Tools, report: &'a dyn Report) -> World<'a> {
        World {
            paths: &self.paths,
            tools,
            report,
            secrets: &self.secrets,
            request: &self.request,
            services: &NoServices,
            open_vm: &self.open_vm,
        }
    }
}
