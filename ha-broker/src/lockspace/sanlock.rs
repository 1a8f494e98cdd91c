//! The sanlock daemon as lock manager, asked over its socket.
//!
//! It also reads the lockspace's file, without changing it, for two things that the daemon does not tell: which
//! host has an id that was refused to us, and whether any host renews before the lockspace is written anew.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_config::AlignedBuffer;
use metadata_format::HostId;
use sanlock_client::{
    AddOptions, Client, DeltaRecord, Disk, DiskPath, HostState, LockspaceName, LockspacePhase,
    LockspaceRecord, NameError, Refusal, RemoveOptions, SanlockError, WriteLockspaceOptions,
};

use super::{Hosts, LockError, Lockspace, Phase};

/// How long a question to the daemon may take; it answers them from memory.
const ASK: Duration = Duration::from_secs(3);

/// How often renewals are looked for before a lockspace is written anew.
const LOOK: Duration = Duration::from_secs(1);

/// How long a join waits for an earlier leave of the same lockspace to end.
const LEAVING: Duration = Duration::from_mins(1);

/// For what nobody announces. Only on threads of their own.
#[allow(
    clippy::disallowed_methods,
    reason = "sanlock and storage tell nothing by themselves: they must be polled"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// One lockspace of the daemon.
#[derive(Debug)]
pub struct SanlockLockspace {
    ask: Client,
    join: Client,
    name: LockspaceName,
    path: PathBuf,
    disk: Disk,
    /// The same place under another path, by which sanlock knows it.
    joined_as: Mutex<Option<Disk>>,
    io_timeout: u32,
}

impl SanlockLockspace {
    /// The lockspace `name` in the file or device `path`, through the daemon at `socket`. `io_timeout` (N) and
    /// `watchdog_timeout` (W) in seconds, the same on all hosts.
    ///
    /// # Errors
    /// When the name or path cannot be a sanlock one.
    pub fn new(
        socket: &Path,
        name: &str,
        path: &Path,
        io_timeout: u32,
        watchdog_timeout: u32,
    ) -> Result<Self, NameError> {
        let client = Client::new(socket);
        // An unclean leave of this id by another host name: 8N + W until it is dead, and 6N to take it.
        let longest = Duration::from_secs(u64::from(14 * io_timeout + watchdog_timeout + 30));
        Ok(Self {
            ask: client.clone().with_deadline(ASK),
            join: client.with_deadline(longest),
            name: LockspaceName::new(name)?,
            path: path.to_owned(),
            disk: Disk { path: DiskPath::new(path)?, offset: 0 },
            joined_as: Mutex::default(),
            io_timeout,
        })
    }

    fn lockspace(&self, id: HostId) -> sanlock_client::Lockspace {
        let host_id = u64::from(id.get());
        let disk = self.joined_as().clone().unwrap_or_else(|| self.disk.clone());
        sanlock_client::Lockspace { name: self.name.clone(), host_id, disk }
    }

    fn joined_as(&self) -> MutexGuard<'_, Option<Disk>> {
        self.joined_as.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether sanlock holds our lockspace, with this id, by another path that leads to the same volume: the existing
    /// release joins by the prepared volume's path, and may have been killed.
    fn is_ours_by_another_path(&self, own: &LockspaceRecord, id: HostId) -> bool {
        let same_file = || {
            let [ours, theirs] =
                [self.path.as_path(), own.lockspace.disk.path.as_path()].map(std::fs::metadata);
            ours.is_ok_and(|ours| theirs.is_ok_and(|theirs| place_of(&ours) == place_of(&theirs)))
        };
        own.phase == LockspacePhase::Joined
            && own.lockspace.host_id == u64::from(id.get())
            && own.lockspace.disk.offset == self.disk.offset
            && same_file()
    }

    fn failed(&self, error: &SanlockError) -> LockError {
        LockError::Failed(format!("lockspace {}: {error}", self.name()))
    }

    /// What the daemon has of this lockspace's name, if anything.
    fn own(&self) -> Option<LockspaceRecord> {
        let all = self.ask.get_lockspaces().ok()?;
        all.into_iter().find(|record| record.lockspace.name == self.name)
    }

