//! Looking at the VM: what VDSM says, whose the lease is, how the last one ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ha_config::HostedEngineConf;
use tokio::sync::broadcast;
use vdsm_client::{CallError, Client, Connection, VmStats, code};

use super::exit::Ended;
use super::words::activity;
use crate::domain_xml::Lease;
use crate::lease::{LeaseError, LeaseOwner, LeaseSpec};
use crate::outlook::OwnerWatch;
use crate::port::{LeaseHolding, VmActivity, VmError, VmEvent, VmExit, VmStatus};
use crate::under_libvirt::holding;

/// A lease that seems lost is looked at so often again, before it is called lost: VDSM learns a little later than sanlock
/// that a guest went on, stood still or ended.
const DOUBTS: u32 = 2;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// A question waits for a connection so long when there is none.
    pub connect: Duration,
    /// And so much longer for its answer; together less than the callers' own patience of 10 s.
    pub answer: Duration,
    /// From one look at a lease that seems lost to the next.
    pub doubt: Duration,
    /// VDSM's answer to `VM.create`, which comes before anything is done.
    pub create: Duration,
    /// Until VDSM shows a VM when its answer was lost.
    pub appear: Duration,
    /// Until a created VM runs. The lease of a dead host is free after 8 N + W at the latest (140 s with sanlock's defaults);
    /// the rest is QEMU's.
    pub launch: Duration,
    /// Until a destroyed VM is not seen any more.
    pub vanish: Duration,
    /// From one look to the next without an event.
    pub look: Duration,
    /// W: so long after its lock manager began to fail a host's watchdog has ended it.
    pub watchdog: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(5),
            doubt: Duration::from_millis(500),
            create: Duration::from_mins(1),
            appear: Duration::from_secs(10),
            launch: Duration::from_mins(5),
            vanish: Duration::from_mins(1),
            look: Duration::from_secs(1),
            watchdog: Duration::from_mins(1),
        }
    }
}

type AskOwner = dyn Fn(&LeaseSpec) -> Result<LeaseOwner, LeaseError> + Send + Sync;

/// Who tells whose a lease is. May block.
#[derive(Clone)]
pub(super) struct LockManager(Arc<AskOwner>);

impl LockManager {
    #[cfg(test)]
    pub fn new(owner: impl Fn(&LeaseSpec) -> Result<LeaseOwner, LeaseError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(owner))
    }

    /// The sanlock daemon of this host.
    pub fn sanlock() -> Self {
        Self(Arc::new(LeaseSpec::owner))
    }

    /// Asks in a thread that may block.
    pub async fn owner(&self, spec: LeaseSpec) -> Result<LeaseOwner, LeaseError> {
        let this = self.clone();
        let asked = tokio::task::spawn_blocking(move || (this.0)(&spec));
        asked.await.map_err(|error| LeaseError::Unavailable(format!("a task failed: {error}")))?
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockManager(…)")
    }
}

/// What the parts of the adapter share.
#[derive(Debug)]
pub(super) struct Inner {
    pub vdsm: Client,
    pub vm_id: String,
    pub conf: HostedEngineConf,
    pub locks: LockManager,
    pub times: Times,
    pub events: broadcast::Sender<VmEvent>,
    /// What was seen of the lease's owner.
    pub owner: OwnerWatch,
    memory: Mutex<Memory>,
}

/// What is remembered between looks. VDSM knows the rest.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Guest code of the VM that exists was seen running.
    has_run: bool,
    /// How the last VM ended, with the words that this was read from while VDSM still says them.
    ended: Option<(Option<Ended>, VmExit)>,
    /// Time of VDSM's newest word, in milliseconds of the host's monotonic clock.
    newest: Option<i64>,
    /// Where the lease is that was asked about last.
    pub lease: Option<(Lease, LeaseSpec)>,
}

/// Shared by tasks.
pub(super) type Shared = Arc<Inner>;

impl Inner {
    pub fn new(
        vdsm: Client,
        vm_id: String,
        conf: HostedEngineConf,
        locks: LockManager,
        times: Times,
        events: broadcast::Sender<VmEvent>,
    ) -> Self {
        Self {
            vdsm,
            vm_id,
            conf,
            locks,
            times,
            events,
            owner: OwnerWatch::default(),
            memory: Mutex::default(),
        }
    }

    /// Never held over an await.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A start begins: what ended before is of no interest any more.
    pub fn forget(&self) {
        let mut memory = self.memory();
        memory.has_run = false;
        memory.ended = None;
    }

