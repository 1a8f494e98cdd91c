//! Is the engine VM here, and does the engine in it answer?
//!
//! [`classify`] says what a look at the hypervisor comes to; it is a function of what was seen and of the VM's
//! state at the look before, with no clock and no I/O. The driver around it looks every 10 s and at once when
//! the hypervisor tells of an event, also while the liveliness page is being waited for. It never acts on the VM.
//!
//! ```text
//! hypervisor says                                  vm                     health  reason
//! cannot be asked                                  unknown                unknown failed to getVmStats
//! no VM, no trace of one                           as before, but         bad     vm not running on this host
//!                                                  up → down_missing
//! down, its lease was refused                      down                   bad     Storage of VM is locked. …
//! down, migrated away                              down                   bad     VM migrated away successfully
//! down, it never ran (a failed start)              down                   bad     bad vm status
//! down otherwise, or only arriving by migration    down if down before,   bad     bad vm status
//!                                                  else down_unexpected
//! paused, being launched, restored, powering up    up                     bad     bad vm status
//! anything else: the page answers as it must       up                     good    –
//!                it does not                       up                     bad     failed liveliness check
//! ```

mod page;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{EngineVm, LeaseHolding, VmActivity, VmError, VmEvent, VmExit, VmStatus};
use metadata_format::{EngineStatus, Health, VmState};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time;

pub use page::{HealthPage, Liveliness, PageOptions};

use super::probe::{Probe, Reading};

/// How long the hypervisor may take to answer.
const ASK: Duration = Duration::from_secs(10);
/// How often one measurement begins anew because of events, before it answers with what it has.
const RESTARTS: u32 = 8;

/// What one look at the hypervisor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// It could not be asked.
    Unreachable,
    /// It said this.
    Status(&'a VmStatus),
}

/// What the look comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Decided by the hypervisor's word alone.
    Final(EngineStatus),
    /// The VM runs: the page decides; ask it and call [`running`].
    AskPage(VmActivity),
}

fn verdict(vm: VmState, detail: &str, reason: &str) -> Verdict {
    let health = if vm == VmState::Unknown { Health::Unknown } else { Health::Bad };
    let (detail, reason) = (detail.to_owned(), Some(reason.to_owned()));
    Verdict::Final(EngineStatus { vm, health, detail, reason })
}

/// The state that is meant by "the VM is down and nothing says why that is right".
const fn unexpected(before: VmState) -> VmState {
    match before {
        VmState::Down => VmState::Down,
        VmState::Up | VmState::DownUnexpected | VmState::DownMissing | VmState::Unknown => {
            VmState::DownUnexpected
        }
    }
}

/// Says what a look comes to, given the VM's state at the last look that could tell ([`VmState::Down`] before the
/// first).
pub fn classify(before: VmState, seen: Seen<'_>) -> Verdict {
    let Seen::Status(status) = seen else {
        return verdict(VmState::Unknown, "unknown", "failed to getVmStats");
    };
    let detail = status.activity.word();
    match (status.activity, &status.exit) {
        (VmActivity::Down, None) => {
            let vm = if before == VmState::Up { VmState::DownMissing } else { before };
            verdict(vm, "unknown", "vm not running on this host")
        }
        (VmActivity::Down, Some(VmExit::LeaseRefused { .. })) => verdict(
            VmState::Down,
            detail,
            "Storage of VM is locked. Is another host already starting the VM?",
        ),
        (VmActivity::Down, Some(VmExit::MigratedAway)) => {
            verdict(VmState::Down, detail, "VM migrated away successfully")
        }
        // Also when a look saw it being launched: a start that fails is no end of a VM.
        (VmActivity::Down, Some(VmExit::StartFailed { .. })) => {
            verdict(VmState::Down, detail, "bad vm status")
        }
        (VmActivity::Down, Some(VmExit::Orderly { .. } | VmExit::Crashed { .. }))
        | (VmActivity::MigrationDestination, _) => verdict(unexpected(before), detail, "bad vm status"),
        (
            VmActivity::Paused
            | VmActivity::PausedByIoError
            | VmActivity::WaitForLaunch
            | VmActivity::RestoringState
            | VmActivity::PoweringUp,
            _,
        ) => verdict(VmState::Up, detail, "bad vm status"),
        (
            VmActivity::Up
            | VmActivity::PoweringDown
            | VmActivity::MigrationSource
            | VmActivity::RebootInProgress
            | VmActivity::SavingState,
            _,
        ) => Verdict::AskPage(status.activity),
    }
}

