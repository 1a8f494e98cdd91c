//! Block storage in files: LUNs, volume groups on them, and storage domains on volume groups.
//!
//! | on a real host | here, below the root |
//! | --- | --- |
//! | the LUNs behind a target | the files in `/srv/iscsi/TARGET`, named by their GUIDs |
//! | a LUN's multipath device | `/dev/mapper/GUID`: a link to such a file while its target is logged in to, or a file |
//! | a session | `/sys/class/iscsi_session/TARGET/targetname` |
//! | a volume group on a LUN, which other hosts see, too | the directory `FILE.vg` beside the LUN's file, `/dev/NAME` a link to it |
//! | a logical volume | a file in it |
//! | what VDSM keeps in tags of the group and in the domain's `metadata` | `.group` and `.VOLUME` in it |
//!
//! Sizes are those of the volumes: extents are of 1 MiB, VDSM's of 128. A new volume has what was on the LUN before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use clock::{Clock, SystemClock};
use ha_config::{KeyValueFile, Paths};
use serde_json::{Value, json};

use super::domain::Domain;
use super::make::{MIB, NewDomain, write_leases};
use super::volume::{NewVolume, SPARSE};
use super::{CONNECTION_ERROR, is_plain};
use crate::Failure;

/// VDSM's answer for a login that fails.
const LOGIN_ERROR: i64 = 464;
/// VDSM makes volume groups on nothing smaller.
const LEAST: u64 = 10 << 30;
/// What VDSM keeps in the group's tags.
pub(super) const TAGS: &str = ".group";
/// A group that is no domain yet, and one that is.
const UNREADY: &str = "RHAT_storage_domain_UNREADY";
const READY: &str = "RHAT_storage_domain";
/// Volumes that have a lease.
const MOST_VOLUMES: u64 = 1947;
/// Leases of a domain that belong to no volume.
const RESERVED_LEASES: u64 = 100;
/// The domain's own volumes in MiB, with `metadata` the first.
const SPECIAL: [(&str, u64); 7] = [
    ("metadata", 128),
    ("ids", 8),
    ("inbox", 16),
    ("outbox", 16),
    ("leases", 2048),
    ("xleases", 1024),
    ("master", 1024),
];

/// Logs in to a target. Gives the status of the connection.
pub(super) fn log_in(paths: &Paths, connection: &Value) -> i64 {
    let target = connection["iqn"].as_str().unwrap_or_default();
    let luns = paths.resolve("/srv/iscsi").join(target);
    if !is_plain(target) || !luns.is_dir() || connection["connection"].as_str().is_none_or(str::is_empty) {
        return LOGIN_ERROR;
    }
    let session = session(paths, target);
    let make = || -> io::Result<()> {
        fs::create_dir_all(&session)?;
        fs::write(session.join("targetname"), format!("{target}\n"))?;
        let mapper = paths.resolve("/dev/mapper");
        fs::create_dir_all(&mapper)?;
        for lun in files(&luns) {
            let device = mapper.join(lun.file_name().unwrap_or_default());
            if !device.is_symlink() {
                symlink(&lun, device)?;
            }
        }
        Ok(())
    };
    if make().is_ok() { 0 } else { CONNECTION_ERROR }
}

/// Logs out of a target: its LUNs and what is on them go. Gives the status of the connection.
pub(super) fn log_out(paths: &Paths, connection: &Value) -> i64 {
    let target = connection["iqn"].as_str().unwrap_or_default();
    if !is_plain(target) {
        return CONNECTION_ERROR;
    }
    let luns = paths.resolve("/srv/iscsi").join(target);
    for device in files(&paths.resolve("/dev/mapper")) {
        if fs::read_link(&device).is_ok_and(|lun| lun.starts_with(&luns)) {
            for group in groups(paths).into_iter().filter(|group| group.device == device) {
                let _ = fs::remove_file(group.volumes);
            }
            let _ = fs::remove_file(device);
        }
    }
    let _ = fs::remove_dir_all(session(paths, target));
    0
}

fn session(paths: &Paths, target: &str) -> PathBuf {
    paths.resolve("/sys/class/iscsi_session").join(target)
}

/// Files and links to files, in their order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    all.sort();
    all
}

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    uuid: String,
    tag: String,
    /// `/dev/mapper/GUID`
    device: PathBuf,
    /// `/dev/NAME`
    volumes: PathBuf,
}

impl Group {
    fn on(paths: &Paths, device: &Path) -> Option<Self> {
        let place = place(device)?;
        let about = KeyValueFile::load(place.join(TAGS)).ok()?;
        let text = |key: &str| about.get(key).map(str::to_owned);
        let group = Self {
            name: text("NAME")?,
            uuid: text("VGUUID")?,
            tag: text("TAG")?,
            device: device.to_owned(),
            volumes: paths.resolve("/dev").join(text("NAME")?),
        };
        if !group.volumes.is_symlink() {
            symlink(&place, &group.volumes).ok()?;
        }
        Some(group)
    }
}

