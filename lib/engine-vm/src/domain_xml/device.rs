//! Everything on a bus that is not a disk.

use ha_config::{Device, DeviceValue, VmConf};

use super::build::is_q35;
use super::element::{Element, element};
use super::{Dialect, Place, of_config, unusable};
use crate::port::VmError;
use crate::qemu::machine::Mac;

/// Channels to the guest's agents.
const CHANNELS: [&str; 2] = ["ovirt-guest-agent.0", "org.qemu.guest_agent.0"];

/// All devices but disks and the lease.
pub(super) fn devices(vm: &VmConf, place: &Place<'_>, machine: &str) -> Result<Vec<Element>, VmError> {
    let q35 = is_q35(machine);
    let mut all = vec![element("input").with("type", "tablet").with("bus", "usb")];
    all.extend(CHANNELS.iter().map(|name| channel(vm, place, name)));
    let mut has_graphics = false;
    let mut has_balloon = false;
    for device in vm.devices() {
        let wrong = |detail: String| unusable(format!("{}: devices={device}: {detail}", vm.path().display()));
        let made = match device.kind() {
            // Disks are written by `disk`, and the guest's agents have their channels already.
            Some("disk" | "channel") => Ok(None),
            Some("interface") => interface(device, place).map(Some),
            Some("controller") => controller(device, q35),
            Some("console") => Ok(Some(console())),
            Some("graphics") => {
                has_graphics = true;
                graphics(device.device().unwrap_or("vnc"), place).map(Some)
            }
            Some("video") => video(device).map(Some),
            Some("rng") => rng(device).map(Some),
            Some("sound") => Ok(Some(element("sound").with("model", device.device().unwrap_or("ich6")))),
            Some("balloon" | "memballoon") => {
                has_balloon = true;
                let model = device.map("specParams").and_then(|spec| spec.text("model"));
                Ok(Some(element("memballoon").with("model", model.unwrap_or("virtio"))))
            }
            Some(other) => Err(format!("a device of type {other} is not known here; remove the line")),
            None => Err("a device needs type:".to_owned()),
        };
        all.extend(made.map_err(wrong)?);
    }
    if !has_graphics && let Some(display) = vm.display() {
        let kind = match display {
            "vnc" | "qxlnc" => "vnc",
            "qxl" => "spice",
            other => {
                let path = vm.path().display();
                return Err(unusable(format!("{path}: display={other:?} must be vnc, qxl or qxlnc")));
            }
        };
        all.push(graphics(kind, place).map_err(unusable)?);
    }
    if !has_balloon {
        all.push(element("memballoon").with("model", "none"));
    }
    Ok(all)
}

