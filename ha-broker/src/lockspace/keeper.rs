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
//! time-outs say. Whoever cannot prove that the id is held counts it as lost: a lock manager that does not answer
//! is as bad as none.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use broker_api::status::LeaseState;
use clock::{Clock, Monotonic};
use metadata_format::HostId;
use tokio::sync::{oneshot, watch};

use super::{LockError, Lockspace, Phase};
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
    /// How long the id must have been held before a host that is not live counts as absent: hosts that boot together
    /// with this one join their lockspaces meanwhile.
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
}

/// Whether an order was taken.
type Reply = oneshot::Sender<Result<(), String>>;

enum Order {
    Hold(HostId, Reply),
    Release(Reply),
    Joined(HostId, Result<(), LockError>),
}

/// The way to the thread. It holds only a weak one itself, so that it ends with the last handle.
type Orders = Mutex<mpsc::Sender<Order>>;

/// Handle to the keeper's thread, which ends when the handle is dropped. Clones share it.
#[derive(Clone)]
pub struct Keeper {
    port: Arc<dyn Lockspace>,
    kept: watch::Receiver<Kept>,
    orders: Arc<Orders>,
}

impl Keeper {
    /// Starts it; nothing is held until [`Keeper::hold`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        port: Arc<dyn Lockspace>,
        clock: Arc<dyn Clock>,
        wake: WakeCounter,
        pace: Pace,
    ) -> std::io::Result<Self> {
        let kept = Kept { wanted: None, state: LeaseState::NotRequested, live: Vec::new(), all_live: None };
        let (publish, kept) = watch::channel(kept);
        let (sender, orders) = mpsc::channel();
        let sender = Arc::new(Mutex::new(sender));
        let mut thread = Thread {
            port: Arc::clone(&port),
            clock,
            wake,
            pace,
            publish,
            orders,
            back: Arc::downgrade(&sender),
            joining: None,
            leaving: None,
            retry_at: None,
            hosts_at: None,
            held_since: None,
        };
        std::thread::Builder::new()
            .name("lease".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || thread.run())?;
        Ok(Self { port, kept, orders: sender })
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
        let _ = self.orders.lock().unwrap_or_else(PoisonError::into_inner).send(order(reply));
        answer.await.unwrap_or_else(|_| Err("the broker is stopping".to_owned()))
    }

    /// Takes `id` (another one that is held is given up first) and keeps it from now on. Returns when it is held,
    /// or when the first try failed; the keeper goes on trying in both cases.
    ///
    /// # Errors
    /// Why the id is not held, in words.
    pub async fn hold(&self, id: HostId) -> Result<(), String> {
        self.order(|reply| Order::Hold(id, reply)).await?;
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
        let gone = async {
            loop {
                let port = Arc::clone(&self.port);
                match tokio::task::spawn_blocking(move || port.phase(id)).await {
                    Ok(Ok(Phase::NotHeld)) => return Ok(()),
                    Ok(Ok(Phase::Held | Phase::Changing)) => tokio::time::sleep(PHASE_PAUSE).await,
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        tokio::time::timeout(patience, gone).await.unwrap_or_else(|_| {
            Err(format!(
                "lockspace {}: giving up host id {id} has begun, and was not done within {} s",
                self.port.name(),
                patience.as_secs()
            ))
        })
    }

    /// Asks for the id to be given up, and waits for nothing but the lock manager's "yes": for a clean stop.
    pub fn abandon(&self) {
        if let Some(id) = self.kept().wanted
            && let Err(error) = self.port.leave(id)
        {
            tracing::info!("host id {id} of lockspace {} stays: {error}", self.port.name());
        }
    }

    /// Asks the lock manager itself, now. Blocks for a moment.
    ///
    /// # Errors
    /// Why the id must not be taken for held, in words for a caller.
    pub fn held_now(&self, id: HostId) -> Result<(), String> {
        self.held_lately(id)?;
        match self.port.phase(id) {
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
    wake: WakeCounter,
    pace: Pace,
    publish: watch::Sender<Kept>,
    orders: mpsc::Receiver<Order>,
    back: Weak<Orders>,
    joining: Option<HostId>,
    /// An id that is being given up. Until it is gone the lock manager may still show it as held, and refuses
    /// another one.
    leaving: Option<HostId>,
    retry_at: Option<Monotonic>,
    hosts_at: Option<Monotonic>,
    /// Since when the id is held without a break.
    held_since: Option<Monotonic>,
}

impl Thread {
    fn run(&mut self) {
        loop {
            match self.orders.recv_timeout(self.pace.poll) {
                // A caller who went away needs no answer.
                Ok(Order::Hold(id, reply)) => drop(reply.send(self.start_holding(id))),
                Ok(Order::Release(reply)) => drop(reply.send(self.stop_holding())),
                Ok(Order::Joined(id, result)) => self.take_result(id, result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
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

    fn start_holding(&mut self, id: HostId) -> Result<(), String> {
        let before = self.kept();
        if let Some(other) = before.wanted.filter(|other| *other != id) {
            self.port
                .leave(other)
                .map_err(|error| format!("host id {other} cannot be given up first: {error}"))?;
            self.leaving = Some(other);
        } else if matches!(before.state, LeaseState::Held { .. }) {
            return Ok(());
        }
        self.retry_at = None;
        self.set(Some(id), LeaseState::Joining { since: self.clock.wall().0 });
        Ok(())
    }

    fn stop_holding(&mut self) -> Result<(), String> {
        if let Some(id) = self.kept().wanted {
            self.port.leave(id).map_err(|error| error.to_string())?;
            self.leaving = Some(id);
        }
        self.retry_at = None;
        self.set(None, LeaseState::NotRequested);
        Ok(())
    }

    fn take_result(&mut self, id: HostId, result: Result<(), LockError>) {
        self.joining = None;
        let kept = self.kept();
        if kept.wanted != Some(id) {
            // Not wanted any more: it must not stay behind.
            if result.is_ok()
                && let Err(error) = self.port.leave(id)
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
    fn look(&mut self) {
        let kept = self.kept();
        let Some(id) = kept.wanted else { return };
        if let Some(leaving) = self.leaving {
            match self.port.phase(leaving) {
                Ok(Phase::NotHeld) => self.leaving = None,
                Ok(Phase::Held | Phase::Changing) => return,
                Err(error) => return self.lost(&kept, error.to_string()),
            }
        }
        let held = matches!(kept.state, LeaseState::Held { .. });
        match self.port.phase(id) {
            Ok(Phase::Held) => {
                if !held {
                    self.held_since = Some(self.clock.monotonic());
                    self.set(kept.wanted, LeaseState::Held { since: self.clock.wall().0 });
                }
                self.look_at_hosts();
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
        let (port, back) = (Arc::clone(&self.port), Weak::clone(&self.back));
        let thread = std::thread::Builder::new().name("lease-join".to_owned()).stack_size(256 * 1024);
        let spawned = thread.spawn(move || {
            let result = port.join(id);
            // The keeper may have ended meanwhile.
            if let Some(back) = back.upgrade() {
                let _ = back.lock().unwrap_or_else(PoisonError::into_inner).send(Order::Joined(id, result));
            }
        });
        match spawned {
            Ok(_) => self.joining = Some(id),
            Err(error) => {
                self.retry_at = Some(now.plus(self.pace.retry));
                tracing::error!("no thread to join lockspace {}: {error}", self.port.name());
            }
        }
    }

    fn look_at_hosts(&mut self) {
        let now = self.clock.monotonic();
        if self.hosts_at.is_some_and(|at| now < at) {
            return;
        }
        self.hosts_at = Some(now.plus(self.pace.hosts));
        let settled = self.held_since.is_some_and(|at| now.saturating_since(at) >= self.pace.settle);
        let hosts = self.port.live_hosts();
        self.publish.send_if_modified(|kept| {
            let before = kept.clone();
            kept.all_live = None;
            // Not known yet, or not to be had: what was known of the live ones stays.
            if let Ok(hosts) = hosts {
                kept.all_live = (settled && hosts.is_complete).then(|| hosts.live.clone());
                kept.live = hosts.live;
            }
            *kept != before
        });
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
