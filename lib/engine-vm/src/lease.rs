//! The VM's lease: taken by the launcher for the process that becomes QEMU, or by libvirt below VDSM; asked about by
//! everybody else.
//!
//! Blocking calls with deadlines; async callers use a blocking thread. Nothing here breaks a lease.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::ha_toml::LeaseAdapter;
use ha_config::{ConfigError, HaToml, HostedEngineConf};
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;
use sanlock_client::{
    AcquireOptions, Client, Disk, DiskPath, LockspaceName, Refusal, Registration, Resource, ResourceName,
    SanlockError,
};
use serde::{Deserialize, Serialize};

use crate::domain_xml::{self, LeaseTarget};
use crate::indexed_lease::IndexedLease;
use crate::port::{LeaseHolding, VmError};

/// How long sanlock may take to answer. An acquire of a free lease is a few small writes; on storage that needs
/// longer than this the VM cannot live anyway.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long sanlock may take to tell an owner: some reads of storage.
const QUESTION: Duration = Duration::from_secs(5);

/// Whose the lease is, by its record on storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseOwner {
    /// Nobody's.
    Nobody,
    /// This host's, and it took the lease since it last joined the lockspace.
    ThisHost,
    /// Another's, or of an earlier life of this host.
    Other {
        /// Who, in words.
        detail: String,
    },
}

/// Where the VM's lease is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LeaseSpec {
    /// By sanlock on shared storage: for any number of hosts.
    Sanlock {
        /// The daemon's socket.
        socket: PathBuf,
        /// The storage domain's lockspace, which this host must have joined.
        lockspace: String,
        /// The resource's name.
        resource: String,
        /// The file or device that the resource is in.
        path: PathBuf,
        /// Byte offset of the resource.
        offset: u64,
    },
    /// By sanlock, in the storage domain's volume of VM leases. Where the lease is there, the volume's index says, anew at
    /// each use.
    Indexed(Box<IndexedLease>),
    /// By a lock on a file: for one machine (one kernel) only.
    File {
        /// The file; made when it is not there.
        path: PathBuf,
    },
}

/// Why a lease was not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("{0}")]
    Held(String),
    /// There is none in its place.
    #[error("{0}")]
    Missing(String),
    /// It cannot be had at all now.
    #[error("{0}")]
    Unavailable(String),
    /// This kind of lease cannot do that.
    #[error("a file lease cannot be handed to another process")]
    Unsupported,
}

/// A lease, or only a registration, of this process. It ends with the last descriptor of it.
#[derive(Debug)]
pub enum Holding {
    /// sanlock's connection.
    Sanlock(Registration),
    /// The locked file.
    File(File),
}

impl Holding {
    /// Lets it survive `exec`.
    pub fn keep_across_exec(&self) -> io::Result<()> {
        match self {
            Self::Sanlock(registration) => registration.keep_across_exec().map_err(io::Error::other),
            Self::File(file) => Ok(rustix::io::fcntl_setfd(file, FdFlags::empty())?),
        }
    }
}

