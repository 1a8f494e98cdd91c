//! Looking at storage before anything is deployed. What this host mounts, logs in to or activates for that is in a journal
//! of its own, and taken back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use clock::{Clock as _, SystemClock};
use ha_config::ha_toml::Hypervisor;
use uuid::Uuid;

use super::job::carry_out;
use super::log::private_directory;
use super::questions::{Cluster, Device, StorageLookups, Target};
use super::storage::block::iscsi::{self, Chap, Portal};
use super::storage::block::{self, FoundLun};
use super::storage::find::{self, Hosts, Seen};
use super::{
    BridgeOrigin, DeployError, FurtherHost, Hands, HostIdentity, Job, Journal, Network, Request, Secrets,
    Step, StepId, Storage, World, move_storage, storage, undo,
};
use crate::setup::{ClusterConf, Report};

impl StorageLookups for Hands<'_> {
    fn targets(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Target>, DeployError> {
        let (user, ports) = match &storage.iscsi {
            Some(iscsi) => (iscsi.discovery_user.as_deref(), iscsi.ports.as_slice()),
            None => (None, [].as_slice()),
        };
        let chap = match (user, &secrets.iscsi_discovery) {
            (Some(user), Some(password)) => Some(Chap { user, password }),
            (Some(user), None) => {
                return Err(DeployError::Refused(format!(
                    "the password of the iSCSI discovery user {user:?} is not known: give it in an answer file"
                )));
            }
            (None, _) => None,
        };
        let portals = iscsi::addresses(&storage.connection, ports)?;
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for (host, port) in &portals {
            match iscsi::discover(self.paths, self.tools, host, *port, chap.as_ref()) {
                Ok(more) => found.extend(more),
                Err(error) => failures.push(error),
            }
        }
        if failures.len() == portals.len() {
            // The first says most: the portals are ways to the same storage.
            return Err(failures.swap_remove(0));
        }
        for failure in failures {
            self.report.warning(&failure.to_string());
        }
        if found.is_empty() {
            return Err(DeployError::Refused(format!(
                "the portals at {} tell this host of no target: do they let its initiator in \
                 (/etc/iscsi/initiatorname.iscsi)?",
                storage.connection
            )));
        }
        Ok(targets(found, &portals))
    }

    fn devices(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Device>, DeployError> {
        if let Some(lun) = &storage.lun
            && let Some((bytes, path)) = block::present(self.paths, lun)
        {
            return Ok(vec![Device { id: lun.id.clone(), bytes, about: path.display().to_string() }]);
        }
        let luns = Luns::default();
        self.look(&Storage { lun: None, ..storage.clone() }, secrets, &luns)?;
        let target = storage.iscsi.as_ref().map(|iscsi| iscsi.target.as_str());
        let mut ids = BTreeSet::new();
        let mut all = luns.0.into_inner();
        // Before multipath has taken them, each path is a disk with the same WWID.
        all.retain(|lun| is_behind(lun, target) && ids.insert(lun.id.clone()));
        Ok(all.into_iter().map(device).collect())
    }

    fn clusters(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Cluster>, DeployError> {
        let found = Found::default();
        self.look(storage, secrets, &found)?;
        Ok(found.0.into_inner())
    }
}

impl Hands<'_> {
    /// Does a step that only looks, and takes back what it made for that. What a look made that was cut is taken back
    /// first.
    fn look(&self, storage: &Storage, secrets: &Secrets, step: &dyn Step) -> Result<(), DeployError> {
        private_directory(&self.paths.setup_state_dir())?;
        let path = self.paths.setup_state_dir().join("look.journal");
        if let Some(mut left) = Journal::open(&path)?
            && left.story().outcome.is_none()
        {
            let request = left.story().request.clone();
            undo(World { report: &Worries(self.report), ..self.world(&request, secrets) }, &mut left)?;
        }
        let hypervisor = super::vdsm::hypervisor_here(self.paths);
        let request = request(hypervisor, storage);
        let mut journal = Journal::begin(&path, SystemClock.wall().0, request.clone())?;
        let world = World { report: &Worries(self.report), ..self.world(&request, secrets) };
        let looked = carry_out(&[step], world, &mut journal);
        undo(world, &mut journal)?;
        looked
    }
}

/// What discovery said, each target once; its group is that of the portals that were given.
fn targets(portals: Vec<Portal>, given: &[(String, u16)]) -> Vec<Target> {
    let mut all: Vec<Target> = Vec::new();
    for Portal { host, port, tpgt, target } in portals {
        let portal = (host, port);
        let is_given = given.contains(&portal);
        let index = all.iter().position(|known| known.name == target).unwrap_or(all.len());
        if index == all.len() {
            all.push(Target { name: target, tpgt, portals: Vec::new() });
        }
        let known = &mut all[index];
        if is_given && !known.portals.iter().any(|portal| given.contains(portal)) {
            known.tpgt = tpgt;
        }
        if !known.portals.contains(&portal) {
            known.portals.push(portal);
        }
    }
    all
}

/// Whether a disk is of the storage that was answered: behind the target, or, without one, on no bus of this host alone.
fn is_behind(lun: &FoundLun, target: Option<&str>) -> bool {
    match target {
        Some(target) => lun.target == target || (lun.target.is_empty() && lun.transport == "iscsi"),
        None => !matches!(lun.transport.as_str(), "iscsi" | "usb" | "ata" | "sata" | "nvme" | "mmc"),
    }
}

fn device(lun: FoundLun) -> Device {
    let used_as = if lun.used_as.is_empty() { "nothing is seen on it" } else { &lun.used_as };
    let device = lun.device.display().to_string();
    let about = [lun.model.as_str(), lun.transport.as_str(), device.as_str(), used_as];
    let about: Vec<_> = about.into_iter().filter(|part| !part.is_empty()).collect();
    Device { about: about.join(", "), id: lun.id, bytes: lun.bytes }
}

/// A host that only looks: all that counts is the storage.
fn request(hypervisor: Hypervisor, storage: &Storage) -> Request {
    Request::FurtherHost(Box::new(FurtherHost {
        hypervisor,
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
        moves: None,
    }))
}

/// What the steps are called that only look.
const TITLE: &str = "Reaching the storage";

/// The LUNs that were found.
#[derive(Default)]
struct Luns(RefCell<Vec<FoundLun>>);

impl Step for Luns {
    fn id(&self) -> StepId {
        StepId::StorageConnection
    }

    fn title(&self) -> String {
        TITLE.to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        storage::backend(job.world.request).connect(job)?;
        *self.0.borrow_mut() = block::luns(job.world.paths, job.world.tools)?;
        Ok(())
    }
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
        TITLE.to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let backend = storage::backend(job.world.request);
        backend.connect(job)?;
        for domain in backend.look(job)? {
            let shared = ClusterConf::read(&domain.configuration)?;
            if let Some(to) = move_storage::left_for(&domain.configuration)? {
                job.world.report.warning(&format!(
                    "The hosted engine of the storage domain {} moved to other storage ({to}): nobody can use it here",
                    domain.sd_uuid
                ));
                continue;
            }
            let conf = shared.parsed(job.world.paths);
            let [metadata, lockspace] = backend.of_hosts(&conf)?;
            let hosts = Hosts::read(&metadata, &lockspace)?;
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
                last_seen: last_seen(&hosts),
                io_timeouts: find::io_timeouts(&lockspace)?,
                conf: shared,
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

fn last_seen(hosts: &Hosts) -> BTreeMap<u16, String> {
    hosts.0.iter().filter_map(|(id, seen)| Some((id.get(), seen.last_seen.clone()?))).collect()
}

#[cfg(test)]
#[path = "looking_tests.rs"]
mod tests;
