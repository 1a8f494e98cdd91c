//! The port to other hosts' power, and its real adapter over `lib/fencing`.
//!
//! It does as it is told; whether a host is switched off is decided in [`core::fencing`](crate::core::fencing).

use std::sync::Arc;

use async_trait::async_trait;
use fencing::{HostError, HostPower, Progress};
use ha_config::Paths;
use ha_config::ha_toml::{FencingAction, FencingTable};
use tokio::sync::{Mutex, mpsc};
use tracing::info;

use crate::core::HostName;
use crate::core::fencing::Ended;

/// Switches other hosts off.
#[async_trait]
pub trait Fencer: Send + Sync {
    /// Whether there is a switch for this host. `host` is named as its record names it.
    fn has_switch(&self, host: &HostName) -> bool;

    /// Switches `host` off and sees that it is off, and does what else is configured for it. Takes as long as its
    /// switches take: minutes. Dropped, it ends what it has started; whether the power is off is not known then.
    async fn switch_off(&self, host: &HostName) -> Ended;
}

/// The switches of ha.toml.
#[derive(Debug, Clone)]
pub struct ConfiguredFencer {
    table: FencingTable,
    paths: Paths,
}

impl ConfiguredFencer {
    /// The switches in `table`. Files with secrets are looked for under the root of `paths`.
    pub const fn new(table: FencingTable, paths: Paths) -> Self {
        Self { table, paths }
    }

    fn power(&self, host: &HostName) -> Option<HostPower> {
        HostPower::of(&self.table, &self.paths, host.id, Some(&host.name))
    }
}

#[async_trait]
impl Fencer for ConfiguredFencer {
    fn has_switch(&self, host: &HostName) -> bool {
        self.power(host).is_some()
    }

    async fn switch_off(&self, host: &HostName) -> Ended {
        let Some(power) = self.power(host) else {
            return Ended::Failed { detail: "ha.toml has no switch for it".to_owned() };
        };
        let mut report = |step: &Progress| info!("fencing of {host}: {step}");
        let ended = match self.table.action_of(host.id, Some(&host.name)) {
            FencingAction::Off => power.off(&mut report).await,
            FencingAction::Reboot => power.reboot(&mut report).await,
        };
        match ended {
            Ok(()) => Ended::Off { remark: None },
            // It was seen off, which is what counts.
            Err(error @ HostError::LeftOff { .. }) => Ended::Off { remark: Some(error.to_string()) },
            Err(error @ HostError::Failed { .. }) => Ended::Failed { detail: error.to_string() },
        }
    }
}

/// The loop's side of the work beside it.
#[derive(Clone)]
pub(crate) struct Desk {
    orders: mpsc::Sender<HostName>,
    results: Arc<Mutex<mpsc::Receiver<(HostName, Ended)>>>,
}

/// The side that works.
pub(crate) struct Worker {
    orders: mpsc::Receiver<HostName>,
    results: mpsc::Sender<(HostName, Ended)>,
}

/// Both sides. There is one order at a time, so that neither ever waits for the other.
pub(crate) fn desk() -> (Desk, Worker) {
    let (orders, taken) = mpsc::channel(1);
    let (done, results) = mpsc::channel(1);
    (Desk { orders, results: Arc::new(Mutex::new(results)) }, Worker { orders: taken, results: done })
}

impl Desk {
    /// Hands an order over. False when an earlier one is not done yet.
    pub(crate) fn order(&self, host: HostName) -> bool {
        self.orders.try_send(host).is_ok()
    }

    /// Waits for the result of an order; for ever while there is none.
    pub(crate) async fn result(&self) -> (HostName, Ended) {
        match self.results.lock().await.recv().await {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

impl Worker {
    /// Carries orders out, one after the other, as long as it is polled.
    pub(crate) async fn work(mut self, fencer: Arc<dyn Fencer>) {
        while let Some(host) = self.orders.recv().await {
            let ended = fencer.switch_off(&host).await;
            if self.results.send((host, ended)).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