    /// The records of all ids that were ever taken; read with `O_DIRECT`, as sanlock writes them.
    fn records(&self) -> Result<Vec<DeltaRecord>, LockError> {
        let failed = |error: std::io::Error| {
            LockError::Failed(format!("cannot read the lockspace {}: {error}", self.path.display()))
        };
        let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, rustix::fs::Mode::empty());
        let file = File::from(file.map_err(|errno| failed(errno.into()))?);
        let mut buffer = AlignedBuffer::zeroed(1 << 20);
        let mut first = vec![0; 0];
        let mut records = Vec::new();
        let mut sector_size = 0;
        for area in 0..8 {
            let len = file.read_at(buffer.as_mut(), area << 20).map_err(failed)?;
            let bytes = &buffer.as_ref()[..len];
            if area == 0 {
                first.extend_from_slice(bytes.first_chunk::<512>().map_or(&[][..], |chunk| chunk));
                sector_size = DeltaRecord::parse(&first).map_or(0, |record| record.sector_size as usize);
            }
            if !matches!(sector_size, 512 | 4096) {
                break;
            }
            let sectors = bytes.chunks_exact(sector_size).filter_map(DeltaRecord::parse);
            let name = self.name.as_str();
            records.extend(sectors.filter(|record| record.lockspace == name));
            // 2000 ids of 512-byte sectors lie in the first MiB; what follows is not the lockspace's.
            if sector_size == 512 || len < buffer.as_ref().len() {
                break;
            }
        }
        Ok(records)
    }

    /// "host id 3 (generation 5), held by "hosta""
    fn owner_of(&self, id: HostId) -> String {
        let records = self.records().unwrap_or_default();
        match records.into_iter().find(|record| record.host_id == u64::from(id.get())) {
            Some(record) => format!("sanlock host name {:?}, generation {}", record.owner, record.generation),
            None => "its record on storage cannot be read".to_owned(),
        }
    }
}

/// Which file or device it is: number of the device, and of the file on it.
fn place_of(found: &std::fs::Metadata) -> (u64, u64) {
    if found.file_type().is_block_device() { (found.rdev(), 0) } else { (found.dev(), found.ino()) }
}

/// What the daemon has seen of the hosts in lockspace `name`.
pub(super) fn hosts_of(ask: &Client, name: &LockspaceName) -> Result<Hosts, SanlockError> {
    let hosts = ask.get_hosts(name, None)?;
    // A host's record alone says nothing until it was seen to change, or to stand still for 8N.
    let is_complete = hosts.iter().all(|host| host.state != HostState::Unknown);
    let live = hosts.into_iter().filter(|host| host.state == HostState::Live);
    let live = live.filter_map(|host| HostId::new(u16::try_from(host.host_id).ok()?).ok()).collect();
    Ok(Hosts { live, is_complete })
}

#[async_trait]
impl Lockspace for SanlockLockspace {
    fn name(&self) -> String {
        format!("{} on {}", self.name, self.path.display())
    }

    async fn join(&self, id: HostId) -> Result<(), LockError> {
        let options = AddOptions { io_timeout: Some(self.io_timeout), is_async: false };
        *self.joined_as() = None;
        let mut waited = Duration::ZERO;
        loop {
            let error = match self.join.add_lockspace(&self.lockspace(id), options) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.refusal() {
                Some(Refusal::AlreadyJoined) => return Ok(()),
                Some(Refusal::HostIdBusy) => {
                    return Err(LockError::InUse(format!(
                        "host id {id} of lockspace {} is in use by another live host ({}): give this host another \
                         id, or stop that host (sanlock says {})",
                        self.name(),
                        self.owner_of(id),
                        error.code().unwrap_or_default()
                    )));
                }
                Some(Refusal::LockspaceConflict | Refusal::LockspaceLeaving | Refusal::InProgress) => {}
                _ => return Err(self.failed(&error)),
            }
            match self.own() {
                // Just being left: it will be free in a moment.
                Some(own) if own.phase == LockspacePhase::Leaving && waited < LEAVING => {
                    pause(LOOK);
                    waited += LOOK;
                }
                None if waited < LEAVING => {
                    pause(LOOK);
                    waited += LOOK;
                }
                Some(own) if self.is_ours_by_another_path(&own, id) => {
                    let path = &own.lockspace.disk.path;
                    tracing::info!(
                        "host id {id} of lockspace {} is held already, by the path {path}",
                        self.name()
                    );
                    *self.joined_as() = Some(own.lockspace.disk);
                    return Ok(());
                }
                Some(own) if own.lockspace.host_id != u64::from(id.get()) => {
                    return Err(LockError::OtherId(format!(
                        "this host is in lockspace {} with host id {}, and {id} was asked for: release that one \
                         first",
                        self.name(),
                        own.lockspace.host_id
                    )));
                }
                _ => return Err(self.failed(&error)),
            }
        }
    }

