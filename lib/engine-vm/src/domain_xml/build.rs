//! The domain around the devices.

use std::path::Path;

use ha_config::VmConf;
use uuid::Uuid;

use super::device;
use super::disk::{self, Disk};
use super::element::{Element, element};
use super::platform::{self, Firmware};
use super::{Dialect, Lease, LeaseTarget, OVIRT_VM, Place, of_config, unusable};
use crate::port::VmError;

/// libvirt's name for a machine whose buses are PCI Express: no IDE, no UHCI.
pub(super) fn is_q35(machine: &str) -> bool {
    machine.contains("q35")
}

pub(super) fn domain(vm: &VmConf, place: &Place<'_>) -> Result<Element, VmError> {
    let id = vm.vm_id().map_err(|error| of_config(&error))?;
    Uuid::parse_str(id)
        .map_err(|error| unusable(format!("{}: vmId={id:?} is no uuid: {error}", vm.path().display())))?;
    let kib = vm.mem_size().map_err(|error| of_config(&error))? * 1024;
    let machine = vm.emulated_machine().unwrap_or("pc");
    let disks = disk::disks(vm, place, is_q35(machine))?;
    let firmware = Firmware::of(vm, is_q35(machine))?;
    let lease = place.lease.map_or_else(|| lease_of(vm, place, &disks), |lease| Ok(lease.clone()))?;
    let ends_on_reboot = vm.ends_on_reboot().map_err(|error| of_config(&error))?;
    let mut domain = element("domain").with("type", if place.is_emulated { "qemu" } else { "kvm" });
    if place.dialect == Dialect::Vdsm {
        domain =
            domain.with("xmlns:ovirt-tune", "http://ovirt.org/vm/tune/1.0").with("xmlns:ovirt-vm", OVIRT_VM);
    }
    let memory = |name| element(name).with("unit", "KiB").with_text(kib.to_string());
    let domain = domain
        .with_child(element("name").with_text(vm.vm_name()))
        .with_child(element("uuid").with_text(id))
        .with_child(memory("memory"))
        .with_child(memory("currentMemory"))
        .with_child(vcpu(vm)?)
        .with_children((place.dialect == Dialect::Vdsm).then(|| sysinfo(id)))
        .with_child(clock())
        .with_children(ends_on_reboot.then(|| element("on_reboot").with_text("destroy")))
        .with_child(
            element("features")
                .with_child(element("acpi"))
                .with_children(firmware.and_then(Firmware::feature)),
        )
        .with_child(cpu(vm, place)?)
        .with_child(
            element("devices")
                .with_children(device::devices(vm, place, machine)?)
                .with_children(platform::tpm(vm)?)
                .with_children(disks.iter().map(Disk::to_element))
                .with_child(lease_element(&lease)),
        )
        .with_child(
            element("pm")
                .with_child(element("suspend-to-disk").with("enabled", "no"))
                .with_child(element("suspend-to-mem").with("enabled", "no")),
        )
        .with_child(
            os(vm, place, machine)
                .with_children(firmware.into_iter().flat_map(|firmware| firmware.elements(id))),
        );
    Ok(match place.dialect {
        Dialect::Vdsm => domain.with_child(metadata(vm, place, &disks)?),
        Dialect::Libvirt => domain,
    })
}

/// The lease of the VM's own disk: the one that is marked `shared:exclusive`, else the one of hosted-engine.conf. All
/// hosts must name the same one, and vm.conf is what they share.
fn lease_of(vm: &VmConf, place: &Place<'_>, disks: &[Disk]) -> Result<Lease, VmError> {
    let configured = place.conf.vm_disk_id().map_err(|error| of_config(&error))?;
    let own = disks
        .iter()
        .filter(|disk| disk.is_exclusive)
        .chain(disks.iter())
        .filter_map(|disk| disk.volume.as_ref())
        .find(|volume| volume.image == configured);
    let Some(volume) = own else {
        return Err(unusable(format!(
            "{}: no disk has imageID:{configured}, the engine VM's disk (vm_disk_id of {}) whose lease protects it; add \
             its devices= line",
            vm.path().display(),
            place.conf.file().path().display(),
        )));
    };
    let target = match place.dialect {
        Dialect::Vdsm => LeaseTarget::FoundByVdsm,
        Dialect::Libvirt => {
            let (path, offset) = place.conf.vm_lease_place().map_err(|error| of_config(&error))?;
            LeaseTarget::At { path, offset }
        }
    };
    Ok(Lease { key: volume.id.clone(), lockspace: volume.domain.clone(), target })
}

/// With VDSM's placeholders its attributes name the lease again.
pub(super) fn lease_element(lease: &Lease) -> Element {
    let target = element("target");
    let target = match &lease.target {
        LeaseTarget::FoundByVdsm => target
            .with("offset", format!("LEASE-OFFSET:{}:{}", lease.key, lease.lockspace))
            .with("path", format!("LEASE-PATH:{}:{}", lease.key, lease.lockspace)),
        LeaseTarget::At { path, offset } => {
            target.with("offset", offset.to_string()).with("path", path.display().to_string())
        }
    };
    element("lease")
        .with_child(element("key").with_text(&lease.key))
        .with_child(element("lockspace").with_text(&lease.lockspace))
        .with_child(target)
}

