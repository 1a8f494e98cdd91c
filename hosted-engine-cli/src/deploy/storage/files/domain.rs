//! A storage domain of files, while it is made: what is in it, under which name it is, and when it may be removed.
//!
//! ```text
//! MNT/.<sd>.setup/            its name while it is made      MNT/<sd>/   its name when others may find it
//!   .hosted-engine-deploy     uuid of the deployment; removed last
//!   dom_md/                   ids, inbox, leases, metadata, outbox, xleases
//!   images/<image>/<volume>   and .meta, of the disk .lease too
//!   ha_agent/                 links to two of the volumes
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use metadata_format::HostId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::deploy::storage::find::Hosts;
use crate::deploy::{DeployError, FirstHost, Undo, Undone, VolumeIds, World};
use crate::setup::volume::{Owner, VolumeId};

/// Says whose deployment made a domain.
pub const MARKER: &str = ".hosted-engine-deploy";
/// The domain's own areas.
pub const AREAS: [&str; 6] = ["ids", "inbox", "leases", "metadata", "outbox", "xleases"];
/// Its directories.
pub const DIRECTORIES: [&str; 3] = ["dom_md", "images", "ha_agent"];

/// A storage domain that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeDomain {
    /// Where its storage is mounted.
    pub mount: PathBuf,
    /// Its uuid.
    pub sd: Uuid,
    /// The deployment that makes it.
    pub deploy: Uuid,
    /// Its volumes.
    pub volumes: Vec<VolumeIds>,
    /// The host that makes it: others' signs of life in it keep it.
    pub host: u16,
}

/// A storage domain that others find. Taken back, it is there still, under the name that it had while it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedDomain {
    /// The domain.
    pub domain: MadeDomain,
}

impl MadeDomain {
    /// That of a first host.
    pub fn of(mount: PathBuf, first: &FirstHost) -> Self {
        let ids = &first.ids;
        let volumes = vec![ids.metadata, ids.lockspace, ids.configuration, ids.disk];
        Self { mount, sd: ids.sd, deploy: ids.deploy, volumes, host: first.host.id }
    }

    /// Its name while it is made.
    pub fn unfinished(&self) -> PathBuf {
        self.mount.join(format!(".{}.setup", self.sd))
    }

    /// Its name when it is complete.
    pub fn complete(&self) -> PathBuf {
        self.mount.join(self.sd.to_string())
    }

    /// Where it is now: the complete name when it is neither.
    pub fn now(&self) -> PathBuf {
        let unfinished = self.unfinished();
        if unfinished.is_dir() { unfinished } else { self.complete() }
    }

    /// Why what is at `place` is not to be touched; `None` when it is this deployment's and nobody uses it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn objection(&self, place: &Path) -> Result<Option<String>, DeployError> {
        let marker = place.join(MARKER);
        let text = match fs::read_to_string(&marker) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(DeployError::io("read", &marker)(error)),
        };
        let mut left = BTreeSet::new();
        walk(place, place, &mut left).map_err(DeployError::io("read", place))?;
        if text.trim() != self.deploy.to_string() {
            // Cut before the marker was complete: then there is nothing else yet.
            let is_begun = place == self.unfinished() && left.iter().all(|path| path == Path::new(MARKER));
            return Ok((!is_begun).then(|| "another deployment made it".to_owned()));
        }
        if let Some(foreign) = left.iter().find(|path| !self.is_part(path)) {
            return Ok(Some(format!("{} is in it, which this deployment did not make", foreign.display())));
        }
        let others = Hosts::of_domain(place)?.others(HostId::new(self.host).ok());
        Ok(others.map(|others| format!("{others} uses it")))
    }

    /// Whether a path in the domain is one that a deployment makes.
    fn is_part(&self, path: &Path) -> bool {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        match parts[..] {
            [name] => name == MARKER || DIRECTORIES.contains(&name),
            ["dom_md", name] => AREAS.contains(&name) || is_temporary(name),
            ["ha_agent", name] => {
                matches!(name, "hosted-engine.metadata" | "hosted-engine.lockspace") || is_temporary(name)
            }
            ["images", image] => self.volumes.iter().any(|ids| ids.image.to_string() == image),
            ["images", image, name] => {
                let volume = name.strip_suffix(".meta").or_else(|| name.strip_suffix(".lease"));
                let volume = volume.unwrap_or(name);
                self.volumes
                    .iter()
                    .any(|ids| ids.image.to_string() == image && ids.volume.to_string() == volume)
                    || is_temporary(name)
            }
            _ => false,
        }
    }

    fn owner(&self, world: &World<'_>) -> Result<Owner, DeployError> {
        Owner::of(&self.mount, world.paths).map_err(DeployError::io("look at", &self.mount))
    }

    /// Gives it the other name.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn rename(&self, world: &World<'_>, from: &Path, to: &Path) -> Result<(), DeployError> {
        self.owner(world)?.act(|| fs::rename(from, to)).map_err(DeployError::io("rename", from))?;
        Ok(ha_config::atomic::sync_directory_of(to)?)
    }
}

