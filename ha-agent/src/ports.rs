//! What the agent's loop may ask of the world, as traits, and the adapters to the real one.
//!
//! The loop reads time, talks to the broker, looks at files and at the service manager only through these, so
//! that tests and the simulator can stand in for each. The VM's port is [`engine_vm::EngineVm`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use broker_api::status::{AgentReport, StatusDocument, Wake};
use broker_api::{BrokerClient, ClientError};
use clock::Clock;
use engine_vm::EngineVm;
use ha_config::{
    ConfigError, HaConf, HostedEngineConf, Paths, RefreshError, Refreshed, VmConf, refresh_vm_conf,
};
use metadata_format::HostId;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub use crate::addresses::KernelAddresses;
use crate::engine_conf::{Brought, EngineConf};
use crate::fencer::Fencer;

/// Everything that the loop is connected to.
#[derive(Clone)]
pub struct Ports {
    /// The broker of this host.
    pub broker: Arc<dyn Broker>,
    /// The engine VM on this host.
    pub vm: Arc<dyn EngineVm>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// This host's small files.
    pub files: Arc<dyn Files>,
    /// The service manager.
    pub service: Arc<dyn Service>,
    /// Other hosts' power.
    pub fencer: Arc<dyn Fencer>,
    /// This host's network addresses.
    pub addresses: Arc<dyn Addresses>,
}

/// Why the broker did not do what it was asked. In words; the loop only needs to know whether it was there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BrokerError {
    /// The broker itself refused: it is there, and asking again at once will not help.
    pub refused: bool,
    /// What happened and what to do.
    pub detail: String,
}

impl BrokerError {
    /// The broker took longer than `after` for `request`.
    pub fn timeout(request: &str, after: Duration) -> Self {
        let detail = format!("the broker did not answer {request} within {} s", after.as_secs());
        Self { refused: false, detail }
    }
}

impl From<ClientError> for BrokerError {
    fn from(error: ClientError) -> Self {
        Self { refused: error.fault_code().is_some(), detail: error.to_string() }
    }
}

/// The broker, as far as the agent needs it. Verbs as on its socket.
#[async_trait]
#[allow(missing_docs, reason = "the verbs are described with the client")]
pub trait Broker: Send + Sync {
    async fn start_monitor(
        &self,
        kind: &str,
        options: &BTreeMap<String, Option<String>>,
    ) -> Result<String, BrokerError>;
    async fn status_monitor(&self, id: &str) -> Result<Option<String>, BrokerError>;
    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, BrokerError>;
    async fn put_stats(&self, host: HostId, bytes: &[u8]) -> Result<(), BrokerError>;
    async fn push_hosts_state(&self, alive: &[HostId]) -> Result<(), BrokerError>;
    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, BrokerError>;
    async fn start_domain_monitor(&self, host: HostId) -> Result<(), BrokerError>;
    async fn stop_domain_monitor(&self) -> Result<(), BrokerError>;
    async fn lock_host_id(&self, host: HostId) -> Result<(), BrokerError>;
    async fn release_host_id(&self) -> Result<(), BrokerError>;
    /// `None` from a broker that does not know it.
    async fn status(&self) -> Result<Option<StatusDocument>, BrokerError>;
    async fn put_agent_report(&self, report: &AgentReport) -> Result<(), BrokerError>;
    /// `None` from a broker that does not know it.
    async fn wake(&self, after: u64, timeout: Duration) -> Result<Option<Wake>, BrokerError>;
}

#[async_trait]
impl Broker for BrokerClient {
    async fn start_monitor(
        &self,
        kind: &str,
        options: &BTreeMap<String, Option<String>>,
    ) -> Result<String, BrokerError> {
        Ok(Self::start_monitor(self, kind, options).await?)
    }

    async fn status_monitor(&self, id: &str) -> Result<Option<String>, BrokerError> {
        Ok(Self::status_monitor(self, id).await?)
    }

    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, BrokerError> {
        Ok(Self::get_stats(self).await?)
    }

    async fn put_stats(&self, host: HostId, bytes: &[u8]) -> Result<(), BrokerError> {
        Ok(Self::put_stats(self, host.get(), bytes).await?)
    }

