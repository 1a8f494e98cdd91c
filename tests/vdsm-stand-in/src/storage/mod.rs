//! Storage domains on mounted folders and, in files, on block storage, as VDSM serves them.
//!
//! Blocking, and hangs with its storage as VDSM's threads do: callers put it on blocking threads.

mod block;
mod domain;
mod make;
mod monitor;
mod pool;
mod tasks;
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::Monotonic;
use ha_config::Paths;
use sanlock_client::Client;
use serde_json::{Value, json};

use crate::{Failure, lock};
use domain::Domain;
pub(crate) use make::NewDomain;
use make::mount_point;
use monitor::Monitor;
use pool::Pool;
use tasks::Tasks;
pub(crate) use volume::NewVolume;

/// VDSM's answer for a connection whose storage cannot be mounted.
const MOUNT_ERROR: i64 = 477;
/// VDSM's answer for a connection that it cannot make for another reason.
const CONNECTION_ERROR: i64 = 451;
/// VDSM's number of iSCSI.
const ISCSI: i64 = 3;
/// The id of "no pool" and of "any image".
const BLANK: &str = "00000000-0000-0000-0000-000000000000";

/// What the storage side is given.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// The host's paths.
    pub paths: Paths,
    /// sanlock's I/O time-out in seconds for joining; `None` for the daemon's own.
    pub io_timeout: Option<u32>,
    /// Whether leases are written and lockspaces joined. Otherwise a host id counts as acquired once the domain can be
    /// read: for tests without a lock manager.
    pub has_sanlock: bool,
    /// Pause between two looks at a monitored domain.
    pub interval: Duration,
}

/// The storage side of one host.
#[derive(Debug)]
pub struct Storage {
    settings: StorageSettings,
    sanlock: Option<Client>,
    monitors: Mutex<BTreeMap<String, Monitor>>,
    pool: Mutex<Option<Pool>>,
    tasks: Tasks,
}

impl Storage {
    /// Nothing is touched yet.
    pub fn new(settings: StorageSettings) -> Self {
        let sanlock = settings.has_sanlock.then(|| Client::new(settings.paths.sanlock_socket()));
        Self {
            settings,
            sanlock,
            monitors: Mutex::default(),
            pool: Mutex::default(),
            tasks: Tasks::default(),
        }
    }

    /// The host's paths.
    pub fn paths(&self) -> &Paths {
        &self.settings.paths
    }

    /// `StoragePool.connectStorageServer`: what somebody has mounted already counts as connected. In place of a server that
    /// exports it, a directory of this host is linked to: for `server:/path` the one at `/path`.
    pub(crate) fn connect(&self, domain_type: i64, connections: &[Value]) -> Result<Value, Failure> {
        if connections.is_empty() {
            return Err(Failure::invalid_parameter("conList", "[]"));
        }
        if domain_type == ISCSI {
            return Ok(each(connections, |one| block::log_in(self.paths(), one)));
        }
        self.statuses(domain_type, connections, |connection, path| {
            if is_mounted(path) || self.link(connection, path).is_ok_and(|is_linked| is_linked) {
                0
            } else {
                MOUNT_ERROR
            }
        })
    }

    /// `StoragePool.disconnectStorageServer`: what was linked is so no more; nothing is unmounted.
    pub(crate) fn disconnect(&self, domain_type: i64, connections: &[Value]) -> Result<Value, Failure> {
        if domain_type == ISCSI {
            return Ok(each(connections, |one| block::log_out(self.paths(), one)));
        }
        self.statuses(domain_type, connections, |_, path| match std::fs::remove_file(path) {
            Err(error) if path.is_symlink() => {
                tracing::warn!(%error, "cannot remove the link {}", path.display());
                MOUNT_ERROR
            }
            Ok(()) | Err(_) => 0,
        })
    }

