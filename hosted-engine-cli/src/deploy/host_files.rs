//! This host's own files: directories, the daemons' configuration, and at last hosted-engine.conf, with which the host
//! counts as deployed.
//!
//! A file that the operator wrote before stays as it is; what set-up would have written is told.

use std::path::{Path, PathBuf};

use ha_config::atomic::{self, Mode};
use ha_config::ha_toml::Hypervisor;
use ha_config::secret::is_secret_key;
use ha_config::{HaToml, KeyValueFile, Paths};
use metadata_format::HostId;

use super::made::{ChangedFile, ChangedService, DaemonDirectory, MadeDirectory, MadeFile};
use super::services::ServiceState;
use super::{Call, DeployError, Job, Request, Step, StepId, World, join, storage};
use crate::setup::{ClusterConf, HostSpec, libvirt_changes, refuse_other_host};

/// libvirt's daemons, the modular one first.
const LIBVIRT_SERVICES: [&str; 2] = ["virtqemud", "libvirtd"];

/// The directories of configuration, state and logs.
pub struct Directories;

/// Everything of this host but the main configuration.
pub struct HostConfiguration;

/// hosted-engine.conf and answers.conf.
pub struct MainConfiguration;

impl Step for Directories {
    fn id(&self) -> StepId {
        StepId::Directories
    }

    fn title(&self) -> String {
        "Creating this host's directories".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let paths = job.world.paths;
        for path in [paths.hosted_engine_conf_dir(), paths.notifications_dir(), paths.log_dir()] {
            directory(job, &path)?;
        }
        give_to_daemons(&job.world, &paths.log_dir())?;
        for path in [paths.state_dir(), paths.run_dir()] {
            if let Some(parent) = path.parent() {
                directory(job, parent)?;
            }
            let before = names_in(&path)?;
            job.make(DaemonDirectory { path: path.clone(), before }, |world| {
                std::fs::create_dir_all(&path).map_err(DeployError::io("create the directory", &path))?;
                give_to_daemons(world, &path)
            })?;
        }
        let qemu = paths.qemu_run_dir();
        std::fs::create_dir_all(&qemu).map_err(DeployError::io("create the directory", &qemu))
    }
}

impl Step for HostConfiguration {
    fn id(&self) -> StepId {
        StepId::HostConfiguration
    }

    fn title(&self) -> String {
        "Configuring this host".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let paths = job.world.paths;
        let cluster = cluster(&job.world)?;
        let toml = HaToml::parse(paths, &cluster.ha_toml)?;
        join::refuse_other_leases(paths, &cluster)?;
        let host = this_host(&job.world)?;
        refuse_other_host(paths, &cluster, &host)?;
        for (path, text) in host_files(paths, &cluster) {
            file(job, &path, &text)?;
        }
        // In the run directory, which goes as a whole; the agent writes them anew.
        for path in [paths.vm_conf(), paths.vm_conf_fallback()] {
            atomic::write(&path, cluster.vm_conf.as_bytes(), Mode::KeepOr644)?;
        }
        if toml.vm.hypervisor == Hypervisor::Libvirt {
            libvirt(job, host.host_id)?;
        }
        Ok(())
    }
}

impl Step for MainConfiguration {
    fn id(&self) -> StepId {
        StepId::MainConfiguration
    }

    fn title(&self) -> String {
        "Writing the main configuration".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let paths = job.world.paths;
        let cluster = cluster(&job.world)?;
        replace(job, &paths.answers_conf(), &cluster.answers, Mode::Private)?;
        let path = paths.hosted_engine_conf();
        let mut conf = KeyValueFile::parse(path.clone(), &cluster.hosted_engine_conf);
        conf.set("host_id", &this_host(&job.world)?.host_id.to_string());
        conf.set("configured", "True");
        let Some(password) = job.world.secrets.iscsi.clone() else {
            return replace(job, &path, &conf.text(), Mode::KeepOr644);
        };
        // The journal has no passwords, so it cannot say what stood there before either.
        if atomic::read_text(&path).is_ok_and(|present| !present.trim().is_empty()) {
            return Err(DeployError::Refused(format!(
                "{} is there already: move it away first, for it will hold a password",
                path.display()
            )));
        }
        conf.set("password", password.reveal());
        job.make(MadeFile { path: path.clone(), content: None }, |world| {
            atomic::write(&path, conf.text().as_bytes(), Mode::Private)?;
            give_to_broker(world, &path)
        })
    }
}

