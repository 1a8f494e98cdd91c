//! What the adapter is given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::ha_toml::{Accel, LeaseAdapter};
use ha_config::{HaToml, HostedEngineConf};

use crate::lease::LeaseSpec;
use crate::port::VmError;
use crate::qemu::QmpRole;

/// Where a system daemon keeps what lasts until the next boot.
const STATE_DIR: &str = "/run/libvirt";

/// What the adapter is given.
#[derive(Debug, Clone)]
pub struct LibvirtSettings {
    /// Connection URI of this host's daemon.
    pub uri: String,
    /// That of another host's, with `{host}` for its name.
    pub migrate_uri: String,
    /// A file with the domain's XML, instead of vm.conf.
    pub domain: Option<PathBuf>,
    /// What carries out guest code.
    pub accel: Accel,
    /// Start without proof of protection.
    pub allow_unprotected: bool,
    /// qemu.conf of a daemon on this host.
    pub qemu_conf: PathBuf,
    /// The VM's uuid, in lower case.
    pub uuid: String,
    /// Where this host's storage lies, and vm.conf.
    pub conf: HostedEngineConf,
    /// What protects the VM.
    pub lease: LeaseSpec,
    /// W: so long after the lock manager began to fail on a host its watchdog has ended it.
    pub watchdog: Duration,
    /// Where notes about the VM are kept until the next boot.
    pub notes_dir: PathBuf,
    /// Who asks.
    pub role: QmpRole,
}

fn unusable(detail: impl Into<String>) -> VmError {
    VmError::Config { detail: detail.into() }
}

impl LibvirtSettings {
    /// The settings of this host, from its configuration files.
    ///
    /// # Errors
    /// [`VmError::Config`] with the file, the key and its value.
    pub fn from_config(conf: &HostedEngineConf, toml: &HaToml, role: QmpRole) -> Result<Self, VmError> {
        let unreadable = |error: ha_config::ConfigError| unusable(error.to_string());
        let paths = conf.paths();
        // libvirtd and sanlock work in directories of their own.
        let absolute = |path: PathBuf| {
            std::path::absolute(&path)
                .map_err(|error| unusable(format!("cannot make {} absolute: {error}", path.display())))
        };
        if toml.lease.adapter == LeaseAdapter::File {
            return Err(unusable(format!(
                "{}: [lease] adapter = \"file\" does not protect a VM of hypervisor = \"libvirt\", whose lock manager is \
                 sanlock; remove the line, or use hypervisor = \"qemu\"",
                paths.ha_toml().display()
            )));
        }
        let uuid = conf.vmid().map_err(unreadable)?;
        uuid::Uuid::parse_str(uuid).map_err(|error| {
            unusable(format!("{}: vmid={uuid:?} is no uuid: {error}", conf.file().path().display()))
        })?;
        let table = &toml.libvirt;
        Ok(Self {
            uri: table.uri.clone(),
            migrate_uri: table.migrate_uri.clone(),
            domain: table.domain.as_ref().map(|path| paths.resolve(path)),
            accel: table.accel,
            allow_unprotected: table.allow_unprotected,
            qemu_conf: paths.resolve("/etc/libvirt/qemu.conf"),
            uuid: uuid.to_ascii_lowercase(),
            lease: LeaseSpec::of_engine_vm(conf, toml)?,
            watchdog: Duration::from_secs(toml.lease.watchdog_timeout.into()),
            notes_dir: absolute(paths.libvirt_notes_dir())?,
            conf: conf.clone(),
            role,
        })
    }

    /// Where the daemon keeps the process ids of its QEMUs: beside its socket.
    pub(super) fn pid_dir(&self) -> PathBuf {
        let query = self.uri.split_once('?').map_or("", |(_, query)| query);
        let socket = query.split('&').find_map(|part| part.strip_prefix("socket="));
        let state = socket.and_then(|socket| Path::new(socket).parent()).unwrap_or(Path::new(STATE_DIR));
        state.join("qemu")
    }

    /// True when the URI names a daemon of this machine.
    pub(super) fn is_local(&self) -> bool {
        let (scheme, rest) = self.uri.split_once(':').unwrap_or(("", &self.uri));
        rest.starts_with("///") && (!scheme.contains('+') || scheme.ends_with("+unix"))
    }
}
