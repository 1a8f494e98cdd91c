//! The monitors of this host: which run, and what they last said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use broker_api::status::MonitorRow;
use clock::Clock;
use tokio::sync::watch;

use super::driver::{self, Slot};
use super::host_probes::{HostProbes, Surroundings};
use super::kind::Kind;
use super::options::{MonitorError, shown};
use super::probe::ProbeFactory;
use crate::broker::Monitors;
use crate::spawner::{Spawner, TaskHandle};
use crate::verbs::{MonitorOptions, VerbError};
use crate::wake::WakeCounter;

struct Running {
    options: MonitorOptions,
    slot: Arc<Slot>,
    task: TaskHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The running monitors. Dropping it stops them.
pub struct MonitorSet {
    probes: Box<dyn ProbeFactory>,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    running: Mutex<BTreeMap<Kind, Running>>,
    changes: watch::Sender<u64>,
}

impl MonitorSet {
    /// A real host's set, in which nothing runs yet.
    pub fn new(surroundings: Surroundings, spawner: Arc<dyn Spawner>) -> Self {
        let clock = Arc::clone(&surroundings.clock);
        Self::with_probes(Box::new(HostProbes::new(surroundings, Arc::clone(&spawner))), clock, spawner)
    }

    /// A set that measures with the probes of `probes`; nothing runs yet.
    pub fn with_probes(
        probes: Box<dyn ProbeFactory>,
        clock: Arc<dyn Clock>,
        spawner: Arc<dyn Spawner>,
    ) -> Self {
        Self { probes, clock, spawner, running: Mutex::default(), changes: watch::Sender::new(0) }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Kind, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the monitor `kind` and gives its id. With the options that it runs with already it just goes on, with
    /// all that it remembers; with others it starts anew.
    pub fn start(&self, kind: &str, options: MonitorOptions) -> Result<String, MonitorError> {
        let kind = Kind::find(kind).ok_or_else(|| MonitorError::UnknownKind {
            kind: shown(kind),
            known: Kind::ALL.map(Kind::name).join(", "),
        })?;
        let mut running = self.running();
        let unchanged = running.get(&kind).is_some_and(|monitor| monitor.options == options);
        if !unchanged {
            let probe = self.probes.probe(kind, &options)?;
            let slot = Arc::new(Slot::assuming(kind.assumed()));
            let changes = (kind == Kind::EngineHealth).then(|| self.changes.clone());
            let clock = Arc::clone(&self.clock);
            let task = driver::run(kind.name(), probe, Arc::clone(&slot), clock, changes);
            let task = self.spawner.task(Box::pin(task));
            tracing::info!(monitor = kind.name(), "started");
            running.insert(kind, Running { options, slot, task });
        }
        Ok(kind.name().to_owned())
    }

    fn not_running(running: &BTreeMap<Kind, Running>, id: &str) -> MonitorError {
        let names: Vec<_> = running.keys().map(|kind| kind.name()).collect();
        let running = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        MonitorError::NotRunning { id: shown(id), running }
    }

    /// Stops the monitor `id`.
    pub fn stop(&self, id: &str) -> Result<(), MonitorError> {
        let mut running = self.running();
        match Kind::find(id).and_then(|kind| running.remove(&kind)) {
            Some(_) => {
                tracing::info!(monitor = id, "stopped");
                Ok(())
            }
            None => Err(Self::not_running(&running, id)),
        }
    }

    /// The last result of the monitor `id` as text; `None` before the first and while there is none.
    pub fn status(&self, id: &str) -> Result<Option<String>, MonitorError> {
        let running = self.running();
        match Kind::find(id).and_then(|kind| running.get(&kind)) {
            Some(monitor) => Ok(monitor.slot.value()),
            None => Err(Self::not_running(&running, id)),
        }
    }

    /// All running monitors with their last results, by id.
    pub fn rows(&self) -> BTreeMap<String, MonitorRow> {
        let now = self.clock.monotonic();
        self.running().iter().map(|(kind, monitor)| (kind.name().to_owned(), monitor.slot.row(now))).collect()
    }

    /// Counts the changes of the engine's health: worth waking the agent for.
    pub fn engine_health_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// From now on each change of the engine's health wakes the agents. Ends with the set.
    pub fn wake_agents(&self, wake: WakeCounter) {
        let mut changes = self.changes.subscribe();
        let forward = async move {
            while changes.changed().await.is_ok() {
                wake.bump();
            }
        };
        drop(self.spawner.task(Box::pin(forward)));
    }
}

#[async_trait]
impl Monitors for MonitorSet {
    async fn start(&self, kind: &str, options: MonitorOptions) -> Result<String, VerbError> {
        Self::start(self, kind, options).map_err(|e| VerbError::BadArgument(e.to_string()))
    }

    async fn stop(&self, id: &str) -> Result<(), VerbError> {
        Self::stop(self, id).map_err(|e| VerbError::BadArgument(e.to_string()))
    }

    async fn value(&self, id: &str) -> Result<Option<String>, VerbError> {
        self.status(id).map_err(|e| VerbError::BadArgument(e.to_string()))
    }

    fn rows(&self) -> BTreeMap<String, MonitorRow> {
        Self::rows(self)
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
