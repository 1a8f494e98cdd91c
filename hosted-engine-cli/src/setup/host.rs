//! Making this host a member: its configuration files and directories.

use std::fs;
use std::path::Path;

use ha_config::atomic::{self, Mode};
use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf, KeyValueFile, Paths};
use metadata_format::HostId;

use super::find::ClusterConf;
use super::libvirt::configure_libvirt;
use super::report::Report;
use super::{SetupError, io};
use crate::deploy::storage::find::Hosts;

/// This host in the cluster.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// Its number, which no other host may have.
    pub host_id: HostId,
    /// Its name, as it stands in its block.
    pub hostname: String,
}

/// Writes this host's configuration from the cluster's. Refused when the host is deployed already as something else, or
/// when another host has the id. Files other than those of the same deployment are left alone: an existing ha.toml,
/// agent.conf or broker.conf keeps what the operator wrote.
pub fn configure_host(
    paths: &Paths,
    cluster: &ClusterConf,
    host: &HostSpec,
    report: &dyn Report,
) -> Result<(), SetupError> {
    let conf = cluster.parsed(paths);
    let toml = HaToml::parse(paths, &cluster.ha_toml)?;
    refuse_other_host(paths, cluster, host)?;

    report.info(&format!("Configuring this host as number {} of {}", host.host_id, conf.fqdn()?));
    for directory in [
        paths.hosted_engine_conf_dir(),
        paths.notifications_dir(),
        paths.state_dir(),
        paths.run_dir(),
        paths.qemu_run_dir(),
        paths.log_dir(),
        paths.setup_log_dir(),
    ] {
        fs::create_dir_all(&directory).map_err(io("create the directory", &directory))?;
    }
    for (path, text) in [
        (paths.agent_conf(), include_str!("../../../etc/agent.conf")),
        (paths.broker_conf(), cluster.broker_conf.as_str()),
        (paths.ha_toml(), cluster.ha_toml.as_str()),
        (
            paths.notification_template("state_transition"),
            include_str!("../../../etc/notifications/state_transition.txt"),
        ),
        (paths.notification_template("fencing"), include_str!("../../../etc/notifications/fencing.txt")),
    ] {
        write_new(&path, text, report)?;
    }
    report.info("Writing the description of the engine VM");
    for path in [paths.vm_conf(), paths.vm_conf_fallback()] {
        atomic::write(&path, cluster.vm_conf.as_bytes(), Mode::KeepOr644)?;
    }
    atomic::write(&paths.answers_conf(), cluster.answers.as_bytes(), Mode::Private)?;

    if toml.vm.hypervisor == Hypervisor::Libvirt {
        configure_libvirt(paths, host.host_id, report)?;
    }

    report.info("Writing the main configuration");
    let mut file = KeyValueFile::parse(paths.hosted_engine_conf(), &cluster.hosted_engine_conf);
    file.set("host_id", &host.host_id.to_string());
    file.set("configured", "True");
    file.write()?;
    Ok(())
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

fn write_new(path: &Path, text: &str, report: &dyn Report) -> Result<(), SetupError> {
    if text.is_empty() {
        return Ok(());
    }
    match atomic::read_text(path) {
        Ok(present) if present == text => return Ok(()),
        Ok(_) => {
            report.warning(&format!("Leaving {} as it is", path.display()));
            return Ok(());
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(io("create the directory", directory))?;
    }
    Ok(atomic::write(path, text.as_bytes(), Mode::KeepOr644)?)
}
