//! Finding LUNs: looking for new ones on the host's buses, and listing those that are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ha_config::Paths;
use serde::Deserialize;

use crate::deploy::DeployError;
use crate::deploy::tools::{Call, Tools};

/// A LUN that could carry a storage domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLun {
    /// Its WWID, or the device's path where it has none.
    pub id: String,
    /// Its device now.
    pub device: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Maker and model.
    pub model: String,
    /// `iscsi`, `fc`, …; empty when unknown.
    pub transport: String,
    /// The iSCSI target that it is behind; empty when unknown.
    pub target: String,
    /// What is on it; empty when nothing is seen.
    pub used_as: String,
}

#[derive(Deserialize)]
struct Blocks {
    blockdevices: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    name: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    #[serde(default)]
    vendor: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    tran: Option<String>,
    #[serde(default)]
    fstype: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Block>,
}

/// Has the Fibre Channel adapters look for new LUNs. Gives how many adapters there are.
///
/// # Errors
/// There is none, or the kernel refuses.
pub fn rescan_fibre_channel(paths: &Paths) -> Result<usize, DeployError> {
    let hosts = paths.resolve("/sys/class/fc_host");
    let names: Vec<_> =
        fs::read_dir(&hosts).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    if names.is_empty() {
        return Err(DeployError::Refused(format!(
            "this host has no Fibre Channel adapter that the kernel knows ({} is empty): is its driver loaded?",
            hosts.display()
        )));
    }
    for name in &names {
        let scan = paths.resolve("/sys/class/scsi_host").join(name).join("scan");
        // Any channel, any target, any LUN.
        fs::write(&scan, "- - -").map_err(DeployError::io("look for new LUNs through", &scan))?;
    }
    Ok(names.len())
}

/// Waits until udev has made the devices of what was found. Where there is no udev there is nothing to wait for.
pub(super) fn settle(tools: &dyn Tools) {
    // What is still missing afterwards is said by whoever needs it.
    let _ = tools.ask(&Call::new("udevadm").args(["settle", "--timeout", "30"]));
}

/// The disks of this host that are not its own: multipath devices, and SCSI disks that are not part of one.
///
/// # Errors
/// When lsblk does not say.
pub fn luns(paths: &Paths, tools: &dyn Tools) -> Result<Vec<FoundLun>, DeployError> {
    let fields = "NAME,TYPE,SIZE,VENDOR,MODEL,TRAN,FSTYPE,MOUNTPOINTS";
    let call = Call::new("lsblk").args(["--json", "--bytes", "--paths", "--output", fields]);
    let said = tools.run(&call)?;
    let blocks: Blocks = serde_json::from_str(&said.out)
        .map_err(|error| DeployError::Refused(format!("what `{call}` said cannot be read: {error}")))?;
    let names = wwids(&paths.resolve("/dev/disk/by-id"));
    let targets = targets(&paths.resolve("/dev/disk/by-path"));
    let mut found: Vec<FoundLun> = Vec::new();
    for disk in blocks.blockdevices.iter().filter(|block| block.kind == "disk" && block.size > 0) {
        // Each path of a multipath device has it as its child.
        let device = disk.children.iter().find(|child| child.kind == "mpath").unwrap_or(disk);
        if found.iter().any(|known| known.device == device.name) || is_mounted(device) {
            continue;
        }
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        let by_name = device.name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = if device.kind == "mpath" {
            names.get(&canonical(&device.name)).cloned().unwrap_or(by_name)
        } else {
            names.get(&canonical(&device.name)).cloned().unwrap_or(device.name.display().to_string())
        };
        found.push(FoundLun {
            id,
            device: device.name.clone(),
            bytes: device.size,
            model: format!("{} {}", text(&disk.vendor), text(&disk.model)).trim().to_owned(),
            transport: text(&disk.tran),
            target: targets.get(&canonical(&disk.name)).cloned().unwrap_or_default(),
            used_as: match (&device.fstype, device.children.first()) {
                (Some(kind), _) => kind.clone(),
                (None, Some(child)) => child.kind.clone(),
                (None, None) => String::new(),
            },
        });
    }
    Ok(found)
}

fn is_mounted(block: &Block) -> bool {
    block.mountpoints.iter().flatten().next().is_some() || block.children.iter().any(is_mounted)
}

fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Devices by their links `scsi-<WWID>` and `dm-uuid-mpath-<WWID>`.
fn wwids(by_id: &Path) -> BTreeMap<PathBuf, String> {
    let links = fs::read_dir(by_id).into_iter().flatten().flatten();
    links
        .filter_map(|link| {
            let name = link.file_name().into_string().ok()?;
            let wwid = name.strip_prefix("dm-uuid-mpath-").or_else(|| name.strip_prefix("scsi-"))?;
            // Others are made of the maker's name; partitions have `-part1`.
            let is_wwid = wwid.len() >= 17 && wwid.chars().all(|c| c.is_ascii_hexdigit());
            is_wwid.then(|| (canonical(&link.path()), wwid.to_owned()))
        })
        .collect()
}

