//! Keeps the way to storage open where VDSM makes it: storage server connected, volumes prepared, links in place.
//!
//! ```text
//!            files there? ── yes ──▶ open, and made sure of once behind the callers' back
//!                │ no                  ▲                         │
//!                ▼                     │ made                    │ files gone
//!            shut: making it ──────────┘                         │ and no local maintenance
//!                ▲  └── failed: tried again                      │
//!                └───────────────────────────────────────────────┘
//! ```
//!
//! A try that failed is repeated after 1 s, 2 s, … 30 s for ten minutes, and every five minutes from then on; and at once
//! when the kernel says that something came back (see [`crate::returned`]).
//!
//! One thread does all of it, and may hang in storage or wait for VDSM as long as these take: the broker serves its
//! socket from the first moment, says what is waited for, and never ends because of it. When the files are there the gate
//! is open whatever VDSM does: a broker that is restarted while VDSM is away goes on with storage as it was.
//!
//! In local maintenance the engine may have had VDSM disconnect the storage, and is not worked against: what is gone
//! comes back after the maintenance.

mod host;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::Clock;
use tokio::sync::watch;
use tokio::time::sleep;

pub use host::VdsmWay;

use crate::returned::Returned;
use crate::spawner::Spawner;
use crate::whiteboard::Connecting;

/// How often the files are looked at: nothing tells of a mount that went away.
const LOOK: Duration = Duration::from_secs(10);

/// The first pause after a try that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest one in the first [`EAGER_FOR`].
const EAGER_PAUSE: Duration = Duration::from_secs(30);

/// So long storage that went away may be back at any moment; later it is being repaired.
const EAGER_FOR: Duration = Duration::from_mins(10);

/// The pause after that.
const PATIENT_PAUSE: Duration = Duration::from_mins(5);

/// What comes back comes in many steps: the kernel's word counts from here on.
const SOONEST: Duration = Duration::from_secs(1);

/// The port: what makes the way to storage, and looks at it. Its calls may block their thread.
#[async_trait]
pub trait Way: Send + Sync + 'static {
    /// Makes it, from the beginning; what is done already stays. `on_step` gets what is waited for. Gives warnings.
    ///
    /// # Errors
    /// The step that failed, why, and what to do.
    async fn make(&self, on_step: &(dyn Fn(String) + Send + Sync)) -> Result<Vec<String>, String>;

    /// Whether the files can be found.
    ///
    /// # Errors
    /// Which cannot, and why.
    async fn look(&self) -> Result<(), String>;

    /// Whether this host is in local maintenance.
    async fn is_in_maintenance(&self) -> bool;
}

/// The gate's state: `None` while it is open.
pub type Gate = watch::Receiver<Option<Connecting>>;

/// Starts to keep `way` open; `returned` says when a try is worth it. Ends with the last receiver of the gate.
///
/// # Errors
/// When the system gives no thread.
pub fn keep_open(
    way: Arc<dyn Way>,
    clock: Arc<dyn Clock>,
    spawner: &Arc<dyn Spawner>,
    returned: Returned,
) -> std::io::Result<Gate> {
    let since = clock.wall().0;
    let step = "a look at the files in the storage domain".to_owned();
    let first = Connecting { since, step, error: None, next_try: None };
    let (publish, gate) = watch::channel(Some(first));
    spawner.thread("storage-connect", Box::pin(Keeper { way, clock, publish, returned }.run()))?;
    Ok(gate)
}

struct Keeper {
    way: Arc<dyn Way>,
    clock: Arc<dyn Clock>,
    publish: watch::Sender<Option<Connecting>>,
    returned: Returned,
}

impl Keeper {
    async fn run(mut self) {
        let publish = self.publish.clone();
        tokio::select! {
            biased;
            () = publish.closed() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        if self.way.look().await.is_ok() {
            self.open();
        }
        loop {
            self.make().await;
            self.open();
            let gone = self.watch().await;
            tracing::warn!("the way to storage is gone: {gone}");
            let step = "the storage domain to be connected again".to_owned();
            self.shut(Connecting { since: self.clock.wall().0, step, error: Some(gone), next_try: None });
            self.wait_for_the_end_of_maintenance().await;
        }
    }

    /// Tries until it is made.
    async fn make(&mut self) {
        let begun = self.clock.monotonic();
        let mut pause = FIRST_PAUSE;
        let mut said = None;
        loop {
            self.returned.mark_unchanged();
            let on_step = |step: String| {
                tracing::debug!("connecting storage: waiting for {step}");
                self.change(|how_far| (how_far.step, how_far.next_try) = (step, None));
            };
            let error = match self.way.make(&on_step).await {
                Ok(warnings) => {
                    for warning in warnings {
                        tracing::warn!("connecting storage: {warning}");
                    }
                    tracing::info!("storage is connected, its volumes are prepared");
                    return;
                }
                Err(error) => error,
            };
            if said.as_ref() != Some(&error) {
                tracing::warn!("connecting storage through VDSM failed, and is tried again: {error}");
                said = Some(error.clone());
            }
            let next_try = self.clock.wall().0.saturating_add(pause.as_secs().cast_signed());
            self.change(|how_far| (how_far.error, how_far.next_try) = (Some(error), Some(next_try)));
            self.wait(pause).await;
            let is_eager = self.clock.monotonic().saturating_since(begun) < EAGER_FOR;
            pause = if is_eager { (pause * 2).min(EAGER_PAUSE) } else { PATIENT_PAUSE };
        }
    }

    /// Until the pause is over, or something came back.
    async fn wait(&mut self, pause: Duration) {
        sleep(pause.min(SOONEST)).await;
        let came_back = async {
            if self.returned.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = came_back => tracing::debug!("something came or went: looked at once"),
            () = sleep(pause.saturating_sub(SOONEST)) => {}
        }
    }

    /// Looks until the files are gone; gives which, and why.
    async fn watch(&mut self) -> String {
        loop {
            self.returned.mark_unchanged();
            self.wait(LOOK).await;
            if let Err(gone) = self.way.look().await {
                return gone;
            }
        }
    }

    /// Returns at once outside of local maintenance; in it, when it ends or somebody else has connected the storage.
    async fn wait_for_the_end_of_maintenance(&self) {
        let step = "the end of this host's local maintenance, in which storage is not connected again";
        while self.way.is_in_maintenance().await {
            self.change(|how_far| step.clone_into(&mut how_far.step));
            sleep(LOOK).await;
            if self.way.look().await.is_ok() {
                return;
            }
        }
    }

    fn open(&self) {
        self.publish.send_replace(None);
    }

    fn shut(&self, how_far: Connecting) {
        self.publish.send_replace(Some(how_far));
    }

    /// Says more while the gate is shut.
    fn change(&self, change: impl FnOnce(&mut Connecting)) {
        self.publish.send_if_modified(|shut| match shut {
            Some(how_far) => {
                change(how_far);
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests;