/// Where the group on a LUN is.
fn place(device: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(device).ok()?.with_added_extension("vg"))
}

/// All groups on LUNs that this host sees.
fn groups(paths: &Paths) -> Vec<Group> {
    files(&paths.resolve("/dev/mapper")).iter().filter_map(|device| Group::on(paths, device)).collect()
}

/// `Host.getDeviceList`, of these or of all.
pub(super) fn devices(paths: &Paths, guids: &[String]) -> Value {
    let all = files(&paths.resolve("/dev/mapper"));
    let device = |path: &PathBuf| {
        let guid = path.file_name()?.to_str()?.to_owned();
        let bytes = fs::metadata(path).ok()?.len();
        let group = Group::on(paths, path);
        (guids.is_empty() || guids.contains(&guid)).then(|| {
            json!({
                "GUID": guid, "capacity": bytes.to_string(), "devtype": "iSCSI", "fwrev": "",
                "logicalblocksize": "512", "physicalblocksize": "512", "pathlist": [], "pathstatus": [],
                "productID": "file", "pvUUID": "", "pvsize": "", "serial": "", "vendorID": "",
                "status": if group.is_some() { "used" } else { "free" },
                "vgUUID": group.map_or_else(String::new, |group| group.uuid),
            })
        })
    };
    all.iter().filter_map(device).collect()
}

/// `Host.getLVMVolumeGroups`.
pub(super) fn volume_groups(paths: &Paths) -> Value {
    groups(paths).into_iter().map(|group| json!({"name": group.name, "vgUUID": group.uuid})).collect()
}

/// `LVMVolumeGroup.create` on one LUN. Gives the group's UUID.
pub(super) fn create_group(paths: &Paths, name: &str, guids: &[String]) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::volume_group(502, "Cannot create Volume Group", &error.to_string())
    };
    if uuid::Uuid::parse_str(name).is_err() {
        return Err(Failure::invalid_parameter("vgname", name));
    }
    let [guid] = guids else { return Err(Failure::invalid_parameter("devlist", &guids.join(","))) };
    let device = paths.resolve("/dev/mapper").join(guid);
    if !is_plain(guid) || !device.is_file() {
        return Err(Failure::volume_group(606, "Multipath cannot access physical device(s)", guid));
    }
    if fs::metadata(&device).map_err(|error| failed(&error))?.len() < LEAST {
        return Err(Failure::volume_group(
            504,
            "Volume Group not big enough",
            "VG size must be at least 10240 MiB",
        ));
    }
    if Group::on(paths, &device).is_some() {
        return Err(Failure::volume_group(601, "Failed to initialize physical device", guid));
    }
    if groups(paths).iter().any(|group| group.name == name) {
        return Err(Failure::volume_group(505, "Volume Group Already Exists", name));
    }
    let uuid = uuid::Uuid::new_v4().to_string();
    let place = place(&device).ok_or_else(|| failed(guid))?;
    fs::create_dir(&place)
        .and_then(|()| fs::write(place.join(TAGS), format!("NAME={name}\nVGUUID={uuid}\nTAG={UNREADY}\n")))
        .map_err(|error| failed(&error))?;
    groups(paths);
    Ok(uuid)
}

/// `LVMVolumeGroup.remove`, with all that is in it.
pub(super) fn remove_group(paths: &Paths, uuid: &str) -> Result<(), Failure> {
    let Some(group) = groups(paths).into_iter().find(|group| group.uuid == uuid) else {
        return Err(Failure::volume_group(506, "Volume Group does not exist", uuid));
    };
    remove(&group)
        .map_err(|error| Failure::volume_group(508, "Volume Group remove error", &error.to_string()))
}

fn remove(group: &Group) -> io::Result<()> {
    let place = fs::canonicalize(&group.volumes)?;
    fs::remove_dir_all(place)?;
    fs::remove_file(&group.volumes)
}

/// Where VDSM has the tree of a domain.
fn tree(paths: &Paths, id: &str) -> PathBuf {
    paths.storage_mounts().join("blockSD").join(id)
}

fn domain_of(paths: &Paths, group: Group) -> Option<Domain> {
    let directory = tree(paths, &group.name);
    (group.tag == READY).then_some(Domain { id: group.name, directory, group: Some(group.volumes) })
}

/// A domain on a group.
pub(super) fn find(paths: &Paths, id: &str) -> Option<Domain> {
    domain_of(paths, groups(paths).into_iter().find(|group| group.name == id)?)
}

/// All domains on groups.
pub(super) fn all(paths: &Paths) -> Vec<String> {
    groups(paths).into_iter().filter_map(|group| Some(domain_of(paths, group)?.id)).collect()
}

