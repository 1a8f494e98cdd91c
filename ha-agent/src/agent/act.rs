//! What the agent does to the VM: what the core asks for, and the one thing that needs no decision.

use std::future::Future;
use std::time::Duration;

use engine_vm::{LeaseHolding, LeaseOutlook, StartMode, VmActivity, VmError, VmStatus};
use tracing::{error, info, warn};

use super::{ATTEND_EVERY, Agent, STOP_GRACE};
use crate::core::{Action, ActionResult, LeaseOwner, OwnerLife, PausedLease, Reason};
use crate::explain;

/// Longest time that letting a paused VM go on may take.
const RESUME_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time that asking the guest to power down may take (not: the powering down).
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time that ending the VM's process may take.
const DESTROY_DEADLINE: Duration = Duration::from_mins(1);
/// Longest time that a look at the VM may take.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);

/// What a look at the VM gave.
#[derive(Debug)]
pub(super) enum Guarded {
    /// Nobody knows.
    Unknown,
    /// This.
    Seen(VmStatus),
    /// This, and it was ended because nothing protected it.
    Ended(VmStatus),
}

impl Guarded {
    /// The VM as it is now, if that is known.
    pub(super) fn now(&self) -> Option<&VmStatus> {
        match self {
            Self::Seen(status) => Some(status),
            Self::Unknown | Self::Ended(_) => None,
        }
    }

    /// How the lease stands, or stood, of a VM that an I/O error paused.
    pub(super) fn io_error_pause(&self) -> Option<PausedLease> {
        let (status, lease) = match self {
            Self::Unknown => return None,
            Self::Ended(status) => (status, PausedLease::Lost),
            Self::Seen(status) => (
                status,
                match status.lease {
                    // The hypervisor takes it before the guest goes on.
                    LeaseHolding::Held | LeaseHolding::Pending { .. } => PausedLease::Held,
                    LeaseHolding::Lost { .. } | LeaseHolding::NoVm => PausedLease::Lost,
                    LeaseHolding::Unknown { .. } => PausedLease::Unknown,
                },
            ),
        };
        (status.activity == VmActivity::PausedByIoError).then_some(lease)
    }
}

