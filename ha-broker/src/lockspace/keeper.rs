//! Keeps one host id: takes it when asked to, looks all the time whether it is still held, says a loss at once, and
//! takes it again by itself.
//!
//! ```text
//! NotRequested ── hold ──▶ Joining ── joined ──▶ Held
//!      ▲                     │ refused            │ not held any more, or nobody can say so
//!      │                     ▼                    ▼
//!      └──── release ────── Lost ◀───────────────┘
//!                            └── tried again each few seconds ──▶ Held
//! ```
//!
//! One thread asks, a second one exists while a join is under way: a join takes as long as the lock manager's
//! time-outs say. Callers never wait inside the lock manager: the thread publishes what it finds, also whether an
//! id that is being given up is gone. Whoever cannot prove that the id is held counts it as lost: a lock manager
//! that does not answer is as bad as none.

use std::sync::Arc;
use std::time::Duration;

use broker_api::status::LeaseState;
use clock::{Clock, Monotonic};
use metadata_format::HostId;
use tokio::sync::{mpsc, oneshot, watch};

use super::{LockError, Lockspace, Phase};
use crate::spawner::Spawner;
use crate::wake::WakeCounter;

/// How often the keeper asks, and when it tries again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two questions whether the id is held.
    pub poll: Duration,
    /// After a join that failed.
    pub retry: Duration,
    /// Between two looks at which other hosts are live.
    pub hosts: Duration,
    /// How long the id must have been held before a host that is not live counts as absent: it may boot beside us.
    pub settle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            retry: Duration::from_secs(5),
            hosts: Duration::from_secs(10),
            settle: Duration::from_mins(1),
        }
    }
}

/// Between two looks whether an id that is being given up is gone.
const PHASE_PAUSE: Duration = Duration::from_millis(100);

/// What the keeper knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The id that was asked for.
    pub wanted: Option<HostId>,
    /// Whether it is held.
    pub state: LeaseState,
    /// Hosts that are live in the lockspace, by the lock manager's last word.
    pub live: Vec<HostId>,
    /// The same, while the id is held and the lock manager can tell of every host whether it is live; else `None`.
    pub all_live: Option<Vec<HostId>>,
    /// An id that is being given up. Until it is gone the lock manager may still show it as held, and refuses
    /// another one.
    pub leaving: Option<Leaving>,
}

/// An id on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The id.
    pub id: HostId,
    /// Why nobody could say at the last look whether it is gone.
    pub trouble: Option<String>,
}

/// Whether an order was taken.
type Reply = oneshot::Sender<Result<(), String>>;

enum Order {
    Hold(HostId, Reply),
    Release(Reply),
    Joined(HostId, Result<(), LockError>),
}

/// Handle to the keeper's thread, which ends when the handle is dropped. Clones share it.
#[derive(Clone)]
pub struct Keeper {
    port: Arc<dyn Lockspace>,
    kept: watch::Receiver<Kept>,
    orders: mpsc::UnboundedSender<Order>,
    spawner: Arc<dyn Spawner>,
}

