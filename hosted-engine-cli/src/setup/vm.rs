//! The engine VM's description, from what the operator chose.

use std::path::PathBuf;

use ha_config::{Device, VmConf};
use uuid::Uuid;

use super::SetupError;

/// The engine VM.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// Its uuid.
    pub id: Uuid,
    /// Its name, shown in tools; usually `HostedEngine`.
    pub name: String,
    /// Memory in MB, 32 to 16 777 216.
    pub memory_mb: u64,
    /// Virtual processors, 1 to 4096.
    pub vcpus: u32,
    /// MAC address of its network card, `00:16:3e:…`.
    pub mac: String,
    /// `vnc` or `spice`.
    pub graphics: String,
    /// Machine type; `None` for the hypervisor's own choice.
    pub machine: Option<String>,
    /// CPU model; `None` for the hypervisor's own choice.
    pub cpu: Option<String>,
    /// Kernel to boot without a boot loader, a path on each host.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub kernel_args: Option<String>,
}

impl VmSpec {
    /// A VM with the defaults of deploy: 4096 MB, 2 processors, VNC, boot from its disk.
    pub fn new() -> Self {
        let random = Uuid::new_v4();
        let [a, b, c, ..] = *random.as_bytes();
        Self {
            id: Uuid::new_v4(),
            name: "HostedEngine".to_owned(),
            memory_mb: 4096,
            vcpus: 2,
            mac: format!("00:16:3e:{a:02x}:{b:02x}:{c:02x}"),
            graphics: "vnc".to_owned(),
            machine: None,
            cpu: None,
            kernel: None,
            initrd: None,
            kernel_args: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SetupError> {
        let refuse = |text: String| Err(SetupError::Refused(text));
        if !(32..=1 << 24).contains(&self.memory_mb) {
            return refuse(format!(
                "the VM's memory of {} MB must be from 32 to 16777216 MB",
                self.memory_mb
            ));
        }
        if !(1..=4096).contains(&self.vcpus) {
            return refuse(format!("{} virtual processors: must be from 1 to 4096", self.vcpus));
        }
        if !matches!(self.graphics.as_str(), "vnc" | "spice") {
            return refuse(format!("console {:?}: must be vnc or spice", self.graphics));
        }
        let bytes: Vec<_> =
            self.mac.split(':').map(|byte| (byte.len(), u8::from_str_radix(byte, 16))).collect();
        let unicast =
            bytes.first().is_some_and(|(_, first)| first.as_ref().is_ok_and(|first| first & 1 == 0));
        if bytes.len() != 6 || !unicast || bytes.iter().any(|(len, byte)| *len != 2 || byte.is_err()) {
            return refuse(format!(
                "{:?} is no MAC address of a network card, for example 00:16:3e:12:34:56",
                self.mac
            ));
        }
        Ok(())
    }

    /// vm.conf for a VM whose disk is this image and volume.
    pub(crate) fn conf(&self, path: PathBuf, bridge: &str, sd: Uuid, image: Uuid, volume: Uuid) -> VmConf {
        let mut conf = VmConf::new(path);
        conf.set("vmId", &self.id.to_string());
        conf.set("vmName", &self.name);
        conf.set("memSize", &self.memory_mb.to_string());
        conf.set("smp", &self.vcpus.to_string());
        conf.set("maxVCpus", &self.vcpus.to_string());
        conf.set("display", if self.graphics == "spice" { "qxl" } else { "vnc" });
        let path_text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        for (key, value) in [
            ("emulatedMachine", self.machine.clone()),
            ("cpuType", self.cpu.clone()),
            ("kernel", path_text(&self.kernel)),
            ("initrd", path_text(&self.initrd)),
            ("kernelArgs", self.kernel_args.clone()),
        ] {
            if let Some(value) = value {
                conf.set(key, &value);
            }
        }
        let (image, volume) = (image.to_string(), volume.to_string());
        conf.push_device(
            Device::default()
                .with("index", "0")
                .with("iface", "virtio")
                .with("format", "raw")
                .with("poolID", super::volume::BLANK_UUID)
                .with("volumeID", &volume)
                .with("imageID", &image)
                .with("domainID", &sd.to_string())
                .with_map("specParams", Device::default())
                .with("readonly", "false")
                .with("optional", "false")
                .with("deviceId", &image)
                .with("device", "disk")
                .with("shared", "exclusive")
                .with("propagateErrors", "off")
                .with("type", "disk")
                .with("bootOrder", "1"),
        );
        // Empty: a first start puts its disc in, and a host that is to receive such a VM needs the drive too.
        conf.push_device(
            Device::default()
                .with("index", "2")
                .with("iface", "ide")
                .with_map("specParams", Device::default())
                .with("readonly", "true")
                .with("deviceId", &Uuid::new_v4().to_string())
                .with("path", "")
                .with("device", "cdrom")
                .with("shared", "false")
                .with("type", "disk"),
        );
        conf.push_device(
            Device::default()
                .with("nicModel", "pv")
                .with("macAddr", &self.mac)
                .with("linkActive", "true")
                .with("network", bridge)
                .with_map("specParams", Device::default())
                .with("deviceId", &Uuid::new_v4().to_string())
                .with("device", "bridge")
                .with("type", "interface"),
        );
        conf.push_device(Device::default().with("device", "console").with("type", "console"));
        conf.push_device(Device::default().with("device", &self.graphics).with("type", "graphics"));
        conf.push_device(
            Device::default()
                .with("device", "virtio")
                .with_map("specParams", Device::default().with("source", "urandom"))
                .with("model", "virtio")
                .with("type", "rng"),
        );
        conf
    }
}

impl Default for VmSpec {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_reads_back() {
        let spec = VmSpec { kernel_args: Some("console=ttyS0 quiet".to_owned()), ..VmSpec::new() };
        spec.check().unwrap();
        let (sd, image, volume) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let text = spec.conf("vm.conf".into(), "ovirtmgmt", sd, image, volume).to_string();
        let conf = VmConf::parse("vm.conf", &text).unwrap();
        assert_eq!(conf.vm_id().unwrap(), spec.id.to_string());
        assert_eq!((conf.mem_size().unwrap(), conf.smp().unwrap()), (4096, 2));
        assert_eq!(conf.kernel_args(), Some("console=ttyS0 quiet"));
        let disk = conf.devices().find(|device| device.kind() == Some("disk")).unwrap();
        assert_eq!(disk.text("volumeID"), Some(volume.to_string().as_str()));
        let nic = conf.devices().find(|device| device.kind() == Some("interface")).unwrap();
        assert_eq!(nic.text("macAddr"), Some(spec.mac.as_str()));
    }

    #[test]
    fn nonsense_is_refused_by_value() {
        for (spec, part) in [
            (VmSpec { memory_mb: 1, ..VmSpec::new() }, "1 MB"),
            (VmSpec { vcpus: 0, ..VmSpec::new() }, "0 virtual"),
            (VmSpec { mac: "01:00:00:00:00:00".to_owned(), ..VmSpec::new() }, "01:00"),
            (VmSpec { mac: "0:16:3e:00:00:00".to_owned(), ..VmSpec::new() }, "0:16"),
            (VmSpec { graphics: "x11".to_owned(), ..VmSpec::new() }, "x11"),
        ] {
            assert!(spec.check().unwrap_err().to_string().contains(part), "{part}");
        }
    }
}
