//! From a [`Machine`] to QEMU's arguments.
//!
//! A pure function: the same machine and launch give the same arguments, on every host. Devices are given as JSON
//! where QEMU takes it, so that no value can break out of its place; elsewhere commas are doubled. No secret is ever
//! among the arguments.

use std::path::Path;

use serde_json::{Value, json};

use super::machine::{Disk, DiskBus, DiskFormat, DiskSource, Machine, Nic, NicBackend};
use super::run_dir::{EVENTS_INPUT, EVENTS_LOG, QmpRole, SERIAL_LOG, SERIAL_SOCKET};

/// What carries out guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The kernel.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How this start differs from others of the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// What carries out guest code.
    pub accelerator: Accelerator,
    /// Leave the processors stopped.
    pub is_paused: bool,
    /// Wait for a migration instead of booting.
    pub is_incoming: bool,
    /// User to become after everything is opened.
    pub user: Option<String>,
    /// Added at the end as they are.
    pub extra_args: Vec<String>,
}

/// A value that cannot be put on a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the VM's {what} {value:?} is not usable: {reason}")]
pub struct MachineError {
    /// Which value.
    pub what: &'static str,
    /// The value.
    pub value: String,
    /// What is wrong and what is right.
    pub reason: &'static str,
}

/// Stands for the number of the tap device's descriptor until the launcher has opened it.
pub fn tap_placeholder(index: usize) -> String {
    format!("@tap{index}@")
}

/// QEMU's arguments, without the program's name. Relative names are meant in the run directory.
pub fn arguments(machine: &Machine, launch: &Launch) -> Result<Vec<String>, MachineError> {
    let mut args = Args::default();
    args.flag("-no-user-config");
    args.flag("-nodefaults");
    args.put("-name", format!("guest={},debug-threads=on", escaped("name", &machine.name)?));
    args.put("-uuid", machine.uuid.to_string());
    processor(&mut args, machine, launch)?;
    args.put("-smbios", smbios(machine)?);
    args.put("-rtc", "base=utc");
    args.put("-boot", "strict=on");
    if machine.ends_on_reboot {
        args.put("-action", "reboot=shutdown");
    }
    args.put("-msg", "timestamp=on");
    sandbox(&mut args, launch)?;
    monitors(&mut args);
    serial(&mut args, machine);
    disks(&mut args, machine)?;
    nics(&mut args, machine)?;
    display(&mut args, machine);
    args.json("-object", &json!({"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"}));
    args.json("-device", &json!({"driver": "virtio-rng-pci", "rng": "rng0"}));
    direct_boot(&mut args, machine)?;
    if launch.is_incoming {
        args.put("-incoming", "defer");
    }
    if launch.is_paused || launch.is_incoming {
        args.flag("-S");
    }
    for extra in &launch.extra_args {
        args.0.push(plain("extra argument", extra)?.to_owned());
    }
    Ok(args.0)
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn put(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.to_owned());
        self.0.push(value.into());
    }

    fn json(&mut self, name: &str, value: &Value) {
        self.put(name, value.to_string());
    }
}

fn processor(args: &mut Args, machine: &Machine, launch: &Launch) -> Result<(), MachineError> {
    let machine_type = word("machine type", &machine.machine_type)?;
    let accelerator = match launch.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    };
    args.put("-machine", format!("{machine_type},accel={accelerator},usb=off,dump-guest-core=off"));
    let cpu = match (launch.accelerator, &machine.cpu_model) {
        (Accelerator::Tcg, _) => "max",
        (Accelerator::Kvm, Some(model)) => word("cpuType", model)?,
        (Accelerator::Kvm, None) => "host",
    };
    args.put("-cpu", cpu);
    args.put("-m", format!("size={}M", machine.memory_mib));
    let maximum = machine.max_vcpus.max(machine.vcpus);
    args.put("-smp", format!("cpus={},maxcpus={maximum}", machine.vcpus));
    Ok(())
}

