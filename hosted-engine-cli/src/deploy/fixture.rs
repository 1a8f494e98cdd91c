//! A complete request and a world around it, for tests.

use std::sync::Arc;

use engine_vm::EngineVm;
use ha_config::{HostedEngineConf, Paths};
use tempfile::TempDir;

use super::services::{ServiceState, Services};
use super::storage::testing;
use super::{
    Boot, BridgeOrigin, DeployError, FirstHost, HostIdentity, Network, Request, Secrets, StorageKind, Tools,
    Vm, World,
};
use crate::cli::OpenVm;
use crate::setup::Report;

/// A first host on storage of its own.
pub(crate) fn first_host() -> FirstHost {
    let small = testing::first_host(StorageKind::Nfs, "nas.example.com:/exports/engine");
    FirstHost {
        network: Network {
            origin: BridgeOrigin::Over("eth0".to_owned()),
            gateway: Some([10, 0, 0, 254].into()),
            test: "ping".to_owned(),
            open_firewall: true,
            ..small.network
        },
        vm: Vm { boot: Boot::Pxe, disk_gib: 25, memory_mb: 4096, vcpus: 2, ..small.vm },
        host: HostIdentity { id: 1, name: "host1.example.com".to_owned() },
        ha_toml: String::new(),
        ..small
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
