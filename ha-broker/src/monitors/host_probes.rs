//! The probes of a real host: what each type of monitor measures with, and what it looks at.

use std::path::PathBuf;
use std::sync::Arc;

use clock::Clock;
use engine_vm::EngineVm;
use ha_config::{ConfigError, HaToml, HostedEngineConf};

use super::bridge::{KernelLinks, Links, MgmtBridge};
use super::cpu::CpuLoad;
use super::cpu_no_engine::{CpuLoadNoEngine, Meter};
use super::engine_health::{EngineHealth, HealthPage, Liveliness, PageOptions};
use super::kind::Kind;
use super::memory::{Memory, MemoryResult, proc_file};
use super::network::Network;
use super::options::MonitorError;
use super::probe::{Probe, ProbeFactory};
use super::storage::{Gate, StorageDomain};
use super::vdsm::{VdsmLinks, VdsmMemory, VdsmStorage};
use crate::spawner::Spawner;
use crate::verbs::MonitorOptions;

/// What the monitors look at.
#[derive(Clone)]
pub struct Surroundings {
    /// The engine VM on this host.
    pub vm: Arc<dyn EngineVm>,
    /// VDSM, where it manages the host.
    pub vdsm: Option<vdsm_client::Client>,
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
        vdsm: Option<vdsm_client::Client>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let table = &toml.liveliness;
        Ok(Self {
            vm,
            vdsm,
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

/// Makes them.
pub struct HostProbes {
    at: Surroundings,
    spawner: Arc<dyn Spawner>,
    storage_gate: Arc<Gate>,
}

impl HostProbes {
    /// Probes that look at these surroundings; `spawner` gives threads to those that may block.
    pub fn new(surroundings: Surroundings, spawner: Arc<dyn Spawner>) -> Self {
        Self { at: surroundings, spawner, storage_gate: Arc::default() }
    }
}

impl ProbeFactory for HostProbes {
    fn probe(&self, kind: Kind, options: &MonitorOptions) -> Result<Box<dyn Probe>, MonitorError> {
        let at = &self.at;
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
            Kind::MemFree => match &at.vdsm {
                Some(vdsm) => Box::new(VdsmMemory(vdsm.clone())),
                None => memory(MemoryResult::FreeMb),
            },
            Kind::MemLoad => memory(MemoryResult::Load),
            Kind::MgmtBridge => {
                let links: Box<dyn Links> = match &at.vdsm {
                    Some(vdsm) => Box::new(VdsmLinks(vdsm.clone())),
                    None => Box::new(KernelLinks),
                };
                Box::new(MgmtBridge::from_options(options, &at.default_bridge, links)?)
            }
            Kind::Network => Box::new(Network::from_options(options, at.resolv_conf.clone())?),
            Kind::Ping => Box::new(Network::ping(options)?),
            Kind::StorageDomain => match &at.vdsm {
                Some(vdsm) => Box::new(VdsmStorage::from_options(options, vdsm.clone())?),
                None => Box::new(StorageDomain::from_options(
                    options,
                    at.storage_file.clone(),
                    Arc::clone(&at.clock),
                    Arc::clone(&self.storage_gate),
                    Arc::clone(&self.spawner),
                )?),
            },
        })
    }
}
