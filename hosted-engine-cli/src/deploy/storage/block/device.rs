//! The device of a LUN on this host, and whether nobody else uses it.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ha_config::Paths;
use ha_config::shared_file::{SharedFile, UNIT};
use sanlock_client::GridSize;
use serde::Deserialize;

use crate::deploy::tools::{Call, Tools};
use crate::deploy::{DeployError, Lun};
use crate::setup::grid_for;
use crate::setup::volume::MIB;

/// So many bytes at both ends of a device must be zeros before it is used: partition tables, file systems and volume
/// managers have their signatures there, and so has almost everything that has none that is known.
const EDGE: u64 = 16 * MIB;
/// Read at once.
const STEP: u64 = MIB;

/// A LUN's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its path, as LVM is told.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Layout of leases that fits its sectors.
    pub grid: GridSize,
}

impl Device {
    /// By what VDSM would call it.
    pub fn guid(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Finds the device: for a WWID the multipath device, else the disk.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn find(paths: &Paths, lun: &Lun) -> Result<Device, DeployError> {
    let places = places(paths, &lun.id);
    let Some(found) = places.iter().find(|place| place.exists()) else {
        let tried: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(DeployError::Refused(format!(
            "this host has no device {}: looked for {}. Is the LUN mapped to this host (iSCSI: to its initiator name in \
             /etc/iscsi/initiatorname.iscsi; Fibre Channel: to the WWPNs in /sys/class/fc_host), and has the bus been \
             scanned since?",
            lun.id,
            tried.join(", ")
        )));
    };
    // Names in /dev/mapper are the ones to use; others are links that differ from host to host.
    let path = if found.parent().is_some_and(|parent| parent.ends_with("mapper")) {
        found.clone()
    } else {
        fs::canonicalize(found).map_err(DeployError::io("find", found))?
    };
    let file = SharedFile::open(&path, false).map_err(crate::setup::SetupError::from)?;
    let size = || Ok::<_, crate::setup::SetupError>((file.size()?, file.sector_size()?));
    let (bytes, sector) = size()?;
    Ok(Device { path, bytes, grid: grid_for(sector) })
}

/// Where the device of this id may be.
fn places(paths: &Paths, id: &str) -> Vec<PathBuf> {
    if id.starts_with('/') {
        let mut places = vec![paths.resolve(id), PathBuf::from(id)];
        places.dedup();
        return places;
    }
    let dev = paths.resolve("/dev");
    let by_id = dev.join("disk/by-id");
    let mut places = vec![
        dev.join("mapper").join(id),
        by_id.join(format!("dm-uuid-mpath-{id}")),
        by_id.join(format!("scsi-{id}")),
        by_id.join(format!("nvme-{id}")),
        by_id.join(format!("virtio-{id}")),
    ];
    if let Some(naa) = id.strip_prefix('3') {
        places.insert(3, by_id.join(format!("wwn-0x{naa}")));
    }
    places
}

#[derive(Deserialize)]
struct Signatures {
    #[serde(default)]
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
}

#[derive(Deserialize)]
struct Blocks {
    blockdevices: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    ro: bool,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Block>,
}

/// Refuses a device on which anything is, or that anything on this host uses. Changes nothing.
///
/// # Errors
/// All that was found.
pub(super) fn check_vacant(tools: &dyn Tools, device: &Device, needed: u64) -> Result<(), DeployError> {
    let path = &device.path;
    let mut found = Vec::new();
    if device.bytes < needed {
        found.push(format!("it has {} and {} are needed", gib(device.bytes), gib(needed)));
    }
    found.extend(used_as(tools, path)?);
    found.extend(signatures(tools, path)?);
    found.extend(is_open(path)?);
    if found.is_empty() {
        found.extend(edges(device)?);
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(DeployError::Refused(format!(
        "{} cannot be taken for the storage domain: {}. Nothing was changed. Give another LUN; or, when nobody needs what \
         is on this one any more, on no host, clear it yourself: wipefs --all, then blkdiscard --zeroout",
        path.display(),
        found.join("; ")
    )))
}

fn gib(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    let gib = bytes as f64 / (1_u64 << 30) as f64;
    format!("{gib:.1} GiB")
}

fn unreadable(call: &Call, error: &serde_json::Error) -> DeployError {
    DeployError::Refused(format!(
        "what `{call}` said cannot be read: {error}; is this util-linux 2.37 or later?"
    ))
}

/// Partitions, mounts, multipath, other device-mapper devices on it.
fn used_as(tools: &dyn Tools, path: &Path) -> Result<Vec<String>, DeployError> {
    let call = Call::new("lsblk").args(["--json", "--output", "NAME,TYPE,RO,MOUNTPOINTS"]).arg(path);
    let said = tools.run(&call)?;
    let blocks: Blocks = serde_json::from_str(&said.out).map_err(|error| unreadable(&call, &error))?;
    let mut found = Vec::new();
    for block in &blocks.blockdevices {
        if block.ro {
            found.push("it is read-only".to_owned());
        }
        let mounted: Vec<&str> = block.mountpoints.iter().flatten().map(String::as_str).collect();
        if !mounted.is_empty() {
            found.push(format!("it is mounted at {}", mounted.join(", ")));
        }
        found.extend(block.children.iter().map(|child| match child.kind.as_str() {
            "part" => format!("it has the partition {}", child.name),
            "mpath" => format!("it is one path of the multipath device {}: give that one's WWID", child.name),
            kind => format!("the device {} ({kind}) is on it", child.name),
        }));
    }
    Ok(found)
}

fn signatures(tools: &dyn Tools, path: &Path) -> Result<Vec<String>, DeployError> {
    let call = Call::new("wipefs").args(["--no-act", "--json"]).arg(path);
    let said = tools.run(&call)?;
    if said.out.trim().is_empty() {
        return Ok(Vec::new());
    }
    let all: Signatures = serde_json::from_str(&said.out).map_err(|error| unreadable(&call, &error))?;
    let one = |one: Signature| match one.kind.as_str() {
        "LVM2_member" => "it is a physical volume of LVM: see pvs".to_owned(),
        kind => format!("it has the signature of {kind} at {}", one.offset),
    };
    Ok(all.signatures.into_iter().map(one).collect())
}

/// The kernel gives a block device exclusively only when no file system, volume manager or cluster of paths has it.
fn is_open(path: &Path) -> Result<Option<String>, DeployError> {
    let meta = fs::metadata(path).map_err(DeployError::io("look at", path))?;
    if !meta.file_type().is_block_device() {
        return Ok(Some("it is no block device".to_owned()));
    }
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    match fs::OpenOptions::new().read(true).custom_flags(exclusive).open(path) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
            Ok(Some("something on this host uses it (see lsblk)".to_owned()))
        }
        Err(error) => Err(DeployError::io("open", path)(error)),
    }
}

/// Bytes at the ends that are not zeros.
fn edges(device: &Device) -> Result<Option<String>, DeployError> {
    let file = SharedFile::open(&device.path, false).map_err(crate::setup::SetupError::from)?;
    let tail = device.bytes.saturating_sub(EDGE).max(EDGE) / UNIT as u64 * UNIT as u64;
    for (start, end) in [(0, EDGE.min(device.bytes)), (tail, device.bytes)] {
        let mut at = start;
        while at < end {
            let length = usize::try_from(STEP.min(end - at)).unwrap_or(UNIT);
            let bytes = file.read(at, length).map_err(crate::setup::SetupError::from)?;
            if let Some(index) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Some(format!("there are data at byte {}", at + index as u64)));
            }
            at += STEP;
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