    /// How the last VM here ended.
    pub fn last_exit(&self) -> Option<VmExit> {
        self.memory().ended.as_ref().map(|(_, exit)| exit.clone())
    }

    /// VDSM's word about the VM, soon or not at all.
    pub async fn stats(&self) -> Result<VmStats, CallError> {
        tokio::select! {
            biased;
            answer = self.vdsm.vm_stats(&self.vm_id) => {
                match &answer {
                    Ok(stats) => {
                        if let Some(time) = stats.status_time {
                            self.is_news(time);
                        }
                    }
                    Err(error) if error.code() == Some(code::NO_SUCH_VM) => self.is_gone(),
                    Err(_) => {}
                }
                answer
            }
            error = self.impatience() => Err(error),
        }
    }

    /// True unless something newer is known.
    pub fn is_news(&self, time: i64) -> bool {
        let mut memory = self.memory();
        let is_news = memory.newest.is_none_or(|newest| newest <= time);
        if is_news {
            memory.newest = Some(time);
        }
        is_news
    }

    /// VDSM has no VM: the next one's end is its own, also when it is told in the same words.
    fn is_gone(&self) {
        let mut memory = self.memory();
        memory.has_run = false;
        if let Some((words, _)) = &mut memory.ended {
            *words = None;
        }
    }

    /// Completes when a question has waited long enough.
    async fn impatience(&self) -> CallError {
        let is_down = || match &*self.vdsm.connection().borrow() {
            Connection::Down { why } => Some(CallError::Unreachable { detail: why.clone() }),
            Connection::Up => None,
        };
        tokio::time::sleep(self.times.connect).await;
        if let Some(error) = is_down() {
            return error;
        }
        tokio::time::sleep(self.times.answer).await;
        is_down().unwrap_or_else(|| CallError::Deadline {
            method: "VM.getStats".to_owned(),
            after: self.times.connect + self.times.answer,
        })
    }

    /// One look at everything.
    pub async fn look(&self) -> Result<VmStatus, VmError> {
        let mut doubts = 0;
        loop {
            let stats = match self.stats().await {
                Ok(stats) => stats,
                Err(error) if error.code() == Some(code::NO_SUCH_VM) => {
                    return Ok(down(self.last_exit()));
                }
                // A refusal to say is as good as none.
                Err(error) => return Err(VmError::Unreachable { detail: error.to_string() }),
            };
            let activity = activity(&stats)?;
            if activity == VmActivity::Down {
                return Ok(down(Some(self.exit_of(&stats).await)));
            }
            self.exists(activity);
            let lease = if stats.pause_code.as_deref() == Some("POSTCOPY") {
                let detail =
                    "the guest runs on the other host already, which is still fetching its memory".to_owned();
                LeaseHolding::Pending { detail }
            } else {
                holding(activity, self.lease_owner().await)
            };
            if matches!(lease, LeaseHolding::Lost { .. }) && doubts < DOUBTS {
                doubts += 1;
                tokio::time::sleep(self.times.doubt).await;
                continue;
            }
            return Ok(VmStatus { activity, exit: None, lease, pid: None });
        }
    }

    /// Notes that there is a VM.
    pub fn exists(&self, activity: VmActivity) {
        let mut memory = self.memory();
        memory.ended = None;
        memory.has_run |= !matches!(
            activity,
            VmActivity::WaitForLaunch | VmActivity::MigrationDestination | VmActivity::RestoringState
        );
    }

    /// How the VM that VDSM says is down has ended.
    pub async fn exit_of(&self, stats: &VmStats) -> VmExit {
        let ended = Ended::of(stats);
        let (has_run, known) = {
            let memory = self.memory();
            (memory.has_run, memory.ended.clone().filter(|(known, _)| known.as_ref() == Some(&ended)))
        };
        if let Some((_, exit)) = known {
            return exit;
        }
        let owner = if ended.may_be_refused(has_run) { self.lease_owner().await.ok() } else { None };
        let exit = ended.exit(has_run, owner.as_ref());
        let mut memory = self.memory();
        memory.ended = Some((Some(ended), exit.clone()));
        memory.has_run = false;
        exit
    }

    /// Tells whoever listens; nobody listening is no error.
    pub fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event);
    }
}

/// No VM here.
fn down(exit: Option<VmExit>) -> VmStatus {
    VmStatus { activity: VmActivity::Down, exit, lease: LeaseHolding::NoVm, pid: None }
}
