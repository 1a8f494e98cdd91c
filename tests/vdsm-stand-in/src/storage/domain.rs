//! One storage domain: its description, its images, its leases.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ha_config::{KeyValueFile, Paths};
use serde_json::{Value, json};
use xleases::LeaseName;

use super::{BLANK, block, is_plain};
use crate::Failure;

/// Where storage may be mounted on this host.
fn mounts(paths: &Paths) -> Vec<PathBuf> {
    let mounts = paths.storage_mounts();
    let roots = [mounts.clone(), mounts.join("glusterSD")];
    roots
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name() != "blockSD")
        .map(|entry| entry.path())
        .collect()
}

/// A domain that is mounted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(super) id: String,
    pub(super) directory: PathBuf,
    /// The directory of its volumes, when it is on a volume group.
    pub(super) group: Option<PathBuf>,
}

impl Domain {
    /// Looks through all mounts.
    pub(crate) fn find(paths: &Paths, id: &str) -> Result<Self, Failure> {
        let mut candidates: Vec<PathBuf> = mounts(paths).into_iter().map(|mount| mount.join(id)).collect();
        candidates.sort();
        let found = candidates.into_iter().find(|directory| directory.join("dom_md/metadata").is_file());
        match found {
            Some(directory) if is_plain(id) => Ok(Self { id: id.to_owned(), directory, group: None }),
            _ => block::find(paths, id).ok_or_else(|| Failure::no_such_domain(id)),
        }
    }

    /// The ids of all that are mounted.
    pub(super) fn all(paths: &Paths) -> Vec<String> {
        let entries =
            mounts(paths).into_iter().filter_map(|mount| fs::read_dir(mount).ok()).flatten().flatten();
        let domains = entries.filter(|entry| entry.path().join("dom_md/metadata").is_file());
        let names = domains.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| uuid::Uuid::parse_str(name).is_ok())
            .chain(block::all(paths))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    pub(super) fn metadata_file(&self) -> PathBuf {
        match &self.group {
            None => self.directory.join("dom_md/metadata"),
            Some(group) => group.join(block::TAGS),
        }
    }

    /// The domain's lockspace.
    pub(super) fn ids_file(&self) -> PathBuf {
        self.directory.join("dom_md/ids")
    }

    pub(super) fn metadata(&self) -> Result<KeyValueFile, Failure> {
        KeyValueFile::load(self.metadata_file()).map_err(|error| Failure::domain_action(&error.to_string()))
    }

    /// The format's version.
    pub(super) fn version(&self) -> Result<i64, Failure> {
        let metadata = self.metadata()?;
        Ok(metadata.get("VERSION").and_then(|text| text.parse().ok()).unwrap_or(-1))
    }

    /// `StorageDomain.getInfo`.
    pub(crate) fn info(&self) -> Result<Value, Failure> {
        let metadata = self.metadata()?;
        let text = |key: &str| metadata.get(key).unwrap_or_default().to_owned();
        let number =
            |key: &str, default: u64| metadata.get(key).and_then(|t| t.parse().ok()).unwrap_or(default);
        let pool = Some(text("POOL_UUID")).filter(|pool| !pool.is_empty() && pool != BLANK);
        let mut info = json!({
            "uuid": self.id,
            "type": text("TYPE"),
            "class": text("CLASS"),
            "name": text("DESCRIPTION"),
            "role": text("ROLE"),
            "pool": pool.into_iter().collect::<Vec<_>>(),
            "version": text("VERSION"),
            "block_size": number("BLOCK_SIZE", 512),
            "alignment": number("ALIGNMENT", 1 << 20),
        });
        match self.group {
            None => info["remotePath"] = text("REMOTE_PATH").into(),
            Some(_) => info["vguuid"] = text("VGUUID").into(),
        }
        Ok(info)
    }

