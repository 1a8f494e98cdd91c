//! What this host has of a block storage domain outside of LVM: the devices' owner, and the directories and links by which
//! VDSM and this product know the volumes. All of it is made anew after a boot.
//!
//! ```text
//! /run/vdsm/storage/<sd>/<image>/<volume>                     → /dev/<sd>/<volume>
//! /rhev/data-center/mnt/blockSD/<sd>/dom_md/{ids,leases,…}    → /dev/<sd>/{ids,leases,…}
//! /rhev/data-center/mnt/blockSD/<sd>/ha_agent/hosted-engine.* → /run/vdsm/storage/<sd>/<image>/<volume>
//! ```

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use ha_config::Paths;
use uuid::Uuid;

use super::super::Role;
use super::{layout, lvm};
use crate::deploy::made::{Made, MadeDirectory, MadeLink};
use crate::deploy::{DeployError, VolumeIds};

/// Takes part in making: through a job's journal, or without one after a boot.
pub(super) type Maker<'m> =
    &'m mut dyn FnMut(Made, &mut dyn FnMut() -> Result<(), DeployError>) -> Result<(), DeployError>;

/// `vdsm`, the same number on every host.
const VDSM: u32 = 36;
/// `kvm`.
const KVM: u32 = 36;

/// The domain's directory on this host.
pub(super) fn domain_directory(paths: &Paths, sd: Uuid) -> PathBuf {
    paths.storage_mounts().join("blockSD").join(sd.to_string())
}

/// A volume's path on this host.
pub(super) fn volume(paths: &Paths, sd: Uuid, ids: VolumeIds) -> PathBuf {
    let domain = paths.prepared_volumes().join(sd.to_string());
    domain.join(ids.image.to_string()).join(ids.volume.to_string())
}

/// Links of a domain with these volumes.
fn wanted(paths: &Paths, sd: Uuid, volumes: &[(Role, VolumeIds)]) -> Vec<(PathBuf, PathBuf)> {
    let group = layout::group(sd);
    let domain = domain_directory(paths, sd);
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    for name in layout::USED {
        links.push((domain.join("dom_md").join(name), lvm::volume_device(paths, &group, name)));
    }
    for (role, ids) in volumes {
        let path = volume(paths, sd, *ids);
        links.push((path.clone(), lvm::volume_device(paths, &group, &ids.volume.to_string())));
        if matches!(role, Role::Metadata | Role::Lockspace) {
            links.push((domain.join("ha_agent").join(layout::description(*role)), path));
        }
    }
    links
}

/// Makes the links, and gives the devices to those who use them.
pub(super) fn make(
    paths: &Paths,
    sd: Uuid,
    volumes: &[(Role, VolumeIds)],
    maker: Maker<'_>,
) -> Result<(), DeployError> {
    let group = layout::group(sd);
    let names = volumes.iter().map(|(_, ids)| ids.volume.to_string());
    for name in layout::USED.into_iter().map(ToOwned::to_owned).chain(names) {
        give(paths, &lvm::volume_device(paths, &group, &name))?;
    }
    for (link, target) in wanted(paths, sd, volumes) {
        directories(link.parent().unwrap_or(Path::new("/")), maker)?;
        match fs::read_link(&link) {
            Ok(present) if present == target => continue,
            Ok(present) => {
                return Err(DeployError::Refused(format!(
                    "{} leads to {} and not to {}: another storage manager has put it there; remove it if nobody needs it",
                    link.display(),
                    present.display(),
                    target.display()
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(DeployError::io("read the link", &link)(error)),
        }
        maker(MadeLink { path: link.clone(), target: target.clone() }.into(), &mut || {
            symlink(&target, &link).map_err(DeployError::io("create the link", &link))
        })?;
    }
    Ok(())
}

/// Makes a directory and those above it.
fn directories(path: &Path, maker: Maker<'_>) -> Result<(), DeployError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        maker(MadeDirectory { path: path.to_owned() }.into(), &mut || {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(path)
                .map_err(DeployError::io("create the directory", path))
        })?;
    }
    Ok(())
}

/// On a true host the daemons' user gets a device that is active, and the error says what to do where it is missing. The
/// rules for udev that the packages install do the same for later events.
fn give(paths: &Paths, device: &Path) -> Result<(), DeployError> {
    fs::metadata(device).map_err(|error| {
        DeployError::Refused(format!(
            "LVM has activated a volume, and its device {} is not there ({error}): does udev run? lvm vgmknodes makes the \
             devices without it",
            device.display()
        ))
    })?;
    if paths.is_real_host() && rustix::process::geteuid().is_root() {
        chown(device, Some(VDSM), Some(KVM)).map_err(DeployError::io("set the owner of", device))?;
    }
    Ok(())
}
