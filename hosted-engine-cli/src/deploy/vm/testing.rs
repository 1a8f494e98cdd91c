//! A first host to test on.

use std::path::PathBuf;

use ha_config::Paths;
use tempfile::TempDir;

use crate::cli::OpenVm;
use crate::deploy::services::{ServiceState, Services};
use crate::deploy::storage::testing::first_host;
use crate::deploy::storage::{Backend, FoundDomain, LeasePlace, Role};
use crate::deploy::testing::Heard;
use crate::deploy::{
    Boot, DeployError, FirstHost, Job, Journal, Request, Secrets, Step, StorageKind, Tools, Vm, World, run,
};
use crate::setup::VmSpec;

/// A host under a temporary root, with what a deployment works on.
pub(super) struct Bench {
    pub root: TempDir,
    pub paths: Paths,
    pub report: Heard,
    pub secrets: Secrets,
    pub request: Request,
}

/// Services that nobody may ask for.
struct NoServices;

impl Services for NoServices {
    fn state(&self, service: &str) -> Result<Option<ServiceState>, DeployError> {
        panic!("nobody expected a question for {service}")
    }
    fn set(&self, service: &str, wanted: ServiceState) -> Result<(), DeployError> {
        panic!("nobody expected {service} to be set to {wanted:?}")
    }
    fn restart(&self, service: &str) -> Result<(), DeployError> {
        panic!("nobody expected a restart of {service}")
    }
}

/// Storage of one volume.
pub(super) struct OneVolume(pub PathBuf);

impl Backend for OneVolume {
    fn connect(&self, _: &mut Job<'_>) -> Result<(), DeployError> {
        Ok(())
    }
    fn find(&self, _: &World<'_>) -> Result<Vec<FoundDomain>, DeployError> {
        Ok(Vec::new())
    }
    fn make_domain(&self, _: &mut Job<'_>) -> Result<(), DeployError> {
        Ok(())
    }
    fn make_volume(&self, _: &mut Job<'_>, _: Role, _: u64) -> Result<(), DeployError> {
        Ok(())
    }
    fn prepare(&self, _: &mut Job<'_>) -> Result<(), DeployError> {
        Ok(())
    }
    fn volume(&self, _: &World<'_>, role: Role) -> PathBuf {
        assert_eq!(role, Role::Disk);
        self.0.clone()
    }
    fn ids(&self, _: &World<'_>) -> LeasePlace {
        LeasePlace { path: self.0.clone(), offset: 0 }
    }
    fn vm_lease(&self, _: &World<'_>) -> Result<LeasePlace, DeployError> {
        Ok(LeasePlace { path: self.0.clone(), offset: 0 })
    }
    fn complete(&self, _: &mut Job<'_>) -> Result<(), DeployError> {
        Ok(())
    }
}

/// A VM with the defaults of the dialogue.
pub(super) fn vm(boot: Boot) -> Vm {
    Vm {
        boot,
        disk_gib: 25,
        memory_mb: 4096,
        vcpus: 2,
        mac: "00:16:3e:01:02:03".to_owned(),
        console: "vnc".to_owned(),
        machine: None,
        cpu: None,
        kernel: None,
        seed: None,
    }
}

impl Bench {
    pub fn new(boot: Boot) -> Self {
        let root = tempfile::tempdir().unwrap();
        let small = first_host(StorageKind::Directory, "/data");
        let first = FirstHost { vm: vm(boot), ha_toml: String::new(), ..small };
        Self {
            paths: Paths::new(root.path()),
            root,
            report: Heard::default(),
            secrets: Secrets::default(),
            request: Request::FirstHost(Box::new(first)),
        }
    }

    pub fn first(&mut self) -> &mut FirstHost {
        match &mut self.request {
            Request::FirstHost(first) => first,
            Request::FurtherHost(_) => panic!("no first host"),
        }
    }

    /// The host's files as they are when the VM is to start.
    pub fn configure(&self) {
        let Request::FirstHost(first) = &self.request else { panic!("no first host") };
        let ids = first.ids;
        for dir in [self.paths.hosted_engine_conf_dir(), self.paths.run_dir(), self.paths.ha_conf_dir()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let conf = format!(
            "fqdn={}\nvmid={}\nsdUUID={}\nconf=/var/run/ovirt-hosted-engine-ha/vm.conf\n",
            first.engine.fqdn, ids.vm, ids.sd
        );
        std::fs::write(self.paths.hosted_engine_conf(), conf).unwrap();
        let spec = VmSpec { id: ids.vm, ..VmSpec::new() };
        let conf = spec.conf(self.paths.vm_conf(), "ovirtmgmt", ids.sd, ids.disk.image, ids.disk.volume);
        conf.write().unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn world<'a>(&'a self, tools: &'a dyn Tools, open_vm: &'a OpenVm) -> World<'a> {
        World {
            paths: &self.paths,
            tools,
            report: &self.report,
            secrets: &self.secrets,
            request: &self.request,
            services: &NoServices,
            open_vm,
        }
    }

    pub fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    /// Carries out one step, as the first time or after it was cut.
    pub fn run(&self, step: Box<dyn Step>, tools: &dyn Tools, open_vm: &OpenVm) -> Result<(), DeployError> {
        let path = self.journal();
        let cut = Journal::open(&path)?.filter(|journal| journal.story().outcome.is_none());
        let mut journal = match cut {
            Some(journal) => journal,
            None => Journal::begin(&path, 0, self.request.clone())?,
        };
        run(&[step], self.world(tools, open_vm), &mut journal)
    }
}
