//! A VM that an I/O error paused, and what waits for storage.
//!
//! ```text
//!  paused ──▶ lease held ──▶ storage works ──▶ let it go on ──runs──▶ by its health
//!                │               │                   └── three times in vain, 8 s apart ──▶ EngineForceStop
//!                │               └ storage does not work: wait; sanlock ends the VM 8N after its last renewal
//!                └─▶ not known: wait          lost: EngineForceStop          gone meanwhile: EngineDown
//! ```
//! A VM that an operator paused is none of these: it is left alone. Nothing here resumes without the lease: the
//! hypervisor's adapter asks the lock manager once more.

use super::super::Retries;
use super::super::input::{Action, ActionResult, PausedLease};
use super::super::policy::Policy;
use super::super::reason::Reason;
use super::super::state::State;
use super::Outcome::{Act, To};
use super::Wait::{Delay, No};
use super::{Core, Outcome, Step};

/// Tries in a row to let the VM go on.
const RESUME_TRIES: u32 = 3;
/// Seconds from one try to the next. The VM's events wake the agent at once; that storage fails is known some seconds
/// later.
const RESUME_PAUSE: u64 = 8;

/// Where a paused VM is waited for.
fn waiting(from: State) -> State {
    if from == State::EngineStarting { from } else { State::EngineUpBadHealth }
}

/// Where trying to let the VM go on leads.
pub(super) fn after_resume(from: State, result: ActionResult) -> Outcome {
    match result {
        ActionResult::Done => To(from, Delay, Reason::Resumed),
        ActionResult::Refused { detail } | ActionResult::Failed { detail } => {
            To(waiting(from), Delay, Reason::ResumeFailed { detail })
        }
        // Only a start waits for a lease.
        ActionResult::Waits { .. } | ActionResult::Ready { .. } => {
            To(waiting(from), Delay, Reason::ResultLost)
        }
    }
}

impl Core {
    /// Whether the VM's bad health is storage's doing and must not run a timer down: storage does not work, and either
    /// the VM is paused for it, or the host id lease is still renewed.
    pub(in super::super) fn waits_for_storage(&self, policy: Policy) -> bool {
        let Some(view) = &self.view else { return false };
        let footing = &view.look.footing;
        let paused = policy.paused_policy && view.look.local.io_error_pause.is_some();
        let patient = policy.storage_patience && footing.host_lease == Some(true);
        matches!(self.state, State::EngineStarting | State::EngineUpBadHealth)
            && footing.storage_stuck.is_some()
            && (paused || patient)
    }
}

impl Step<'_> {
    /// What a VM that an I/O error paused needs, with the switch; `None` when the state's own rules apply.
    pub(super) fn paused(&mut self) -> Option<Outcome> {
        let (look, from) = (&self.view.look, self.core.state);
        if !self.settings.policy.paused_policy {
            self.note_storage();
            return None;
        }
        let Some(lease) = look.local.io_error_pause else {
            self.note_storage();
            // Not a crash: no reason for this host to rest.
            let is_gone = self.core.resumes.is_some() && look.local.vm().is_down();
            let reason = || Reason::PausedVmGone { detail: self.vm_detail() };
            return is_gone.then(|| To(State::EngineDown, Delay, reason()));
        };
        let Retries { count: tries, last } = self.core.resumes.unwrap_or_default();
        let left = last.map_or(0, |at| at.plus(RESUME_PAUSE).since(look.finished));
        Some(match (lease, look.footing.storage_stuck) {
            (PausedLease::Lost, _) => To(State::EngineForceStop, No, Reason::PausedLeaseLost),
            (PausedLease::Held | PausedLease::Unknown, Some(secs)) => {
                To(waiting(from), Delay, Reason::PausedWaits { secs })
            }
            (PausedLease::Unknown, None) => To(waiting(from), Delay, Reason::PausedLeaseUnknown),
            (PausedLease::Held, None) if left > 0 => To(waiting(from), Delay, Reason::ResumePauses { left }),
            (PausedLease::Held, None) if tries >= RESUME_TRIES => {
                To(State::EngineForceStop, No, Reason::ResumeGivenUp { tries })
            }
            (PausedLease::Held, None) => {
                Act(Action::ResumeVm, Reason::Resuming { attempt: tries + 1, of: RESUME_TRIES })
            }
        })
    }

    /// Says why no timer runs although the engine is not well.
    fn note_storage(&mut self) {
        if let Some(secs) = self.view.look.footing.storage_stuck
            && self.core.waits_for_storage(self.settings.policy)
        {
            self.notes.push(Reason::StorageIsWaitedFor { secs });
        }
    }
}