impl LeaseSpec {
    /// The lease that protects the engine VM on a host without VDSM.
    ///
    /// # Errors
    /// A key of hosted-engine.conf that the paths need.
    pub fn of_engine_vm(conf: &HostedEngineConf, toml: &HaToml) -> Result<Self, VmError> {
        let unusable = |error: ConfigError| VmError::Config { detail: error.to_string() };
        // QEMU and sanlock work in directories of their own.
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|e| VmError::Config {
                detail: format!("cannot make {} absolute: {e}", path.display()),
            })
        };
        if toml.lease.adapter == LeaseAdapter::File {
            return Ok(Self::File { path: conf.vm_lease_path().map_err(unusable).and_then(absolute)? });
        }
        let of_disk = || {
            let (path, offset) = conf.vm_lease_place().map_err(unusable)?;
            absolute(path).map(|path| (path, offset))
        };
        let socket = absolute(conf.paths().sanlock_socket())?;
        let lockspace = conf.sd_uuid().map_err(unusable)?.to_owned();
        let Some(name) = &toml.lease.vm else {
            let resource = conf.vm_lease_name().map_err(unusable)?.to_owned();
            let (path, offset) = of_disk()?;
            return Ok(Self::Sanlock { socket, lockspace, resource, path, offset });
        };
        // Where VDSM made the domain, the place of the disk's lease is not known.
        let (of_disk, of_disk_offset) = of_disk().ok().unzip();
        Ok(Self::Indexed(Box::new(IndexedLease {
            socket,
            lockspace,
            resource: name.clone(),
            volume: absolute(conf.xleases_path().map_err(unusable)?)?,
            ids: absolute(conf.ids_path().map_err(unusable)?)?,
            of_disk,
            of_disk_offset: of_disk_offset.unwrap_or_default(),
        })))
    }

    /// The lease as a `<lease>` of a domain's description, in the place where it is now.
    ///
    /// # Errors
    /// [`LeaseError::Unsupported`] for a file lock; the index cannot be read, or has no such lease.
    pub fn as_element(&self) -> Result<domain_xml::Lease, LeaseError> {
        let (_, resource) = self.sanlock()?;
        let disk = resource.disks.first().ok_or(LeaseError::Unsupported)?;
        let target = LeaseTarget::At { path: disk.path.as_path().to_owned(), offset: disk.offset };
        let (key, lockspace) = (resource.name.to_string(), resource.lockspace.to_string());
        Ok(domain_xml::Lease { key, lockspace, target })
    }

    /// The daemon and the resource by its names, for what asks nothing of storage: its place may be a wrong one. `None`
    /// for a file lock.
    pub(crate) fn known(&self) -> Option<(Client, Result<Resource, LeaseError>)> {
        match self {
            Self::Indexed(lease) => Some(lease.client(|| Ok(0))),
            Self::Sanlock { .. } | Self::File { .. } => self.client(),
        }
    }

    fn by_name(&self) -> Result<(Client, Resource), LeaseError> {
        let (client, resource) = self.known().ok_or(LeaseError::Unsupported)?;
        Ok((client, resource?))
    }

    /// The daemon and the resource; `None` for a file lock. Reads the index where there is one.
    pub(crate) fn client(&self) -> Option<(Client, Result<Resource, LeaseError>)> {
        match self {
            Self::File { .. } => None,
            Self::Indexed(lease) => Some(lease.client(|| lease.offset())),
            Self::Sanlock { socket, lockspace, resource, path, offset } => {
                let build = || -> Result<Resource, SanlockError> {
                    Ok(Resource {
                        lockspace: LockspaceName::new(lockspace.as_str())?,
                        name: ResourceName::new(resource.as_str())?,
                        disks: vec![Disk { path: DiskPath::new(path)?, offset: *offset }],
                    })
                };
                let resource = build().map_err(|e| LeaseError::Unavailable(e.to_string()));
                Some((Client::new(socket).with_deadline(DEADLINE), resource))
            }
        }
    }

    fn sanlock(&self) -> Result<(Client, Resource), LeaseError> {
        let (client, resource) = self.client().ok_or(LeaseError::Unsupported)?;
        Ok((client, resource?))
    }

    /// Takes the lease for this process, without waiting for anybody.
    pub fn take(&self) -> Result<Holding, LeaseError> {
        let Self::File { path } = self else {
            let (client, resource) = self.sanlock()?;
            let mut registration = register(&client)?;
            registration
                .acquire(std::slice::from_ref(&resource), &options())
                .map_err(|e| self.refused(&client, &resource, &e))?;
            return Ok(Holding::Sanlock(registration));
        };
        let file = open_lock(path)
            .map_err(|e| LeaseError::Unavailable(format!("cannot open {}: {e}", path.display())))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Holding::File(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(LeaseError::Held(format!("{} is locked by another process", path.display())))
            }
            Err(e) => Err(LeaseError::Unavailable(format!("cannot lock {}: {e}", path.display()))),
        }
    }

    /// Registers this process, so that the lease can be taken for it later.
    pub fn register(&self) -> Result<Holding, LeaseError> {
        let (client, _) = self.by_name()?;
        Ok(Holding::Sanlock(register(&client)?))
    }

    /// Takes the lease for the registered process `pid`, without waiting for anybody.
    pub fn take_for(&self, pid: u32) -> Result<(), LeaseError> {
        let (client, resource) = self.sanlock()?;
        client
            .acquire_for_pid(pid, std::slice::from_ref(&resource), &options())
            .map_err(|e| self.refused(&client, &resource, &e))
    }

    /// [`refused`], but for a lease that is not there.
    fn refused(&self, client: &Client, resource: &Resource, error: &SanlockError) -> LeaseError {
        self.missing(error).unwrap_or_else(|| refused(client, resource, error))
    }

    /// A disk's lease that is not there may have been retired, and must not be written anew for a start.
    fn missing(&self, error: &SanlockError) -> Option<LeaseError> {
        let Self::Sanlock { path, .. } = self else { return None };
        matches!(error.refusal(), Some(Refusal::NotInitialised)).then(|| {
            LeaseError::Missing(format!(
                "{} holds no lease of the VM's disk: either hosted-engine --lease-use gave the VM another one, whose name \
                 the hosts that can start it have as vm in [lease] of ha.toml, and this host has not; or the cluster moved \
                 to other storage, and this host has not followed (hosted-engine --move-storage --follow); or it is \
                 damaged ({error})",
                path.display()
            ))
        })
    }

    /// Gives up the lease of process `pid`, whose guest must be stopped.
    pub fn release_for(&self, pid: u32) -> Result<(), LeaseError> {
        let (client, resource) = self.by_name()?;
        client
            .release_for_pid(pid, std::slice::from_ref(&resource))
            .map_err(|e| LeaseError::Unavailable(e.to_string()))
    }

    /// The lease's version on storage: it grows by one each time that somebody takes it.
    pub fn version(&self) -> Result<u64, LeaseError> {
        let (client, resource) = self.sanlock()?;
        let owners =
            client.read_resource_owners(&resource).map_err(|e| LeaseError::Unavailable(e.to_string()))?;
        Ok(owners.lver)
    }

    /// The version that process `pid` holds; `None` when it does not hold the lease.
    pub fn held_version(&self, pid: u32) -> Result<Option<u64>, LeaseError> {
        let (client, resource) = self.by_name()?;
        let held = client.inquire_pid(pid).map_err(|e| LeaseError::Unavailable(e.to_string()))?;
        Ok(held.into_iter().find(|held| same(&held.resource, &resource)).and_then(|held| held.lver))
    }

    /// Whose the lease is, by its record on storage. For those who do not know the process that should hold it.
    pub fn owner(&self) -> Result<LeaseOwner, LeaseError> {
        let (client, resource) = self.sanlock()?;
        let client = client.with_deadline(QUESTION);
        let unavailable = |e: SanlockError| LeaseError::Unavailable(e.to_string());
        let owners = client
            .read_resource_owners(&resource)
            .map_err(|error| self.missing(&error).unwrap_or_else(|| unavailable(error)))?;
        let Some(owner) = owners.owners.first() else { return Ok(LeaseOwner::Nobody) };
        // The id by which this host is known in that lockspace; nobody has to configure it for us.
        let joined = client.get_lockspaces().map_err(unavailable)?;
        let Some(own) = joined.into_iter().find(|record| record.lockspace.name == resource.lockspace) else {
            return Err(LeaseError::Unavailable(format!(
                "host id {} owns the lease, and this host is not in the lockspace {}, so that nobody knows whether that \
                 is this host",
                owner.host_id, resource.lockspace
            )));
        };
        if owner.host_id != own.lockspace.host_id {
            let detail = describe_owner(&client, &resource);
            let detail = detail.unwrap_or_else(|| format!("the owner is host id {}", owner.host_id));
            return Ok(LeaseOwner::Other { detail });
        }
        let hosts = client.get_hosts(&resource.lockspace, Some(owner.host_id)).map_err(unavailable)?;
        match hosts.into_iter().find(|host| host.host_id == owner.host_id) {
            Some(host) if host.generation == owner.generation => Ok(LeaseOwner::ThisHost),
            Some(host) => Ok(LeaseOwner::Other {
                detail: format!(
                    "the owner is generation {} of this host, which is generation {} now",
                    owner.generation, host.generation
                ),
            }),
            None => Err(LeaseError::Unavailable(format!(
                "sanlock does not know the generation of this host (id {}) yet",
                owner.host_id
            ))),
        }
    }

    /// Whether process `pid` holds the lease now.
    pub fn holding(&self, pid: u32) -> LeaseHolding {
        let Self::File { path } = self else {
            return match self.by_name() {
                Ok((client, resource)) => sanlock_holding(&client, &resource, pid),
                Err(e) => LeaseHolding::Unknown { detail: e.to_string() },
            };
        };
        match has_flock(pid, path) {
            Ok(true) => LeaseHolding::Held,
            Ok(false) => LeaseHolding::Lost {
                detail: format!("process {pid} does not hold the lock on {}", path.display()),
            },
            Err(e) => LeaseHolding::Unknown { detail: format!("cannot look at process {pid}: {e}") },
        }
    }
}

