//! Following one storage domain: is it readable, how fast, and is the host id in its lockspace ours.
//!
//! As in VDSM the first answer, before anything was looked at, is a hopeful one with `actual` false; and while a read
//! hangs the last answer stays, only older.

use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use rustix::fs::OFlags;
use sanlock_client::{
    AddOptions, Client, Disk, DiskPath, Lockspace, LockspaceName, LockspacePhase, RemoveOptions, SanlockError,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::StorageSettings;
use super::domain::Domain;
use crate::{Failure, lock};

/// Bytes of the read whose time is measured.
const PROBE: usize = 4096;
/// How long sanlock may take to take a question.
const QUESTION: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Status {
    /// VDSM's code of what is wrong; 0 when nothing is.
    code: i64,
    delay: Duration,
    version: i64,
    has_host_id: bool,
    is_actual: bool,
    checked: Monotonic,
}

/// A domain that is followed until this is dropped. Dropping it leaves the lockspace joined.
#[derive(Debug)]
pub(super) struct Monitor {
    status: Arc<Mutex<Status>>,
    joined: Arc<Mutex<Option<Lockspace>>>,
    task: JoinHandle<()>,
}

impl Monitor {
    pub fn start(settings: StorageSettings, sanlock: Option<Client>, domain: &str, host_id: u16) -> Self {
        let status = Arc::new(Mutex::new(Status {
            code: 0,
            delay: Duration::ZERO,
            version: -1,
            has_host_id: false,
            is_actual: false,
            checked: SystemClock.monotonic(),
        }));
        let joined = Arc::new(Mutex::new(None));
        let follower = Follower {
            interval: settings.interval,
            settings,
            sanlock: sanlock.map(|sanlock| sanlock.with_deadline(QUESTION)),
            domain: domain.to_owned(),
            host_id,
            status: status.clone(),
            joined: joined.clone(),
        };
        let task = tokio::spawn(Arc::new(follower).run());
        Self { status, joined, task }
    }

    /// What `getStorageRepoStats` says of it.
    pub fn stats(&self) -> Value {
        let status = lock(&self.status).clone();
        let age = SystemClock.monotonic().saturating_since(status.checked);
        json!({
            "code": status.code,
            "lastCheck": format!("{:.1}", age.as_secs_f64()),
            "delay": format!("{:.6}", status.delay.as_secs_f64()),
            "valid": status.code == 0,
            "version": status.version,
            "acquired": status.has_host_id,
            "actual": status.is_actual,
        })
    }

    /// Whether a look after `then` found it readable.
    pub fn is_well_since(&self, then: Monotonic) -> bool {
        let status = lock(&self.status);
        status.is_actual && status.code == 0 && status.checked > then
    }

    /// Stops to follow, and gives the host id up unless a process holds a lease of the lockspace.
    pub fn leave(self, sanlock: Option<&Client>) -> Result<(), Failure> {
        self.task.abort();
        let (Some(lockspace), Some(sanlock)) = (lock(&self.joined).take(), sanlock) else { return Ok(()) };
        let options = RemoveOptions { is_async: true, unused: true };
        match sanlock.remove_lockspace(&lockspace, options) {
            Ok(()) => Ok(()),
            // It is not joined any more: lost meanwhile.
            Err(error) if error.code() == Some(-2) => Ok(()),
            Err(error) => Err(Failure::release_host_id(&error.to_string())),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The lockspace of a domain, and this host's id in it.
pub(super) fn lockspace(domain: &Domain, host_id: u16) -> Result<Lockspace, SanlockError> {
    let path = std::path::absolute(domain.ids_file()).unwrap_or_else(|_| domain.ids_file());
    let disk = Disk { path: DiskPath::new(path)?, offset: 0 };
    Ok(Lockspace { name: LockspaceName::new(domain.id.as_str())?, host_id: u64::from(host_id), disk })
}

struct Follower {
    settings: StorageSettings,
    interval: Duration,
    sanlock: Option<Client>,
    domain: String,
    host_id: u16,
    status: Arc<Mutex<Status>>,
    joined: Arc<Mutex<Option<Lockspace>>>,
}

impl Follower {
    async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let this = self.clone();
            // A look that hangs keeps its thread, and nothing is said of it meanwhile.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "the look at storage domain {} failed", self.domain);
            }
        }
    }

    fn look(&self) {
        let read = Domain::find(&self.settings.paths, &self.domain)
            .and_then(|domain| self.read(&domain).map(|(delay, version)| (domain, delay, version)));
        let has_host_id = read.as_ref().is_ok_and(|(domain, ..)| {
            self.join(domain).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot join the lockspace of {}", self.domain);
                false
            })
        });
        let mut status = lock(&self.status);
        status.is_actual = true;
        status.checked = SystemClock.monotonic();
        status.has_host_id = has_host_id;
        match read {
            Ok((_, delay, version)) => {
                (status.code, status.delay, status.version) = (0, delay, version);
            }
            Err(failure) => status.code = failure.code,
        }
    }

    fn read(&self, domain: &Domain) -> Result<(Duration, i64), Failure> {
        let begun = SystemClock.monotonic();
        probe(&domain.metadata_file())
            .map_err(|error| Failure::domain_action(&format!("sdUUID={}: {error}", self.domain)))?;
        let delay = SystemClock.monotonic().saturating_since(begun);
        Ok((delay, domain.version()?))
    }

    /// Whether the host id is ours; when it is not, sanlock is asked to take it, which takes its time.
    fn join(&self, domain: &Domain) -> Result<bool, SanlockError> {
        let Some(sanlock) = &self.sanlock else { return Ok(true) };
        let lockspace = lockspace(domain, self.host_id)?;
        let phase = sanlock.inquire_lockspace(&lockspace)?;
        match phase {
            LockspacePhase::Joined => {
                *lock(&self.joined) = Some(lockspace);
                Ok(true)
            }
            LockspacePhase::Joining | LockspacePhase::Leaving => Ok(false),
            LockspacePhase::NotJoined => {
                let options = AddOptions { io_timeout: self.settings.io_timeout, is_async: true };
                sanlock.add_lockspace(&lockspace, options)?;
                *lock(&self.joined) = Some(lockspace);
                Ok(false)
            }
        }
    }
}

/// One direct read from the beginning of a file.
fn probe(path: &Path) -> io::Result<()> {
    let file =
        std::fs::File::options().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)?;
    // Direct reads go to aligned memory.
    let mut memory = vec![0; 2 * PROBE];
    let begin = memory.as_ptr().align_offset(PROBE);
    file.read_at(&mut memory[begin..begin + PROBE], 0).map(drop)
}
