//! Starting and ending the VM.
//!
//! VDSM answers `VM.create` before anything happened. Then libvirt takes the lease, which lasts as long as sanlock needs to
//! be sure that a silent owner is dead, and starts QEMU.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;
use vdsm_client::{CallError, Event, VmParams, VmStats, code};

use super::look::Inner;
use super::words::activity;
use super::{description, failed, is_unsure, trouble};
use crate::port::{LeaseHolding, StartMode, VmActivity, VmError, VmExit};

const START: &str = "start the engine VM";
const DESTROY: &str = "destroy the engine VM";
const SHUTDOWN: &str = "shut the engine VM down";

/// What a look at a VM that is being started came to.
enum Launch {
    Waits,
    Runs,
}

impl Inner {
    pub async fn start(&self, mode: StartMode) -> Result<(), VmError> {
        let xml = description::to_start(&self.conf, &self.vm_id, mode)?;
        self.clear().await?;
        let mut events = self.vdsm.events();
        self.forget();
        let created = self.vdsm.vm_create(&self.vm_id, VmParams::Xml(xml));
        let created = tokio::time::timeout(self.times.create, created).await.unwrap_or_else(|_| {
            Err(CallError::Deadline { method: "VM.create".to_owned(), after: self.times.create })
        });
        let unsure = match created {
            Ok(_) => None,
            Err(error) if error.code() == Some(code::VM_EXISTS) => {
                return Err(VmError::AlreadyExists { pid: None });
            }
            Err(error) if is_unsure(&error) => {
                tracing::warn!(%error, "whether VDSM creates the engine VM is seen by looking");
                Some(error)
            }
            Err(error) => return Err(trouble(START, &error)),
        };
        let end = Instant::now() + self.times.launch;
        let appear = Instant::now() + self.times.appear;
        let mut has_appeared = unsure.is_none();
        loop {
            match self.stats().await {
                Ok(stats) => {
                    has_appeared = true;
                    match self.launch(&stats).await? {
                        Launch::Runs => break,
                        Launch::Waits => {}
                    }
                }
                Err(error) if error.code() != Some(code::NO_SUCH_VM) => {
                    // The VM does not mind that VDSM is away.
                    if Instant::now() >= end {
                        return Err(trouble(START, &error));
                    }
                }
                Err(_) if has_appeared => return Err(failed(START, "it was destroyed before it ran")),
                Err(_) if Instant::now() < appear => {}
                Err(error) => {
                    let lost = unsure.unwrap_or(error);
                    return Err(failed(START, format!("{lost}; VDSM has no such VM")));
                }
            }
            if Instant::now() >= end {
                let secs = self.times.launch.as_secs();
                return Err(failed(START, format!("VDSM has not launched it within {secs} s")));
            }
            self.next_event(&mut events).await;
        }
        self.check_protection().await
    }

    async fn launch(&self, stats: &VmStats) -> Result<Launch, VmError> {
        let activity = activity(stats)?;
        match activity {
            VmActivity::Down => {
                let (is_refused, detail) = match self.exit_of(stats).await {
                    VmExit::LeaseRefused { detail } => (true, detail),
                    VmExit::Orderly { detail }
                    | VmExit::Crashed { detail }
                    | VmExit::StartFailed { detail } => (false, detail),
                    VmExit::MigratedAway => (false, "it migrated away".to_owned()),
                };
                Err(if is_refused { VmError::LeaseHeld { detail } } else { failed(START, detail) })
            }
            VmActivity::WaitForLaunch | VmActivity::RestoringState | VmActivity::MigrationDestination => {
                Ok(Launch::Waits)
            }
            VmActivity::PoweringUp
            | VmActivity::Up
            | VmActivity::PoweringDown
            | VmActivity::Paused
            | VmActivity::PausedByIoError
            | VmActivity::MigrationSource
            | VmActivity::RebootInProgress
            | VmActivity::SavingState => {
                self.exists(activity);
                Ok(Launch::Runs)
            }
        }
    }

