//! Looking at storage before anything is deployed. What must be mounted for it is in a journal of its own, and taken back.

use std::cell::RefCell;
use std::collections::BTreeMap;

use clock::{Clock as _, SystemClock};
use uuid::Uuid;

use super::job::carry_out;
use super::log::private_directory;
use super::questions::{Cluster, Device, StorageLookups, Target};
use super::storage::find::{Hosts, Seen};
use super::{
    BridgeOrigin, DeployError, FurtherHost, Hands, HostIdentity, Job, Journal, Network, Request, Secrets,
    Step, StepId, Storage, World, storage, undo,
};
use crate::setup::{ClusterConf, Report};

impl StorageLookups for Hands<'_> {
    fn targets(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Target>, DeployError> {
        Err(no_volumes(storage))
    }

    fn devices(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Device>, DeployError> {
        Err(no_volumes(storage))
    }

    fn clusters(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Cluster>, DeployError> {
        private_directory(&self.paths.setup_state_dir())?;
        let path = self.paths.setup_state_dir().join("look.journal");
        if let Some(mut left) = Journal::open(&path)?
            && left.story().outcome.is_none()
        {
            let request = left.story().request.clone();
            undo(World { report: &Worries(self.report), ..self.world(&request, secrets) }, &mut left)?;
        }
        let request = request(storage);
        let mut journal = Journal::begin(&path, SystemClock.wall().0, request.clone())?;
        let found = Found::default();
        let world = World { report: &Worries(self.report), ..self.world(&request, secrets) };
        let steps: [&dyn Step; 1] = [&found];
        let looked = carry_out(&steps, world, &mut journal);
        undo(world, &mut journal)?;
        looked?;
        Ok(found.0.into_inner())
    }
}

fn no_volumes(storage: &Storage) -> DeployError {
    DeployError::Refused(format!(
        "storage of the kind {:?} cannot be looked at from here: name its target and device in an answer file",
        storage.kind
    ))
}

/// A host that only looks: all that counts is the storage.
fn request(storage: &Storage) -> Request {
    Request::FurtherHost(Box::new(FurtherHost {
        storage: storage.clone(),
        network: Network {
            bridge: String::new(),
            origin: BridgeOrigin::Adopted,
            gateway: None,
            test: "none".to_owned(),
            tcp_target: None,
            open_firewall: false,
        },
        host: HostIdentity { id: 1, name: String::new() },
        sd_uuid: Uuid::nil(),
    }))
}

/// Tells what the operator should look at, and not what was made to look: it is gone at once.
struct Worries<'a>(&'a dyn Report);

impl Report for Worries<'_> {
    fn info(&self, _: &str) {}

    fn warning(&self, text: &str) {
        self.0.warning(text);
    }
}

/// The clusters that were found.
#[derive(Default)]
struct Found(RefCell<Vec<Cluster>>);

impl Step for Found {
    fn id(&self) -> StepId {
        StepId::StorageConnection
    }

    fn title(&self) -> String {
        "Looking at the storage".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let backend = storage::backend(job.world.request);
        backend.connect(job)?;
        for domain in backend.find(&job.world)? {
            let conf = ClusterConf::read(&domain.configuration)?.parsed(job.world.paths);
            let hosts = Hosts::read(&conf.metadata_path()?, &conf.lockspace_path()?)?;
            let (test, tcp_target) = match conf.network_test()? {
                ha_config::NetworkTest::Ping => ("ping", None),
                ha_config::NetworkTest::Dns => ("dns", None),
                ha_config::NetworkTest::Tcp { address, port } => ("tcp", Some((address, port))),
                ha_config::NetworkTest::None => ("none", None),
            };
            self.0.borrow_mut().push(Cluster {
                sd_uuid: domain.sd_uuid,
                fqdn: conf.fqdn()?.to_owned(),
                bridge: conf.file().get("bridge").unwrap_or_default().to_owned(),
                gateway: conf.file().get("gateway").and_then(|text| text.parse().ok()),
                test: test.to_owned(),
                tcp_target,
                next_id: hosts.lowest_free_id().map(metadata_format::HostId::get),
                taken: taken(&hosts),
            });
        }
        Ok(())
    }
}

fn taken(hosts: &Hosts) -> BTreeMap<u16, String> {
    let name = |seen: &Seen| match (&seen.block, &seen.owner) {
        (Some(Ok(name)), _) | (_, Some(name)) => name.clone(),
        (Some(Err(error)), None) => format!("unknown: {error}"),
        (None, None) => "unknown".to_owned(),
    };
    hosts.0.iter().map(|(id, seen)| (id.get(), name(seen))).collect()
}