    fn statuses(
        &self,
        domain_type: i64,
        all: &[Value],
        status: impl Fn(&str, &Path) -> i64,
    ) -> Result<Value, Failure> {
        match domain_type {
            1 | 6 | 7 => {}
            // There is nothing to connect.
            2 => return Ok(each(all, |_| CONNECTION_ERROR)),
            other => return Err(Failure::invalid_parameter("domType", &other.to_string())),
        }
        Ok(each(all, |one| {
            let connection = one["connection"].as_str().unwrap_or_default();
            let is_name = !connection.is_empty() && !connection.contains("..");
            let mount = mount_point(&self.settings.paths, domain_type, connection).filter(|_| is_name);
            mount.map_or(CONNECTION_ERROR, |mount| status(connection, &mount))
        }))
    }

    /// Makes the link to what stands for a server's export; false when there is none.
    fn link(&self, connection: &str, mount: &Path) -> std::io::Result<bool> {
        let Some((_, export)) = connection.split_once(":/") else { return Ok(false) };
        let export = self.settings.paths.resolve(Path::new("/").join(export));
        if !export.is_dir() || mount.is_symlink() {
            return Ok(mount.is_symlink());
        }
        if let Some(parent) = mount.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::os::unix::fs::symlink(export, mount).map(|()| true)
    }

    /// `Host.getDeviceList`.
    pub(crate) fn devices(&self, guids: &[String]) -> Value {
        block::devices(self.paths(), guids)
    }

    /// `Host.getLVMVolumeGroups`.
    pub(crate) fn volume_groups(&self) -> Value {
        block::volume_groups(self.paths())
    }

    /// `LVMVolumeGroup.create`.
    pub(crate) fn create_group(&self, name: &str, devices: &[String]) -> Result<String, Failure> {
        block::create_group(self.paths(), name, devices)
    }

    /// `LVMVolumeGroup.remove`.
    pub(crate) fn remove_group(&self, uuid: &str) -> Result<(), Failure> {
        block::remove_group(self.paths(), uuid)
    }

    /// `StorageDomain.create`.
    pub(crate) fn create_domain(&self, new: &NewDomain) -> Result<(), Failure> {
        let Self { settings, sanlock, .. } = self;
        make::make(&settings.paths, sanlock.as_ref(), settings.io_timeout, new)
    }

    /// `Host.getStorageDomains`.
    pub(crate) fn domains(&self) -> Vec<String> {
        Domain::all(&self.settings.paths)
    }

    /// A domain that is mounted now.
    pub(crate) fn domain(&self, id: &str) -> Result<Domain, Failure> {
        Domain::find(&self.settings.paths, id)
    }