/// `StorageDomain.create` on a group that is none yet.
pub(super) fn make(
    paths: &Paths,
    sanlock: Option<&sanlock_client::Client>,
    io_timeout: Option<u32>,
    new: &NewDomain,
) -> Result<(), Failure> {
    let failed =
        |detail: &dyn std::fmt::Display| Failure::domain_creation(&format!("sdUUID={}: {detail}", new.id));
    let Some(group) = groups(paths).into_iter().find(|group| group.uuid == new.connection) else {
        return Err(Failure::volume_group(506, "Volume Group does not exist", &new.connection));
    };
    if group.tag != UNREADY {
        return Err(Failure::volume_group(
            515,
            "Volume Group has domain tag - requires cleaning",
            &group.uuid,
        ));
    }
    if group.name != new.id || new.block_size != 512 {
        return Err(failed(&"the group must have the domain's name, and its sectors 512 bytes"));
    }
    let kind = if new.domain_type == 3 { "ISCSI" } else { "FCP" };
    let build = || -> anyhow::Result<()> {
        for (name, mib) in SPECIAL {
            File::create_new(group.volumes.join(name))?.set_len(mib * MIB)?;
        }
        let volume = |name: &str| group.volumes.join(name);
        if let Some(sanlock) = sanlock {
            write_leases(sanlock, io_timeout, &new.id, &volume("ids"), &volume("leases"))?;
        }
        let text = format!(
            "NAME={}\nVGUUID={}\nTAG={READY}\nALIGNMENT={MIB}\nBLOCK_SIZE=512\nCLASS=Data\nDESCRIPTION={}\n\
             MASTER_VERSION=0\nPOOL_UUID=\nROLE=Regular\nSDUUID={}\nTYPE={kind}\nVERSION=5\n",
            group.name,
            group.uuid,
            new.name.replace(['\r', '\n'], " "),
            new.id
        );
        let tags = volume(TAGS);
        fs::write(tags.with_extension("new"), text)?;
        Ok(fs::rename(tags.with_extension("new"), tags)?)
    };
    build().map_err(|error| failed(&error))
}

/// Descriptions of the volumes on a group, by their names.
pub(super) fn described(volumes: &Path) -> Vec<(String, KeyValueFile)> {
    let hidden = files(volumes).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_prefix('.')?.to_owned();
        let about = KeyValueFile::load(&path).ok()?;
        about.get("IMAGE").is_some().then_some((name, about))
    });
    hidden.collect()
}

/// Where the lease of a volume on a group is: among the domain's own, by the volume's slot in `metadata`.
pub(super) fn lease_of(volumes: &Path, about: &KeyValueFile) -> (PathBuf, u64) {
    let slot = about.get("SLOT").and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    (volumes.join("leases"), (RESERVED_LEASES + slot) * MIB)
}

impl Domain {
    /// Makes the tree by which hosts see a domain on a group; VDSM does when it looks at the domain.
    pub(super) fn refresh(&self, volumes: &Path) -> io::Result<()> {
        for name in ["images", "dom_md"] {
            fs::create_dir_all(self.directory.join(name))?;
        }
        for (name, _) in SPECIAL {
            let link = self.directory.join("dom_md").join(name);
            if !link.is_symlink() {
                symlink(volumes.join(name), link)?;
            }
        }
        Ok(())
    }

    /// `Volume.create` on a group.
    pub(super) fn create_on(&self, volumes: &Path, new: &NewVolume) -> Result<(PathBuf, u64), Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::volume_creation(&format!("{}: {error}", new.volume));
        if new.allocation == SPARSE {
            return Err(Failure::new(202, "Incorrect Volume format: ('RAW',)"));
        }
        let path = volumes.join(&new.volume);
        if path.exists() {
            return Err(Failure::volume_exists(&new.volume));
        }
        let used: Vec<u64> =
            described(volumes).iter().filter_map(|(_, about)| about.get("SLOT")?.parse().ok()).collect();
        let slot =
            (1..=MOST_VOLUMES).find(|slot| !used.contains(slot)).ok_or_else(|| failed(&"no slot is free"))?;
        let bytes = new.capacity.div_ceil(MIB) * MIB;
        let make = || -> io::Result<()> {
            let volume = File::create_new(&path)?;
            volume.set_len(bytes)?;
            volume.write_all_at(&[0xa5; 8192], 0)?;
            let text = format!(
                "CAP={}\nCTIME={}\nDESCRIPTION={}\nDISKTYPE={}\nDOMAIN={}\nFORMAT=RAW\nGEN=0\nIMAGE={}\nLEGALITY=LEGAL\n\
                 PUUID={}\nSLOT={slot}\nTYPE=PREALLOCATED\nVOLTYPE=LEAF\nEOF\n",
                new.capacity,
                SystemClock.wall().0,
                new.description.replace(['\r', '\n'], " "),
                "DATA",
                self.id,
                new.image,
                super::BLANK,
            );
            fs::write(volumes.join(format!(".{}", new.volume)), text)
        };
        make().map_err(|error| failed(&error))?;
        Ok((volumes.join("leases"), (RESERVED_LEASES + slot) * MIB))
    }

    /// Removes a domain on a group, and the group.
    pub(super) fn remove_on(&self, paths: &Paths) -> io::Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        let group = groups(paths).into_iter().find(|group| group.name == self.id);
        group.map_or(Ok(()), |group| remove(&group))
    }
}
