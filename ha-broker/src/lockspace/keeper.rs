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

mod thread;

use std::sync::Arc;
use std::time::Duration;

use broker_api::status::LeaseState;
use clock::Clock;
use metadata_format::HostId;
use tokio::sync::{mpsc, oneshot, watch};

use thread::Thread;

use super::{LockError, Lockspace, Phase};
use crate::spawner::Spawner;
use crate::wake::WakeCounter;

/// How often the keeper asks, and when it tries again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two questions whether the id is held.
    pub poll: Duration,
    /// After a join that failed, and before the order to give an id up is given again.
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
    /// Whether the watchdog stands behind the lease, by the lock manager's last word.
    pub watchdog: Option<bool>,
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
            watchdog: None,
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
            leave_at: None,
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

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
