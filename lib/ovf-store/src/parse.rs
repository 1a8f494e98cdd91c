//! OVF text to [`EngineVm`].
//!
//! The engine writes OVF in a dialect of its own, and has kept to it since 3.6: `Content` and `Section` elements with
//! `xsi:type`, virtual hardware as `Item` elements that mix `rasd:` elements with ones of its own. Found there:
//!
//! ```text
//! Envelope
//! ├─ Section (DiskSection_Type)              Disk: ovf:diskId, fileRef, disk-interface, volume-format, boot
//! └─ Content
//!    ├─ Name, BiosType, CustomEmulatedMachine, CustomCpuName, DefaultDisplayType, EngineXml, …
//!    ├─ Section (OperatingSystemSection_Type)   ovf:id is the VM's id
//!    ├─ Section (VirtualHardwareSection_Type)   Item: processors (rasd:ResourceType 3), memory (4), devices (Type)
//!    └─ Section (NumaNodeSection_Type)          NumaNode: Index, cpuIdList, vdsNumaNodeList, MemTotal, NumaTuneMode
//! ```

use uuid::Uuid;

use crate::error::OvfError;
use crate::note::Note;
use crate::vm::{Cpu, Disk, DiskBus, DiskFormat, Display, EngineVm, Firmware, Item, Nic, NicModel, NumaNode};
use crate::xml::{Element, Namespace};

/// Most processors, as in vm.conf.
const MAX_CPUS: u32 = 4096;
/// Most memory in MiB, as in vm.conf.
const MAX_MEMORY: u64 = 1 << 24;

const COUNT: &str = "a number from 1 to 4096";
const MEMORY: &str = "a number of MiB from 1 to 16777216";

impl EngineVm {
    /// Reads an OVF.
    pub fn parse(text: &str) -> Result<Self, OvfError> {
        let root = Element::parse(text)?;
        let content = plain(&root, "Content").next().ok_or(OvfError::Missing("Content"))?;
        let mut left_out = Vec::new();
        let mut vm = Self {
            id: id(content)?,
            name: word(content, "Name").unwrap_or("HostedEngine").to_owned(),
            memory_mib: memory(content)?,
            max_memory_mib: optional(content, "MaxMemorySizeMb", MEMORY, |mib| in_memory(*mib))?,
            cpu: cpu(content)?,
            numa: numa(content)?,
            machine: word(content, "CustomEmulatedMachine").map(ToOwned::to_owned),
            firmware: firmware(content, &mut left_out),
            display: display(content)?,
            disks: Vec::new(),
            nics: Vec::new(),
            cdrom: None,
            others: Vec::new(),
            lease_domain: word(content, "LeaseDomainId").map(ToOwned::to_owned),
            custom: custom(content),
            engine_xml: word(content, "EngineXml").map(ToOwned::to_owned),
            left_out,
        };
        for element in content.descendants().filter(|element| is_plain(element, "Item")) {
            if let Some(kind) = word(element, "Type") {
                vm.add(item(element, kind)?, element, &root)?;
            }
        }
        if vm.disks.is_empty() {
            return Err(OvfError::Missing("disk that the VM could start from"));
        }
        Ok(vm)
    }

    /// Refuses the description of another VM.
    pub fn require_id(&self, expected: Uuid) -> Result<(), OvfError> {
        if self.id == expected { Ok(()) } else { Err(OvfError::OtherVm { found: self.id, expected }) }
    }