/// The cluster's configuration, from shared storage.
pub(super) fn cluster(world: &World<'_>) -> Result<ClusterConf, DeployError> {
    let volume = storage::backend(world.request).volume(world, storage::Role::Configuration);
    Ok(ClusterConf::read(&volume)?)
}

/// This host in the cluster.
fn this_host(world: &World<'_>) -> Result<HostSpec, DeployError> {
    let identity = world.request.host();
    let host_id =
        HostId::new(identity.id).map_err(|error| DeployError::Refused(format!("the host id: {error}")))?;
    Ok(HostSpec { host_id, hostname: identity.name.clone() })
}

/// Each file of this host that is written once, with its text.
pub(super) fn host_files(paths: &Paths, cluster: &ClusterConf) -> Vec<(PathBuf, String)> {
    let template = |event, text: &str| (paths.notification_template(event), text.to_owned());
    vec![
        (paths.agent_conf(), include_str!("../../../etc/agent.conf").to_owned()),
        (paths.broker_conf(), cluster.broker_conf.clone()),
        (paths.ha_toml(), cluster.ha_toml.clone()),
        template("state_transition", include_str!("../../../etc/notifications/state_transition.txt")),
        template("fencing", include_str!("../../../etc/notifications/fencing.txt")),
    ]
}

/// Makes a directory, and those above it that are missing.
pub(super) fn directory(job: &mut Job<'_>, path: &Path) -> Result<(), DeployError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        job.make(MadeDirectory { path: path.to_owned() }, |_| {
            std::fs::create_dir(path).map_err(DeployError::io("create the directory", path))
        })?;
    }
    Ok(())
}

