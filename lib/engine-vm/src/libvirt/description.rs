//! What libvirt is given to start: the operator's XML or one made from vm.conf, always with the VM's lease.

use std::path::Path;

use ha_config::ha_toml::Accel;

use super::settings::LibvirtSettings;
use crate::domain_xml::{self, Dialect, Lease, LeaseTarget, Place};
use crate::lease::{LeaseError, LeaseSpec};
use crate::of_host::load_vm_conf;
use crate::port::VmError;
use crate::qemu::accel;
use crate::qemu::command_line::Accelerator;
use crate::qemu::run_dir::RunDir;

/// QEMU, for the question whether KVM works.
const QEMU: &str = "qemu-system-x86_64";

fn unusable(detail: impl Into<String>) -> VmError {
    VmError::Config { detail: detail.into() }
}

fn of_config(error: &ha_config::ConfigError) -> VmError {
    unusable(error.to_string())
}

/// The lease as libvirt is told of it, in the place where it is now.
async fn lease_of(spec: &LeaseSpec) -> Result<Lease, VmError> {
    let spec = spec.clone();
    // An index of leases is read from shared storage.
    let found = tokio::task::spawn_blocking(move || spec.as_element()).await;
    match found {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(LeaseError::Unsupported)) => {
            Err(unusable("libvirt's lock manager takes leases of sanlock only"))
        }
        Ok(Err(LeaseError::Held(detail) | LeaseError::Missing(detail) | LeaseError::Unavailable(detail))) => {
            Err(VmError::NoLease { detail })
        }
        Err(error) => Err(VmError::NoLease { detail: error.to_string() }),
    }
}

/// The domain XML of the engine VM.
///
/// # Errors
/// [`VmError::Config`]: the description cannot be used, or is of another VM, or would run without its lease.
pub(super) async fn to_start(settings: &LibvirtSettings) -> Result<String, VmError> {
    let lease = lease_of(&settings.lease).await?;
    match &settings.domain {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| unusable(format!("cannot read {}: {error}", path.display())))?;
            of_operator(&text, path, &settings.uuid, &lease)
        }
        None => of_vm_conf(settings, &lease).await,
    }
}

async fn of_vm_conf(settings: &LibvirtSettings, lease: &Lease) -> Result<String, VmError> {
    let vm = load_vm_conf(&settings.conf).map_err(|error| of_config(&error))?;
    if vm.xml_base64().is_some() && vm.devices().next().is_none() {
        return Err(unusable(format!(
            "{}: the VM is described by xmlBase64 only, which is written for VDSM; give the domain's XML in [libvirt] \
             domain of ha.toml, or use hypervisor = \"vdsm\"",
            vm.path().display()
        )));
    }
    let id = vm.vm_id().map_err(|error| of_config(&error))?;
    check_id(Some(id), &settings.uuid, vm.path())?;
    let is_emulated = match settings.accel {
        Accel::Kvm => false,
        Accel::Tcg => true,
        Accel::Auto => {
            let dir = RunDir::new(&settings.notes_dir);
            let probed = accel::best(&dir, Path::new(QEMU)).await;
            !matches!(probed, Ok(Accelerator::Kvm))
        }
    };
    let place = Place {
        conf: &settings.conf,
        dialect: Dialect::Libvirt,
        starts_paused: false,
        is_emulated,
        lease: Some(lease),
    };
    domain_xml::from_vm_conf(&vm, &place)
}

fn check_id(id: Option<&str>, uuid: &str, path: &Path) -> Result<(), VmError> {
    match id {
        Some(id) if id.eq_ignore_ascii_case(uuid) => Ok(()),
        Some(id) => Err(unusable(format!(
            "{} describes the VM {id:?}, and hosted-engine.conf (vmid) says that the engine VM is {uuid}",
            path.display()
        ))),
        None => Err(unusable(format!(
            "{}: add <uuid>{uuid}</uuid>, by which all hosts know the VM",
            path.display()
        ))),
    }
}