impl Keeper {
    /// Starts it; nothing is held until [`Keeper::hold`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        port: Arc<dyn Lockspace>,
        clock: Arc<dyn Clock>,
        spawner: Arc<dyn Spawner>,
        wake: WakeCounter,
        pace: Pace,
    ) -> std::io::Result<Self> {
        let kept = Kept {
            wanted: None,
            state: LeaseState::NotRequested,
            live: Vec::new(),
            all_live: None,
            leaving: None,
        };
        let (publish, kept) = watch::channel(kept);
        let (sender, orders) = mpsc::unbounded_channel();
        let thread = Thread {
            port: Arc::clone(&port),
            clock,
            spawner: Arc::clone(&spawner),
            wake,
            pace,
            publish,
            orders,
            back: sender.downgrade(),
            joining: None,
            retry_at: None,
            hosts_at: None,
            held_since: None,
        };
        spawner.thread("lease", Box::pin(thread.run()))?;
        Ok(Self { port, kept, orders: sender, spawner })
    }

    /// What is known now.
    pub fn kept(&self) -> Kept {
        self.kept.borrow().clone()
    }

    /// Changes with the state.
    pub fn watch(&self) -> watch::Receiver<Kept> {
        self.kept.clone()
    }

    /// The lock manager.
    pub fn port(&self) -> &Arc<dyn Lockspace> {
        &self.port
    }

    async fn order(&self, order: impl FnOnce(Reply) -> Order) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        // Should the thread be gone, the reply is dropped, and that is the answer.
        let _ = self.orders.send(order(reply));
        answer.await.unwrap_or_else(|_| Err("the broker is stopping".to_owned()))
    }

    /// Has `id` taken (another one that is held is given up first) and kept from now on, without waiting for it.
    ///
    /// # Errors
    /// When the other one is not given up, in words.
    pub async fn ask_for(&self, id: HostId) -> Result<(), String> {
        self.order(|reply| Order::Hold(id, reply)).await
    }

    /// Takes `id` (another one that is held is given up first) and keeps it from now on. Returns when it is held,
    /// or when the first try failed; the keeper goes on trying in both cases.
    ///
    /// # Errors
    /// Why the id is not held, in words.
    pub async fn hold(&self, id: HostId) -> Result<(), String> {
        self.ask_for(id).await?;
        let mut watch = self.watch();
        let done = |kept: &Kept| {
            kept.wanted != Some(id) || matches!(kept.state, LeaseState::Held { .. } | LeaseState::Lost { .. })
        };
        match watch.wait_for(done).await.map(|kept| kept.clone()) {
            Ok(Kept { wanted, state: LeaseState::Held { .. }, .. }) if wanted == Some(id) => Ok(()),
            Ok(Kept { wanted, state: LeaseState::Lost { error, .. }, .. }) if wanted == Some(id) => {
                Err(error)
            }
            Ok(_) => Err(format!("host id {id} was released, or another asked for, before it was held")),
            Err(_) => Err("the broker is stopping".to_owned()),
        }
    }

    /// Gives the id up, and waits until it is, `patience` at most.
    ///
    /// # Errors
    /// When the lock manager refuses (the id is then still held), or is not done by then.
    pub async fn release(&self, patience: Duration) -> Result<(), String> {
        let Some(id) = self.kept().wanted else { return Ok(()) };
        self.order(Order::Release).await?;
        let mut watch = self.watch();
        let done = |kept: &Kept| match &kept.leaving {
            Some(leaving) if leaving.id == id => leaving.trouble.is_some(),
            Some(_) | None => true,
        };
        match tokio::time::timeout(patience, watch.wait_for(done)).await {
            Ok(Ok(kept)) => match &kept.leaving {
                Some(Leaving { id: leaving, trouble: Some(trouble) }) if *leaving == id => {
                    Err(trouble.clone())
                }
                Some(_) | None => Ok(()),
            },
            Ok(Err(_)) => Err("the broker is stopping".to_owned()),
            Err(_) => Err(format!(
                "lockspace {}: giving up host id {id} has begun, and was not done within {} s",
                self.port.name(),
                patience.as_secs()
            )),
        }
    }

    /// Asks for the id to be given up, and waits for nothing but the lock manager's "yes": for a clean stop.
    pub async fn abandon(&self) {
        if let Some(id) = self.kept().wanted
            && let Err(error) = self.order(Order::Release).await
        {
            tracing::info!("host id {id} of lockspace {} stays: {error}", self.port.name());
        }
    }

    /// Writes an empty lockspace, on a thread of its own; see [`Lockspace::reset`].
    ///
    /// # Errors
    /// What the lock manager said, or that it was never asked.
    pub async fn reset(&self) -> Result<(), LockError> {
        let port = Arc::clone(&self.port);
        let (done, answer) = oneshot::channel();
        // A caller who went away needs no answer.
        let work = async move { drop(done.send(port.reset().await)) };
        self.spawner.thread("lease-reset", Box::pin(work)).map_err(|error| {
            LockError::Failed(format!("no thread to reset lockspace {}: {error}", self.port.name()))
        })?;
        let ended = || LockError::Failed(format!("the reset of lockspace {} ended early", self.port.name()));
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Asks the lock manager itself, now. May block its thread for a moment, which others must not wait for.
    ///
    /// # Errors
    /// Why the id must not be taken for held, in words for a caller.
    pub async fn held_now(&self, id: HostId) -> Result<(), String> {
        self.held_lately(id)?;
        match self.port.phase(id).await {
            Ok(Phase::Held) => Ok(()),
            Ok(Phase::Changing) => Err(self.not_held(id, "it is just being given up")),
            Ok(Phase::NotHeld) => Err(self.not_held(id, "it was just lost")),
            Err(error) => Err(self.not_held(id, &error.to_string())),
        }
    }

    /// Whether the id was held at the keeper's last look. Never blocks.
    ///
    /// # Errors
    /// Why not, in words for a caller.
    pub fn held_lately(&self, id: HostId) -> Result<(), String> {
        let kept = self.kept();
        let other;
        let why = match &kept.state {
            LeaseState::Held { .. } if kept.wanted == Some(id) => return Ok(()),
            LeaseState::Held { .. } => {
                other = kept.wanted.map(|id| format!("the id held here is {id}"));
                other.as_deref().unwrap_or("none is held")
            }
            LeaseState::NotRequested => "nobody asked for it (lock_host_id)",
            LeaseState::Joining { .. } => "it is still being taken",
            LeaseState::Lost { error, .. } => error,
        };
        Err(self.not_held(id, why))
    }

    fn not_held(&self, id: HostId, why: &str) -> String {
        format!("host id {id} of lockspace {} is not held by this host: {why}", self.port.name())
    }
}

struct Thread {
    port: Arc<dyn Lockspace>,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    wake: WakeCounter,
    pace: Pace,
    publish: watch::Sender<Kept>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// A weak one, so that the thread ends with the last handle.
    back: mpsc::WeakUnboundedSender<Order>,
    joining: Option<HostId>,
    retry_at: Option<Monotonic>,
    hosts_at: Option<Monotonic>,
    /// Since when the id is held without a break.
    held_since: Option<Monotonic>,
}

impl Thread {
    async fn run(mut self) {
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
            self.set_leaving(Some(Leaving { id: other, trouble: None }));
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
            self.set_leaving(Some(Leaving { id, trouble: None }));
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
        match result {
            Err(error) => {
                self.retry_at = Some(self.clock.monotonic().plus(self.pace.retry));
                self.lost(&kept, error.to_string());
            }
            // It was given up while it was being taken, which the lock manager does not do, and is wanted again: nobody
            // gives it up any more. Should the lock manager do it after all, the next looks see it lost.
            Ok(()) if kept.leaving.is_some_and(|leaving| leaving.id == id) => self.set_leaving(None),
            Ok(()) => {}
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
                Ok(Phase::Held | Phase::Changing) => {
                    return self.set_leaving(Some(Leaving { id, trouble: None }));
                }
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
        self.publish.send_if_modified(|kept| {
            // Not known yet, or not to be had: what was known of the live ones stays.
            let live = hosts.as_ref().map_or(&kept.live, |hosts| &hosts.live).clone();
            let all = hosts.filter(|hosts| settled && hosts.is_complete).map(|hosts| hosts.live);
            let changed = kept.live != live || kept.all_live != all;
            (kept.live, kept.all_live) = (live, all);
            changed
        });
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
