//! Looking at the VM: what VDSM says, whose the lease is, how the last one ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ha_config::HostedEngineConf;
use tokio::sync::broadcast;
use vdsm_client::{CallError, Client, Connection, VmStats, code};

use super::exit::Ended;
use super::lease::holding;
use super::words::activity;
use crate::domain_xml::Lease;
use crate::lease::LeaseSpec;
use crate::port::{LeaseHolding, VmActivity, VmError, VmEvent, VmExit, VmStatus};

/// How long a question waits for a connection when there is none.
const CONNECT: Duration = Duration::from_secs(3);
/// How much longer one waits for its answer. Together less than the callers' own patience of 10 s.
const ANSWER: Duration = Duration::from_secs(5);
/// A lease that seems lost is looked at so often, with a pause, before it is called lost: VDSM learns a little later than
/// sanlock that a guest went on, stood still or ended.
const DOUBTS: u32 = 2;
const DOUBT: Duration = Duration::from_millis(500);

/// What the parts of the adapter share.
#[derive(Debug)]
pub(super) struct Inner {
    pub vdsm: Client,
    pub vm_id: String,
    pub conf: HostedEngineConf,
    pub events: broadcast::Sender<VmEvent>,
    memory: Mutex<Memory>,
}

/// What is remembered between looks. VDSM knows the rest.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Guest code was seen running since the last start.
    pub has_run: bool,
    /// How the last VM ended, with the words that this was read from.
    ended: Option<(Ended, VmExit)>,
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
        events: broadcast::Sender<VmEvent>,
    ) -> Self {
        Self { vdsm, vm_id, conf, events, memory: Mutex::default() }
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
            answer = self.vdsm.vm_stats(&self.vm_id) => answer,
            error = self.impatience() => Err(error),
        }
    }

    /// Completes when a question has waited long enough.
    async fn impatience(&self) -> CallError {
        let is_down = || match &*self.vdsm.connection().borrow() {
            Connection::Down { why } => Some(CallError::Unreachable { detail: why.clone() }),
            Connection::Up => None,
        };
        tokio::time::sleep(CONNECT).await;
        if let Some(error) = is_down() {
            return error;
        }
        tokio::time::sleep(ANSWER).await;
        is_down().unwrap_or_else(|| CallError::Deadline {
            method: "VM.getStats".to_owned(),
            after: CONNECT + ANSWER,
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
                tokio::time::sleep(DOUBT).await;
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
            (memory.has_run, memory.ended.clone().filter(|(known, _)| *known == ended))
        };
        if let Some((_, exit)) = known {
            return exit;
        }
        let owner = if ended.may_be_refused(has_run) { self.lease_owner().await.ok() } else { None };
        let exit = ended.exit(has_run, owner.as_ref());
        self.memory().ended = Some((ended, exit.clone()));
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