/// The operator's own XML, with the lease.
fn of_operator(xml: &str, path: &Path, uuid: &str, lease: &Lease) -> Result<String, VmError> {
    let named = |error: VmError| match error {
        VmError::Config { detail } => {
            unusable(format!("{}: {}", path.display(), detail.replace(" (xmlBase64 in vm.conf)", "")))
        }
        other => other,
    };
    if xml.contains('\0') {
        return Err(unusable(format!("{} is no text: it has NUL characters", path.display())));
    }
    let found = domain_xml::describe(xml).map_err(named)?;
    check_id(found.id.as_deref(), uuid, path)?;
    match found.on_lock_failure.as_deref() {
        None | Some("" | "poweroff") => {}
        Some(other) => {
            return Err(unusable(format!(
                "{}: <on_lockfailure>{other}</on_lockfailure> leaves a VM whose lease is lost on this host while another \
                 one may start it; remove the element (sanlock then ends QEMU) or use poweroff",
                path.display()
            )));
        }
    }
    let ours = found.leases.iter().find(|other| other.key == lease.key && other.lockspace == lease.lockspace);
    match ours {
        Some(ours) if ours.target != lease.target => Err(unusable(format!(
            "{}: its <lease> {lease} is at {}, and this cluster keeps it at {}; remove the element, it is added when the VM \
             is started",
            path.display(),
            place(&ours.target),
            place(&lease.target)
        ))),
        Some(_) => Ok(xml.to_owned()),
        None => domain_xml::with_lease(xml, lease).map_err(named),
    }
}

fn place(target: &LeaseTarget) -> String {
    match target {
        LeaseTarget::FoundByVdsm => "no place that libvirt could use".to_owned(),
        LeaseTarget::At { path, offset } => format!("{} offset {offset}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "82a24281-8a25-4772-b9c9-45971e811cb3";

    fn lease() -> Lease {
        Lease {
            key: "volume".to_owned(),
            lockspace: "domain".to_owned(),
            target: LeaseTarget::At { path: "/d/volume.lease".into(), offset: 0 },
        }
    }

    fn made(more: &str, devices: &str) -> Result<String, VmError> {
        let xml = format!("<domain><uuid>{UUID}</uuid>{more}<devices>{devices}</devices></domain>");
        of_operator(&xml, Path::new("/etc/engine.xml"), UUID, &lease())
    }

    #[test]
    fn the_operators_xml_gets_the_lease() {
        let xml = made("", "<disk/>").unwrap();
        assert_eq!(domain_xml::describe(&xml).unwrap().leases, [lease()]);
        let leased = "<lease><key>volume</key><lockspace>domain</lockspace><target path=\"/d/volume.lease\" offset=\"0\"/></lease>";
        let xml = made("<on_lockfailure>poweroff</on_lockfailure>", leased).unwrap();
        assert_eq!(xml.matches("<lease>").count(), 1);
    }

    #[test]
    fn xml_that_would_not_be_protected_or_is_anothers_is_refused() {
        let elsewhere = "<lease><key>volume</key><lockspace>domain</lockspace><target path=\"/else\" offset=\"0\"/></lease>";
        let error = made("", elsewhere).unwrap_err().to_string();
        assert!(error.contains("/else offset 0") && error.contains("/d/volume.lease"), "{error}");
        for action in ["ignore", "pause", "restart"] {
            let error =
                made(&format!("<on_lockfailure>{action}</on_lockfailure>"), "").unwrap_err().to_string();
            assert!(error.contains(&format!("<on_lockfailure>{action}<")), "{error}");
        }
        let refused = |xml: &str| {
            of_operator(xml, Path::new("/etc/engine.xml"), UUID, &lease()).unwrap_err().to_string()
        };
        assert!(refused("<domain><devices/></domain>").contains(&format!("add <uuid>{UUID}")));
        assert!(refused("<domain><uuid>1</uuid><devices/></domain>").contains("describes the VM \"1\""));
        assert!(
            refused("<domain").starts_with("the engine VM's configuration is not usable: /etc/engine.xml: ")
        );
        assert!(refused(&format!("<domain><uuid>{UUID}</uuid></domain>")).contains("no <devices>"));
        assert!(refused("a\0b").contains("NUL"));
    }
}
