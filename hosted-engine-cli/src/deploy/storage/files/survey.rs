//! Looking at storage before there is a deployment: which clusters are on it, and which host ids they have free.

use std::fs;
use std::path::{Path, PathBuf};

use ha_config::Paths;
use uuid::Uuid;

use super::mount::{Mount, target};
use super::{attach_mount, local_directory};
use crate::deploy::storage::find::{Hosts, in_directory};
use crate::deploy::{DeployError, Storage, Tools};
use crate::setup::ClusterConf;

/// A cluster, as a host sees it that does not belong to it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCluster {
    /// Its storage domain.
    pub sd_uuid: Uuid,
    /// Its configuration.
    pub conf: ClusterConf,
    /// Its host ids.
    pub hosts: Hosts,
}

/// The clusters on file storage, which is mounted while one looks, unless it is already.
///
/// # Errors
/// When the storage cannot be reached, or a cluster on it cannot be read.
pub fn survey(paths: &Paths, tools: &dyn Tools, storage: &Storage) -> Result<Vec<FoundCluster>, DeployError> {
    let target = target(paths, storage);
    let Some(mount) = Mount::of(paths, storage)? else {
        let is_reached = target.symlink_metadata().is_ok();
        return look(&if is_reached { target } else { local_directory(paths, &storage.connection)? });
    };
    let missing: Vec<PathBuf> =
        target.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
    let is_ours = match attach_mount(paths, tools, &mount) {
        Ok(is_ours) => is_ours,
        Err(error) => {
            remove(&missing);
            return Err(error);
        }
    };
    let found = look(&target);
    if is_ours {
        let unmounted = Mount::unmount(tools, &target);
        remove(&missing);
        unmounted?;
    }
    found
}

/// Removes directories that looking has made; one that is in use by now stays.
fn remove(directories: &[PathBuf]) {
    for directory in directories {
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

fn look(place: &Path) -> Result<Vec<FoundCluster>, DeployError> {
    let mut all = Vec::new();
    for found in in_directory(place)? {
        let conf = ClusterConf::read(&found.configuration)?;
        let hosts = Hosts::of_domain(&place.join(found.sd_uuid.to_string()))?;
        all.push(FoundCluster { sd_uuid: found.sd_uuid, conf, hosts });
    }
    Ok(all)
}
