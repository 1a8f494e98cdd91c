//! Volumes: what their descriptions say, and making new ones.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use clock::{Clock, SystemClock};
use ha_config::KeyValueFile;
use sanlock_client::{Client, Disk, DiskPath, GridSize, LockspaceName, Resource, ResourceName};
use serde_json::{Value, json};

use super::domain::Domain;
use super::{BLANK, block, is_plain};
use crate::Failure;

/// What `Volume.create` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewVolume {
    pub pool: String,
    pub domain: String,
    pub image: String,
    pub volume: String,
    /// Bytes.
    pub capacity: u64,
    /// 4 copy-on-write, 5 raw.
    pub format: i64,
    /// 1 preallocated, 2 sparse.
    pub allocation: i64,
    pub description: String,
}

impl NewVolume {
    /// What VDSM finds wrong before it begins the task.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (name, value) in [("imgUUID", &self.image), ("volUUID", &self.volume)] {
            if !is_plain(value) || uuid::Uuid::parse_str(value).is_err() {
                return Err(Failure::invalid_parameter(name, value));
            }
        }
        if self.format != RAW {
            let what =
                if self.format == COW { "copy-on-write volumes are not made here" } else { "unknown format" };
            return Err(Failure::volume_creation(&format!("{what}: volFormat={}", self.format)));
        }
        if self.capacity == 0 || self.capacity > LARGEST {
            return Err(Failure::invalid_parameter("size", &self.capacity.to_string()));
        }
        Ok(())
    }
}

const COW: i64 = 4;
const RAW: i64 = 5;
const PREALLOCATED: i64 = 1;
pub(super) const SPARSE: i64 = 2;
/// A lease beside each volume, with sectors of 512 bytes.
const LEASE_BYTES: u64 = 1 << 20;
/// The largest volume that the stand-in makes.
const LARGEST: u64 = 1 << 40;

impl Domain {
    /// `Volume.getInfo`.
    pub(crate) fn volume_info(&self, image: &str, volume: &str) -> Result<Value, Failure> {
        let path = self.volume_path(image, volume)?;
        let about = match &self.group {
            None => path.with_extension("meta"),
            Some(group) => group.join(format!(".{volume}")),
        };
        let meta = KeyValueFile::load(about).map_err(|error| Failure::volume_metadata(&error.to_string()))?;
        let (lease, offset) = match &self.group {
            None => (path.with_extension("lease"), 0),
            Some(group) => block::lease_of(group, &meta),
        };
        let data = fs::metadata(&path).map_err(|_| Failure::no_such_volume(volume))?;
        let text = |key: &str| meta.get(key).unwrap_or_default().to_owned();
        let capacity = match meta.get("CAP") {
            Some(bytes) => bytes.to_owned(),
            // Older domains count sectors.
            None => text("SIZE")
                .parse()
                .map_or_else(|_| String::new(), |sectors: u64| (sectors * 512).to_string()),
        };
        Ok(json!({
            "uuid": volume,
            "image": image,
            "domain": self.id,
            "pool": "",
            "description": text("DESCRIPTION"),
            "format": text("FORMAT"),
            "type": text("TYPE"),
            "voltype": text("VOLTYPE"),
            "legality": text("LEGALITY"),
            "status": if text("LEGALITY") == "LEGAL" { "OK" } else { "INVALID" },
            "parent": text("PUUID"),
            "children": [],
            "ctime": text("CTIME"),
            "disktype": text("DISKTYPE"),
            "generation": text("GEN").parse::<i64>().unwrap_or(0),
            "apparentsize": data.len().to_string(),
            "truesize": (data.blocks() * 512).to_string(),
            "capacity": capacity,
            "lease": {"path": lease, "offset": offset},
        }))
    }

    /// Makes a volume, its lease and its description, in this order: what has no description does not exist.
    pub(super) fn create_volume(&self, new: &NewVolume, sanlock: Option<&Client>) -> Result<(), Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::volume_creation(&format!("{}: {error}", new.volume));
        if let Some(group) = &self.group {
            let (lease, offset) = self.create_on(group, new)?;
            return self
                .write_lease(&lease, offset, &new.volume, sanlock)
                .map_err(|error| failed(&format!("{error:#}")));
        }
        let directory = self.directory.join("images").join(&new.image);
        let path = directory.join(&new.volume);
        if path.exists() {
            return Err(Failure::volume_exists(&new.volume));
        }
        fs::create_dir_all(&directory).map_err(|error| failed(&error))?;
        self.own(&directory).map_err(|error| failed(&error))?;
        let file = self.file(&path).map_err(|error| failed(&error))?;
        let sized = match new.allocation {
            PREALLOCATED => {
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, new.capacity)
                    // Not every file system can.
                    .or_else(|_| rustix::fs::ftruncate(&file, new.capacity))
            }
            SPARSE => rustix::fs::ftruncate(&file, new.capacity),
            other => return Err(Failure::invalid_parameter("preallocate", &other.to_string())),
        };
        sized.map_err(|error| failed(&error))?;
        let lease = path.with_extension("lease");
        self.file(&lease).and_then(|file| file.set_len(LEASE_BYTES)).map_err(|error| failed(&error))?;
        self.write_lease(&lease, 0, &new.volume, sanlock).map_err(|error| failed(&format!("{error:#}")))?;
        let now = SystemClock.wall().0;
        let allocation = if new.allocation == SPARSE { "SPARSE" } else { "PREALLOCATED" };
        let text = format!(
            "CAP={}\nCTIME={now}\nDESCRIPTION={}\nDISKTYPE=DATA\nDOMAIN={}\nFORMAT=RAW\nGEN=0\nIMAGE={}\n\
             LEGALITY=LEGAL\nPUUID={BLANK}\nTYPE={allocation}\nVOLTYPE=LEAF\nEOF\n",
            new.capacity,
            new.description.replace(['\r', '\n'], " "),
            self.id,
            new.image
        );
        let mut meta = self.file(&path.with_extension("meta")).map_err(|error| failed(&error))?;
        meta.write_all(text.as_bytes()).and_then(|()| meta.sync_all()).map_err(|error| failed(&error))
    }

    fn write_lease(
        &self,
        path: &Path,
        offset: u64,
        name: &str,
        sanlock: Option<&Client>,
    ) -> anyhow::Result<()> {
        let Some(sanlock) = sanlock else { return Ok(()) };
        let resource = Resource {
            lockspace: LockspaceName::new(self.id.as_str())?,
            name: ResourceName::new(name)?,
            disks: vec![Disk { path: DiskPath::new(path)?, offset }],
        };
        Ok(sanlock.write_resource(&resource, 0, 0, Some(GridSize::Sector512Align1M))?)
    }

    fn file(&self, path: &Path) -> std::io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o660).open(path)?;
        self.own(path)?;
        Ok(file)
    }

    /// Everything on the storage belongs to whom the domain belongs.
    fn own(&self, path: &Path) -> std::io::Result<()> {
        let owner = fs::metadata(&self.directory)?;
        match std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }
}