fn smbios(machine: &Machine) -> Result<String, MachineError> {
    let mut text = format!("type=1,uuid={}", machine.uuid);
    let smbios = &machine.smbios;
    for (key, value) in [
        ("manufacturer", &smbios.manufacturer),
        ("product", &smbios.product),
        ("version", &smbios.version),
        ("serial", &smbios.serial),
    ] {
        if !value.is_empty() {
            for part in [",", key, "=", &escaped("SMBIOS string", value)?] {
                text.push_str(part);
            }
        }
    }
    Ok(text)
}

fn sandbox(args: &mut Args, launch: &Launch) -> Result<(), MachineError> {
    // A child of QEMU would inherit the registration with sanlock and could outlive it: none can be made.
    let privileges = if launch.user.is_some() { "allow" } else { "deny" };
    args.put(
        "-sandbox",
        format!("on,obsolete=deny,elevateprivileges={privileges},spawn=deny,resourcecontrol=deny"),
    );
    if let Some(user) = &launch.user {
        args.put("-run-with", format!("user={}", word("user", user)?));
    }
    Ok(())
}

fn monitors(args: &mut Args) {
    for role in QmpRole::ALL {
        let id = role.word();
        args.put("-chardev", format!("socket,id=qmp-{id},path={},server=on,wait=off", role.socket()));
        args.put("-mon", format!("chardev=qmp-{id},mode=control"));
    }
    // QEMU's own record of what happened to it: a monitor without a client that reads one command (which turns
    // events on) and writes every event to a file. How the VM ended can be read there when nobody watched.
    args.put("-chardev", format!("file,id=events,path={EVENTS_LOG},input-path={EVENTS_INPUT},append=on"));
    args.put("-mon", "chardev=events,mode=control");
}

fn serial(args: &mut Args, machine: &Machine) {
    let log = if machine.serial_log { format!(",logfile={SERIAL_LOG},logappend=off") } else { String::new() };
    args.put("-chardev", format!("socket,id=serial0,path={SERIAL_SOCKET},server=on,wait=off{log}"));
    args.json("-device", &json!({"driver": "isa-serial", "chardev": "serial0"}));
}

fn disks(args: &mut Args, machine: &Machine) -> Result<(), MachineError> {
    if machine.disks.iter().any(|disk| disk.bus == DiskBus::Scsi) {
        args.json("-device", &json!({"driver": "virtio-scsi-pci", "id": "scsi0"}));
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        if let Some(node) = blockdev(index, disk)? {
            args.json("-blockdev", &node);
        }
        args.json("-device", &disk_device(index, disk)?);
    }
    Ok(())
}

/// `None` for a drive without a disc.
fn blockdev(index: usize, disk: &Disk) -> Result<Option<Value>, MachineError> {
    let (driver, aio) = match disk.source {
        DiskSource::File => ("file", "threads"),
        DiskSource::BlockDevice => ("host_device", "native"),
        DiskSource::Empty => return Ok(None),
    };
    let format = match disk.format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    // The page cache of one host knows nothing of the other hosts. Images of CDs do not change.
    let is_direct = !disk.is_cdrom;
    let cache = json!({"direct": is_direct, "no-flush": false});
    let aio = if is_direct { aio } else { "threads" };
    let mut file = json!({
        "driver": driver,
        "filename": path_text("disk", &disk.path)?,
        "aio": aio,
        "cache": cache,
    });
    if !disk.is_read_only {
        file["discard"] = json!("unmap");
    }
    Ok(Some(json!({
        "driver": format,
        "node-name": format!("disk{index}"),
        "read-only": disk.is_read_only,
        "cache": cache,
        "file": file,
    })))
}

fn disk_device(index: usize, disk: &Disk) -> Result<Value, MachineError> {
    let driver = match (disk.bus, disk.is_cdrom) {
        (DiskBus::Virtio, _) => "virtio-blk-pci",
        (DiskBus::Scsi, false) => "scsi-hd",
        (DiskBus::Scsi, true) => "scsi-cd",
        (DiskBus::Ide, false) => "ide-hd",
        (DiskBus::Ide, true) => "ide-cd",
    };
    let mut device = json!({
        "driver": driver,
        "id": format!("drive{index}"),
    });
    if disk.source != DiskSource::Empty {
        device["drive"] = json!(format!("disk{index}"));
    }
    if !disk.is_cdrom {
        // A guest that sees an I/O error may remount read-only or worse; one that is stopped goes on later.
        device["rerror"] = json!("stop");
        device["werror"] = json!("stop");
    }
    if disk.bus == DiskBus::Scsi {
        device["bus"] = json!("scsi0.0");
    }
    if let Some(serial) = &disk.serial {
        device["serial"] = json!(plain("disk serial number", serial)?);
    }
    if let Some(order) = disk.boot_order {
        device["bootindex"] = json!(order);
    }
    Ok(device)
}