    /// A libvirt without its sanlock plug-in starts a VM without taking any lease: such a VM must not live.
    async fn check_protection(&self) -> Result<(), VmError> {
        let status = match self.look().await {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, "the engine VM was started, and whether it owns its lease is not known");
                return Ok(());
            }
        };
        match status.lease {
            LeaseHolding::Held | LeaseHolding::Pending { .. } => Ok(()),
            LeaseHolding::Unknown { detail } => {
                tracing::warn!(detail, "the engine VM runs, and whether it owns its lease is not known");
                Ok(())
            }
            LeaseHolding::NoVm => Err(failed(START, "it ended at once")),
            LeaseHolding::Lost { detail } => {
                tracing::error!(detail, "the engine VM was started without its lease: it is ended");
                self.destroy().await?;
                Err(VmError::NoLease {
                    detail: format!(
                        "{detail}, although the VM was running; is lock_manager=\"sanlock\" set in /etc/libvirt/qemu.conf?"
                    ),
                })
            }
        }
    }

    /// Clears what is left of an earlier VM.
    async fn clear(&self) -> Result<(), VmError> {
        match self.stats().await {
            Err(error) if error.code() == Some(code::NO_SUCH_VM) => Ok(()),
            Err(error) => Err(trouble(START, &error)),
            Ok(stats) if activity(&stats)? == VmActivity::Down => match self.destroy().await {
                Ok(()) | Err(VmError::NotRunning) => Ok(()),
                Err(error) => Err(error),
            },
            Ok(_) => Err(VmError::AlreadyExists { pid: None }),
        }
    }

    /// Ends the VM, or makes VDSM forget one that is down; returns when VDSM has none.
    pub async fn destroy(&self) -> Result<(), VmError> {
        let mut events = self.vdsm.events();
        match self.vdsm.vm_destroy(&self.vm_id).await {
            Ok(()) => {}
            Err(error) if is_unsure(&error) => {
                tracing::warn!(%error, "whether VDSM destroys the engine VM is seen by looking");
            }
            Err(error) => return Err(trouble(DESTROY, &error)),
        }
        let end = Instant::now() + self.times.vanish;
        loop {
            let last = match self.stats().await {
                Err(error) if error.code() == Some(code::NO_SUCH_VM) => return Ok(()),
                Err(error) => trouble(DESTROY, &error),
                Ok(stats) => {
                    let word = stats.status.unwrap_or_default();
                    failed(DESTROY, format!("VDSM still says {word} after {} s", self.times.vanish.as_secs()))
                }
            };
            if Instant::now() >= end {
                return Err(last);
            }
            self.next_event(&mut events).await;
        }
    }

    pub async fn shutdown(&self, delay: Duration, message: &str) -> Result<(), VmError> {
        let stats = self.stats().await.map_err(|error| trouble(SHUTDOWN, &error))?;
        match activity(&stats)? {
            VmActivity::Down => return Err(VmError::NotRunning),
            VmActivity::Paused | VmActivity::PausedByIoError => {
                let detail =
                    "its processors are stopped, so it would not notice; resume it first, or power it off";
                return Err(failed(SHUTDOWN, detail));
            }
            VmActivity::WaitForLaunch
            | VmActivity::PoweringUp
            | VmActivity::Up
            | VmActivity::PoweringDown
            | VmActivity::MigrationSource
            | VmActivity::MigrationDestination
            | VmActivity::RebootInProgress
            | VmActivity::RestoringState
            | VmActivity::SavingState => {}
        }
        match self.vdsm.vm_shutdown(&self.vm_id, delay, message).await {
            Ok(()) => Ok(()),
            Err(error) if is_unsure(&error) => match self.look().await?.activity {
                VmActivity::PoweringDown | VmActivity::Down => Ok(()),
                _ => Err(trouble(SHUTDOWN, &error)),
            },
            Err(error) => Err(trouble(SHUTDOWN, &error)),
        }
    }

    /// Waits for something to happen to the VM, but not long.
    async fn next_event(&self, events: &mut broadcast::Receiver<Event>) {
        let ours = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.vm_status().is_some_and(|event| event.vm_id == self.vm_id) => return,
                    Ok(_) => {}
                    // Some were lost: look.
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // A look is due in both cases.
        let _ = tokio::time::timeout(self.times.look, ours).await;
    }
}
