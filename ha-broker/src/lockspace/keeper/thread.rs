//! What the keeper's thread does: it carries orders out, and looks in between.

use std::sync::Arc;
use std::time::Duration;

use broker_api::status::LeaseState;
use clock::{Clock, Monotonic};
use metadata_format::HostId;
use tokio::sync::{mpsc, watch};

use super::{Kept, Leaving, Order, Pace};
use crate::lockspace::{LockError, Lockspace, Phase};
use crate::spawner::Spawner;
use crate::wake::WakeCounter;

/// Between two looks whether an id that is being given up is gone.
const PHASE_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Thread {
    pub(super) port: Arc<dyn Lockspace>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) spawner: Arc<dyn Spawner>,
    pub(super) wake: WakeCounter,
    pub(super) pace: Pace,
    pub(super) publish: watch::Sender<Kept>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    /// A weak one, so that the thread ends with the last handle.
    pub(super) back: mpsc::WeakUnboundedSender<Order>,
    pub(super) joining: Option<HostId>,
    pub(super) retry_at: Option<Monotonic>,
    /// When an order to give an id up is given again.
    pub(super) leave_at: Option<Monotonic>,
    pub(super) hosts_at: Option<Monotonic>,
    /// Since when the id is held without a break.
    pub(super) held_since: Option<Monotonic>,
}

impl Thread {
    pub(super) async fn run(mut self) {
        loop {
            let leaving = self.publish.borrow().leaving.is_some();
            let pause = if leaving { self.pace.poll.min(PHASE_PAUSE) } else { self.pace.poll };
            match tokio::time::timeout(pause, self.orders.recv()).await {
                // A caller who went away needs no answer.
                Ok(Some(Order::Hold(id, reply))) => drop(reply.send(self.start_holding(id).await)),
                Ok(Some(Order::Release(reply))) => drop(reply.send(self.stop_holding().await)),
                Ok(Some(Order::Joined(id, result))) => self.take_result(id, result).await,
                Ok(None) => return,
                Err(_) => {}
            }
            self.look().await;
        }
    }

    fn kept(&self) -> Kept {
        self.publish.borrow().clone()
    }

    fn set(&self, wanted: Option<HostId>, state: LeaseState) {
        let before = self.kept();
        if before.wanted == wanted && before.state == state {
            return;
        }
        let name = self.port.name();
        match (&before.state, &state) {
            (_, LeaseState::Held { .. }) => {
                tracing::info!(id = ?wanted, "host id of lockspace {name} is held");
            }
            (LeaseState::Held { .. }, LeaseState::Lost { error, .. }) => {
                tracing::error!(id = ?wanted, "host id of lockspace {name} is LOST: {error}");
            }
            (_, LeaseState::Lost { error, .. }) => tracing::warn!(id = ?wanted, "lockspace {name}: {error}"),
            (_, LeaseState::Joining { .. }) => tracing::info!(id = ?wanted, "joining lockspace {name}"),
            (_, LeaseState::NotRequested) => tracing::info!("lockspace {name}: host id given up"),
        }
        self.publish.send_modify(|kept| {
            kept.wanted = wanted;
            kept.state = state;
            // Whom the lock manager sees is asked anew for each hold.
            kept.all_live = None;
            // Under the lock: whoever sees the new state sees the count moved, and whoever is woken reads the new state.
            self.wake.bump();
        });
    }

    fn set_leaving(&self, leaving: Option<Leaving>) {
        self.publish.send_if_modified(|kept| {
            let changed = kept.leaving != leaving;
            kept.leaving = leaving;
            changed
        });
    }

    async fn start_holding(&mut self, id: HostId) -> Result<(), String> {
        let before = self.kept();
        if let Some(other) = before.wanted.filter(|other| *other != id) {
            self.port
                .leave(other)
                .await
                .map_err(|error| format!("host id {other} cannot be given up first: {error}"))?;
            self.begin_leaving(other);
        } else if matches!(before.state, LeaseState::Held { .. }) {
            return Ok(());
        }
        self.retry_at = None;
        self.set(Some(id), LeaseState::Joining { since: self.clock.wall().0 });
        Ok(())
    }

    async fn stop_holding(&mut self) -> Result<(), String> {
        if let Some(id) = self.kept().wanted {
            self.port.leave(id).await.map_err(|error| error.to_string())?;
            self.begin_leaving(id);
        }
        self.retry_at = None;
        self.set(None, LeaseState::NotRequested);
        Ok(())
    }

    async fn take_result(&mut self, id: HostId, result: Result<(), LockError>) {
        self.joining = None;
        let kept = self.kept();
        if kept.wanted != Some(id) {
            // Not wanted any more: it must not stay behind.
            if result.is_ok()
                && let Err(error) = self.port.leave(id).await
            {
                tracing::warn!("host id {id} was joined after it was released, and stays: {error}");
            }
            return;
        }
        if let Err(error) = result {
            self.retry_at = Some(self.clock.monotonic().plus(self.pace.retry));
            self.lost(&kept, error.to_string());
        }
    }

