//! Disks and CD drives.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ha_config::{Device, VmConf};

use super::device::address;
use super::element::{Element, element};
use super::{Dialect, Place, of_config, unusable};
use crate::port::VmError;

/// Target names have one letter after the bus's prefix.
const LETTERS: u8 = 26;

/// A volume of a storage domain, by uuids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub pool: String,
    pub domain: String,
    pub image: String,
    pub id: String,
}

/// Where a disk's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Block(PathBuf),
    /// A volume of one of libvirt's storage pools, both by name.
    PoolVolume {
        pool: String,
        volume: String,
    },
}

/// A disk as libvirt is told of it.
#[derive(Debug, Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent properties of a disk, each an element of its own"
)]
pub(super) struct Disk {
    pub volume: Option<Volume>,
    /// Only one VM may use it: it has a lease.
    pub is_exclusive: bool,
    target: String,
    source: Source,
    is_cdrom: bool,
    is_read_only: bool,
    is_shared: bool,
    bus: &'static str,
    format: &'static str,
    error_policy: &'static str,
    serial: Option<String>,
    boot_order: Option<u32>,
    address: Option<Element>,
}

/// All disks of a vm.conf, in its order.
pub(super) fn disks(vm: &VmConf, place: &Place<'_>, is_q35: bool) -> Result<Vec<Disk>, VmError> {
    let mut targets = Targets::default();
    let mut disks = Vec::new();
    for device in vm.devices().filter(|device| device.kind() == Some("disk")) {
        disks
            .push(disk(device, place, is_q35, &mut targets).map_err(|detail| {
                unusable(format!("{}: devices={device}: {detail}", vm.path().display()))
            })?);
    }
    Ok(disks)
}

/// Names that are taken.
#[derive(Debug, Default)]
struct Targets(BTreeSet<String>);

impl Targets {
    /// The wanted place on a bus if it is free, else the next one.
    fn name(&mut self, prefix: &str, wanted: u8) -> Option<String> {
        let name = (0..LETTERS)
            .map(|step| format!("{prefix}{}", char::from(b'a' + (wanted + step) % LETTERS)))
            .find(|name| !self.0.contains(name))?;
        self.0.insert(name.clone());
        Some(name)
    }
}

fn volume_of(device: &Device, place: &Place<'_>) -> Result<Option<Volume>, String> {
    let Some((image, volume)) = device.text("imageID").zip(device.text("volumeID")) else { return Ok(None) };
    let domain = match device.text("domainID") {
        Some(domain) => domain,
        None => place.conf.sd_uuid().map_err(|error| error.to_string())?,
    };
    let pool = device.text("poolID").or(place.conf.sp_uuid());
    let volume = Volume {
        pool: pool.unwrap_or("00000000-0000-0000-0000-000000000000").to_owned(),
        domain: domain.to_owned(),
        image: image.to_owned(),
        id: volume.to_owned(),
    };
    let ids = [&volume.pool, &volume.domain, &volume.image, &volume.id];
    if let Some(wrong) = ids.into_iter().find(|id| id.contains('/')) {
        return Err(format!("{wrong:?} is no uuid"));
    }
    Ok(Some(volume))
}

/// `pool:NAME,volume:NAME`.
fn pool_volume(device: &Device, dialect: Dialect) -> Result<Option<Source>, String> {
    match (device.text("pool"), device.text("volume"), dialect) {
        (None, None, _) => Ok(None),
        (Some(pool), Some(volume), Dialect::Libvirt) => {
            Ok(Some(Source::PoolVolume { pool: pool.to_owned(), volume: volume.to_owned() }))
        }
        (Some(_), Some(_), Dialect::Vdsm) => {
            Err("pool: and volume: name a storage pool of libvirt, which VDSM does \
                                                  not use; give imageID: and volumeID:, or path:"
                .to_owned())
        }
        (Some(_), None, _) | (None, Some(_), _) => {
            Err("a volume of a storage pool needs both pool: and volume:".to_owned())
        }
    }
}

