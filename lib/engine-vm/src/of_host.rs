//! The adapter that this host's ha.toml names.

use std::sync::Arc;

use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf};

use crate::port::{EngineVm, VmError};
use crate::qemu::{QemuVm, QmpRole};

/// Connects to the hypervisor of the host that `conf` and `toml` describe. Must be called inside a Tokio runtime.
///
/// # Errors
/// [`VmError::Config`] when a file has a value that cannot be used, or names an adapter that this build has not.
pub fn of_host(conf: &HostedEngineConf, toml: &HaToml, role: QmpRole) -> Result<Arc<dyn EngineVm>, VmError> {
    match toml.vm.hypervisor {
        Hypervisor::Qemu => Ok(Arc::new(QemuVm::from_config(conf.paths(), conf, toml, role)?)),
        Hypervisor::Libvirt | Hypervisor::Vdsm => Err(VmError::Config {
            detail: format!(
                "{}: [vm] hypervisor = {:?} is not available in this build; \"qemu\" is",
                conf.paths().ha_toml().display(),
                toml.vm.hypervisor
            ),
        }),
    }
}
