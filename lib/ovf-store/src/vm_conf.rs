//! [`EngineVm`] to vm.conf: the keys and devices that the existing tools write and VDSM has always understood.
//!
//! When the engine's domain XML can be used it goes to `xmlBase64`, which wins over everything else; the other keys are
//! there all the same, for people and for tools that need the memory's size. Keys that the existing release does not
//! write are written only when there is no domain XML, because only then does anybody read them:
//!
//! | key | from |
//! | --- | --- |
//! | `smpCoresPerSocket`, `smpThreadsPerCore` | the processors' topology; VDSM's own names |
//! | `firmware`, `tpm`, `numa` | the firmware, the TPM, the NUMA cells; for `engine_vm::domain_xml`, which defines them |
//!
//! What then is lost all the same is told as a [`Note`].

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ha_config::{Device, VmConf};

use crate::engine_xml::{self, EngineXml};
use crate::note::Note;
use crate::vm::{Disk, DiskBus, DiskFormat, Display, EngineVm, Firmware, Item, Nic, NicModel, NumaNode};

/// The engine VM has to start on a host that knows no data centre.
const NO_POOL: &str = "00000000-0000-0000-0000-000000000000";
/// The CD drive has had this id on all hosts since the first release.
const CDROM_ID: &str = "8c3179ac-b322-4f5c-9449-c52e3665e0ae";
/// A disk's number that is the CD drive's.
const CDROM_INDEX: u32 = 2;
/// SPICE channels that are encrypted.
const SECURE_CHANNELS: &str = "smain,sdisplay,sinputs,scursor,splayback,srecord,ssmartcard,susbredir";

/// A description that was made from an OVF.
#[derive(Debug, Clone)]
pub struct Made {
    /// The description.
    pub conf: VmConf,
    /// What it does not say.
    pub notes: Vec<Note>,
}

impl EngineVm {
    /// vm.conf with the same meaning. `path` is where it will be; it stands in errors.
    pub fn to_vm_conf(&self, path: impl Into<std::path::PathBuf>) -> Made {
        let mut notes = self.left_out.clone();
        let xml = self.usable_xml(&mut notes);
        let mut conf = VmConf::new(path);
        if let Some(xml) = &xml {
            conf.set("xmlBase64", &STANDARD.encode(&xml.text));
        }
        self.set_keys(&mut conf);
        if xml.is_none() {
            self.set_keys_without_xml(&mut conf);
            notes.extend(self.lost().map(|what| Note::NeedsXml { what }));
        }
        for device in self.devices() {
            conf.push_device(device);
        }
        Made { conf, notes }
    }

    fn usable_xml(&self, notes: &mut Vec<Note>) -> Option<EngineXml> {
        match engine_xml::usable(self.engine_xml.as_deref()?, self.id) {
            Ok(xml) => {
                if !xml.lease_is_of_disk {
                    notes.push(Note::LeaseOfAnotherVolume);
                }
                Some(xml)
            }
            Err(why) => {
                notes.push(Note::XmlNotUsed { why: why.to_string() });
                None
            }
        }
    }

    fn set_keys(&self, conf: &mut VmConf) {
        conf.set("vmId", &self.id.to_string());
        conf.set("vmName", &self.name);
        match self.display {
            Display::Vnc => conf.set("display", "vnc"),
            Display::Qxl => conf.set("display", "qxl"),
            Display::Headless => {}
        }
        if let Some(model) = &self.cpu.model {
            conf.set("cpuType", model);
        }
        if let Some(machine) = &self.machine {
            conf.set("emulatedMachine", machine);
        }
        conf.set("smp", &self.cpu.count().to_string());
        if let Some(max) = self.cpu.max {
            conf.set("maxVCpus", &max.to_string());
        }
        conf.set("memSize", &self.memory_mib.to_string());
        conf.set("spiceSecureChannels", SECURE_CHANNELS);
    }

    fn set_keys_without_xml(&self, conf: &mut VmConf) {
        if self.has_topology() {
            conf.set("smpCoresPerSocket", &self.cpu.cores.to_string());
            conf.set("smpThreadsPerCore", &self.cpu.threads.to_string());
        }
        if let Some(firmware) = self.uefi().filter(|_| self.is_q35()) {
            conf.set("firmware", firmware);
        }
        if self.tpm().is_some() {
            conf.set("tpm", "true");
        }
        if let Some(cells) = self.numa_cells() {
            conf.set("numa", &cells);
        }
    }

