//! Joining a cluster: what a host that does not belong to it yet sees of it, and what it must take over from it.

use ha_config::{HaToml, HostedEngineConf, Paths, atomic};

use super::dialogue::Asked;
use super::storage::files::storage_of_conf;
use super::{DeployError, FurtherHost, Request};
use crate::setup::{ClusterConf, Report};

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
    take_storage(further, &cluster.conf.parsed(paths), report)
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