/// Writes a file where there is none. One with another text is the operator's: it stays, and that is told.
fn file(job: &mut Job<'_>, path: &Path, text: &str) -> Result<(), DeployError> {
    if text.is_empty() {
        return Ok(());
    }
    match atomic::read_text(path) {
        Ok(present) if present == text => return Ok(()),
        Ok(_) => {
            job.world.report.warning(&format!("Leaving {} as it is", path.display()));
            return Ok(());
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(parent) = path.parent() {
        directory(job, parent)?;
    }
    replace(job, path, text, Mode::KeepOr644)
}

/// Writes a file, whatever is in it now.
pub(super) fn replace(job: &mut Job<'_>, path: &Path, text: &str, mode: Mode) -> Result<(), DeployError> {
    match atomic::read_text(path) {
        Ok(before) if before == text => return Ok(()),
        Ok(before) => {
            let changed = ChangedFile { path: path.to_owned(), before, after: text.to_owned() };
            return job.make(changed, |_| Ok(atomic::write(path, text.as_bytes(), mode)?));
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    // The journal has no passwords: such a file goes whatever is in it.
    let content = (!has_password(path, text)).then(|| text.to_owned());
    job.make(MadeFile { path: path.to_owned(), content }, |_| Ok(atomic::write(path, text.as_bytes(), mode)?))
}

/// Whether a `key=value` file, an INI file or TOML gives a password.
fn has_password(path: &Path, text: &str) -> bool {
    let file = KeyValueFile::parse(path, text);
    file.entries().any(|(_, key, value)| is_secret_key(key) && !matches!(value, "" | "None" | "\"\""))
}

/// libvirt takes leases from sanlock: its files say so, and it has read them.
fn libvirt(job: &mut Job<'_>, host_id: HostId) -> Result<(), DeployError> {
    let changes = libvirt_changes(job.world.paths, host_id)?;
    let Some((service, before)) = libvirt_service(&job.world)? else {
        return Err(DeployError::Refused(
            "there is neither virtqemud nor libvirtd on this host: install libvirt-daemon-driver-qemu and \
             libvirt-sanlock (Debian: libvirt-daemon-system libvirt-sanlock)"
                .to_owned(),
        ));
    };
    if changes.is_empty() && before.is_active {
        return Ok(());
    }
    // First, for undoing goes backwards: the files are restored, then it reads them.
    let daemon = ChangedService { name: service.to_owned(), before, reads_files: !changes.is_empty() };
    job.make(daemon, |_| Ok(()))?;
    for change in &changes {
        for setting in &change.settings {
            let (path, reason) = (change.path.display(), setting.reason);
            job.world.report.info(&format!("{path}: {} = {}: {reason}", setting.key, setting.value));
        }
        if let Some(parent) = change.path.parent() {
            directory(job, parent)?;
        }
        replace(job, &change.path, &change.after, Mode::KeepOr644)?;
    }
    if !before.is_active {
        let wanted = ServiceState { is_active: true, ..before };
        return job.world.services.set(service, wanted);
    }
    job.world.report.info(&format!("Restarting {service} so that it reads its files; VMs that run go on"));
    job.world.services.restart(service)
}

/// The one that runs, else the first that there is.
fn libvirt_service(world: &World<'_>) -> Result<Option<(&'static str, ServiceState)>, DeployError> {
    let mut found = None;
    for name in LIBVIRT_SERVICES {
        if let Some(state) = world.services.state(name)? {
            if state.is_active {
                return Ok(Some((name, state)));
            }
            found = found.or(Some((name, state)));
        }
    }
    Ok(found)
}

fn names_in(path: &Path) -> Result<Option<Vec<String>>, DeployError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(DeployError::io("read", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(DeployError::io("read", path))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(Some(names))
}

/// Whether this host has the daemons' user. Under another root all run as who deploys.
fn has_daemons_user(world: &World<'_>) -> Result<bool, DeployError> {
    Ok(world.paths.is_real_host()
        && world.tools.ask(&Call::new("getent").args(["passwd", "vdsm"]))?.code == 0)
}

/// As tmpfiles.d has it, for hosts without the package.
fn give_to_daemons(world: &World<'_>, path: &Path) -> Result<(), DeployError> {
    if has_daemons_user(world)? {
        world.tools.run(&Call::new("chown").args(["vdsm:kvm", "--"]).arg(path))?;
    }
    Ok(())
}

/// The broker reads it, other users do not.
pub(super) fn give_to_broker(world: &World<'_>, path: &Path) -> Result<(), DeployError> {
    if has_daemons_user(world)? {
        world.tools.run(&Call::new("chown").args(["root:kvm", "--"]).arg(path))?;
        world.tools.run(&Call::new("chmod").args(["0640", "--"]).arg(path))?;
    }
    Ok(())
}

impl Request {
    /// This host in the cluster.
    pub fn host(&self) -> &super::HostIdentity {
        match self {
            Self::FirstHost(first) => &first.host,
            Self::FurtherHost(further) => &further.host,
        }
    }

    /// The cluster's storage domain.
    pub fn sd_uuid(&self) -> uuid::Uuid {
        match self {
            Self::FirstHost(first) => first.ids.sd,
            Self::FurtherHost(further) => further.sd_uuid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_password_is_known() {
        let has = |text| has_password(Path::new("x"), text);
        assert!(has("[email]\nsmtp-password = hunter2\n") && has("a=1\npassword=x\n"));
        assert!(!has("password=\n") && !has("#password=x\n") && !has("[email]\nsmtp-server=x\n"));
        for shipped in [include_str!("../../../etc/broker.conf"), include_str!("../../../etc/agent.conf")] {
            assert!(!has(shipped));
        }
    }
}