    fn uefi(&self) -> Option<&'static str> {
        match self.firmware {
            Firmware::I440fxBios | Firmware::Q35Bios => None,
            Firmware::Q35Uefi => Some("uefi"),
            Firmware::Q35SecureBoot => Some("uefi-secure-boot"),
        }
    }

    fn tpm(&self) -> Option<&Item> {
        self.others.iter().find(|item| item.kind == "tpm" && item.plugged)
    }

    /// `None` without cells, and when they cannot be as they are said to be: not all of the memory, or a processor twice.
    fn numa_cells(&self) -> Option<String> {
        let mut cells: Vec<_> = self.numa.iter().collect();
        cells.sort_by_key(|cell| cell.index);
        let memory: u64 = cells.iter().map(|cell| cell.memory_mib).sum();
        let mut all = BTreeSet::new();
        let most = self.cpu.max.unwrap_or(0).max(self.cpu.count());
        let fit = cells
            .iter()
            .all(|cell| !cell.cpus.is_empty() && cell.cpus.iter().all(|cpu| *cpu < most && all.insert(*cpu)));
        let is_usable = !cells.is_empty() && memory == self.memory_mib && fit;
        let cell = |cell: &&NumaNode| {
            let cpus: Vec<String> = cell.cpus.iter().map(ToString::to_string).collect();
            format!("{}@{}", cpus.join(","), cell.memory_mib)
        };
        is_usable.then(|| cells.iter().map(cell).collect::<Vec<_>>().join(";"))
    }

    /// What only domain XML can say.
    fn lost(&self) -> impl Iterator<Item = String> {
        let firmware =
            self.uefi().filter(|_| !self.is_q35()).map(|_| "UEFI firmware, which needs a q35 machine,");
        let has_numa = !self.numa.is_empty();
        let numa = (has_numa && self.numa_cells().is_none()).then_some("the NUMA topology");
        let is_bound = self.numa.iter().any(|cell| !cell.host_nodes.is_empty());
        let binding = is_bound.then_some("the binding of NUMA cells to the host's");
        let pinning = self.cpu.pinning.as_ref().map(|_| "the pinning of processors");
        let custom = (!self.custom.is_empty()).then_some("what custom properties ask of VDSM's hooks");
        let can_grow = self.max_memory_mib.is_some_and(|max| max > self.memory_mib);
        let growth = can_grow.then_some("room to plug memory in");
        let lease = self.lease_domain.as_ref().map(|_| "the VM's own lease");
        let devices = self.others.iter().filter(|item| {
            let known = matches!(
                item.kind.as_str(),
                // VDSM adds channels by itself; a balloon is of no use to the engine VM.
                "controller"
                    | "graphics"
                    | "video"
                    | "console"
                    | "rng"
                    | "channel"
                    | "balloon"
                    | "memballoon"
            );
            item.plugged && !known && item.kind != "tpm"
        });
        let devices = devices.map(|item| format!("the {} device {}", item.kind, item.device));
        let fixed = [firmware, numa, binding, pinning, custom, growth, lease]
            .into_iter()
            .flatten()
            .map(ToOwned::to_owned);
        fixed.chain(devices).collect::<Vec<_>>().into_iter()
    }

    /// Whole sockets of more than one processor each. libvirt refuses a socket that is plugged in half.
    fn has_topology(&self) -> bool {
        let socket = self.cpu.cores * self.cpu.threads;
        socket > 1 && self.cpu.max.unwrap_or(0).max(self.cpu.count()).is_multiple_of(socket)
    }

    fn is_q35(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.contains("q35"))
    }

    fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        let mut orders = BootOrders::of(&self.disks);
        let numbers = (0..).filter(|number| *number != CDROM_INDEX);
        for (disk, number) in self.disks.iter().zip(numbers) {
            devices.push(disk_device(disk, number, orders.claim(disk)));
        }
        devices.extend(self.nics.iter().map(nic_device));
        devices.extend(self.cdrom.as_ref().map(|item| cdrom_device(item, self.is_q35())));
        devices.extend(self.others.iter().filter_map(other_device));
        let has = |kind| self.others.iter().any(|item| item.kind == kind);
        if !has("rng") {
            let source = Device::default().with("source", "urandom");
            let rng = Device::default().with("type", "rng").with("device", "virtio").with("model", "virtio");
            devices.push(rng.with_map("specParams", source));
        }
        if !has("console") {
            devices.push(Device::default().with("type", "console").with("device", "console"));
        }
        devices
    }
}

/// Who boots when. The engine counts from 0 and lets disks share a number, which libvirt refuses: the first one
/// keeps it, and one that is marked as the boot disk comes first of all.
struct BootOrders {
    taken: Vec<u32>,
    reserved: Option<u32>,
}

