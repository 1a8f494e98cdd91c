//! Joining a cluster: what a host that does not belong to it yet sees of it, and what it must take over from it.

use ha_config::{HaToml, HostedEngineConf, Paths, atomic};
use metadata_format::HostId;

use super::carry_out::{Hands, Stopped};
use super::dialogue::Asked;
use super::questions::Cluster;
use super::storage::files::storage_of_conf;
use super::storage::find::Hosts;
use super::{DeployError, FurtherHost, Made, Request};
use crate::setup::{ClusterConf, Report};

/// So many numbers are tried: as many hosts may join at the same moment.
const NUMBERS_TRIED: u32 = 8;

/// Has a further host do as its cluster does: the VM is run by whom it is run there, the storage is reached under the
/// cluster's name for it, which hosted-engine.conf has on all hosts, and other leases than the cluster's are refused.
/// Nothing to do for a first host.
///
/// # Errors
/// Why this host cannot become one of the cluster.
pub fn settle(asked: &mut Asked, paths: &Paths, report: &dyn Report) -> Result<(), DeployError> {
    let (Request::FurtherHost(further), Some(cluster)) = (&mut asked.request, &asked.cluster) else {
        return Ok(());
    };
    refuse_other_leases(paths, &cluster.conf)?;
    // Former releases had none, and VDSM only.
    if !cluster.conf.ha_toml.trim().is_empty() {
        further.hypervisor = HaToml::parse(paths, &cluster.conf.ha_toml)?.vm.hypervisor;
    }
    refuse_other_renewals(paths, cluster, report)?;
    take_storage(further, &cluster.conf.parsed(paths), report)
}

/// Deploys. The number that was proposed to a further host is its own only once it has the lease on it: where another host
/// that joined at the same moment was faster, everything is taken back, and the host joins under the next number that is
/// free. A number that somebody asked for is never changed.
///
/// # Errors
/// As [`Hands::begin`].
pub fn begin(hands: &Hands<'_>, asked: Asked) -> Result<(), Stopped> {
    let Asked { mut request, secrets, cluster, id_is_proposed, .. } = asked;
    let cluster = cluster.filter(|_| id_is_proposed);
    let mut tried = 1;
    loop {
        let Err(stopped) = hands.begin(request.clone(), &secrets, None) else { return Ok(()) };
        let next = cluster.as_ref().filter(|_| tried < NUMBERS_TRIED && may_be_anothers(&stopped));
        let next = next.and_then(|cluster| {
            let conf = cluster.conf.parsed(hands.paths);
            let hosts = Hosts::read(&conf.metadata_path().ok()?, &conf.lockspace_path().ok()?).ok()?;
            // There a host joins first.
            let hosts = hosts.and_owners_in(&conf.ids_path().ok()?).ok()?;
            next_number(&hosts, &request)
        });
        let (Request::FurtherHost(further), Some(next)) = (&mut request, next) else { return Err(stopped) };
        hands.report.warning(&format!(
            "Another host was given host id {} first. Taking back what was done, to join as host {next}",
            further.host.id
        ));
        hands.undo(None)?;
        further.host.id = next.get();
        tried += 1;
    }
}

/// Whether this host has not taken its number yet: a lease on it is another's then.
fn may_be_anothers(stopped: &Stopped) -> bool {
    stopped.story.as_ref().is_some_and(|story| {
        !story.left().any(|item| item.is_done && matches!(item.made, Made::Lockspaces(_)))
    })
}

/// The number for a further host whose own is another's by now.
fn next_number(hosts: &Hosts, request: &Request) -> Option<HostId> {
    let (id, name) = (HostId::new(request.host().id).ok()?, &request.host().name);
    hosts.refuse_taken(id, name).err()?;
    hosts.lowest_free_id().filter(|next| *next != id)
}

/// Compares the time-out with which this host is going to renew its lease with those on storage: they count, whatever a
/// host's ha.toml says. A host that is gone may have left an old one, so that one host with the same is enough to go on.
///
/// # Errors
/// When all hosts have another: each, its time-out, and what to do.
fn refuse_other_renewals(paths: &Paths, cluster: &Cluster, report: &dyn Report) -> Result<(), DeployError> {
    let own = match atomic::read_text(&paths.ha_toml()) {
        Err(error) if error.is_not_found() => HaToml::parse(paths, &cluster.conf.ha_toml)?,
        other => {
            other?;
            HaToml::load(paths)?
        }
    };
    let own = own.lease.io_timeout;
    let differs = |theirs: &u16| u32::from(*theirs) != own;
    let others: Vec<String> = cluster
        .io_timeouts
        .iter()
        .filter(|(_, theirs)| differs(theirs))
        .map(|(id, theirs)| {
            let name = cluster.taken.get(id).map_or_else(String::new, |name| format!(" ({name})"));
            format!("host {id}{name} with {theirs} s")
        })
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let text = format!(
        "lease.io_timeout of this host would be {own} s, and leases on shared storage were renewed with another one: {}. It \
         must be the same on all hosts: they reckon by it when a lease is free",
        others.join(", ")
    );
    if others.len() < cluster.io_timeouts.len() {
        report.warning(&format!("{text}. Set it in ha.toml of these hosts, and restart their brokers"));
        return Ok(());
    }
    Err(DeployError::Refused(format!(
        "{text}. Restart the brokers of those hosts where ha.toml was changed since, or have this host's ha.toml say what \
         they do"
    )))
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
