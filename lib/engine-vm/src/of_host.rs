//! The adapter that this host's ha.toml names.

use std::sync::Arc;

use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf};
use vdsm_client::Client;

use crate::port::{EngineVm, VmError};
use crate::qemu::{QemuVm, QmpRole};

/// Connects to the hypervisor of the host that `conf` and `toml` describe. `vdsm` is the connection of
/// [`crate::vdsm::client_of_host`], shared with everything else in the process that asks VDSM. Must be called inside a
/// Tokio runtime.
///
/// # Errors
/// [`VmError::Config`] when a file has a value that cannot be used, or names an adapter that this build has not.
pub fn of_host(
    conf: &HostedEngineConf,
    toml: &HaToml,
    role: QmpRole,
    vdsm: Option<&Client>,
) -> Result<Arc<dyn EngineVm>, VmError> {
    match (toml.vm.hypervisor, vdsm) {
        (Hypervisor::Qemu, _) => Ok(Arc::new(QemuVm::from_config(conf.paths(), conf, toml, role)?)),
        (Hypervisor::Libvirt | Hypervisor::Vdsm, _) => Err(VmError::Config {
            detail: format!(
                "{}: [vm] hypervisor = {:?} is not available in this build; \"qemu\" is",
                conf.paths().ha_toml().display(),
                toml.vm.hypervisor
            ),
        }),
    }
}
