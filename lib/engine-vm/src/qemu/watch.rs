//! Following the VM: a task that waits for its process to end and listens to its monitor.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::broadcast;

use super::handover;
use super::journal::Journal;
use super::look::{Found, Inner, Shared};
use super::qmp::QmpEvent;
use super::run_dir::QmpRole;
use crate::port::{VmActivity, VmEvent};

/// How often to look for a VM that another process started, when there is none. Events only make things quicker:
/// nobody depends on this figure.
const LOOK: Duration = Duration::from_secs(1);

/// Follows one VM after the other until the task is aborted.
pub(super) async fn follow(inner: Shared) {
    // Weak, so that this task does not keep the adapter's parts for ever.
    let weak = std::sync::Arc::downgrade(&inner);
    drop(inner);
    while let Some(inner) = Weak::upgrade(&weak) {
        match inner.find() {
            Ok(Some(found)) if found.is_qemu => follow_one(&inner, &found).await,
            Ok(_) => {
                let _ = tokio::time::timeout(LOOK, inner.started.notified()).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot look for the VM");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn follow_one(inner: &Shared, found: &Found) {
    let ended = found.process.ended();
    tokio::pin!(ended);
    loop {
        let monitor = inner.monitor().await.ok();
        let mut events = monitor.as_ref().map(super::qmp::Qmp::events);
        drop(monitor);
        tokio::select! {
            _ = &mut ended => {
                *inner.qmp.lock().await = None;
                match inner.exit() {
                    Ok(Some(exit)) => inner.tell(VmEvent::Ended(exit)),
                    Ok(None) => inner.tell(VmEvent::Changed(VmActivity::Down)),
                    Err(error) => tracing::warn!(%error, "the VM ended, and how is not known"),
                }
                return;
            }
            () = listen(inner, events.as_mut()) => {}
            () = care(inner) => {}
        }
    }
}

/// What a long-lived VM and an interrupted migration need; for ever. The agent's part: the broker only watches.
async fn care(inner: &Shared) {
    loop {
        if inner.settings.role == QmpRole::Agent {
            if let Err(error) = Journal::cut(&inner.dir) {
                tracing::warn!(%error, "cannot shorten QEMU's record of events");
            }
            handover::carry_on(inner);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Passes events on until the connection ends. Without a connection, waits a little.
async fn listen(inner: &Inner, events: Option<&mut broadcast::Receiver<QmpEvent>>) {
    if let Some(events) = events {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Some(event) = translate(&event) {
                        inner.tell(event);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
    }
    tokio::time::sleep(LOOK).await;
}

/// What an event means to the port.
fn translate(event: &QmpEvent) -> Option<VmEvent> {
    match event.name.as_str() {
        "STOP" => Some(VmEvent::Changed(VmActivity::Paused)),
        "RESUME" => Some(VmEvent::Changed(VmActivity::Up)),
        "POWERDOWN" | "SHUTDOWN" => Some(VmEvent::Changed(VmActivity::PoweringDown)),
        "RESET" => Some(VmEvent::Changed(VmActivity::RebootInProgress)),
        "BLOCK_IO_ERROR" if event.data["action"] == "stop" => Some(VmEvent::IoErrorPause),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_become_the_ports() {
        let event = |name: &str, data| translate(&QmpEvent { name: name.to_owned(), data });
        assert_eq!(event("STOP", json!(null)), Some(VmEvent::Changed(VmActivity::Paused)));
        assert_eq!(event("BLOCK_IO_ERROR", json!({"action": "stop"})), Some(VmEvent::IoErrorPause));
        assert_eq!(event("BLOCK_IO_ERROR", json!({"action": "report"})), None);
        assert_eq!(event("A_NEW_EVENT", json!(1)), None);
    }
}