/// A file on its way to another name, or one that an NFS client keeps for somebody who has it open.
fn is_temporary(name: &str) -> bool {
    name.starts_with(".hosted-engine.")
        || name.strip_prefix('.').is_some_and(|name| name.strip_suffix(".new").is_some())
        || name.starts_with(".nfs")
}

/// All that is below `directory`, by its path from `base`. Links are not followed.
fn walk(base: &Path, directory: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(base, &path, found)?;
        }
        found.insert(path.strip_prefix(base).unwrap_or(&path).to_owned());
    }
    Ok(())
}

/// Removes it, the marker last: as long as anything is there it says whose it is.
fn remove(place: &Path) -> io::Result<()> {
    for name in DIRECTORIES {
        match fs::remove_dir_all(place.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    match fs::remove_file(place.join(MARKER)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => other?,
    }
    fs::remove_dir(place)
}

impl Undo for MadeDomain {
    fn describe(&self) -> String {
        format!("storage domain {} in {}", self.sd, self.mount.display())
    }

    fn describe_undo(&self) -> String {
        "removed with its volumes when nothing else is in it and no other host uses it".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        super::must_be_connected(world)?;
        let place = self.now();
        if !place.is_dir() {
            return Ok(Undone::Absent);
        }
        if let Some(objection) = self.objection(&place)? {
            return Ok(Undone::LeftAlone(objection));
        }
        let unfinished = self.unfinished();
        if place != unfinished {
            self.rename(world, &place, &unfinished)?;
        }
        self.owner(world)?.act(|| remove(&unfinished)).map_err(DeployError::io("remove", &unfinished))?;
        ha_config::atomic::sync_directory_of(&unfinished)?;
        Ok(Undone::TakenBack)
    }
}

impl Undo for PublishedDomain {
    fn describe(&self) -> String {
        format!("storage domain {} for others to find", self.domain.sd)
    }

    fn describe_undo(&self) -> String {
        "hidden again when nothing else is in it and no other host uses it".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        super::must_be_connected(world)?;
        let complete = self.domain.complete();
        if !complete.is_dir() {
            return Ok(Undone::Absent);
        }
        if let Some(objection) = self.domain.objection(&complete)? {
            return Ok(Undone::LeftAlone(objection));
        }
        self.domain.rename(world, &complete, &self.domain.unfinished())?;
        Ok(Undone::TakenBack)
    }
}

/// Writes what was made in a domain's directories to the storage.
///
/// # Errors
/// When that fails.
pub fn sync(place: &Path) -> Result<(), DeployError> {
    for directory in DIRECTORIES {
        let path = place.join(directory);
        File::open(&path).and_then(|dir| dir.sync_all()).map_err(DeployError::io("sync", &path))?;
    }
    Ok(())
}

/// A volume's path in a domain.
pub fn volume_path(place: &Path, ids: VolumeIds) -> PathBuf {
    VolumeId { image: ids.image, volume: ids.volume }.path(place)
}