fn options() -> AcquireOptions {
    AcquireOptions { no_wait: true, owner_name: "ovirt-hosted-engine-ha".to_owned() }
}

fn register(client: &Client) -> Result<Registration, LeaseError> {
    Registration::register_self(client).map_err(|e| LeaseError::Unavailable(e.to_string()))
}

fn sanlock_holding(client: &Client, resource: &Resource, pid: u32) -> LeaseHolding {
    match client.inquire_pid(pid) {
        Ok(held) if held.iter().any(|h| same(&h.resource, resource)) => LeaseHolding::Held,
        Ok(_) => {
            LeaseHolding::Lost { detail: format!("sanlock says that process {pid} holds no such lease") }
        }
        Err(e) => holding_of(&e),
    }
}

/// What a refused inquiry means. Only "I know no such process" is a word about the lease; a process that sanlock is
/// busy with, or ending, may hold it still, and will be gone soon if not.
fn holding_of(error: &SanlockError) -> LeaseHolding {
    let detail = error.to_string();
    match error.refusal() {
        Some(Refusal::NoSuchProcess) => LeaseHolding::Lost { detail },
        _ => LeaseHolding::Unknown { detail },
    }
}

fn same(a: &Resource, b: &Resource) -> bool {
    a.lockspace == b.lockspace && a.name == b.name
}

