//! Joining a cluster: what a host that does not belong to it yet sees of it, and what it must take over from it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ha_config::{HaToml, HostedEngineConf, Paths, atomic};
use metadata_format::HostId;

use super::questions::{Cluster, Device, StorageLookups, Target};
use super::storage::files::{FoundCluster, storage_of_conf, survey};
use super::storage::find::{Hosts, Seen};
use super::{DeployError, FurtherHost, Request, Secrets, Storage, Tools};
use crate::setup::{ClusterConf, Report};

/// Looks at storage for the dialogue, and remembers what was found there.
pub struct OnStorage<'a> {
    paths: &'a Paths,
    tools: &'a dyn Tools,
    found: RefCell<Vec<FoundCluster>>,
}

impl<'a> OnStorage<'a> {
    /// Nothing is looked at yet.
    pub fn new(paths: &'a Paths, tools: &'a dyn Tools) -> Self {
        Self { paths, tools, found: RefCell::default() }
    }

    /// Has a further host do as its cluster does: it reaches the storage under the cluster's name for it, which
    /// hosted-engine.conf has on all hosts, and refuses other leases than the cluster's. Nothing to do for a first host.
    ///
    /// # Errors
    /// Why this host cannot become one of the cluster.
    pub fn settle(&self, request: &mut Request, report: &dyn Report) -> Result<(), DeployError> {
        let Request::FurtherHost(further) = request else { return Ok(()) };
        let all = self.found.borrow();
        let Some(found) = all.iter().find(|found| found.sd_uuid == further.sd_uuid) else { return Ok(()) };
        refuse_other_leases(self.paths, &found.conf)?;
        take_storage(further, &found.conf.parsed(self.paths), report)
    }
}

impl StorageLookups for OnStorage<'_> {
    fn targets(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Target>, DeployError> {
        Err(not_yet(storage))
    }

    fn devices(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Device>, DeployError> {
        Err(not_yet(storage))
    }

    fn clusters(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Cluster>, DeployError> {
        let found = survey(self.paths, self.tools, storage)?;
        let all = found.iter().map(|found| cluster(found, self.paths)).collect();
        *self.found.borrow_mut() = found;
        all
    }
}

fn not_yet(storage: &Storage) -> DeployError {
    DeployError::Refused(format!(
        "block storage ({}) cannot be looked at without VDSM: use nfs, glusterfs or a directory",
        storage.connection
    ))
}

/// A cluster as the questions want to know it.
fn cluster(found: &FoundCluster, paths: &Paths) -> Result<Cluster, DeployError> {
    let conf = found.conf.parsed(paths);
    let text = |key: &str| conf.file().get(key).filter(|value| *value != "None").map(str::to_owned);
    let target = text("tcp_t_address").zip(text("tcp_t_port").and_then(|port| port.parse().ok()));
    Ok(Cluster {
        sd_uuid: found.sd_uuid,
        fqdn: conf.fqdn()?.to_owned(),
        bridge: text("bridge").unwrap_or_else(|| "ovirtmgmt".to_owned()),
        gateway: text("gateway").and_then(|gateway| gateway.parse().ok()),
        test: text("network_test").unwrap_or_else(|| "ping".to_owned()),
        tcp_target: target,
        taken: names(&found.hosts),
        last_seen: found
            .hosts
            .0
            .iter()
            .filter_map(|(id, seen)| Some((id.get(), seen.last_seen.clone()?)))
            .collect(),
        next_id: found.hosts.lowest_free_id().map(HostId::get),
    })
}

/// Who has each host id that is in use.
fn names(hosts: &Hosts) -> BTreeMap<u16, String> {
    let name = |seen: &Seen| match (&seen.block, &seen.owner) {
        (Some(Ok(name)), _) | (Some(Err(_)) | None, Some(name)) => name.clone(),
        (Some(Err(_)) | None, None) => "a host whose block cannot be read".to_owned(),
    };
    hosts.0.iter().map(|(id, seen)| (id.get(), name(seen))).collect()
}

/// The storage under the name that the cluster has for it.
fn take_storage(
    further: &mut FurtherHost,
    conf: &HostedEngineConf,
    report: &dyn Report,
) -> Result<(), DeployError> {
    let Some(theirs) = storage_of_conf(conf)? else { return Ok(()) };
    if theirs.connection != further.storage.connection {
        report.info(&format!("The cluster reaches this storage as {}: so will this host", theirs.connection));
    }
    further.storage = theirs;
    Ok(())
}

/// Refuses an ha.toml on this host, which would stay as it is, whose leases or hypervisor are not the cluster's: hosts that
/// reckon with other times would take a lease that is still held.
///
/// # Errors
/// Each setting that differs, and what to do.
pub(super) fn refuse_other_leases(paths: &Paths, cluster: &ClusterConf) -> Result<(), DeployError> {
    let path = paths.ha_toml();
    match atomic::read_text(&path) {
        Err(error) if error.is_not_found() => return Ok(()),
        Ok(text) if text == cluster.ha_toml => return Ok(()),
        other => drop(other?),
    }
    let (own, theirs) = (HaToml::load(paths)?, HaToml::parse(paths, &cluster.ha_toml)?);
    let vm = |toml: &HaToml| toml.lease.vm.clone().unwrap_or_else(|| "none".to_owned());
    let different: Vec<String> = [
        ("lease.adapter", format!("{:?}", own.lease.adapter), format!("{:?}", theirs.lease.adapter)),
        ("lease.io_timeout", own.lease.io_timeout.to_string(), theirs.lease.io_timeout.to_string()),
        (
            "lease.watchdog_timeout",
            own.lease.watchdog_timeout.to_string(),
            theirs.lease.watchdog_timeout.to_string(),
        ),
        ("lease.vm", vm(&own), vm(&theirs)),
        ("vm.hypervisor", format!("{:?}", own.vm.hypervisor), format!("{:?}", theirs.vm.hypervisor)),
    ]
    .into_iter()
    .filter(|(_, own, theirs)| own != theirs)
    .map(|(key, own, theirs)| format!("{key} is {own}, the cluster's {theirs}").to_lowercase())
    .collect();
    if different.is_empty() {
        return Ok(());
    }
    Err(DeployError::Refused(format!(
        "{} differs from the cluster's in what must be the same on all hosts: {}. Move the file away, and the cluster's \
         is written in its place",
        path.display(),
        different.join("; ")
    )))
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
