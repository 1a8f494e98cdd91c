//! From vm.conf to a [`Machine`].
//!
//! Reads the form that VDSM's clients wrote. What this adapter cannot do is refused by name instead of being left
//! out in silence, with two exceptions that change nothing for the guest's work: the placement of devices on
//! buses, and sound.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use ha_config::{Device, HaToml, HostedEngineConf, Paths, VmConf};
use uuid::Uuid;

use super::machine::{
    DirectBoot, Disk, DiskBus, DiskFormat, DiskSource, Mac, Machine, Nic, NicBackend, Smbios, Vnc,
};
use crate::port::VmError;

fn config(detail: impl Into<String>) -> VmError {
    VmError::Config { detail: detail.into() }
}

/// The machine that `vm` describes on this host.
pub fn machine_from_conf(
    vm: &VmConf,
    paths: &Paths,
    conf: &HostedEngineConf,
    toml: &HaToml,
) -> Result<Machine, VmError> {
    let unusable = |error: ha_config::ConfigError| config(error.to_string());
    let id = vm.vm_id().map_err(unusable)?;
    let uuid = Uuid::parse_str(id)
        .map_err(|e| config(format!("{}: vmId={id:?} is no uuid: {e}", vm.path().display())))?;
    let host = Host { vm, paths, conf, toml };
    if vm.xml_base64().is_some() && vm.devices().next().is_none() {
        return Err(config(format!(
            "{}: the VM is described by xmlBase64 only; the qemu adapter needs devices= lines (use hypervisor = \
             \"libvirt\" or \"vdsm\", or write them)",
            vm.path().display()
        )));
    }
    let mut disks = Vec::new();
    let mut nics = Vec::new();
    let mut has_vnc = matches!(vm.display(), Some("vnc"));
    for device in vm.devices() {
        match (device.kind(), device.device()) {
            (Some("disk"), _) => disks.push(host.disk(device)?),
            (Some("interface"), _) => nics.push(host.nic(device)?),
            // SPICE consoles are reached as VNC here; the rest is made as this adapter needs it.
            (Some("graphics"), _) => has_vnc = true,
            (
                Some(
                    "controller" | "video" | "console" | "rng" | "sound" | "balloon" | "memballoon"
                    | "channel",
                ),
                _,
            ) => {}
            (kind, name) => {
                return Err(config(format!(
                    "{}: a device of type {} ({}) is not known to the qemu adapter; remove the line or use another \
                     hypervisor",
                    vm.path().display(),
                    kind.unwrap_or("(none)"),
                    name.unwrap_or("no device name"),
                )));
            }
        }
    }
    Ok(Machine {
        name: vm.vm_name().to_owned(),
        uuid,
        machine_type: machine_type(vm, toml),
        cpu_model: vm.cpu_type().map(|model| model.trim_start_matches("model_").to_owned()),
        memory_mib: vm.mem_size().map_err(unusable)?,
        vcpus: vm.smp().map_err(unusable)?,
        max_vcpus: vm.max_vcpus().map_err(unusable)?,
        smbios: Smbios {
            manufacturer: "oVirt".to_owned(),
            product: "oVirt Node".to_owned(),
            version: String::new(),
            serial: String::new(),
        },
        disks,
        nics,
        vnc: has_vnc.then_some(Vnc { listen: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 5900 }),
        serial_log: vm.get("serialLog").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        ends_on_reboot: vm.ends_on_reboot().map_err(unusable)?,
        direct_boot: vm.kernel().map(|kernel| DirectBoot {
            kernel: host.path(kernel),
            initrd: vm.initrd().map(|initrd| host.path(initrd)),
            arguments: vm.kernel_args().unwrap_or_default().to_owned(),
        }),
    })
}