    /// `StorageDomain.getStats`.
    pub(crate) fn stats(&self) -> Result<Value, Failure> {
        let failed = |error: std::io::Error| Failure::domain_action(&format!("sdUUID={}: {error}", self.id));
        if let Some(group) = &self.group {
            self.refresh(group).map_err(failed)?;
        }
        let space = rustix::fs::statvfs(&self.directory).map_err(|error| failed(error.into()))?;
        Ok(json!({
            "mdasize": 0,
            "mdathreshold": true,
            "mdavalid": true,
            "diskfree": (space.f_bavail * space.f_frsize).to_string(),
            "disktotal": (space.f_blocks * space.f_frsize).to_string(),
            "mdafree": 0,
        }))
    }

    /// `StorageDomain.getImages`.
    pub(crate) fn images(&self) -> Result<Vec<String>, Failure> {
        if let Some(group) = &self.group {
            let all = block::described(group).into_iter();
            let images = all.filter_map(|(_, about)| about.get("IMAGE").map(str::to_owned));
            return Ok(images.collect::<BTreeSet<_>>().into_iter().collect());
        }
        let entries = fs::read_dir(self.directory.join("images"))
            .map_err(|error| Failure::domain_action(&format!("sdUUID={}: {error}", self.id)))?;
        let names = entries.flatten().filter(|entry| entry.path().is_dir());
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names
            .filter(|name| uuid::Uuid::parse_str(name).is_ok())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect())
    }

    /// `StorageDomain.getVolumes`: of one image, or of all when `image` is blank.
    pub(crate) fn volumes(&self, image: &str) -> Result<Vec<String>, Failure> {
        let images = if image == BLANK || image.is_empty() { self.images()? } else { vec![image.to_owned()] };
        if let Some(group) = &self.group {
            let all = block::described(group).into_iter();
            let is_wanted =
                |about: &KeyValueFile| images.iter().any(|image| about.get("IMAGE") == Some(image));
            return Ok(all.filter(|(_, about)| is_wanted(about)).map(|(name, _)| name).collect());
        }
        let mut found = BTreeSet::new();
        for image in images.iter().filter(|image| is_plain(image)) {
            for entry in
                fs::read_dir(self.directory.join("images").join(image)).into_iter().flatten().flatten()
            {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "meta")
                    && let Some(name) = path.file_stem().and_then(|name| name.to_str())
                {
                    found.insert(name.to_owned());
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The directory of an image that exists.
    pub(crate) fn image_path(&self, image: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.join("images").join(image);
        if is_plain(image) && path.is_dir() {
            Ok(path)
        } else {
            Err(Failure::image_path(&path.display().to_string()))
        }
    }

    /// The file of a volume that exists.
    pub(crate) fn volume_path(&self, image: &str, volume: &str) -> Result<PathBuf, Failure> {
        let path = match &self.group {
            None => self.directory.join("images").join(image).join(volume),
            Some(group) if self.volumes(image)?.iter().any(|name| name == volume) => group.join(volume),
            Some(_) => return Err(Failure::no_such_volume(volume)),
        };
        if is_plain(image) && is_plain(volume) && path.is_file() {
            Ok(path)
        } else {
            Err(Failure::no_such_volume(volume))
        }
    }

    /// Path and offset of a lease.
    pub(super) fn lease(&self, lease: &str) -> Result<(PathBuf, u64), Failure> {
        if !is_plain(lease) {
            return Err(Failure::invalid_parameter("lease", lease));
        }
        if let Some(group) = &self.group
            && let Some((_, about)) = block::described(group).into_iter().find(|(name, _)| name == lease)
        {
            return Ok(block::lease_of(group, &about));
        }
        let images = self.images()?;
        let own = images
            .iter()
            .map(|image| self.directory.join("images").join(image).join(format!("{lease}.lease")));
        if let Some(path) = own.into_iter().find(|path| path.is_file()) {
            return Ok((path, 0));
        }
        let index = self.directory.join("dom_md/xleases");
        let missing = |why: &dyn std::fmt::Display| {
            Failure::domain_action(&format!("there is no lease {lease} in the domain {}: {why}", self.id))
        };
        let name = LeaseName::new(lease).map_err(|error| missing(&error))?;
        let volume = xleases::open_to_read(&index, None).map_err(|error| missing(&error))?;
        let found = volume.lookup(&name).map_err(|error| missing(&error))?;
        Ok((index, found.offset))
    }
}
