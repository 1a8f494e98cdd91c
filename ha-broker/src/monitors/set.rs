//! The monitors of this host: which types there are, which run, what they last said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use broker_api::status::MonitorRow;
use clock::Clock;
use engine_vm::EngineVm;
use ha_config::{ConfigError, HaToml, HostedEngineConf};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::bridge::{KernelLinks, MgmtBridge};
use super::cpu::CpuLoad;
use super::cpu_no_engine::{CpuLoadNoEngine, Meter};
use super::driver::{self, Slot};
use super::engine_health::{EngineHealth, HealthPage, Liveliness, PageOptions};
use super::memory::{Memory, MemoryResult, proc_file};
use super::network::Network;
use super::options::{MonitorError, shown};
use super::probe::Probe;
use super::storage::{Gate, StorageDomain};
use crate::broker::Monitors;
use crate::verbs::{MonitorOptions, VerbError};
use crate::wake::WakeCounter;

/// The types of monitors. A type's name is also the id of its monitor: there is one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    CpuLoad,
    CpuLoadNoEngine,
    EngineHealth,
    MemFree,
    MemLoad,
    MgmtBridge,
    Network,
    Ping,
    StorageDomain,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::CpuLoad,
        Self::CpuLoadNoEngine,
        Self::EngineHealth,
        Self::MemFree,
        Self::MemLoad,
        Self::MgmtBridge,
        Self::Network,
        Self::Ping,
        Self::StorageDomain,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::CpuLoad => "cpu-load",
            Self::CpuLoadNoEngine => "cpu-load-no-engine",
            Self::EngineHealth => "engine-health",
            Self::MemFree => "mem-free",
            Self::MemLoad => "mem-load",
            Self::MgmtBridge => "mgmt-bridge",
            Self::Network => "network",
            Self::Ping => "ping",
            Self::StorageDomain => "storage-domain",
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is read before the first measurement. Today's release assumes a working network, and its agent takes
    /// anything else for a failure: a host must not lose points for having just started.
    fn assumed(self) -> Option<String> {
        match self {
            Self::Network => Some("1.0".to_owned()),
            Self::CpuLoad
            | Self::CpuLoadNoEngine
            | Self::EngineHealth
            | Self::MemFree
            | Self::MemLoad
            | Self::MgmtBridge
            | Self::Ping
            | Self::StorageDomain => None,
        }
    }
}

/// What the monitors look at.
#[derive(Clone)]
pub struct Surroundings {
    /// The engine VM on this host.
    pub vm: Arc<dyn EngineVm>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The engine's liveliness page.
    pub liveliness: PageOptions,
    /// A file of the storage domain whose first block is read.
    pub storage_file: PathBuf,
    /// The management bridge when a caller does not name one: `ovirtmgmt`.
    pub default_bridge: String,
    /// Where the resolvers are named: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Surroundings {
    /// What a configured host's monitors look at.
    pub fn of_host(
        conf: &HostedEngineConf,
        toml: &HaToml,
        vm: Arc<dyn EngineVm>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let table = &toml.liveliness;
        Ok(Self {
            vm,
            clock,
            liveliness: PageOptions {
                urls: table.urls_for(conf.fqdn()?),
                expected: table.expected.clone(),
                timeout: table.timeout,
                ca: conf.ca_cert().map(|path| conf.paths().resolve(path)),
            },
            // The one file that every storage domain has: it carries the lease of this host.
            storage_file: conf.ids_path()?,
            default_bridge: conf.bridge().unwrap_or("ovirtmgmt").to_owned(),
            // The C library's own path, which no root prefix moves.
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        })
    }
}

struct Running {
    options: MonitorOptions,
    slot: Arc<Slot>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The running monitors. Dropping it stops them.
pub struct MonitorSet {
    surroundings: Surroundings,
    running: Mutex<BTreeMap<Kind, Running>>,
    changes: watch::Sender<u64>,
    storage_gate: Arc<Gate>,
}

impl MonitorSet {
    /// A set in which nothing runs yet.
    pub fn new(surroundings: Surroundings) -> Self {
        Self {
            surroundings,
            running: Mutex::default(),
            changes: watch::Sender::new(0),
            storage_gate: Arc::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Kind, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the monitor `kind` and gives its id. With the options that it runs with already it just goes on, with
    /// all that it remembers; with others it starts anew.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(&self, kind: &str, options: MonitorOptions) -> Result<String, MonitorError> {
        let kind = Kind::find(kind).ok_or_else(|| MonitorError::UnknownKind {
            kind: shown(kind),
            known: Kind::ALL.map(Kind::name).join(", "),
        })?;
        let mut running = self.running();
        let unchanged = running.get(&kind).is_some_and(|monitor| monitor.options == options);
        if !unchanged {
            let probe = self.probe(kind, &options)?;
            let slot = Arc::new(Slot::assuming(kind.assumed()));
            let changes = (kind == Kind::EngineHealth).then(|| self.changes.clone());
            let clock = Arc::clone(&self.surroundings.clock);
            let task = driver::run(kind.name(), probe, Arc::clone(&slot), clock, changes);
            let task = tokio::spawn(task).abort_handle();
            tracing::info!(monitor = kind.name(), "started");
            running.insert(kind, Running { options, slot, task });
        }
        Ok(kind.name().to_owned())
    }

    fn probe(&self, kind: Kind, options: &MonitorOptions) -> Result<Box<dyn Probe>, MonitorError> {
        let at = &self.surroundings;
        let memory = |result| Box::new(Memory { result, meminfo: proc_file("/proc/meminfo") });
        Ok(match kind {
            Kind::CpuLoad => {
                Box::new(CpuLoad { loadavg: proc_file("/proc/loadavg"), stat: proc_file("/proc/stat") })
            }
            Kind::CpuLoadNoEngine => Box::new(CpuLoadNoEngine {
                stat: proc_file("/proc/stat"),
                vm: Arc::clone(&at.vm),
                clock: Arc::clone(&at.clock),
                meter: Meter::default(),
            }),
            Kind::EngineHealth => {
                let page: Arc<dyn Liveliness> = Arc::new(HealthPage::new(&at.liveliness)?);
                Box::new(EngineHealth::new(Arc::clone(&at.vm), page))
            }
            Kind::MemFree => memory(MemoryResult::FreeMb),
            Kind::MemLoad => memory(MemoryResult::Load),
            Kind::MgmtBridge => {
                Box::new(MgmtBridge::from_options(options, &at.default_bridge, Box::new(KernelLinks))?)
            }
            Kind::Network => Box::new(Network::from_options(options, at.resolv_conf.clone())?),
            Kind::Ping => Box::new(Network::ping(options)?),
            Kind::StorageDomain => Box::new(StorageDomain::from_options(
                options,
                at.storage_file.clone(),
                Arc::clone(&at.clock),
                Arc::clone(&self.storage_gate),
            )?),
        })
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
        let now = self.surroundings.clock.monotonic();
        self.running().iter().map(|(kind, monitor)| (kind.name().to_owned(), monitor.slot.row(now))).collect()
    }

    /// Counts the changes of the engine's health: worth waking the agent for.
    pub fn engine_health_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// From now on each change of the engine's health wakes the agents. Ends with the set.
    pub fn wake_agents(&self, wake: WakeCounter) {
        let mut changes = self.changes.subscribe();
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                wake.bump();
            }
        });
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