/// Devices by their links `ip-<address>:<port>-iscsi-<target>-lun-<number>`.
fn targets(by_path: &Path) -> BTreeMap<PathBuf, String> {
    let links = fs::read_dir(by_path).into_iter().flatten().flatten();
    links
        .filter_map(|link| {
            let name = link.file_name().into_string().ok()?;
            let (_, rest) = name.split_once("-iscsi-")?;
            let (target, lun) = rest.rsplit_once("-lun-")?;
            let is_whole = lun.bytes().all(|byte| byte.is_ascii_digit());
            is_whole.then(|| (canonical(&link.path()), target.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::Recorded;

    #[test]
    fn multipath_devices_stand_for_their_paths_and_the_hosts_own_disk_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let by_id = paths.resolve("/dev/disk/by-id");
        fs::create_dir_all(&by_id).unwrap();
        let device = |name: &str| {
            let path = paths.resolve("/dev").join(name);
            fs::write(&path, "").unwrap();
            path
        };
        let (sdc, mpath) = (device("sdc"), device("dm-0"));
        let wwid = "36001405a0b1c2d3e4f5061728394a5b6";
        std::os::unix::fs::symlink(&mpath, by_id.join(format!("dm-uuid-mpath-{wwid}"))).unwrap();
        std::os::unix::fs::symlink(&sdc, by_id.join("scsi-360014050000000000000000000000001")).unwrap();
        std::os::unix::fs::symlink(&sdc, by_id.join("scsi-SLIO-ORG_disk_1")).unwrap();
        let by_path = paths.resolve("/dev/disk/by-path");
        fs::create_dir_all(&by_path).unwrap();
        for (disk, name) in [
            (device("sda"), "ip-192.0.2.1:3260-iscsi-iqn.2014-07.org.example:he-lun-1"),
            (device("sda1"), "ip-192.0.2.1:3260-iscsi-iqn.2014-07.org.example:he-lun-1-part1"),
            (sdc.clone(), "pci-0000:3b:00.0-fc-0x500a098187197a5d-lun-0"),
        ] {
            std::os::unix::fs::symlink(disk, by_path.join(name)).unwrap();
        }
        let sda = paths.resolve("/dev/sda").display().to_string();
        let path = |disk: &str| {
            format!(
                r#"{{"name":"{disk}","type":"disk","size":1073741824,"vendor":"LIO-ORG ","model":"engine","tran":"iscsi",
                "fstype":"mpath_member","mountpoints":[null],"children":[{{"name":"{}","type":"mpath","size":1073741824,
                "vendor":null,"model":null,"tran":null,"fstype":"LVM2_member","mountpoints":[null]}}]}}"#,
                mpath.display()
            )
        };
        let out = format!(
            r#"{{"blockdevices":[{},{},{{"name":"{}","type":"disk","size":5,"vendor":"A","model":null,"tran":"fc",
            "fstype":null,"mountpoints":[null]}},{{"name":"/dev/vda","type":"disk","size":9,"vendor":"0x1af4","model":null,
            "tran":"virtio","fstype":null,"mountpoints":["/"]}},{{"name":"/dev/zram0","type":"disk","size":0,"vendor":null,
            "model":null,"tran":null,"fstype":null,"mountpoints":[null]}}]}}"#,
            path(&sda),
            path("/dev/sdb"),
            sdc.display()
        );
        let call =
            "lsblk --json --bytes --paths --output NAME,TYPE,SIZE,VENDOR,MODEL,TRAN,FSTYPE,MOUNTPOINTS";
        let tools = Recorded::new(&[(call, 0, &out, "")]);
        let found = luns(&paths, &tools).unwrap();
        assert_eq!(
            found,
            [
                FoundLun {
                    id: wwid.to_owned(),
                    device: mpath,
                    bytes: 1 << 30,
                    model: "LIO-ORG  engine".to_owned().replace("  ", " "),
                    transport: "iscsi".to_owned(),
                    target: "iqn.2014-07.org.example:he".to_owned(),
                    used_as: "LVM2_member".to_owned(),
                },
                FoundLun {
                    id: "360014050000000000000000000000001".to_owned(),
                    device: sdc,
                    bytes: 5,
                    model: "A".to_owned(),
                    transport: "fc".to_owned(),
                    target: String::new(),
                    used_as: String::new(),
                },
            ]
        );
    }

    #[test]
    fn each_fibre_channel_adapter_is_asked_to_look() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let error = rescan_fibre_channel(&paths).unwrap_err().to_string();
        assert!(error.contains("no Fibre Channel adapter"), "{error}");
        for (class, host) in [("fc_host", "host3"), ("scsi_host", "host3"), ("scsi_host", "host0")] {
            fs::create_dir_all(paths.resolve("/sys/class").join(class).join(host)).unwrap();
        }
        assert_eq!(rescan_fibre_channel(&paths).unwrap(), 1);
        let scan =
            |host: &str| fs::read_to_string(paths.resolve("/sys/class/scsi_host").join(host).join("scan"));
        assert_eq!(scan("host3").unwrap(), "- - -");
        assert!(scan("host0").is_err());
    }
}
