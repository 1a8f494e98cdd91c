//! The connection to this host's VDSM.

use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf};
use vdsm_client::{Client, Settings, TlsFiles};

use crate::port::VmError;

/// A client of the VDSM that manages this host; `None` when ha.toml has another hypervisor. One for each process is
/// enough: its clones share the connection. It connects when it is first asked something. Must be called inside a
/// Tokio runtime.
///
/// # Errors
/// [`VmError::Config`] when hosted-engine.conf has a `vdsm_use_ssl` that is neither true nor false.
pub fn client_of_host(conf: &HostedEngineConf, toml: &HaToml) -> Result<Option<Client>, VmError> {
    match toml.vm.hypervisor {
        Hypervisor::Qemu | Hypervisor::Libvirt => Ok(None),
        Hypervisor::Vdsm => client(conf, toml).map(Some),
    }
}

/// A client of the VDSM at `[vdsm] address`, whatever the hypervisor in ha.toml is. Must be called inside a Tokio runtime.
///
/// # Errors
/// As [`client_of_host`].
pub fn client(conf: &HostedEngineConf, toml: &HaToml) -> Result<Client, VmError> {
    let paths = conf.paths();
    let uses_tls = conf.vdsm_use_ssl().map_err(|error| VmError::Config { detail: error.to_string() })?;
    let tls =
        uses_tls.then(|| TlsFiles { ca: paths.vdsm_ca(), cert: paths.vdsm_cert(), key: paths.vdsm_key() });
    let address = &toml.vdsm.address;
    Ok(Client::new(Settings::new(address.host(), address.port(), tls)))
}