    fn add(&mut self, item: Item, element: &Element, root: &Element) -> Result<(), OvfError> {
        let id = item.id.clone().unwrap_or_default();
        match (item.kind.as_str(), item.device.as_str()) {
            ("disk" | "interface", _) if !item.plugged => {
                self.left_out.push(Note::Unplugged { kind: item.kind, id });
            }
            ("disk", "cdrom") => {
                // One is all that the engine writes and vm.conf can say.
                self.cdrom.get_or_insert(item);
            }
            ("disk", "disk" | "lun") => match disk(item, element, root)? {
                Some(disk) => self.disks.push(disk),
                None => self.left_out.push(Note::DiskWithoutImage { id }),
            },
            ("interface", _) => match rasd(element, "MACAddress") {
                None | Some("None") => self.left_out.push(Note::NicWithoutMac { id }),
                Some(mac) => {
                    let nic = Nic {
                        model: nic_model(element, &id, &mut self.left_out),
                        mac: mac.to_owned(),
                        network: rasd(element, "Connection").map(ToOwned::to_owned),
                        linked: rasd(element, "Linked") != Some("false"),
                        item,
                    };
                    self.nics.push(nic);
                }
            },
            _ => self.others.push(item),
        }
        Ok(())
    }
}

fn is_plain(element: &Element, name: &str) -> bool {
    matches!(element.namespace, Namespace::None | Namespace::Ovf) && element.name == name
}

/// Children in no name space, as the engine writes its own elements, or in OVF's.
fn plain<'a>(element: &'a Element, name: &'a str) -> impl Iterator<Item = &'a Element> {
    element.children.iter().filter(move |child| is_plain(child, name))
}

fn word<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    let child = element.children.iter().find(|child| is_plain(child, name))?;
    Some(child.text.trim()).filter(|text| !text.is_empty())
}

fn rasd<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    element.text_of(Namespace::Rasd, name)
}

/// Sections of this type; `xsi:type` is a name with OVF's prefix, whatever that is.
fn sections<'a>(content: &'a Element, kind: &'a str) -> impl Iterator<Item = &'a Element> {
    plain(content, "Section").filter(move |section| {
        let found = section.attribute(Namespace::Xsi, "type").unwrap_or_default();
        found.rsplit(':').next() == Some(kind)
    })
}

fn bad(element: &'static str, value: &str, expected: &'static str) -> OvfError {
    OvfError::Value { element, value: value.chars().take(40).collect(), expected }
}

fn parsed<T: std::str::FromStr>(
    element: &'static str,
    text: &str,
    expected: &'static str,
    fits: impl Fn(&T) -> bool,
) -> Result<T, OvfError> {
    text.parse().ok().filter(fits).ok_or_else(|| bad(element, text, expected))
}

fn optional<T: std::str::FromStr>(
    parent: &Element,
    element: &'static str,
    expected: &'static str,
    fits: impl Fn(&T) -> bool,
) -> Result<Option<T>, OvfError> {
    word(parent, element).map(|text| parsed(element, text, expected, fits)).transpose()
}

const fn in_memory(mib: u64) -> bool {
    mib >= 1 && mib <= MAX_MEMORY
}

const fn in_cpus(count: u32) -> bool {
    count >= 1 && count <= MAX_CPUS
}

fn id(content: &Element) -> Result<Uuid, OvfError> {
    let section = sections(content, "OperatingSystemSection_Type").next();
    let text = section.and_then(|section| section.attribute(Namespace::Ovf, "id"));
    let text = text.ok_or(OvfError::Missing("section OperatingSystemSection_Type with the VM's ovf:id"))?;
    Uuid::parse_str(text).map_err(|_| bad("OperatingSystemSection_Type ovf:id", text, "the VM's uuid"))
}

fn items(content: &Element) -> impl Iterator<Item = &Element> {
    plain(content, "Section").flat_map(|section| plain(section, "Item"))
}

fn memory(content: &Element) -> Result<u64, OvfError> {
    let item = items(content).find(|item| rasd(item, "ResourceType") == Some("4"));
    let item = item.ok_or(OvfError::Missing("memory (an Item with rasd:ResourceType 4)"))?;
    match rasd(item, "AllocationUnits") {
        None | Some("MegaBytes" | "MB" | "byte * 2^20") => {}
        Some(other) => return Err(bad("rasd:AllocationUnits", other, "MegaBytes")),
    }
    let quantity =
        rasd(item, "VirtualQuantity").ok_or(OvfError::Missing("rasd:VirtualQuantity of memory"))?;
    parsed("rasd:VirtualQuantity of memory", quantity, MEMORY, |mib| in_memory(*mib))
}

