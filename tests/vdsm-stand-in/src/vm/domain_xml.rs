//! From libvirt's domain XML to a machine and its lease.
//!
//! What QEMU needs to run the guest is read; buses, addresses and devices without which a guest lives are left out.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use engine_vm::qemu::machine::{
    DirectBoot, Disk, DiskBus, DiskFormat, DiskSource, Mac, Machine, Nic, NicBackend, Smbios, Vnc,
};
use uuid::Uuid;

use super::description::{Described, WantedLease};
use super::xml::Element;

/// First port of a graphical console.
const VNC_PORT: u16 = 5900;
/// Text that stands for what VDSM knows: where a lease is.
const LEASE_PATH: &str = "LEASE-PATH";
/// The same for its offset.
const LEASE_OFFSET: &str = "LEASE-OFFSET";
/// Texts that stand for what VDSM knows of this host.
const OF_HOST: [&str; 3] = ["HOST-SERIAL:", "OS-NAME:", "OS-VERSION:"];

/// The uuid of the domain that `xml` describes.
pub(super) fn uuid(xml: &str) -> Result<String, String> {
    let root = Element::parse(xml)?;
    let id = root.child_text("uuid").or_else(|| root.child_text("id"));
    id.map(str::to_owned).ok_or_else(|| "the domain has no <uuid>".to_owned())
}

/// Reads a domain. `resolve` says where a path of the description is on this host.
pub(super) fn read(xml: &str, resolve: &dyn Fn(&Path) -> PathBuf) -> Result<Described, String> {
    let root = Element::parse(xml)?;
    if root.name != "domain" {
        return Err(format!("the root element is <{}>, not <domain>", root.name));
    }
    let id = root.child_text("uuid").ok_or("the domain has no <uuid>")?;
    let empty = Element::default();
    let devices = root.child("devices").unwrap_or(&empty);
    let system = root.child("os").unwrap_or(&empty);
    let mut machine = Machine {
        name: root.child_text("name").unwrap_or("HostedEngine").to_owned(),
        uuid: Uuid::parse_str(id).map_err(|error| format!("<uuid>{id}</uuid>: {error}"))?,
        machine_type: machine_type(system.child_attribute("type", "machine")),
        cpu_model: cpu_model(&root),
        memory_mib: memory(&root)?,
        vcpus: 1,
        max_vcpus: 1,
        smbios: smbios(&root),
        disks: Vec::new(),
        nics: Vec::new(),
        vnc: None,
        serial_log: devices
            .children
            .iter()
            .any(|device| device.name == "serial" && device.child("log").is_some()),
        ends_on_reboot: root.child_text("on_reboot") == Some("destroy"),
        direct_boot: system.child_text("kernel").map(|kernel| DirectBoot {
            kernel: resolve(Path::new(kernel)),
            initrd: system.child_text("initrd").map(|initrd| resolve(Path::new(initrd))),
            arguments: system.child_text("cmdline").unwrap_or_default().to_owned(),
        }),
    };
    (machine.vcpus, machine.max_vcpus) = vcpus(&root)?;
    let mut leases = Vec::new();
    for device in &devices.children {
        match device.name.as_str() {
            "disk" => machine.disks.extend(disk(device, resolve)?),
            "interface" => machine.nics.push(nic(device)?),
            "graphics" => machine.vnc = Some(graphics(device)),
            "lease" => leases.push(lease(device)?),
            _ => {}
        }
    }
    if leases.len() > 1 {
        return Err("more than one <lease>: this stand-in takes one".to_owned());
    }
    let metadata = root.child("metadata").and_then(|metadata| metadata.child("ovirt-vm:vm"));
    let paused = metadata
        .and_then(|vm| vm.child_text("ovirt-vm:launchPaused").or_else(|| vm.child_text("launchPaused")));
    Ok(Described { machine, lease: leases.pop(), starts_paused: paused == Some("true") })
}

/// Names that only one distribution's QEMU has are turned into the general one.
fn machine_type(name: Option<&str>) -> String {
    match name {
        None => "pc".to_owned(),
        Some(name) if name.contains("rhel") && name.contains("q35") => "q35".to_owned(),
        Some(name) if name.contains("rhel") => "pc".to_owned(),
        Some(name) => name.to_owned(),
    }
}

fn cpu_model(root: &Element) -> Option<String> {
    let cpu = root
        .child("cpu")
        .filter(|cpu| !matches!(cpu.attribute("mode"), Some("host-passthrough" | "host-model")));
    cpu?.child_text("model").map(str::to_owned)
}

/// In MiB.
fn memory(root: &Element) -> Result<u64, String> {
    let element = root.child("memory").ok_or("the domain has no <memory>")?;
    let number: u64 =
        element.text.trim().parse().map_err(|error| format!("<memory>{}</memory>: {error}", element.text))?;
    let bytes = match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => Some(number),
        "KB" => number.checked_mul(1000),
        "k" | "KiB" => number.checked_mul(1 << 10),
        "MB" => number.checked_mul(1_000_000),
        "M" | "MiB" => number.checked_mul(1 << 20),
        "GB" => number.checked_mul(1_000_000_000),
        "G" | "GiB" => number.checked_mul(1 << 30),
        other => return Err(format!("<memory unit={other:?}> is not known")),
    };
    bytes
        .map(|bytes| bytes >> 20)
        .filter(|mib| (1..=1 << 24).contains(mib))
        .ok_or_else(|| format!("<memory>{number}</memory>: must be from 1 MiB to 16 TiB"))
}

