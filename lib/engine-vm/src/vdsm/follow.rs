//! VDSM's events as the port's. They only make things quicker: nobody depends on them, and a look sees the same.

use std::sync::Weak;

use tokio::sync::broadcast::error::RecvError;
use vdsm_client::{Connection, VmStatusEvent};

use super::look::{Inner, Shared};
use super::words::activity;
use crate::port::{VmActivity, VmEvent};

/// Passes events on until the client or the adapter ends.
pub(super) async fn follow(inner: Shared) {
    let mut events = inner.vdsm.events();
    let mut connection = inner.vdsm.connection();
    let vm_id = inner.vm_id.clone();
    // Weak, so that this task does not keep the adapter's parts for ever.
    let weak = std::sync::Arc::downgrade(&inner);
    drop(inner);
    loop {
        let event = tokio::select! {
            biased;
            changed = connection.changed() => {
                if changed.is_err() {
                    return;
                }
                // A lost connection says nothing about the VM; events were missed before a new one.
                let is_up = matches!(*connection.borrow_and_update(), Connection::Up);
                if is_up { None } else { continue }
            }
            event = events.recv() => match event {
                Ok(event) => match event.vm_status().filter(|event| event.vm_id == vm_id) {
                    Some(event) => Some(event),
                    None => continue,
                },
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return,
            },
        };
        let Some(inner) = Weak::upgrade(&weak) else { return };
        match event {
            None => inner.look_and_tell().await,
            // Overtaken by another, or by an answer.
            Some(event) if !inner.is_news(event.notify_time) => {}
            Some(event) => inner.pass_on(&event).await,
        }
    }
}

impl Inner {
    async fn pass_on(&self, event: &VmStatusEvent) {
        let activity = match activity(&event.status) {
            Ok(activity) => activity,
            Err(error) => {
                tracing::warn!(%error, "an event of the engine VM is not understood");
                return;
            }
        };
        self.tell(match activity {
            VmActivity::Down => VmEvent::Ended(self.exit_of(&event.status).await),
            VmActivity::PausedByIoError => {
                self.exists(activity);
                VmEvent::IoErrorPause
            }
            other => {
                self.exists(other);
                VmEvent::Changed(other)
            }
        });
    }

    async fn look_and_tell(&self) {
        match self.look().await {
            Ok(status) => self.tell(match (status.activity, status.exit) {
                (VmActivity::Down, Some(exit)) => VmEvent::Ended(exit),
                (VmActivity::PausedByIoError, _) => VmEvent::IoErrorPause,
                (activity, _) => VmEvent::Changed(activity),
            }),
            Err(error) => tracing::debug!(%error, "the engine VM cannot be looked at"),
        }
    }
}