fn cpu(content: &Element) -> Result<Cpu, OvfError> {
    let item = items(content).find(|item| rasd(item, "num_of_sockets").is_some());
    let item = item.ok_or(OvfError::Missing("rasd:num_of_sockets"))?;
    let number = |element: &'static str, name| {
        rasd(item, name).map(|text| parsed(element, text, COUNT, |count| in_cpus(*count))).transpose()
    };
    let need = |element: &'static str, name| number(element, name)?.ok_or(OvfError::Missing(element));
    let cpu = Cpu {
        model: word(content, "CustomCpuName").map(ToOwned::to_owned),
        sockets: need("rasd:num_of_sockets", "num_of_sockets")?,
        cores: need("rasd:cpu_per_socket", "cpu_per_socket")?,
        threads: number("rasd:threads_per_cpu", "threads_per_cpu")?.unwrap_or(1),
        max: number("rasd:max_num_of_vcpus", "max_num_of_vcpus")?,
        pinning: word(content, "CpuPinning").map(ToOwned::to_owned),
    };
    let count = u64::from(cpu.sockets) * u64::from(cpu.cores) * u64::from(cpu.threads);
    if count > u64::from(MAX_CPUS) {
        return Err(bad("the number of processors", &count.to_string(), COUNT));
    }
    Ok(cpu)
}

fn numa(content: &Element) -> Result<Vec<NumaNode>, OvfError> {
    let section = sections(content, "NumaNodeSection_Type").next();
    let nodes = section.into_iter().flat_map(|section| plain(section, "NumaNode"));
    nodes.map(numa_node).collect()
}

fn numa_node(node: &Element) -> Result<NumaNode, OvfError> {
    const LIST: &str = "numbers from 0 to 4096 with commas between them";
    let list = |element: &'static str| {
        let text = word(node, element).unwrap_or_default();
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| parsed(element, word, LIST, |n: &u32| *n <= MAX_CPUS)).collect::<Result<Vec<_>, _>>()
    };
    Ok(NumaNode {
        index: optional(node, "Index", LIST, |n: &u32| *n <= MAX_CPUS)?
            .ok_or(OvfError::Missing("Index of NumaNode"))?,
        cpus: list("cpuIdList")?,
        memory_mib: optional(node, "MemTotal", MEMORY, |mib| in_memory(*mib))?
            .ok_or(OvfError::Missing("MemTotal of NumaNode"))?,
        host_nodes: list("vdsNumaNodeList")?,
        mode: word(node, "NumaTuneMode").map(ToOwned::to_owned),
    })
}

fn firmware(content: &Element, left_out: &mut Vec<Note>) -> Firmware {
    match word(content, "BiosType") {
        None | Some("0") => Firmware::I440fxBios,
        Some("1") => Firmware::Q35Bios,
        Some("2") => Firmware::Q35Uefi,
        Some("3") => Firmware::Q35SecureBoot,
        Some(other) => {
            left_out.push(Note::Firmware { number: other.chars().take(40).collect() });
            Firmware::default()
        }
    }
}

fn display(content: &Element) -> Result<Display, OvfError> {
    match word(content, "DefaultDisplayType") {
        None | Some("0" | "2" | "3") => Ok(Display::Vnc),
        Some("1") => Ok(Display::Qxl),
        Some("4") => Ok(Display::Headless),
        Some(other) => Err(bad("DefaultDisplayType", other, "a number from 0 to 4")),
    }
}

/// `name=value;name=value`. Names are those of VDSM's hooks.
fn custom(content: &Element) -> Vec<(String, String)> {
    ["PredefinedProperties", "UserDefinedProperties"]
        .into_iter()
        .filter_map(|name| word(content, name))
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| is_name(name))
        .collect()
}

