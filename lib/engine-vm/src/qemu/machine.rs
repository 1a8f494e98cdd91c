//! The engine VM as the qemu adapter sees it: between vm.conf and QEMU's command line.
//!
//! Plain data with checks at the edge; nothing here looks at the host.

use std::net::IpAddr;
use std::path::PathBuf;

use uuid::Uuid;

/// A virtual machine, independent of how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Name shown in the process list and to the guest's hypervisor tools.
    pub name: String,
    /// Its identity; also how its process is recognised.
    pub uuid: Uuid,
    /// QEMU's machine type, for example `pc` or `pc-q35-9.2`.
    pub machine_type: String,
    /// Processor model with KVM; the host's own when `None`. Emulation always offers all that it can.
    pub cpu_model: Option<String>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Processors at start.
    pub vcpus: u32,
    /// Processors that may be plugged in; at least `vcpus`.
    pub max_vcpus: u32,
    /// What the guest reads in its firmware tables.
    pub smbios: Smbios,
    /// Disks and CD drives.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// A graphical console, if wanted.
    pub vnc: Option<Vnc>,
    /// Also write what comes out of the serial console into a file of the run directory.
    pub serial_log: bool,
    /// A guest that restarts ends the VM: so is known when an installation is over.
    pub ends_on_reboot: bool,
    /// Kernel to start without a boot loader.
    pub direct_boot: Option<DirectBoot>,
}

/// Strings of the SMBIOS system table. Empty ones are left to QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Smbios {
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Serial number: the host's own, where the guest's software is to see on which host it runs.
    pub serial: String,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// virtio-scsi.
    Scsi,
    /// IDE or SATA, as the machine type has it.
    Ide,
}

/// What carries a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSource {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
    /// Nothing: a CD drive without a disc. It is there so that the same machine can receive one whose disc is in.
    Empty,
}

/// Layout of a disk's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// As the guest sees it.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

/// A disk or a CD drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it is; not looked at with [`DiskSource::Empty`].
    pub path: PathBuf,
    /// What it is there.
    pub source: DiskSource,
    /// Layout.
    pub format: DiskFormat,
    /// Bus.
    pub bus: DiskBus,
    /// True for a CD drive.
    pub is_cdrom: bool,
    /// True when the guest may not write.
    pub is_read_only: bool,
    /// Serial number for the guest.
    pub serial: Option<String>,
    /// 1 boots first.
    pub boot_order: Option<u32>,
}

/// Where a network card leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicBackend {
    /// A bridge of this host.
    Bridge(String),
    /// QEMU's own user-mode network: out only.
    User,
    /// Nowhere.
    Disconnected,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// QEMU's device, for example `virtio-net-pci`.
    pub model: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Where it leads.
    pub backend: NicBackend,
    /// 1 boots first.
    pub boot_order: Option<u32>,
}

/// A hardware address of a single station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `00:16:3e:01:02:03`; `None` for anything else and for group addresses.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && bytes[0] & 1 == 0).then_some(Self(bytes))
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A VNC server. It always wants a password, and until one is set nobody gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vnc {
    /// Address to listen on.
    pub listen: IpAddr,
    /// First port to try, from 5900.
    pub port: u16,
}

/// A kernel to start without a boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial file system.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub arguments: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(Mac::parse("00:16:3E:01:02:03").unwrap().to_string(), "00:16:3e:01:02:03");
        for bad in [
            "",
            "00:16:3e:01:02",
            "00:16:3e:01:02:03:04",
            "01:00:5e:00:00:01",
            "0:16:3e:1:2:3",
            "+0:16:3e:01:02:03",
        ] {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