fn disk(device: &Device, place: &Place<'_>, is_q35: bool, targets: &mut Targets) -> Result<Disk, String> {
    let is_cdrom = match device.device() {
        Some("cdrom") => true,
        Some("disk") | None => false,
        Some(_) => return Err("device: must be disk or cdrom".to_owned()),
    };
    let volume = volume_of(device, place)?;
    let domain_is_block = place.conf.domain_type().map_err(|error| of_config(&error).to_string())?.is_block();
    let of = |path, is_block| if is_block { Source::Block(path) } else { Source::File(path) };
    let source = match (&volume, device.text("path"), place.dialect) {
        (None, Some(path), _) => of(place.conf.paths().resolve(path), path.starts_with("/dev/")),
        (None, None, dialect) => match pool_volume(device, dialect)? {
            Some(source) => source,
            None if is_cdrom => Source::File(PathBuf::new()),
            None => return Err("a disk needs path:, or imageID: and volumeID:".to_owned()),
        },
        // VDSM puts the path of the volume that it prepares in this one's place.
        (Some(volume), _, Dialect::Vdsm) => {
            let Volume { pool, domain, image, id } = volume;
            let path = format!("/rhev/data-center/{pool}/{domain}/images/{image}/{id}");
            of(PathBuf::from(path), domain_is_block)
        }
        (Some(volume), _, Dialect::Libvirt) => {
            let path = place.conf.volume_path(&volume.image, &volume.id);
            of(path.map_err(|error| error.to_string())?, domain_is_block)
        }
    };
    let wanted_bus = match device.text("iface") {
        Some("scsi" | "virtio-scsi") => "scsi",
        Some("sata") => "sata",
        Some("ide") => "ide",
        None if is_cdrom => "ide",
        Some("virtio") | None => "virtio",
        Some(_) => return Err("iface: must be virtio, scsi, sata or ide".to_owned()),
    };
    let bus = if is_q35 && wanted_bus == "ide" { "sata" } else { wanted_bus };
    let prefix = match bus {
        "virtio" => "vd",
        "ide" => "hd",
        _ => "sd",
    };
    let index = match device.text("index") {
        None => 0,
        Some(text) => {
            let index = text.parse().ok().filter(|index| *index < LETTERS);
            index.ok_or_else(|| format!("index: must be a number below {LETTERS}"))?
        }
    };
    let target =
        targets.name(prefix, index).ok_or_else(|| format!("more than {LETTERS} disks on bus {bus}"))?;
    let (is_exclusive, is_shared) = match device.text("shared") {
        Some("exclusive") => (true, false),
        Some("shared" | "true") => (false, true),
        Some("none" | "false") | None => (false, false),
        Some(_) => return Err("shared: must be exclusive, shared or none".to_owned()),
    };
    Ok(Disk {
        target,
        source,
        is_cdrom,
        is_read_only: is_cdrom || device.text("readonly") == Some("true"),
        is_exclusive,
        is_shared,
        bus,
        format: match device.text("format") {
            Some("raw") | None => "raw",
            Some("cow" | "qcow2") => "qcow2",
            Some(_) => return Err("format: must be raw or cow".to_owned()),
        },
        error_policy: match device.text("propagateErrors") {
            _ if is_cdrom => "report",
            Some("off" | "false") | None => "stop",
            Some("on" | "true") => "enospace",
            Some("report") => "report",
            Some(_) => return Err("propagateErrors: must be off, on or report".to_owned()),
        },
        serial: device
            .text("serial")
            .map(ToOwned::to_owned)
            .or_else(|| volume.as_ref().map(|volume| volume.image.clone())),
        boot_order: device.boot_order().filter(|order| *order > 0),
        // A place on a bus that the machine has not is of no use.
        address: if bus == wanted_bus { address(device)? } else { None },
        volume,
    })
}

impl Disk {
    pub fn to_element(&self) -> Element {
        let from = element("source");
        let (kind, mut from) = match &self.source {
            Source::File(path) => ("file", from.with("file", path.display().to_string())),
            Source::Block(path) => ("block", from.with("dev", path.display().to_string())),
            Source::PoolVolume { pool, volume } => ("volume", from.with("pool", pool).with("volume", volume)),
        };
        let is_block = matches!(self.source, Source::Block(_));
        if self.is_cdrom && !is_block {
            from = from.with("startupPolicy", "optional");
        }
        let driver = element("driver")
            .with("name", "qemu")
            .with("type", self.format)
            .with("error_policy", self.error_policy);
        let driver = if self.is_cdrom {
            driver
        } else {
            driver.with("cache", "none").with("io", if is_block { "native" } else { "threads" })
        };
        element("disk")
            .with("type", kind)
            .with("device", if self.is_cdrom { "cdrom" } else { "disk" })
            .with("snapshot", "no")
            .with_child(driver)
            .with_child(from)
            .with_child(element("target").with("dev", &self.target).with("bus", self.bus))
            .with_children(self.is_read_only.then(|| element("readonly")))
            .with_children(self.is_shared.then(|| element("shareable")))
            .with_children(self.serial.as_ref().map(|serial| element("serial").with_text(serial)))
            .with_children(self.boot_order.map(|order| element("boot").with("order", order.to_string())))
            .with_children(self.address.clone())
    }

    /// By which VDSM finds the volume.
    pub fn to_metadata(&self) -> Option<Element> {
        let volume = self.volume.as_ref()?;
        let exclusive = || element("ovirt-vm:shared").with_text("exclusive");
        Some(
            element("ovirt-vm:device")
                .with("devtype", "disk")
                .with("name", &self.target)
                .with_child(element("ovirt-vm:poolID").with_text(&volume.pool))
                .with_child(element("ovirt-vm:domainID").with_text(&volume.domain))
                .with_child(element("ovirt-vm:imageID").with_text(&volume.image))
                .with_child(element("ovirt-vm:volumeID").with_text(&volume.id))
                .with_children(self.is_exclusive.then(exclusive)),
        )
    }
}