fn item(element: &Element, kind: &str) -> Result<Item, OvfError> {
    let spec = plain(element, "SpecParams").flat_map(|spec| &spec.children);
    Ok(Item {
        kind: kind.to_owned(),
        device: word(element, "Device").unwrap_or_default().to_owned(),
        id: rasd(element, "InstanceId").map(ToOwned::to_owned),
        address: rasd(element, "Address").map(address).unwrap_or_default(),
        boot_order: optional(element, "BootOrder", "a number from 0 to 4096", |n: &u32| *n <= 4096)?,
        plugged: word(element, "IsPlugged") != Some("false"),
        read_only: word(element, "IsReadOnly") == Some("true"),
        alias: word(element, "Alias").map(ToOwned::to_owned),
        spec: spec
            .map(|param| (param.name.clone(), param.text.trim().to_owned()))
            .filter(|(name, text)| is_name(name) && !text.is_empty())
            .collect(),
    })
}

/// `{type=pci, slot=0x06, bus=0x00}`; old hosts reported colons instead of the equality signs.
fn address(text: &str) -> Vec<(String, String)> {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    inner
        .split(',')
        .filter_map(|pair| pair.split_once(['=', ':']))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, value)| is_name(name) && !value.is_empty())
        .collect()
}

/// vm.conf can carry it as the name of something.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// `None` for a disk that is no image of a storage domain.
fn disk(item: Item, element: &Element, root: &Element) -> Result<Option<Disk>, OvfError> {
    let ours = |disk: &&Element| disk.attribute(Namespace::Ovf, "diskId") == item.id.as_deref();
    let mut disks = plain(root, "Section").flat_map(|section| plain(section, "Disk"));
    let Some(disk) = disks.find(ours) else { return Ok(None) };
    let attribute = |name| disk.attribute(Namespace::Ovf, name).unwrap_or_default();
    if disk.attribute(Namespace::Ovf, "lun_id").is_some() || item.id.is_none() {
        return Ok(None);
    }
    let file = attribute("fileRef");
    let wrong = || bad("ovf:fileRef of Disk", file, "an image's uuid, a slash and a volume's uuid");
    let (image, volume) = file.split_once('/').ok_or_else(wrong)?;
    let uuid = |text: &str| Uuid::parse_str(text).map_err(|_| wrong());
    let (bus, format) = (attribute("disk-interface"), attribute("volume-format"));
    Ok(Some(Disk {
        image: uuid(image)?,
        volume: uuid(volume)?,
        domain: rasd(element, "StorageId").map(ToOwned::to_owned),
        bus: match bus.to_ascii_lowercase().as_str() {
            "virtio" => DiskBus::Virtio,
            "virtio_scsi" | "spapr_vscsi" | "scsi" => DiskBus::Scsi,
            "ide" => DiskBus::Ide,
            "sata" => DiskBus::Sata,
            _ => return Err(bad("ovf:disk-interface", bus, "VirtIO, VirtIO_SCSI, SPAPR_VSCSI, IDE or SATA")),
        },
        format: match format.to_ascii_lowercase().as_str() {
            "raw" => DiskFormat::Raw,
            "cow" => DiskFormat::Cow,
            _ => return Err(bad("ovf:volume-format", format, "RAW or COW")),
        },
        boot: attribute("boot") == "true",
        item,
    }))
}

fn nic_model(element: &Element, id: &str, left_out: &mut Vec<Note>) -> NicModel {
    match rasd(element, "ResourceSubType") {
        Some("0") => NicModel::Rtl8139Pv,
        Some("1") => NicModel::Rtl8139,
        Some("2") => NicModel::E1000,
        None | Some("3") => NicModel::Pv,
        Some("4") => NicModel::SpaprVlan,
        Some("5") => NicModel::PciPassthrough,
        Some("6") => NicModel::E1000e,
        Some(other) => {
            left_out.push(Note::NicModel { id: id.to_owned(), number: other.chars().take(40).collect() });
            NicModel::Pv
        }
    }
}
