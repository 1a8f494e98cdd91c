//! Whether this host may become a member with its number.

use ha_config::{HostedEngineConf, Paths};
use metadata_format::HostId;

use super::SetupError;
use super::find::ClusterConf;
use crate::deploy::storage::find::Hosts;

/// This host in the cluster.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// Its number, which no other host may have.
    pub host_id: HostId,
    /// Its name, as it stands in its block.
    pub hostname: String,
}

/// Refuses when the host is deployed already as something else, or when another host has the id.
pub(crate) fn refuse_other_host(
    paths: &Paths,
    cluster: &ClusterConf,
    host: &HostSpec,
) -> Result<(), SetupError> {
    let conf = cluster.parsed(paths);
    refuse_other_deployment(paths, &conf, host)?;
    let hosts = Hosts::read(&conf.metadata_path()?, &conf.lockspace_path()?)?;
    hosts.refuse_taken(host.host_id, &host.hostname)
}

fn refuse_other_deployment(
    paths: &Paths,
    conf: &HostedEngineConf,
    host: &HostSpec,
) -> Result<(), SetupError> {
    let present = match HostedEngineConf::load(paths) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let same = |key: &str| present.file().get(key) == conf.file().get(key);
    if present.file().entries().next().is_none()
        || (same("sdUUID") && same("vmid") && present.host_id()? == Some(host.host_id))
    {
        return Ok(());
    }
    let advice = match present.host_id()? {
        Some(id) => format!("this host is number {id} of a hosted engine; undeploy it first"),
        None => "a deployment was begun on this host; clean it up first".to_owned(),
    };
    Err(SetupError::Exists { path: paths.hosted_engine_conf(), advice })
}
