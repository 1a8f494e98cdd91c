//! The adapter that this host's ha.toml names.

use std::sync::Arc;

use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf, VmConf};
use vdsm_client::Client;

use crate::port::{EngineVm, VmError};
use crate::qemu::{QemuVm, QmpRole};
use crate::vdsm::{VdsmVm, connect};

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
    match toml.vm.hypervisor {
        Hypervisor::Qemu => Ok(Arc::new(QemuVm::from_config(conf.paths(), conf, toml, role)?)),
        Hypervisor::Vdsm => {
            let client = vdsm.cloned().map_or_else(|| connect::client(conf, toml), Ok)?;
            Ok(Arc::new(VdsmVm::new(client, conf, &toml.lease, role)?))
        }
        Hypervisor::Libvirt => libvirt(conf, toml, role),
    }
}

#[cfg(feature = "libvirt")]
fn libvirt(conf: &HostedEngineConf, toml: &HaToml, role: QmpRole) -> Result<Arc<dyn EngineVm>, VmError> {
    Ok(Arc::new(crate::libvirt::LibvirtVm::from_config(conf, toml, role)?))
}

#[cfg(not(feature = "libvirt"))]
fn libvirt(conf: &HostedEngineConf, _toml: &HaToml, _role: QmpRole) -> Result<Arc<dyn EngineVm>, VmError> {
    Err(VmError::Config {
        detail: format!(
            "{}: [vm] hypervisor = \"libvirt\" is not available in this build, which is a static one or was built \
             without libvirt's headers; the packages have it (or build with --features libvirt); here \"qemu\" and \
             \"vdsm\" are",
            conf.paths().ha_toml().display(),
        ),
    })
}

/// The VM's description at the place that hosted-engine.conf names, else the refreshed or the fall-back one.
pub(crate) fn load_vm_conf(conf: &HostedEngineConf) -> ha_config::Result<VmConf> {
    match VmConf::load(conf.vm_conf_path()) {
        Err(error) if error.is_not_found() => VmConf::load_active(conf.paths()),
        other => other,
    }
}