    fn lost(&self, kept: &Kept, error: String) {
        let since = match &kept.state {
            LeaseState::Lost { since, .. } => *since,
            LeaseState::NotRequested | LeaseState::Joining { .. } | LeaseState::Held { .. } => {
                self.clock.wall().0
            }
        };
        self.set(kept.wanted, LeaseState::Lost { since, error });
    }

    /// Asks how it stands, and does what follows from it.
    async fn look(&mut self) {
        let kept = self.kept();
        if let Some(Leaving { id, .. }) = kept.leaving {
            match self.port.phase(id).await {
                Ok(Phase::NotHeld) => self.set_leaving(None),
                Ok(Phase::Changing) => return self.set_leaving(Some(Leaving { id, trouble: None })),
                Ok(Phase::Held) => return self.leave_again(id).await,
                Err(error) => {
                    self.set_leaving(Some(Leaving { id, trouble: Some(error.to_string()) }));
                    if kept.wanted.is_some() {
                        self.lost(&kept, error.to_string());
                    }
                    return;
                }
            }
        }
        let Some(id) = kept.wanted else { return };
        let held = matches!(kept.state, LeaseState::Held { .. });
        match self.port.phase(id).await {
            Ok(Phase::Held) => {
                if !held {
                    self.held_since = Some(self.clock.monotonic());
                    self.set(kept.wanted, LeaseState::Held { since: self.clock.wall().0 });
                }
                self.look_at_hosts().await;
            }
            Ok(Phase::Changing) if held => self.lost(
                &kept,
                "the lock manager gives the host id up: its renewals failed for too long, because storage did not \
                 answer; it is taken again when storage is back"
                    .to_owned(),
            ),
            Ok(Phase::Changing) => {}
            Ok(Phase::NotHeld) if held => {
                self.lost(
                    &kept,
                    "the lock manager does not hold the host id any more: storage failed for too long, the daemon \
                     was restarted, or somebody removed it; it is taken again when that is possible"
                        .to_owned(),
                );
                self.start_join(id);
            }
            Ok(Phase::NotHeld) => self.start_join(id),
            Err(error) => self.lost(&kept, error.to_string()),
        }
    }

    fn begin_leaving(&mut self, id: HostId) {
        self.leave_at = Some(self.clock.monotonic().plus(self.pace.retry));
        self.set_leaving(Some(Leaving { id, trouble: None }));
    }

    /// An id that is to be given up and is still held. The lock manager may not have come to it yet; but an order that
    /// reached it while it was still taking the id is lost, and must be given again.
    async fn leave_again(&mut self, id: HostId) {
        let now = self.clock.monotonic();
        let mut trouble = None;
        if self.leave_at.is_none_or(|at| now >= at) {
            self.leave_at = Some(now.plus(self.pace.retry));
            trouble = self.port.leave(id).await.err().map(|error| error.to_string());
        }
        self.set_leaving(Some(Leaving { id, trouble }));
    }

    fn start_join(&mut self, id: HostId) {
        let now = self.clock.monotonic();
        if self.joining.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let (port, back) = (Arc::clone(&self.port), self.back.clone());
        let work = async move {
            let result = port.join(id).await;
            // The keeper may have ended meanwhile.
            if let Some(back) = back.upgrade() {
                let _ = back.send(Order::Joined(id, result));
            }
        };
        match self.spawner.thread("lease-join", Box::pin(work)) {
            Ok(()) => self.joining = Some(id),
            Err(error) => {
                self.retry_at = Some(now.plus(self.pace.retry));
                tracing::error!("no thread to join lockspace {}: {error}", self.port.name());
            }
        }
    }

    async fn look_at_hosts(&mut self) {
        let now = self.clock.monotonic();
        if self.hosts_at.is_some_and(|at| now < at) {
            return;
        }
        self.hosts_at = Some(now.plus(self.pace.hosts));
        let settled = self.held_since.is_some_and(|at| now.saturating_since(at) >= self.pace.settle);
        let hosts = self.port.live_hosts().await.ok();
        let watchdog = self.port.watchdog().await;
        self.publish.send_if_modified(|kept| {
            // Not known yet, or not to be had: what was known of the live ones stays.
            let live = hosts.as_ref().map_or(&kept.live, |hosts| &hosts.live).clone();
            let all = hosts.filter(|hosts| settled && hosts.is_complete).map(|hosts| hosts.live);
            let changed = kept.live != live || kept.all_live != all || kept.watchdog != watchdog;
            (kept.live, kept.all_live, kept.watchdog) = (live, all, watchdog);
            changed
        });
    }
}