impl BootOrders {
    fn of(disks: &[Disk]) -> Self {
        let boot = disks.iter().find(|disk| disk.boot);
        Self { taken: Vec::new(), reserved: boot.and_then(order_of) }
    }

    fn claim(&mut self, disk: &Disk) -> Option<u32> {
        let order = order_of(disk)?;
        let is_free = !self.taken.contains(&order) && (disk.boot || self.reserved != Some(order));
        is_free.then(|| {
            self.taken.push(order);
            order
        })
    }
}

fn order_of(disk: &Disk) -> Option<u32> {
    disk.item.boot_order.map(|order| order + 1)
}

fn with_address(device: Device, item: &Item) -> Device {
    if item.address.is_empty() {
        return device;
    }
    let address =
        item.address.iter().fold(Device::default(), |address, (name, value)| address.with(name, value));
    device.with_map("address", address)
}

/// What all devices but disks begin with.
fn base(item: &Item) -> Device {
    let mut device = Device::default().with("type", &item.kind).with("device", &item.device);
    if let Some(id) = &item.id {
        device = device.with("deviceId", id);
    }
    device = with_address(device, item);
    if item.spec.is_empty() {
        return device;
    }
    let spec = item.spec.iter().fold(Device::default(), |spec, (name, value)| spec.with(name, value));
    device.with_map("specParams", spec)
}

fn disk_device(disk: &Disk, number: u32, boot_order: Option<u32>) -> Device {
    let image = disk.image.to_string();
    let mut device = Device::default()
        .with("index", &number.to_string())
        .with("type", "disk")
        .with("device", "disk")
        .with(
            "iface",
            match disk.bus {
                DiskBus::Virtio => "virtio",
                DiskBus::Scsi => "scsi",
                DiskBus::Ide => "ide",
                DiskBus::Sata => "sata",
            },
        )
        .with(
            "format",
            match disk.format {
                DiskFormat::Raw => "raw",
                DiskFormat::Cow => "cow",
            },
        )
        .with("poolID", NO_POOL);
    if let Some(domain) = &disk.domain {
        device = device.with("domainID", domain);
    }
    device = device
        .with("imageID", &image)
        .with("volumeID", &disk.volume.to_string())
        .with("deviceId", &image)
        .with("readonly", if disk.item.read_only { "true" } else { "false" });
    device = with_address(device, &disk.item);
    if let Some(order) = boot_order {
        device = device.with("bootOrder", &order.to_string());
    }
    device.with("propagateErrors", "off").with("shared", "exclusive")
}

fn nic_device(nic: &Nic) -> Device {
    let mut device = base(&nic.item)
        .with(
            "nicModel",
            match nic.model {
                NicModel::Rtl8139Pv => "rtl8139_pv",
                NicModel::Rtl8139 => "rtl8139",
                NicModel::E1000 => "e1000",
                NicModel::Pv => "pv",
                NicModel::SpaprVlan => "spaprVlan",
                NicModel::PciPassthrough => "pciPassthrough",
                NicModel::E1000e => "e1000e",
            },
        )
        .with("macAddr", &nic.mac);
    if let Some(network) = &nic.network {
        device = device.with("network", network);
    }
    device.with("linkActive", if nic.linked { "true" } else { "false" })
}

/// q35 has no IDE: there the drive is on SATA, wherever the OVF has it.
fn cdrom_device(item: &Item, is_q35: bool) -> Device {
    let device = Device::default()
        .with("type", "disk")
        .with("device", "cdrom")
        .with("deviceId", CDROM_ID)
        .with("index", &CDROM_INDEX.to_string())
        .with("iface", if is_q35 { "sata" } else { "ide" })
        .with("readonly", "true")
        .with("path", "")
        .with("shared", "false");
    if is_q35 {
        return with_address(device, item);
    }
    let address = Device::default()
        .with("controller", "0")
        .with("target", "0")
        .with("unit", "0")
        .with("bus", "1")
        .with("type", "drive");
    device.with_map("address", address)
}

/// `None` for what vm.conf has no form for.
fn other_device(item: &Item) -> Option<Device> {
    Some(match item.kind.as_str() {
        "controller" if matches!(item.device.as_str(), "virtio-scsi" | "scsi") => {
            base(&Item { device: "scsi".to_owned(), ..item.clone() }).with("model", "virtio-scsi")
        }
        "controller" | "console" | "graphics" => base(item),
        "video" => base(item).with("alias", "video0"),
        "rng" => {
            let mut device = base(item).with("model", &item.device);
            if let Some(alias) = &item.alias {
                device = device.with("alias", alias);
            }
            device
        }
        _ => return None,
    })
}
