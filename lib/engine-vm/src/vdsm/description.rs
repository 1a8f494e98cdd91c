//! What VDSM is given to start: the domain XML, always with the lease of the VM's own disk.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ha_config::{ConfigError, HostedEngineConf, VmConf};

use crate::domain_xml::{self, Dialect, Lease, LeaseTarget, Place};
use crate::of_host::load_vm_conf;
use crate::port::{StartMode, VmError};

/// The VM's own disk: the one that hosted-engine.conf names, as vm.conf has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub pool: String,
    pub image: String,
    /// The lease of its volume: all hosts must name the same one, and vm.conf is what they share.
    pub lease: Lease,
}

fn unusable(detail: String) -> VmError {
    VmError::Config { detail }
}

fn of_config(error: &ConfigError) -> VmError {
    unusable(error.to_string())
}

/// What `xmlBase64` holds.
fn xml_of(vm: &VmConf) -> Result<Option<String>, VmError> {
    let Some(text) = vm.xml_base64() else { return Ok(None) };
    let wrong = |error: &dyn std::fmt::Display| {
        unusable(format!("{}: xmlBase64 cannot be read: {error}", vm.path().display()))
    };
    let bytes = STANDARD.decode(text).map_err(|error| wrong(&error))?;
    String::from_utf8(bytes).map(Some).map_err(|error| wrong(&error))
}

/// The pool that VDSM is told of when vm.conf names none: none.
fn pool(conf: &HostedEngineConf) -> String {
    conf.sp_uuid().unwrap_or(vdsm_client::BLANK_UUID).to_owned()
}

fn own_of_xml(vm: &VmConf, conf: &HostedEngineConf, xml: &str) -> Result<Own, VmError> {
    let image = conf.vm_disk_id().map_err(|error| of_config(&error))?;
    let found = domain_xml::describe(xml)?;
    let Some(disk) = found.disks.iter().find(|disk| disk.image == image) else {
        return Err(unusable(format!(
            "{}: no disk in xmlBase64 has the imageID {image}, the engine VM's disk (vm_disk_id of {}) whose lease protects \
             it",
            vm.path().display(),
            conf.file().path().display()
        )));
    };
    let name =
        Lease { key: disk.volume.clone(), lockspace: disk.domain.clone(), target: LeaseTarget::FoundByVdsm };
    let lease =
        found.leases.into_iter().find(|lease| lease.key == name.key && lease.lockspace == name.lockspace);
    let pool = if disk.pool.is_empty() { pool(conf) } else { disk.pool.clone() };
    Ok(Own { pool, image: image.to_owned(), lease: lease.unwrap_or(name) })
}

/// The VM's own disk by vm.conf, or by hosted-engine.conf alone when vm.conf does not have it.
pub(super) fn own_disk(conf: &HostedEngineConf) -> Result<Own, VmError> {
    let unusable = |error: ConfigError| of_config(&error);
    let image = conf.vm_disk_id().map_err(unusable)?;
    if let Ok(vm) = load_vm_conf(conf) {
        if let Ok(Some(xml)) = xml_of(&vm)
            && let Ok(own) = own_of_xml(&vm, conf, &xml)
        {
            return Ok(own);
        }
        let disk = vm.devices().find(|device| device.text("imageID") == Some(image));
        if let Some((device, volume)) = disk.and_then(|device| Some((device, device.text("volumeID")?))) {
            let domain = device.text("domainID").map_or_else(|| conf.sd_uuid(), Ok).map_err(unusable)?;
            return Ok(Own {
                pool: device.text("poolID").map_or_else(|| pool(conf), ToOwned::to_owned),
                image: image.to_owned(),
                lease: Lease {
                    key: volume.to_owned(),
                    lockspace: domain.to_owned(),
                    target: LeaseTarget::FoundByVdsm,
                },
            });
        }
    }
    Ok(Own {
        pool: pool(conf),
        image: image.to_owned(),
        lease: Lease {
            key: conf.vm_lease_name().map_err(unusable)?.to_owned(),
            lockspace: conf.sd_uuid().map_err(unusable)?.to_owned(),
            target: LeaseTarget::FoundByVdsm,
        },
    })
}

/// The domain XML of the VM `vm_id`.
///
/// # Errors
/// [`VmError::Config`]: vm.conf cannot be used, or describes another VM, or one without its own disk.
pub(super) fn to_start(conf: &HostedEngineConf, vm_id: &str, mode: StartMode) -> Result<String, VmError> {
    of_conf(&load_vm_conf(conf).map_err(|error| of_config(&error))?, conf, vm_id, mode)
}

/// Whether the engine VM could be started from `vm`, a description that has yet to become this host's vm.conf.
///
/// # Errors
/// [`VmError::Config`]: it cannot be used, or describes another VM, or one without its own disk.
pub fn check_description(vm: &VmConf, conf: &HostedEngineConf) -> Result<(), VmError> {
    let vm_id = conf.vmid().map_err(|error| of_config(&error))?;
    of_conf(vm, conf, vm_id, StartMode::Run).map(drop)
}

fn of_conf(vm: &VmConf, conf: &HostedEngineConf, vm_id: &str, mode: StartMode) -> Result<String, VmError> {
    let starts_paused = mode == StartMode::Paused;
    let (xml, id) = match xml_of(vm)? {
        None => {
            let place =
                Place { conf, dialect: Dialect::Vdsm, starts_paused, is_emulated: false, lease: None };
            let id = vm.vm_id().map_err(|error| of_config(&error))?.to_owned();
            (domain_xml::from_vm_conf(vm, &place)?, id)
        }
        Some(xml) => {
            let own = own_of_xml(vm, conf, &xml)?;
            let xml = domain_xml::with_lease(&xml, &own.lease)?;
            let xml = if starts_paused { domain_xml::with_launch_paused(&xml)? } else { xml };
            let id = domain_xml::describe(&xml)?.id.unwrap_or_default();
            (xml, id)
        }
    };
    if id.eq_ignore_ascii_case(vm_id) {
        return Ok(xml);
    }
    Err(unusable(format!(
        "{} describes the VM {id:?}, and {} says that the engine VM is {vm_id}",
        vm.path().display(),
        conf.file().path().display()
    )))
}