/// ha.toml's, else vm.conf's. Names that only one distribution's QEMU has are turned into the general one.
fn machine_type(vm: &VmConf, toml: &HaToml) -> String {
    if let Some(wanted) = &toml.qemu.machine {
        return wanted.clone();
    }
    match vm.emulated_machine() {
        None => "pc".to_owned(),
        Some(name) if name.contains("rhel") && name.contains("q35") => "q35".to_owned(),
        Some(name) if name.contains("rhel") => "pc".to_owned(),
        Some(name) => name.to_owned(),
    }
}

struct Host<'a> {
    vm: &'a VmConf,
    paths: &'a Paths,
    conf: &'a HostedEngineConf,
    toml: &'a HaToml,
}

impl Host<'_> {
    fn path(&self, path: &Path) -> PathBuf {
        let path = self.paths.resolve(path);
        std::path::absolute(&path).unwrap_or(path)
    }

    fn wrong(&self, device: &Device, detail: &str) -> VmError {
        config(format!("{}: devices={device}: {detail}", self.vm.path().display()))
    }

    fn disk(&self, device: &Device) -> Result<Disk, VmError> {
        let is_cdrom = device.device() == Some("cdrom");
        let volume = device.text("imageID").zip(device.text("volumeID"));
        let path = match (device.text("path"), volume) {
            (Some(path), _) => self.path(Path::new(path)),
            (None, Some((image, volume))) => {
                let path = self.conf.volume_path(image, volume).map_err(|e| config(e.to_string()))?;
                std::path::absolute(&path).unwrap_or(path)
            }
            (None, None) if is_cdrom => PathBuf::new(),
            (None, None) => {
                return Err(self.wrong(device, "a disk needs path:, or imageID: and volumeID:"));
            }
        };
        let bus = match device.text("iface") {
            Some("scsi" | "virtio-scsi") => DiskBus::Scsi,
            Some("ide" | "sata") => DiskBus::Ide,
            None if is_cdrom => DiskBus::Ide,
            Some("virtio") | None => DiskBus::Virtio,
            Some(_) => return Err(self.wrong(device, "iface: must be virtio, scsi, ide or sata")),
        };
        let format = match device.text("format") {
            Some("raw") | None => DiskFormat::Raw,
            Some("cow" | "qcow2") => DiskFormat::Qcow2,
            Some(_) => return Err(self.wrong(device, "format: must be raw or cow")),
        };
        let source = match std::fs::metadata(&path) {
            _ if path.as_os_str().is_empty() => DiskSource::Empty,
            Ok(data) if data.file_type().is_block_device() => DiskSource::BlockDevice,
            Ok(_) | Err(_) => DiskSource::File,
        };
        Ok(Disk {
            path,
            source,
            format,
            bus,
            is_cdrom,
            is_read_only: is_cdrom || device.text("readonly") == Some("true"),
            serial: device.text("serial").or_else(|| device.text("imageID")).map(ToOwned::to_owned),
            boot_order: device.boot_order(),
        })
    }

    fn nic(&self, device: &Device) -> Result<Nic, VmError> {
        let model = match device.text("nicModel") {
            Some("pv" | "virtio") | None => "virtio-net-pci",
            Some(other) => other,
        };
        let mac = match device.text("macAddr") {
            None => None,
            Some(text) => Some(Mac::parse(text).ok_or_else(|| {
                self.wrong(device, "macAddr: must be like 00:16:3e:01:02:03, and not a group address")
            })?),
        };
        let network = device.text("network");
        let backend = match (device.text("linkActive"), device.device(), network) {
            (Some("false"), ..) | (_, _, Some("none")) => NicBackend::Disconnected,
            (_, Some("user"), _) => NicBackend::User,
            _ => NicBackend::Bridge(match (&self.toml.qemu.bridge, network) {
                (Some(bridge), _) => bridge.clone(),
                (None, Some(bridge)) => bridge.to_owned(),
                (None, None) => self.conf.bridge().map_err(|e| config(e.to_string()))?.to_owned(),
            }),
        };
        Ok(Nic { model: model.to_owned(), mac, backend, boot_order: device.boot_order() })
    }
}

#[cfg(test)]
#[path = "from_conf_tests.rs"]
mod tests;
