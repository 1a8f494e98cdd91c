//! The engine VM as the engine describes it: what an OVF says, typed, before it becomes anything else.

use std::fmt;

use uuid::Uuid;

/// The engine VM.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineVm {
    /// The VM's id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Memory in MiB at start, 1 to 16777216.
    pub memory_mib: u64,
    /// Memory in MiB up to which more may be plugged in.
    pub max_memory_mib: Option<u64>,
    /// Processors.
    pub cpu: Cpu,
    /// NUMA cells of the guest; empty for none.
    pub numa: Vec<NumaNode>,
    /// Machine type, such as `pc-q35-rhel8.6.0`.
    pub machine: Option<String>,
    /// Firmware.
    pub firmware: Firmware,
    /// What its display is.
    pub display: Display,
    /// Disks that are images, in the OVF's order.
    pub disks: Vec<Disk>,
    /// Network cards, in the OVF's order.
    pub nics: Vec<Nic>,
    /// The CD drive.
    pub cdrom: Option<Item>,
    /// Controllers, graphics, video, console, RNG, TPM and whatever else there is, in the OVF's order.
    pub others: Vec<Item>,
    /// Storage domain of the VM's lease, when the VM has one beside the disk's.
    pub lease_domain: Option<String>,
    /// Custom properties, predefined ones first.
    pub custom: Vec<(String, String)>,
    /// The libvirt domain that the engine made of all this.
    pub engine_xml: Option<String>,
    /// What was left out while reading, in words for the log.
    pub left_out: Vec<crate::Note>,
}

/// Processors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpu {
    /// libvirt's model with flags, such as `Cascadelake-Server,-hle`.
    pub model: Option<String>,
    /// Sockets.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
    /// Processors up to which more may be plugged in.
    pub max: Option<u32>,
    /// Pinning to the host's processors, in the engine's notation.
    pub pinning: Option<String>,
}

impl Cpu {
    /// Processors at start, 1 to 4096.
    pub const fn count(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }
}

/// A NUMA cell of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub index: u32,
    /// Processors in it.
    pub cpus: Vec<u32>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The host's cells that it is bound to; empty for any.
    pub host_nodes: Vec<u32>,
    /// `strict`, `interleave` or `preferred`.
    pub mode: Option<String>,
}

/// Chipset and firmware. The numbers in an OVF are the engine's own less one, as engine 4.3 had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    /// 0, or nothing said: i440fx with `SeaBIOS`.
    #[default]
    I440fxBios,
    /// 1: q35 with `SeaBIOS`.
    Q35Bios,
    /// 2: q35 with UEFI.
    Q35Uefi,
    /// 3: q35 with UEFI and secure boot.
    Q35SecureBoot,
}

/// What the VM shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// 0 (cirrus), 2 (vga), 3 (bochs).
    Vnc,
    /// 1.
    Qxl,
    /// 4: no display at all.
    Headless,
}

/// What every device has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// `Type`: `disk`, `interface`, `controller`, `graphics`, `video`, `console`, `rng`, `tpm`, `channel` and so on.
    pub kind: String,
    /// `Device`: `cdrom`, `bridge`, `usb`, `vnc`, `virtio-scsi` and so on.
    pub device: String,
    /// `rasd:InstanceId`.
    pub id: Option<String>,
    /// `rasd:Address`: `type=pci`, `slot=0x06` and so on, in the OVF's order; empty when the VM never ran.
    pub address: Vec<(String, String)>,
    /// `BootOrder`.
    pub boot_order: Option<u32>,
    /// `IsPlugged`; true when not said.
    pub plugged: bool,
    /// `IsReadOnly`.
    pub read_only: bool,
    /// `Alias`.
    pub alias: Option<String>,
    /// `SpecParams`: name and text.
    pub spec: Vec<(String, String)>,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What every device has.
    pub item: Item,
    /// The image.
    pub image: Uuid,
    /// The volume in the image.
    pub volume: Uuid,
    /// The storage domain.
    pub domain: Option<String>,
    /// How the guest sees it.
    pub bus: DiskBus,
    /// How it is stored.
    pub format: DiskFormat,
    /// The engine boots from it.
    pub boot: bool,
}

/// `ovf:disk-interface`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// `VirtIO`.
    Virtio,
    /// `VirtIO_SCSI`, `SPAPR_VSCSI`.
    Scsi,
    /// `IDE`.
    Ide,
    /// `SATA`.
    Sata,
}

/// `ovf:volume-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// `RAW`.
    Raw,
    /// `COW`: QCOW2.
    Cow,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// What every device has.
    pub item: Item,
    /// Its model.
    pub model: NicModel,
    /// Its address.
    pub mac: String,
    /// The logical network.
    pub network: Option<String>,
    /// The cable is in.
    pub linked: bool,
}

/// `rasd:ResourceSubType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicModel {
    /// 0.
    Rtl8139Pv,
    /// 1.
    Rtl8139,
    /// 2.
    E1000,
    /// 3: virtio.
    Pv,
    /// 4: POWER.
    SpaprVlan,
    /// 5: SR-IOV.
    PciPassthrough,
    /// 6.
    E1000e,
}

impl fmt::Debug for EngineVm {
    /// Without custom properties and domain XML: hooks get passwords in the one, consoles in the other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineVm").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