    async fn push_hosts_state(&self, alive: &[HostId]) -> Result<(), BrokerError> {
        let ids: Vec<u16> = alive.iter().map(|id| id.get()).collect();
        Ok(Self::push_hosts_state(self, &ids).await?)
    }

    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, BrokerError> {
        Ok(Self::notify(self, event, detail, options).await?)
    }

    async fn start_domain_monitor(&self, host: HostId) -> Result<(), BrokerError> {
        Ok(Self::start_domain_monitor(self, host.get()).await?)
    }

    async fn stop_domain_monitor(&self) -> Result<(), BrokerError> {
        Ok(Self::stop_domain_monitor(self).await?)
    }

    async fn lock_host_id(&self, host: HostId) -> Result<(), BrokerError> {
        Ok(Self::lock_host_id(self, host.get()).await?)
    }

    async fn release_host_id(&self) -> Result<(), BrokerError> {
        Ok(Self::release_host_id(self).await?)
    }

    async fn status(&self) -> Result<Option<StatusDocument>, BrokerError> {
        Ok(Self::status(self).await?)
    }

    async fn put_agent_report(&self, report: &AgentReport) -> Result<(), BrokerError> {
        Self::put_agent_report(self, report).await?;
        Ok(())
    }

    async fn wake(&self, after: u64, timeout: Duration) -> Result<Option<Wake>, BrokerError> {
        Ok(Self::wake(self, after, timeout).await?)
    }
}

/// Why vm.conf was not compared with shared storage, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfTrouble {
    /// Storage does not answer, or fails.
    #[error("{0}")]
    Storage(String),
    /// What is on storage, or this host's copy, cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// This host's files that may change while the agent runs. Errors are texts that name the file.
#[async_trait]
pub trait Files: Send + Sync {
    /// Brings vm.conf from shared storage, if that has another one. Answers within a few seconds, also when
    /// storage hangs.
    async fn refresh_vm_conf(&self) -> Result<(), ConfTrouble>;
    /// Local maintenance, from ha.conf.
    fn local_maintenance(&self) -> Result<bool, String>;
    /// Whether local maintenance need not wait for a host that can take the VM, from ha.conf.
    fn maintenance_is_forced(&self) -> Result<bool, String>;
    /// Memory that the VM needs in MB, from vm.conf.
    fn vm_memory(&self) -> Result<u64, String>;
}

/// Longest time that one look at the configuration on shared storage is waited for.
const REFRESH_PATIENCE: Duration = Duration::from_secs(2);

fn not_brought(error: &dyn std::error::Error) -> String {
    format!("vm.conf was not brought from shared storage: {error}")
}

/// Logs what became of this host's copies of the cluster's configuration, a failure once until it is over.
fn tell_copies(copies: Result<bool, ConfigError>, failed: &AtomicBool) {
    match copies {
        Ok(changed) => {
            failed.store(false, Ordering::Relaxed);
            if changed {
                tracing::info!("hosted-engine.conf and broker.conf were copied from shared storage");
            }
        }
        Err(error) => {
            if !failed.swap(true, Ordering::Relaxed) {
                tracing::warn!("this host's copies of the cluster's configuration stay as they are: {error}");
            }
        }
    }
}

/// The real files.
#[derive(Debug)]
pub struct HostFiles {
    conf: HostedEngineConf,
    /// The read of shared storage that is under way. Never more than one: storage may hang.
    refresh: Mutex<Option<JoinHandle<Result<Refreshed, RefreshError>>>>,
    /// The copies of hosted-engine.conf and broker.conf could not be written the last time.
    copies_failed: Arc<AtomicBool>,
    /// The engine's newer description of the VM, on hosts where it can be had.
    engine_conf: Option<EngineConf>,
}

impl HostFiles {
    /// The files of the host that `conf` describes. Of two descriptions of the VM that of `engine_conf` wins.
    pub fn new(conf: HostedEngineConf, engine_conf: Option<EngineConf>) -> Self {
        Self { conf, refresh: Mutex::new(None), copies_failed: Arc::default(), engine_conf }
    }

