//! Making and clearing leases through this host's sanlock daemon, one host at a time.
//!
//! Slot 2 of the volume, which the format reserves for sanlock, holds a lease of our own: whoever changes the volume
//! holds it, so that two hosts never change it at once, and sanlock ends a host's command whose storage it lost. A
//! process of the same host, and hosts on NFS, are kept apart earlier by the file's lock. VDSM knows neither: it relies
//! on its storage pool manager being the only one.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use ha_config::shared_file::{Lock, SharedFile};
use sanlock_client::{
    AcquireOptions, Client, Disk, DiskPath, GridSize, LockspaceName, LockspacePhase, Owner, PaxosRecord,
    Refusal, Registration, Resource, ResourceName, SanlockError,
};

use crate::index::LeaseName;
use crate::volume::{Resources, Storage};

/// Slot of the lease that keeps those apart who change the volume.
const LOCK_SLOT: u64 = 2;

/// How long sanlock may take to release a lease whose process has ended.
const RELEASE: Duration = Duration::from_secs(10);

/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Its name.
const LOCK_NAME: &str = "xleases-index";

/// The right to change a volume; ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct SanlockResources {
    client: Client,
    path: DiskPath,
    grid: GridSize,
    registration: RefCell<Registration>,
}

/// Why the right to change a volume was not had.
#[derive(Debug, thiserror::Error)]
pub enum ExcludeError {
    /// Another process of this host, or of a host on the same NFS server.
    #[error("another process is changing {0}: try again when it is done")]
    Busy(String),
    /// Leases can be judged only by a member of their lockspace.
    #[error(
        "this host has not joined the lockspace {0}, whose members hold these leases: start its services \
         (ovirt-ha-broker), and wait until --lease-status shows this host in it"
    )]
    NotJoined(String),
    /// What is in slot 2 is not ours.
    #[error("slot {LOCK_SLOT} of {path} holds the lease {name:?}, not {LOCK_NAME}: it is not touched")]
    Foreign {
        /// The volume.
        path: String,
        /// The resource's name.
        name: String,
    },
    /// Another host has it, or sanlock failed.
    #[error("the right to change {path} is not to be had: {error}")]
    Sanlock {
        /// The volume.
        path: String,
        /// Why.
        error: SanlockError,
    },
    /// Storage.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl SanlockResources {
    /// Takes the right to change the volume in `file`, for this process, without waiting for anybody. `lockspace` is
    /// the domain's, which this host must have joined.
    ///
    /// # Errors
    /// [`ExcludeError`]
    pub fn exclude(
        client: Client,
        file: &SharedFile,
        grid: GridSize,
        lockspace: &str,
    ) -> Result<Self, ExcludeError> {
        let shown = file.path().display().to_string();
        let failed = |error: SanlockError| ExcludeError::Sanlock { path: shown.clone(), error };
        match file.try_lock().map_err(std::io::Error::other)? {
            Lock::Held | Lock::Unsupported => {}
            Lock::Busy => return Err(ExcludeError::Busy(shown)),
        }
        let joined = client.get_lockspaces().map_err(failed)?;
        let is_ours =
            |name: &LockspaceName, phase| name.as_str() == lockspace && phase == LockspacePhase::Joined;
        if !joined.iter().any(|record| is_ours(&record.lockspace.name, record.phase)) {
            return Err(ExcludeError::NotJoined(lockspace.to_owned()));
        }
        // sanlock works in a directory of its own.
        let path = Path::new(&std::path::absolute(file.path())?).to_owned();
        let path = DiskPath::new(path).map_err(|error| failed(error.into()))?;
        let registration = Registration::register_self(&client).map_err(failed)?;
        let this = Self { client, path, grid, registration: RefCell::new(registration) };
        let offset = LOCK_SLOT * grid.align_bytes();
        let lock = this.resource(lockspace, LOCK_NAME, offset).map_err(failed)?;
        let sector = Storage::read(file, offset, grid.sector_bytes() as usize)?;
        match PaxosRecord::parse(&sector) {
            None => this.client.write_resource(&lock, 0, 0, Some(grid)).map_err(failed)?,
            Some(record) if record.resource == LOCK_NAME => {}
            Some(record) => return Err(ExcludeError::Foreign { path: shown, name: record.resource }),
        }
        this.acquire(&lock).map_err(failed)?;
        Ok(this)
    }

    /// Takes a lease at once, or as soon as sanlock has done with what it is doing with it: the end of the process that
    /// had it here is a little work.
    fn acquire(&self, lease: &Resource) -> Result<(), SanlockError> {
        let mut tries_left = RELEASE.as_millis() / LOOK.as_millis();
        loop {
            let taken = self.registration.borrow_mut().acquire(std::slice::from_ref(lease), &options());
            match taken {
                Err(error) if error.refusal() == Some(Refusal::Transient) && tries_left > 0 => {
                    tries_left -= 1;
                    pause();
                }
                other => return other,
            }
        }
    }

    fn resource(&self, lockspace: &str, name: &str, offset: u64) -> Result<Resource, SanlockError> {
        Ok(Resource {
            lockspace: LockspaceName::new(lockspace)?,
            name: ResourceName::new(name)?,
            disks: vec![Disk { path: self.path.clone(), offset }],
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "sanlock does not tell when a release is done: it must be polled"
)]
fn pause() {
    std::thread::sleep(LOOK);
}

fn options() -> AcquireOptions {
    AcquireOptions { no_wait: true, owner_name: "hosted-engine".to_owned() }
}

/// A sanlock error as the volume's errors carry it, with the place.
fn at(offset: u64) -> impl Fn(SanlockError) -> String {
    move |error| format!("offset {offset}: {error}")
}

impl Resources for SanlockResources {
    fn write(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String> {
        let resource = self.resource(lockspace, name.as_str(), offset).map_err(at(offset))?;
        self.client.write_resource(&resource, 0, 0, Some(self.grid)).map_err(at(offset))?;
        self.client.read_resource(&resource).map(drop).map_err(at(offset))
    }

    fn clear(&self, lockspace: &str, offset: u64) -> Result<(), String> {
        // The name goes nowhere: what is written is that there is none.
        let resource = self.resource(lockspace, LOCK_NAME, offset).map_err(at(offset))?;
        self.client.clear_resource(&resource, Some(self.grid)).map_err(at(offset))
    }

    fn may_hold(&self, lockspace: &str, owner: Owner) -> Result<bool, String> {
        let name = LockspaceName::new(lockspace).map_err(|error| error.to_string())?;
        let hosts = self.client.get_hosts(&name, Some(owner.host_id)).map_err(|error| error.to_string())?;
        let host = hosts.into_iter().find(|host| host.host_id == owner.host_id);
        // One that joined anew owns nothing of what it took before.
        Ok(host.is_none_or(|host| !host.state.gives_way() && host.generation <= owner.generation))
    }

    fn take(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String> {
        let resource = self.resource(lockspace, name.as_str(), offset).map_err(at(offset))?;
        self.acquire(&resource).map_err(at(offset))
    }

    fn give_back(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String> {
        let resource = self.resource(lockspace, name.as_str(), offset).map_err(at(offset))?;
        self.registration.borrow_mut().release(&[resource]).map_err(at(offset))
    }
}