/// `address:{…}` as libvirt writes it. Old files have `address:None`.
pub(super) fn address(device: &Device) -> Result<Option<Element>, String> {
    let Some(DeviceValue::Map(map)) = device.get("address") else { return Ok(None) };
    let (kind, names): (_, &[&'static str]) = match map.text("type") {
        Some("pci") | None => ("pci", &["domain", "bus", "slot", "function"]),
        Some("drive") => ("drive", &["controller", "bus", "target", "unit"]),
        Some("virtio-serial") => ("virtio-serial", &["controller", "bus", "port"]),
        Some("usb") => ("usb", &["bus", "port"]),
        Some(_) => return Err("address: its type must be pci, drive, virtio-serial or usb".to_owned()),
    };
    if map.entries().next().is_none() {
        return Ok(None);
    }
    if kind == "pci" && map.text("slot").is_none() {
        return Err("address: a place on a PCI bus needs slot:".to_owned());
    }
    let mut address = element("address").with("type", kind);
    for name in names {
        if let Some(value) = map.text(name) {
            let digits = value.strip_prefix("0x");
            let is_number = digits
                .map_or_else(|| value.parse::<u32>().is_ok(), |hex| u32::from_str_radix(hex, 16).is_ok());
            if !is_number {
                return Err(format!("address: {name}:{value} is no number"));
            }
            address = address.with(name, value);
        }
    }
    Ok(Some(address))
}

fn channel(vm: &VmConf, place: &Place<'_>, name: &str) -> Element {
    let target = element("target").with("type", "virtio").with("name", name);
    let channel = element("channel").with("type", "unix").with_child(target);
    match (place.dialect, vm.get("vmId")) {
        // VDSM listens for the guest here.
        (Dialect::Vdsm, Some(id)) => {
            let path = format!("/var/lib/libvirt/qemu/channels/{id}.{name}");
            channel.with_child(element("source").with("mode", "bind").with("path", path))
        }
        (Dialect::Vdsm | Dialect::Libvirt, _) => channel,
    }
}

fn interface(device: &Device, place: &Place<'_>) -> Result<Element, String> {
    let model = match device.text("nicModel") {
        Some("pv" | "virtio") | None => "virtio",
        Some(other) => other,
    };
    let bridge = match device.text("network") {
        Some(bridge) => bridge,
        None => place.conf.bridge().map_err(|error| of_config(&error).to_string())?,
    };
    let state = if device.text("linkActive") == Some("false") { "down" } else { "up" };
    let mac = match device.text("macAddr") {
        None => None,
        Some(text) if Mac::parse(text).is_some() => Some(element("mac").with("address", text)),
        Some(_) => {
            return Err("macAddr: must be like 00:16:3e:01:02:03, and not a group address".to_owned());
        }
    };
    let order = device.boot_order().filter(|order| *order > 0);
    Ok(element("interface")
        .with("type", "bridge")
        .with_children(mac)
        .with_child(element("source").with("bridge", bridge))
        .with_child(element("model").with("type", model))
        .with_child(element("link").with("state", state))
        .with_children(device.text("filter").map(|filter| element("filterref").with("filter", filter)))
        .with_children(order.map(|order| element("boot").with("order", order.to_string())))
        .with_children(address(device)?))
}

/// `None` for a controller that the machine has not, or has always.
fn controller(device: &Device, q35: bool) -> Result<Option<Element>, String> {
    let spec = |name| device.map("specParams").and_then(|spec| spec.text(name));
    let index = device.text("index").or(spec("index")).unwrap_or("0");
    if index.parse::<u16>().is_err() {
        return Err(format!("index: {index:?} is no number"));
    }
    let made = |kind: &str| element("controller").with("type", kind).with("index", index);
    let model = device.text("model").or(spec("model"));
    let controller = match device.device() {
        Some("scsi" | "virtio-scsi") => made("scsi").with("model", model.unwrap_or("virtio-scsi")),
        Some("virtio-serial") => made("virtio-serial").with("ports", "16"),
        Some("ide") if q35 => return Ok(None),
        Some("ide") => made("ide"),
        Some("sata") => made("sata"),
        Some("usb") if q35 => made("usb").with("model", "qemu-xhci"),
        Some("usb") => model.map_or_else(|| made("usb"), |model| made("usb").with("model", model)),
        // libvirt adds these as it needs them.
        Some("pci") => return Ok(None),
        Some(_) | None => {
            return Err("device: a controller must be scsi, virtio-serial, ide, sata or usb".to_owned());
        }
    };
    let place = if q35 && device.device() == Some("usb") { None } else { address(device)? };
    Ok(Some(controller.with_children(place)))
}

/// A terminal that `virsh console` reaches.
fn console() -> Element {
    element("console")
        .with("type", "pty")
        .with_child(element("target").with("type", "virtio").with("port", "0"))
}

/// Nobody gets in before a password was set: this one has ended long ago.
fn graphics(kind: &str, place: &Place<'_>) -> Result<Element, String> {
    let graphics = match kind {
        "vnc" => element("graphics").with("type", "vnc").with("keymap", "en-us"),
        "spice" => element("graphics").with("type", "spice").with("tlsPort", "-1"),
        _ => return Err("device: a graphics device must be vnc or spice".to_owned()),
    };
    let listen = match place.dialect {
        Dialect::Vdsm => {
            let bridge = place.conf.bridge().map_err(|error| of_config(&error).to_string())?;
            element("listen").with("type", "network").with("network", format!("vdsm-{bridge}"))
        }
        Dialect::Libvirt => element("listen").with("type", "address").with("address", "127.0.0.1"),
    };
    let channels: &[&str] = match (kind, place.dialect) {
        ("spice", Dialect::Vdsm) => {
            &["main", "inputs", "cursor", "playback", "record", "display", "smartcard", "usbredir"]
        }
        _ => &[],
    };
    Ok(graphics
        .with("port", "-1")
        .with("autoport", "yes")
        .with("passwd", "*****")
        .with("passwdValidTo", "1970-01-01T00:00:01")
        .with_child(listen)
        .with_children(
            channels.iter().map(|name| element("channel").with("name", *name).with("mode", "secure")),
        ))
}

fn video(device: &Device) -> Result<Element, String> {
    let mut model = element("model").with("type", device.device().unwrap_or("vga"));
    for name in ["vram", "ram", "vgamem", "heads"] {
        if let Some(value) = device.map("specParams").and_then(|spec| spec.text(name)) {
            value.parse::<u32>().map_err(|_| format!("specParams: {name}:{value} is no number"))?;
            model = model.with(name, value);
        }
    }
    Ok(element("video").with_child(model).with_children(address(device)?))
}

fn rng(device: &Device) -> Result<Element, String> {
    let source = match device.map("specParams").and_then(|spec| spec.text("source")) {
        Some("urandom") | None => "/dev/urandom",
        Some("random") => "/dev/random",
        Some("hwrng") => "/dev/hwrng",
        Some(_) => return Err("specParams: source must be urandom, random or hwrng".to_owned()),
    };
    Ok(element("rng")
        .with("model", "virtio")
        .with_child(element("backend").with("model", "random").with_text(source))
        .with_children(address(device)?))
}