    /// Looks at the configuration volume.
    async fn refresh_from_volume(&self) -> Result<(), ConfTrouble> {
        let mut running = self.refresh.lock().await;
        let conf = &self.conf;
        let reading = running.get_or_insert_with(|| {
            let conf = conf.clone();
            let troubled = Arc::clone(&self.copies_failed);
            tokio::task::spawn_blocking(move || {
                refresh_vm_conf(&conf, |copies| tell_copies(copies, &troubled))
            })
        });
        let Ok(done) = tokio::time::timeout(REFRESH_PATIENCE, reading).await else {
            let detail = "vm.conf on shared storage cannot be read: storage does not answer".to_owned();
            return Err(ConfTrouble::Storage(detail));
        };
        *running = None;
        match done {
            Ok(Ok(Refreshed::Updated)) => {
                tracing::info!("vm.conf was brought from shared storage");
                Ok(())
            }
            Ok(Ok(Refreshed::Current | Refreshed::NoVolume)) => Ok(()),
            Ok(Err(error @ RefreshError::Storage(_))) => Err(ConfTrouble::Storage(not_brought(&error))),
            Ok(Err(
                error @ (RefreshError::Config(_) | RefreshError::Archive { .. } | RefreshError::Missing(_)),
            )) => Err(ConfTrouble::Unusable(not_brought(&error))),
            Err(error) => Err(ConfTrouble::Unusable(not_brought(&error))),
        }
    }

    fn paths(&self) -> &Paths {
        self.conf.paths()
    }
}

#[async_trait]
impl Files for HostFiles {
    async fn refresh_vm_conf(&self) -> Result<(), ConfTrouble> {
        let brought = match &self.engine_conf {
            Some(engine_conf) => engine_conf.refresh().await,
            None => Brought::Nothing,
        };
        let from_volume = self.refresh_from_volume().await;
        match (brought, from_volume) {
            (Brought::Fresh, Err(error)) => {
                tracing::debug!("{error}");
                Ok(())
            }
            (Brought::Fresh | Brought::Nothing, result) => result,
        }
    }

    fn local_maintenance(&self) -> Result<bool, String> {
        HaConf::load(self.paths()).map(HaConf::is_maintenance).map_err(|error| error.to_string())
    }

    fn maintenance_is_forced(&self) -> Result<bool, String> {
        let conf = HaConf::load(self.paths()).map_err(|error| error.to_string())?;
        Ok(conf.local_maintenance_force)
    }

    fn vm_memory(&self) -> Result<u64, String> {
        let conf = match VmConf::load(self.conf.vm_conf_path()) {
            Err(error) if error.is_not_found() => VmConf::load_active(self.paths()),
            other => other,
        };
        conf.and_then(|conf| conf.mem_size()).map_err(|error| error.to_string())
    }
}

/// This host's network addresses.
#[async_trait]
pub trait Addresses: Send + Sync {
    /// An address of that link which other hosts can reach; `None` when there is none, or no such link.
    async fn of_link(&self, name: &str) -> Result<Option<IpAddr>, String>;
}

/// The service manager that started the agent.
pub trait Service: Send + Sync {
    /// The agent is up.
    fn ready(&self);
    /// The loop has made progress.
    fn alive(&self);
    /// One line for `systemctl status`.
    fn status(&self, text: &str);
    /// The agent is stopping.
    fn stopping(&self);
}

/// systemd, when it runs the agent; nothing otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Systemd;

impl Systemd {
    fn notify(state: sd_notify::NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(false, &[state]) {
            tracing::debug!("cannot tell systemd: {error}");
        }
    }
}

impl Service for Systemd {
    fn ready(&self) {
        Self::notify(sd_notify::NotifyState::Ready);
    }

    fn alive(&self) {
        Self::notify(sd_notify::NotifyState::Watchdog);
    }

    fn status(&self, text: &str) {
        Self::notify(sd_notify::NotifyState::Status(text));
    }

    fn stopping(&self) {
        Self::notify(sd_notify::NotifyState::Stopping);
    }
}
