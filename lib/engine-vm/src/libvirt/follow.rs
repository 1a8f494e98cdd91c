//! libvirt's events as the port's. They only make things quicker: nobody depends on them, and a look sees the same.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use virt::sys as c;

use super::end::Stopped;
use super::look::{Inner, Seen, Shared};
use super::sys::Told;
use crate::port::{VmActivity, VmEvent, VmExit};
use crate::qemu::QmpRole;

/// Without a connection one is tried for so often.
const RETRY: Duration = Duration::from_secs(1);

/// Passes events on until the adapter ends.
pub(super) async fn follow(inner: Shared, mut told: UnboundedReceiver<Told>) {
    // Weak, so that this task does not keep the adapter's parts for ever.
    let weak = std::sync::Arc::downgrade(&inner);
    drop(inner);
    // Events may have been missed.
    let mut is_behind = true;
    loop {
        if is_behind {
            let Some(inner) = Weak::upgrade(&weak) else { return };
            is_behind = !inner.catch_up().await;
        }
        let event = if is_behind {
            tokio::select! {
                biased;
                event = told.recv() => event,
                () = tokio::time::sleep(RETRY) => continue,
            }
        } else {
            told.recv().await
        };
        let (Some(event), Some(inner)) = (event, Weak::upgrade(&weak)) else { return };
        match event {
            Told::Lifecycle { event, detail } => inner.pass_on(event, detail),
            Told::Reboot => inner.tell(VmEvent::Changed(VmActivity::RebootInProgress)),
            Told::Closed => is_behind = true,
        }
    }
}

impl Inner {
    /// Looks after events may have been missed. True once that worked.
    async fn catch_up(&self) -> bool {
        self.clear_stale_launch().await;
        match self.look().await {
            Ok(status) => {
                self.tell(match (status.activity, status.exit) {
                    (VmActivity::Down, Some(exit)) => VmEvent::Ended(exit),
                    (VmActivity::PausedByIoError, _) => VmEvent::IoErrorPause,
                    (activity, _) => VmEvent::Changed(activity),
                });
                self.link.is_open()
            }
            Err(error) => {
                tracing::debug!(%error, "the engine VM cannot be looked at");
                false
            }
        }
    }

    /// A VM whose start was broken off by the end of the agent stands still for ever, without having run.
    async fn clear_stale_launch(&self) {
        if self.settings.role != QmpRole::Agent || !self.notes.read().is_launching {
            return;
        }
        let Ok(_lock) = self.notes.begin_start("clear a broken start") else { return };
        if !matches!(self.see().await, Ok(Some(seen)) if self.is_stale(&seen)) {
            return;
        }
        tracing::warn!(
            "an earlier start of the engine VM was broken off before any guest code ran: it is ended"
        );
        let exit = VmExit::StartFailed { detail: "the agent ended while it started the VM".to_owned() };
        match self.end().await {
            Ok(()) => self.over(&exit),
            Err(error) => tracing::warn!(%error, "it cannot be ended"),
        }
    }

    /// True of a VM that somebody began to start who is gone: for whoever holds the start's lock.
    pub fn is_stale(&self, seen: &Seen) -> bool {
        let is_ready = seen.state == c::VIR_DOMAIN_PAUSED
            && matches!(
                seen.reason.cast_unsigned(),
                c::VIR_DOMAIN_PAUSED_USER | c::VIR_DOMAIN_PAUSED_UNKNOWN | c::VIR_DOMAIN_PAUSED_STARTING_UP
            );
        is_ready && self.notes.read().is_launching
    }

    fn pass_on(&self, event: u32, detail: u32) {
        match event {
            c::VIR_DOMAIN_EVENT_STARTED => self.changed(VmActivity::PoweringUp),
            c::VIR_DOMAIN_EVENT_RESUMED => {
                self.note(VmActivity::Up);
                self.changed(VmActivity::Up);
            }
            c::VIR_DOMAIN_EVENT_SUSPENDED if detail == c::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR => {
                self.tell(VmEvent::IoErrorPause);
            }
            c::VIR_DOMAIN_EVENT_SUSPENDED if detail == c::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED => {
                self.changed(VmActivity::MigrationSource);
            }
            c::VIR_DOMAIN_EVENT_SUSPENDED | c::VIR_DOMAIN_EVENT_CRASHED => self.changed(VmActivity::Paused),
            c::VIR_DOMAIN_EVENT_SHUTDOWN => {
                self.memory().vm.get_or_insert_default().is_ended_by_signal =
                    detail == c::VIR_DOMAIN_EVENT_SHUTDOWN_HOST;
                self.changed(VmActivity::PoweringDown);
            }
            c::VIR_DOMAIN_EVENT_STOPPED => self.stopped(detail),
            // Definitions and what is yet to come say nothing about what runs.
            _ => {}
        }
    }

    fn changed(&self, activity: VmActivity) {
        self.tell(VmEvent::Changed(activity));
    }

    fn stopped(&self, detail: u32) {
        let (vm, is_starting) = {
            let memory = self.memory();
            (memory.vm.unwrap_or_default(), memory.is_starting)
        };
        let stopped = Stopped { detail, notes: self.notes.last(), vm };
        let is_other_start = !is_starting && !stopped.notes.is_launching;
        let unknown = || VmExit::StartFailed { detail: "it did not start, or did not arrive".to_owned() };
        match stopped.exit().or_else(|| is_other_start.then(unknown)) {
            Some(exit) => {
                self.over(&exit);
                self.tell(VmEvent::Ended(exit));
            }
            None => self.changed(VmActivity::Down),
        }
        self.ended.notify_waiters();
    }
}