/// The status of a VM that runs, by its page's answer.
pub fn running(activity: VmActivity, page_is_good: bool) -> EngineStatus {
    let (health, reason) = if page_is_good {
        (Health::Good, None)
    } else {
        (Health::Bad, Some("failed liveliness check".to_owned()))
    };
    EngineStatus { vm: VmState::Up, health, detail: activity.word().to_owned(), reason }
}

/// The status as Python's `json.dumps` writes it: a space after each colon and comma.
pub fn python_json(status: &EngineStatus) -> String {
    /// Strings and plain enums always serialize.
    fn json(value: impl serde::Serialize) -> String {
        serde_json::to_string(&value).unwrap_or_default()
    }
    let mut text = format!(
        r#"{{"vm": {}, "health": {}, "detail": {}"#,
        json(status.vm),
        json(status.health),
        json(&status.detail)
    );
    if let Some(reason) = &status.reason {
        text.push_str(r#", "reason": "#);
        text.push_str(&json(reason));
    }
    text.push('}');
    text
}

/// What an operator should know beside the status.
fn note(seen: &Result<VmStatus, VmError>, page: Option<&str>) -> Option<String> {
    match seen {
        Err(e) => Some(e.to_string()),
        Ok(VmStatus { lease: LeaseHolding::Lost { detail }, .. }) => {
            Some(format!("the VM does not own its lease and must be destroyed: {detail}"))
        }
        Ok(VmStatus { exit: Some(VmExit::Crashed { detail }), .. }) => {
            Some(format!("the last VM here crashed: {detail}"))
        }
        Ok(VmStatus { exit: Some(VmExit::StartFailed { detail }), .. }) => {
            Some(format!("the last start here failed: {detail}"))
        }
        Ok(VmStatus { exit: Some(VmExit::LeaseRefused { detail }), .. }) => {
            Some(format!("the last start here was refused its lease: {detail}"))
        }
        Ok(_) => page.map(str::to_owned),
    }
}

/// The monitor.
pub struct EngineHealth {
    vm: Arc<dyn EngineVm>,
    page: Arc<dyn Liveliness>,
    events: Receiver<VmEvent>,
    before: VmState,
}

impl EngineHealth {
    /// Watches `vm`, and asks `page` whether the engine in it answers.
    pub fn new(vm: Arc<dyn EngineVm>, page: Arc<dyn Liveliness>) -> Self {
        let events = vm.events();
        Self { vm, page, events, before: VmState::Down }
    }

    async fn look(&self) -> Result<VmStatus, VmError> {
        time::timeout(ASK, self.vm.status()).await.unwrap_or_else(|_| {
            Err(VmError::Unreachable { detail: format!("no answer within {} s", ASK.as_secs()) })
        })
    }

    /// Forgets the events so far: the look that follows sees what they told of.
    fn drain(&mut self) {
        use tokio::sync::broadcast::error::TryRecvError;
        while matches!(self.events.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
    }
}

/// Completes at the next event; never when no more can come.
async fn next_event(events: &mut Receiver<VmEvent>) {
    if matches!(events.recv().await, Err(RecvError::Closed)) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Probe for EngineHealth {
    async fn measure(&mut self) -> Result<Reading, String> {
        let mut restarts = 0;
        let (seen, status, page) = loop {
            self.drain();
            let seen = self.look().await;
            let verdict = classify(self.before, seen.as_ref().map_or(Seen::Unreachable, Seen::Status));
            let activity = match verdict {
                Verdict::Final(status) => break (seen, status, None),
                Verdict::AskPage(activity) => activity,
            };
            let answer = tokio::select! {
                biased;
                // What the page says is of a VM that may be gone: look again.
                () = next_event(&mut self.events), if restarts < RESTARTS => {
                    restarts += 1;
                    continue;
                }
                answer = self.page.check() => answer,
            };
            break (seen, running(activity, answer.is_ok()), answer.err());
        };
        if status.vm != VmState::Unknown {
            self.before = status.vm;
        }
        Ok(Reading::noted(python_json(&status), note(&seen, page.as_deref())))
    }

    /// The hypervisor's and the page's own deadlines are shorter, also with some events in between.
    fn limit(&self) -> Duration {
        Duration::from_mins(3)
    }

    async fn woken(&mut self) {
        next_event(&mut self.events).await;
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vdsm_tests;