    async fn phase(&self, id: HostId) -> Result<Phase, LockError> {
        match self.ask.inquire_lockspace(&self.lockspace(id)) {
            Ok(LockspacePhase::Joined) => Ok(Phase::Held),
            Ok(LockspacePhase::Joining | LockspacePhase::Leaving) => Ok(Phase::Changing),
            Ok(LockspacePhase::NotJoined) => Ok(Phase::NotHeld),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn leave(&self, id: HostId) -> Result<(), LockError> {
        // `unused`: sanlock must refuse rather than kill the VM that holds a lease in it.
        let options = RemoveOptions { is_async: true, unused: true };
        match self.ask.remove_lockspace(&self.lockspace(id), options) {
            Ok(()) => Ok(()),
            Err(error) => match error.refusal() {
                Some(Refusal::NoSuchLockspace | Refusal::InProgress) => Ok(()),
                _ => Err(self.failed(&error)),
            },
        }
    }

    async fn live_hosts(&self) -> Result<Hosts, LockError> {
        hosts_of(&self.ask, &self.name).map_err(|error| self.failed(&error))
    }

    async fn watchdog(&self) -> Option<bool> {
        self.ask.settings().ok()?.uses_watchdog
    }

    async fn reset(&self) -> Result<(), LockError> {
        let own = self.ask.get_lockspaces().map_err(|error| self.failed(&error))?;
        if let Some(own) = own.iter().find(|record| record.lockspace.name == self.name) {
            let id = own.lockspace.host_id;
            return Err(LockError::Live(format!(
                "this host itself is in lockspace {} with host id {id}: release it first",
                self.name()
            )));
        }
        // A host renews every 2N; look for twice that long.
        let before = self.records()?;
        let taken = before.iter().filter(|record| record.is_taken()).count();
        let mut looked = Duration::ZERO;
        while taken > 0 && looked < Duration::from_secs(u64::from(4 * self.io_timeout)) {
            // Nothing announces another host's renewal: storage must be looked at again and again.
            pause(LOOK);
            looked += LOOK;
            let now = self.records()?;
            let live: Vec<String> = now
                .iter()
                .filter(|record| record.is_taken() && !before.contains(record))
                .map(|record| format!("{} ({})", record.host_id, record.owner))
                .collect();
            if !live.is_empty() {
                return Err(LockError::Live(format!(
                    "lockspace {} is not written anew: these host ids are live in it: {}. Stop the HA services on \
                     those hosts (or put them into maintenance and release their ids) first",
                    self.name(),
                    live.join(", ")
                )));
            }
        }
        let id = HostId::new(1).map_err(|error| LockError::Failed(error.to_string()))?;
        let options = WriteLockspaceOptions { io_timeout: Some(self.io_timeout), grid: None };
        let client = self.ask.clone().with_deadline(Duration::from_mins(1));
        client.write_lockspace(&self.lockspace(id), 0, options).map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeSanlock;
    use super::*;

    fn id(id: u16) -> HostId {
        HostId::new(id).unwrap()
    }

    fn own(path: &Path, host_id: u64) -> sanlock_client::Lockspace {
        let disk = Disk { path: DiskPath::new(path).unwrap(), offset: 0 };
        sanlock_client::Lockspace { name: LockspaceName::new("hosted-engine").unwrap(), host_id, disk }
    }

    #[tokio::test]
    async fn a_lockspace_that_is_held_by_another_path_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, link) = (dir.path().join("volume"), dir.path().join("link"));
        std::fs::write(&volume, "").unwrap();
        std::os::unix::fs::symlink(&volume, &link).unwrap();
        let sanlock = FakeSanlock::start();
        sanlock.hold(Some(own(&volume, 2)));
        let lockspace = SanlockLockspace::new(sanlock.socket(), "hosted-engine", &link, 10, 60).unwrap();
        assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld), "by this path it is not");
        lockspace.join(id(2)).await.unwrap();
        assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
        lockspace.leave(id(2)).await.unwrap();
        assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld));
        lockspace.join(id(2)).await.unwrap();
        assert_eq!(sanlock.held(), Some(own(&link, 2)), "the next time by our own");
    }

    #[tokio::test]
    async fn another_volume_of_the_same_name_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, other) = (dir.path().join("volume"), dir.path().join("other"));
        for file in [&volume, &other] {
            std::fs::write(file, "").unwrap();
        }
        let sanlock = FakeSanlock::start();
        sanlock.hold(Some(own(&other, 2)));
        let lockspace = SanlockLockspace::new(sanlock.socket(), "hosted-engine", &volume, 10, 60).unwrap();
        assert!(matches!(lockspace.join(id(2)).await, Err(LockError::Failed(_))));
        sanlock.hold(Some(own(&volume, 3)));
        assert!(matches!(lockspace.join(id(2)).await, Err(LockError::OtherId(_))));
        assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld));
    }
}