/// What a refusal of an acquire means for a start, with the name of the owner where it can be had.
fn refused(client: &Client, resource: &Resource, error: &SanlockError) -> LeaseError {
    let mut detail = error.to_string();
    match error.refusal() {
        Some(
            Refusal::HeldByLiveHost
            | Refusal::OwnerSilent
            | Refusal::LostRace
            | Refusal::HeldOnThisHost
            | Refusal::Transient,
        ) => {
            if let Some(owner) = describe_owner(client, resource) {
                detail.push_str("; ");
                detail.push_str(&owner);
            }
            LeaseError::Held(detail)
        }
        _ => LeaseError::Unavailable(detail),
    }
}

fn describe_owner(client: &Client, resource: &Resource) -> Option<String> {
    let owner = *client.read_resource_owners(resource).ok()?.owners.first()?;
    let state = client
        .get_hosts(&resource.lockspace, Some(owner.host_id))
        .ok()
        .and_then(|hosts| hosts.first().map(|host| host.state.to_string()));
    let state = state.as_deref().unwrap_or("unknown");
    Some(format!(
        "the owner is host id {} (generation {}), which is {state}",
        owner.host_id, owner.generation
    ))
}

/// Opens a file that is only there to be locked.
pub fn open_lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// True when a descriptor of process `pid` holds a flock on the file at `path`, as the kernel lists it.
fn has_flock(pid: u32, path: &Path) -> io::Result<bool> {
    let wanted = fs::metadata(path)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Ok(found) = fs::metadata(entry.path()) else { continue };
        if (found.dev(), found.ino()) != (wanted.dev(), wanted.ino()) {
            continue;
        }
        let number = entry.file_name();
        let info =
            fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(number)).unwrap_or_default();
        if info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lease_has_one_holder_and_the_kernel_knows_whom() {
        let dir = tempfile::tempdir().unwrap();
        let lease = LeaseSpec::File { path: dir.path().join("lease") };
        let holding = lease.take().unwrap();
        assert!(matches!(lease.take(), Err(LeaseError::Held(_))));
        assert_eq!(lease.holding(std::process::id()), LeaseHolding::Held);
        assert!(matches!(lease.holding(1), LeaseHolding::Lost { .. } | LeaseHolding::Unknown { .. }));
        drop(holding);
        assert!(matches!(lease.holding(std::process::id()), LeaseHolding::Lost { .. }));
        assert!(lease.take().is_ok());
        assert_eq!(lease.take_for(1), Err(LeaseError::Unsupported));
    }

    #[test]
    fn without_a_daemon_nothing_is_known_and_nothing_is_had() {
        let lease = LeaseSpec::Sanlock {
            socket: "/nonexistent/sanlock.sock".into(),
            lockspace: "space".to_owned(),
            resource: "vm".to_owned(),
            path: "/leases".into(),
            offset: 0,
        };
        assert!(
            matches!(lease.take(), Err(LeaseError::Unavailable(detail)) if detail.contains("is the daemon running"))
        );
        assert!(matches!(lease.holding(1), LeaseHolding::Unknown { .. }));
    }
}