/// Why an action did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Another host holds the VM's lease.
    #[error("{0}")]
    LeaseHeld(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Agent {
    /// Looks at the VM. One that exists without its lease is ended at once, in every mode: somebody else may
    /// hold the lease now.
    pub(super) async fn guard_vm(&mut self) -> Guarded {
        let vm = self.ports.vm.clone();
        let status = match tokio::time::timeout(STATUS_DEADLINE, vm.status()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                self.warnings.push(format!("the engine VM cannot be looked at: {error}"));
                return Guarded::Unknown;
            }
            Err(_) => {
                let secs = STATUS_DEADLINE.as_secs();
                self.warnings.push(format!("the engine VM cannot be looked at: no answer within {secs} s"));
                return Guarded::Unknown;
            }
        };
        match &status.lease {
            LeaseHolding::Lost { detail } if status.exists() => {
                let text =
                    format!("the engine VM runs here without its lease ({detail}): it is ended at once");
                error!("{text}");
                self.warnings.push(text);
                self.end_vm().await;
                return Guarded::Ended(status);
            }
            LeaseHolding::Unknown { detail } if status.exists() => {
                let now = self.ports.clock.monotonic();
                let since = *self.lease_unknown_since.get_or_insert(now);
                let limit = self.config.lease.lost_after();
                let text = format!("nobody knows whether the engine VM's lease is held: {detail}");
                if now.saturating_since(since) < limit {
                    self.warnings.push(text);
                } else {
                    let text = format!("{text}; for {} s now, so the VM is ended", limit.as_secs());
                    error!("{text}");
                    self.warnings.push(text);
                    self.end_vm().await;
                    return Guarded::Ended(status);
                }
            }
            LeaseHolding::Lost { .. }
            | LeaseHolding::Unknown { .. }
            | LeaseHolding::Pending { .. }
            | LeaseHolding::Held
            | LeaseHolding::NoVm => self.lease_unknown_since = None,
        }
        Guarded::Seen(status)
    }

    /// Ends a VM that is not, or not surely, protected by its lease.
    async fn end_vm(&mut self) {
        let vm = self.ports.vm.clone();
        match self.attend(DESTROY_DEADLINE, vm.destroy()).await {
            Ok(()) => {
                self.lease_unknown_since = None;
                info!("the engine VM was ended");
            }
            Err(error) => self.warnings.push(format!("ending the engine VM failed: {error}")),
        }
    }

    /// Does what the core asks for.
    pub(super) async fn act(&mut self, action: Action, reasons: &[Reason]) -> ActionResult {
        info!("{}", explain::one_line(reasons));
        let vm = self.ports.vm.clone();
        let result = match action {
            Action::StartVm => {
                if let Some(owner) = self.lease_owner().await {
                    return ActionResult::Waits { owner };
                }
                self.attend(self.config.start_deadline, vm.start(StartMode::Run)).await
            }
            Action::StopVm => {
                let message = "The high-availability agent shuts the hosted engine down on this host";
                self.attend(SHUTDOWN_DEADLINE, vm.shutdown(Duration::ZERO, message)).await
            }
            Action::ResumeVm => self.attend(RESUME_DEADLINE, vm.resume()).await,
            Action::ForceStopVm => self.attend(DESTROY_DEADLINE, vm.destroy()).await,
            Action::SendVm { to } => self.send_vm(to).await,
            Action::ReceiveVm { .. } => return self.receive_vm().await,
            Action::EndArrival => self.end_arrival().await,
            Action::CancelMigration => self.cancel_migration().await,
        };
        match result {
            Ok(()) => ActionResult::Done,
            Err(Trouble::LeaseHeld(detail)) => {
                info!("{action:?} refused: {detail}");
                ActionResult::Refused { detail }
            }
            Err(Trouble::Other(detail)) => {
                warn!("{action:?} failed: {detail}");
                ActionResult::Failed { detail }
            }
        }
    }

    /// Whether the last step waits for another host's hold on the VM's lease to end.
    pub(super) fn waits_for_lease(&self) -> bool {
        self.reasons.iter().any(|reason| matches!(reason, Reason::LeaseWaits { .. }))
    }

    /// The host whose hold on the VM's lease would make a start fail. `None` also when nobody knows: the start itself
    /// finds out, and is refused at worst.
    pub(super) async fn lease_owner(&mut self) -> Option<LeaseOwner> {
        if !self.config.settings.policy.lease_aware_start {
            return None;
        }
        let vm = self.ports.vm.clone();
        match tokio::time::timeout(STATUS_DEADLINE, vm.lease_outlook()).await {
            Ok(Ok(LeaseOutlook::Free)) => None,
            Ok(Ok(LeaseOutlook::Held { host_id, life, free_in })) => Some(LeaseOwner {
                host: host_id,
                life: match life {
                    engine_vm::OwnerLife::Live => OwnerLife::Live,
                    engine_vm::OwnerLife::Failing => OwnerLife::Failing,
                    engine_vm::OwnerLife::Unknown => OwnerLife::Unknown,
                },
                // A second begun is one to wait for.
                free_in: free_in.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0)),
            }),
            Ok(Err(error)) => {
                self.warnings.push(format!("who holds the engine VM's lease is not known: {error}"));
                None
            }
            Err(_) => {
                let secs = STATUS_DEADLINE.as_secs();
                self.warnings
                    .push(format!("who holds the engine VM's lease is not known: no answer within {secs} s"));
                None
            }
        }
    }

    /// Waits for an action within `deadline`. The service manager hears that the wait is a bounded one; an agent
    /// that is told to stop waits only a little longer. What is already so counts as done.
    pub(super) async fn attend(
        &self,
        deadline: Duration,
        action: impl Future<Output = Result<(), VmError>>,
    ) -> Result<(), Trouble> {
        let mut action = std::pin::pin!(action);
        let mut end = std::pin::pin!(tokio::time::sleep(deadline));
        let mut beat = tokio::time::interval(ATTEND_EVERY);
        let mut stop = self.stop.clone();
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                result = &mut action => return match result {
                    Ok(()) | Err(VmError::AlreadyExists { .. } | VmError::NotRunning) => Ok(()),
                    Err(error @ VmError::LeaseHeld { .. }) => Err(Trouble::LeaseHeld(error.to_string())),
                    Err(error) => Err(Trouble::Other(error.to_string())),
                },
                () = &mut end => {
                    return Err(Trouble::Other(if stopping {
                        "the agent was told to stop meanwhile".to_owned()
                    } else {
                        format!("not done within {} s", deadline.as_secs())
                    }));
                }
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    let soon = tokio::time::Instant::now() + STOP_GRACE;
                    if soon < end.deadline() {
                        end.as_mut().reset(soon);
                    }
                }
                _ = beat.tick() => self.ports.service.alive(),
            }
        }
    }
}