fn nics(args: &mut Args, machine: &Machine) -> Result<(), MachineError> {
    for (index, nic) in machine.nics.iter().enumerate() {
        let id = format!("net{index}");
        match &nic.backend {
            NicBackend::Bridge(_) => {
                args.json("-netdev", &json!({"type": "tap", "id": id, "fd": tap_placeholder(index)}));
            }
            NicBackend::User => args.json("-netdev", &json!({"type": "user", "id": id})),
            NicBackend::Disconnected => {
                args.json("-netdev", &json!({"type": "hubport", "id": id, "hubid": index}));
            }
        }
        args.json("-device", &nic_device(&id, nic)?);
    }
    Ok(())
}

fn nic_device(netdev: &str, nic: &Nic) -> Result<Value, MachineError> {
    let mut device = json!({
        "driver": word("network card model", &nic.model)?,
        "id": format!("{netdev}-card"),
        "netdev": netdev,
    });
    // Without a boot order there is no need for the option ROM of network boot.
    match nic.boot_order {
        Some(order) => device["bootindex"] = json!(order),
        None => device["romfile"] = json!(""),
    }
    if let Some(mac) = nic.mac {
        device["mac"] = json!(mac.to_string());
    }
    Ok(device)
}

fn display(args: &mut Args, machine: &Machine) {
    match machine.vnc {
        Some(vnc) => {
            let number = vnc.port.saturating_sub(5900);
            let host = match vnc.listen {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            };
            args.put("-vnc", format!("{host}:{number},to=99,password=on"));
            args.json("-device", &json!({"driver": "VGA", "vgamem_mb": 16}));
        }
        None => args.put("-display", "none"),
    }
}

fn direct_boot(args: &mut Args, machine: &Machine) -> Result<(), MachineError> {
    let Some(boot) = &machine.direct_boot else { return Ok(()) };
    args.put("-kernel", path_text("kernel", &boot.kernel)?);
    if let Some(initrd) = &boot.initrd {
        // QEMU takes a list of modules separated by commas here; doubling is how one name with a comma is given.
        args.put("-initrd", path_text("initrd", initrd)?.replace(',', ",,"));
    }
    if !boot.arguments.is_empty() {
        args.put("-append", plain("kernelArgs", &boot.arguments)?);
    }
    Ok(())
}

fn refused(what: &'static str, value: &str, reason: &'static str) -> MachineError {
    MachineError { what, value: value.to_owned(), reason }
}

/// Text without control characters.
fn plain<'a>(what: &'static str, value: &'a str) -> Result<&'a str, MachineError> {
    if value.chars().any(char::is_control) {
        return Err(refused(what, value, "it contains a control character; leave it out"));
    }
    Ok(value)
}

/// Text for QEMU's `key=value,…` form.
fn escaped(what: &'static str, value: &str) -> Result<String, MachineError> {
    if value.is_empty() {
        return Err(refused(what, value, "it is empty"));
    }
    Ok(plain(what, value)?.replace(',', ",,"))
}

/// Names that QEMU defines itself.
fn word<'a>(what: &'static str, value: &'a str) -> Result<&'a str, MachineError> {
    let is_word = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !is_word || value.starts_with('-') {
        return Err(refused(
            what,
            value,
            "letters, digits, '-', '_' and '.' are possible, and it starts with no '-'",
        ));
    }
    Ok(value)
}

fn path_text<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, MachineError> {
    let Some(text) = path.to_str() else {
        return Err(refused(what, &path.to_string_lossy(), "the path is not UTF-8; rename it"));
    };
    if !path.is_absolute() {
        return Err(refused(what, text, "the path must start with '/'"));
    }
    plain(what, text)
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;