fn vcpu(vm: &VmConf) -> Result<Element, VmError> {
    let now = vm.smp().map_err(|error| of_config(&error))?;
    let most = vm.max_vcpus().map_err(|error| of_config(&error))?;
    Ok(element("vcpu").with("current", now.to_string()).with_text(most.to_string()))
}

/// A count of the topology, 1 when it is not set.
fn count(vm: &VmConf, key: &str) -> Result<u32, VmError> {
    match vm.get(key) {
        None => Ok(1),
        Some(text) => text.parse().ok().filter(|count| (1..=4096).contains(count)).ok_or_else(|| {
            unusable(format!("{}: {key}={text:?} must be a number from 1 to 4096", vm.path().display()))
        }),
    }
}

/// `cpuType` is a model of libvirt's with features after commas: `Haswell-noTSX,+spec-ctrl,-pcid`; or `hostPassthrough`,
/// or `hostModel`. Emulation has a model of its own, which is none of those.
fn cpu(vm: &VmConf, place: &Place<'_>) -> Result<Element, VmError> {
    let most = vm.max_vcpus().map_err(|error| of_config(&error))?;
    let (cores, threads) = (count(vm, "smpCoresPerSocket")?, count(vm, "smpThreadsPerCore")?);
    let each = cores.saturating_mul(threads);
    if most % each != 0 {
        return Err(unusable(format!(
            "{}: {most} virtual processors (maxVCpus, smp) are no multiple of smpCoresPerSocket={cores} × \
             smpThreadsPerCore={threads}",
            vm.path().display()
        )));
    }
    let topology = element("topology")
        .with("sockets", (most / each).to_string())
        .with("cores", cores.to_string())
        .with("threads", threads.to_string());
    let model = vm.cpu_type().filter(|_| !place.is_emulated).unwrap_or_default();
    let mut parts = model.split(',').map(str::trim);
    let cpu = match parts.next().unwrap_or_default().trim_start_matches("model_") {
        "" => element("cpu"),
        "hostPassthrough" => element("cpu").with("mode", "host-passthrough"),
        "hostModel" => element("cpu").with("mode", "host-model"),
        model => element("cpu").with("match", "exact").with_child(element("model").with_text(model)),
    };
    let mut cpu = cpu.with_child(topology).with_children(platform::numa(vm)?);
    for part in parts.filter(|part| !part.is_empty()) {
        let (policy, name) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
            (Some(name), _) => ("require", name),
            (_, Some(name)) => ("disable", name),
            (None, None) => ("require", part),
        };
        cpu = cpu.with_child(element("feature").with("policy", policy).with("name", name));
    }
    Ok(cpu)
}

/// VDSM fills in the three words with a colon.
fn sysinfo(id: &str) -> Element {
    let entry = |name: &str, value: &str| element("entry").with("name", name).with_text(value);
    element("sysinfo").with("type", "smbios").with_child(
        element("system")
            .with_child(entry("manufacturer", "oVirt"))
            .with_child(entry("product", "OS-NAME:"))
            .with_child(entry("version", "OS-VERSION:"))
            .with_child(entry("serial", "HOST-SERIAL:"))
            .with_child(entry("uuid", id)),
    )
}

fn clock() -> Element {
    element("clock")
        .with("offset", "variable")
        .with("adjustment", "0")
        .with_child(element("timer").with("name", "rtc").with("tickpolicy", "catchup"))
        .with_child(element("timer").with("name", "pit").with("tickpolicy", "delay"))
        .with_child(element("timer").with("name", "hpet").with("present", "no"))
}

fn os(vm: &VmConf, place: &Place<'_>, machine: &str) -> Element {
    let path = |path: &Path| place.conf.paths().resolve(path).display().to_string();
    element("os")
        .with_child(element("type").with("arch", "x86_64").with("machine", machine).with_text("hvm"))
        .with_children(vm.kernel().map(|kernel| element("kernel").with_text(path(kernel))))
        .with_children(vm.initrd().map(|initrd| element("initrd").with_text(path(initrd))))
        .with_children(vm.kernel_args().map(|arguments| element("cmdline").with_text(arguments)))
        .with_children((place.dialect == Dialect::Vdsm).then(|| element("smbios").with("mode", "sysinfo")))
}

fn metadata(vm: &VmConf, place: &Place<'_>, disks: &[Disk]) -> Result<Element, VmError> {
    let memory = vm.mem_size().map_err(|error| of_config(&error))?;
    let paused = place.starts_paused.to_string();
    Ok(element("metadata").with_child(element("ovirt-tune:qos")).with_child(
        element("ovirt-vm:vm")
            .with_child(
                element("ovirt-vm:minGuaranteedMemoryMb").with("type", "int").with_text(memory.to_string()),
            )
            .with_child(element("ovirt-vm:custom"))
            .with_children(disks.iter().filter_map(Disk::to_metadata))
            .with_child(element("ovirt-vm:launchPaused").with_text(paused))
            .with_child(element("ovirt-vm:resumeBehavior").with_text("auto_resume")),
    ))
}