    /// `Image.prepare`: links the image where VDSM's clients look for it. Gives the volume's path there.
    pub(crate) fn prepare(&self, domain: &str, image: &str, volume: &str) -> Result<PathBuf, Failure> {
        let found = self.domain(domain)?;
        let path = found.volume_path(image, volume)?;
        let place = self.settings.paths.prepared_volumes().join(domain);
        // Of file storage the image is linked, of block storage each volume.
        let (directory, link, target) = match found.group {
            None => (place.clone(), place.join(image), found.image_path(image)?),
            Some(_) => (place.join(image), place.join(image).join(volume), path),
        };
        let make = || -> std::io::Result<()> {
            std::fs::create_dir_all(&directory)?;
            match std::fs::read_link(&link) {
                Ok(present) if present == target => return Ok(()),
                Ok(_) => std::fs::remove_file(&link)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            match std::os::unix::fs::symlink(&target, &link) {
                // Another call was quicker.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        make().map_err(|_| Failure::image_path(&link.display().to_string()))?;
        Ok(place.join(image).join(volume))
    }

    /// `Image.teardown`.
    pub(crate) fn teardown(&self, domain: &str, image: &str) -> Result<(), Failure> {
        let found = self.domain(domain)?;
        let link = self.settings.paths.prepared_volumes().join(domain).join(image);
        if found.group.is_some() {
            if found.volumes(image)?.is_empty() {
                return Err(Failure::image_path(&link.display().to_string()));
            }
            return match std::fs::remove_dir_all(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::image_path(&link.display().to_string()))
                }
                _ => Ok(()),
            };
        }
        found.image_path(image)?;
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::image_path(&link.display().to_string()))
            }
            _ => Ok(()),
        }
    }

    /// `Volume.create`, on the host that manages the pool. Gives the task's id.
    pub(crate) fn create_volume(&self, new: NewVolume) -> Result<String, Failure> {
        self.must_be_spm(&new.pool, Failure::not_spm(&new.pool))?;
        let domain = self.domain(&new.domain)?;
        new.check()?;
        let sanlock = self.sanlock.clone();
        Ok(self.tasks.begin(move || domain.create_volume(&new, sanlock.as_ref())))
    }

    /// `Host.getAllTasksStatuses`.
    pub(crate) fn tasks(&self) -> Value {
        self.tasks.all()
    }

    /// `Task.getStatus`.
    pub(crate) fn task(&self, id: &str) -> Result<Value, Failure> {
        self.tasks.status(id)
    }

    /// `Task.clear`.
    pub(crate) fn clear_task(&self, id: &str) -> Result<(), Failure> {
        self.tasks.clear(id)
    }

    /// `Host.startMonitoringDomain`: joins the domain's lockspace, in the background. One that is monitored already
    /// stays as it is.
    pub(crate) fn start_monitoring(self: &Arc<Self>, domain: &str, host_id: u16) {
        let mut monitors = lock(&self.monitors);
        if !monitors.contains_key(domain) {
            let settings = self.settings.clone();
            monitors
                .insert(domain.to_owned(), Monitor::start(settings, self.sanlock.clone(), domain, host_id));
        }
    }

    /// `Host.stopMonitoringDomain`: leaves the lockspace, in the background.
    pub(crate) fn stop_monitoring(&self, domain: &str) -> Result<(), Failure> {
        let Some(monitor) = lock(&self.monitors).remove(domain) else { return Ok(()) };
        monitor.leave(self.sanlock.as_ref())
    }

    /// `Host.getStorageRepoStats`: the monitored ones among `domains`; all of them when none is named.
    pub(crate) fn repo_stats(&self, domains: &[String]) -> Value {
        let monitors = lock(&self.monitors);
        let wanted = monitors.iter().filter(|(id, _)| domains.is_empty() || domains.contains(id));
        wanted.map(|(id, monitor)| (id.clone(), monitor.stats())).collect::<serde_json::Map<_, _>>().into()
    }

    /// Whether a look at a monitored domain after `then` found it readable.
    pub(crate) fn is_well_since(&self, domain: &str, then: Monotonic) -> bool {
        lock(&self.monitors).get(domain).is_some_and(|monitor| monitor.is_well_since(then))
    }

    /// Where the lease `lease` of `domain` is: a volume's own one, else an external one (a VM's).
    pub(crate) fn lease(&self, domain: &str, lease: &str) -> Result<(PathBuf, u64), Failure> {
        self.domain(domain)?.lease(lease)
    }

    /// Where a volume is that somebody names by VDSM's path through the pool, or any other path of this host.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        let resolved = self.settings.paths.resolve(path);
        let parts: Vec<&str> = resolved.iter().rev().take(4).filter_map(|part| part.to_str()).collect();
        if let [volume, image, "images", domain] = parts.as_slice()
            && !resolved.exists()
            && let Ok(found) = self.domain(domain).and_then(|found| found.volume_path(image, volume))
        {
            return found;
        }
        resolved
    }
}

/// What `…StorageServer` answers: the status of each connection.
fn each(all: &[Value], status: impl Fn(&Value) -> i64) -> Value {
    all.iter().map(|one| json!({"id": one["id"], "status": status(one)})).collect()
}

/// Whether something is mounted exactly there.
fn is_mounted(path: &Path) -> bool {
    let marker = format!(" {} ", path.display());
    std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(&marker))
}

/// Whether a text can be one component of a path.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

#[cfg(test)]
mod tests;