/// At start, and at most.
fn vcpus(root: &Element) -> Result<(u32, u32), String> {
    let Some(element) = root.child("vcpu") else { return Ok((1, 1)) };
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|count| (1..=4096).contains(count));
    let wrong = || format!("<vcpu>{}</vcpu>: must be from 1 to 4096", element.text);
    let most = number(&element.text).ok_or_else(wrong)?;
    let now = element.attribute("current").map_or(Some(most), number).ok_or_else(wrong)?;
    Ok((now, most.max(now)))
}

fn smbios(root: &Element) -> Smbios {
    let system = root.child("sysinfo").and_then(|sysinfo| sysinfo.child("system"));
    let entry = |name: &str| {
        let entries = system.into_iter().flat_map(|system| &system.children);
        let mut found =
            entries.filter(|entry| entry.attribute("name") == Some(name)).map(|entry| entry.text.trim());
        found.next().filter(|text| !OF_HOST.contains(text)).unwrap_or_default().to_owned()
    };
    Smbios {
        manufacturer: entry("manufacturer"),
        product: entry("product"),
        version: entry("version"),
        serial: entry("serial"),
    }
}

fn boot_order(device: &Element) -> Option<u32> {
    device.child_attribute("boot", "order")?.parse().ok()
}

/// `None` for a CD drive without a disc.
fn disk(device: &Element, resolve: &dyn Fn(&Path) -> PathBuf) -> Result<Option<Disk>, String> {
    let is_cdrom = match device.attribute("device").unwrap_or("disk") {
        "disk" => false,
        "cdrom" => true,
        other => return Err(format!("<disk device={other:?}> is not known here")),
    };
    let source = device.child("source");
    let path = source.and_then(|source| source.attribute("file").or_else(|| source.attribute("dev")));
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return if is_cdrom { Ok(None) } else { Err("a <disk> needs <source file= or dev=>".to_owned()) };
    };
    let path = resolve(Path::new(path));
    let default = if is_cdrom { "ide" } else { "virtio" };
    let bus = match device.child_attribute("target", "bus").unwrap_or(default) {
        "virtio" => DiskBus::Virtio,
        "scsi" => DiskBus::Scsi,
        "ide" | "sata" => DiskBus::Ide,
        other => return Err(format!("<target bus={other:?}> is not known here")),
    };
    let format = match device.child_attribute("driver", "type") {
        Some("raw") | None => DiskFormat::Raw,
        Some("qcow2") => DiskFormat::Qcow2,
        Some(other) => return Err(format!("<driver type={other:?}> is not known here")),
    };
    let is_block = std::fs::metadata(&path).is_ok_and(|data| data.file_type().is_block_device());
    Ok(Some(Disk {
        path: std::path::absolute(&path).unwrap_or(path),
        source: if is_block { DiskSource::BlockDevice } else { DiskSource::File },
        format,
        bus,
        is_cdrom,
        is_read_only: is_cdrom || device.child("readonly").is_some(),
        serial: device.child_text("serial").map(str::to_owned),
        boot_order: boot_order(device),
    }))
}

fn nic(device: &Element) -> Result<Nic, String> {
    let mac = match device.child_attribute("mac", "address") {
        None => None,
        Some(text) => {
            Some(Mac::parse(text).ok_or_else(|| format!("<mac address={text:?}> is no hardware address"))?)
        }
    };
    let model = match device.child_attribute("model", "type") {
        Some("virtio") | None => "virtio-net-pci",
        Some(other) => other,
    };
    let is_down = device.child_attribute("link", "state") == Some("down");
    let backend = match device.attribute("type") {
        _ if is_down => NicBackend::Disconnected,
        Some("bridge") => {
            let bridge = device.child_attribute("source", "bridge");
            NicBackend::Bridge(bridge.ok_or("<interface type='bridge'> needs <source bridge=>")?.to_owned())
        }
        Some("user") => NicBackend::User,
        other => return Err(format!("<interface type={:?}> is not known here", other.unwrap_or_default())),
    };
    Ok(Nic { model: model.to_owned(), mac, backend, boot_order: boot_order(device) })
}

/// SPICE consoles are reached as VNC here.
fn graphics(device: &Element) -> Vnc {
    let listen = device.attribute("listen").and_then(|text| text.parse().ok());
    let port = device.attribute("port").and_then(|text| text.parse().ok());
    Vnc {
        listen: listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port: port.filter(|port| *port >= VNC_PORT).unwrap_or(VNC_PORT),
    }
}

fn lease(device: &Element) -> Result<WantedLease, String> {
    let text = |name: &str| {
        device.child_text(name).map(str::to_owned).ok_or_else(|| format!("a <lease> needs <{name}>"))
    };
    let target = |name: &str, placeholder: &str| {
        device.child_attribute("target", name).filter(|value| !value.starts_with(placeholder))
    };
    let offset = match target("offset", LEASE_OFFSET) {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|_| format!("<target offset={text:?}> of a <lease> is no number"))?)
        }
    };
    Ok(WantedLease {
        lockspace: text("lockspace")?,
        key: text("key")?,
        path: target("path", LEASE_PATH).map(PathBuf::from),
        offset,
    })
}

#[cfg(test)]
#[path = "domain_xml_tests.rs"]
mod tests;
