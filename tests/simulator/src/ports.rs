//! The agent's other ports on a simulated host: its broker's socket, its files, its service manager.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker_api::status::{AgentReport, StatusDocument, Wake};
use ha_agent::ports::{Addresses, Broker, BrokerError, ConfTrouble, Files, Service};
use ha_broker::broker::{Broker as ShippedBroker, Notifications};
use ha_broker::verbs::{VerbError, Verbs};
use metadata_format::HostId;

use crate::world::HostRef;

/// The agent's connection to the broker of its host: the broker's own verbs, without a socket between.
pub struct SimBroker(pub HostRef);

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: VerbError) -> BrokerError {
    BrokerError { refused: true, detail: error.to_string() }
}

impl SimBroker {
    /// The running broker. One that was stopped by a signal takes connections and does not answer.
    async fn broker(&self) -> Result<Arc<ShippedBroker>, BrokerError> {
        let (broker, group) = {
            let state = self.0.world.state();
            let here = &state.hosts[self.0.index()];
            (here.broker.clone(), here.broker_group.clone())
        };
        match (broker, group) {
            (Some(broker), Some(group)) if group.runs() => Ok(broker),
            (Some(_), Some(group)) if !group.is_dead() => std::future::pending().await,
            _ => Err(BrokerError { refused: false, detail: "the broker does not run".to_owned() }),
        }
    }
}

#[async_trait]
impl Broker for SimBroker {
    async fn start_monitor(
        &self,
        kind: &str,
        options: &BTreeMap<String, Option<String>>,
    ) -> Result<String, BrokerError> {
        self.broker().await?.start_monitor(kind, options.clone()).await.map_err(refused)
    }

    async fn status_monitor(&self, id: &str) -> Result<Option<String>, BrokerError> {
        self.broker().await?.status_monitor(id).await.map_err(refused)
    }

    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, BrokerError> {
        self.broker().await?.get_stats().await.map_err(refused)
    }

    async fn put_stats(&self, host: HostId, bytes: &[u8]) -> Result<(), BrokerError> {
        self.broker().await?.put_stats(host.get(), bytes.to_vec()).await.map_err(refused)
    }

    async fn push_hosts_state(&self, alive: &[HostId]) -> Result<(), BrokerError> {
        let ids = alive.iter().map(|id| id.get()).collect();
        self.broker().await?.push_hosts_state(ids).await.map_err(refused)
    }

    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, BrokerError> {
        self.broker().await?.notify(event, detail, options.clone()).await.map_err(refused)
    }

    async fn start_domain_monitor(&self, host: HostId) -> Result<(), BrokerError> {
        self.broker().await?.start_domain_monitor(host.get()).await.map_err(refused)
    }

    async fn stop_domain_monitor(&self) -> Result<(), BrokerError> {
        self.broker().await?.stop_domain_monitor().await.map_err(refused)
    }

    async fn lock_host_id(&self, host: HostId) -> Result<(), BrokerError> {
        self.broker().await?.lock_host_id(host.get()).await.map_err(refused)
    }

    async fn release_host_id(&self) -> Result<(), BrokerError> {
        self.broker().await?.release_host_id().await.map_err(refused)
    }

    async fn status(&self) -> Result<Option<StatusDocument>, BrokerError> {
        Ok(Some(self.broker().await?.status().await))
    }

    async fn put_agent_report(&self, report: &AgentReport) -> Result<(), BrokerError> {
        self.0.world.agent_said(self.0.id, report);
        self.broker().await?.put_agent_report(report.clone()).await;
        Ok(())
    }

    async fn wake(&self, after: u64, timeout: Duration) -> Result<Option<Wake>, BrokerError> {
        Ok(Some(self.broker().await?.wake(after, timeout).await))
    }
}

/// The host's files.
pub struct SimFiles(pub HostRef);

/// Memory of the VM in MB.
const VM_MEMORY: u64 = 4096;
/// As long as the shipped agent waits for vm.conf on shared storage.
const REFRESH_PATIENCE: Duration = Duration::from_secs(2);

#[async_trait]
impl Files for SimFiles {
    async fn refresh_vm_conf(&self) -> Result<(), ConfTrouble> {
        let trouble = match tokio::time::timeout(REFRESH_PATIENCE, self.0.io(false)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(errno)) => format!("vm.conf was not brought from shared storage: {errno}"),
            Err(_) => "vm.conf on shared storage cannot be read: storage does not answer".to_owned(),
        };
        Err(ConfTrouble::Storage(trouble))
    }

    fn local_maintenance(&self) -> Result<bool, String> {
        Ok(self.0.world.state().host(self.0.id).local_maintenance)
    }

    fn maintenance_is_forced(&self) -> Result<bool, String> {
        Ok(self.0.world.state().host(self.0.id).forced_maintenance)
    }

    fn vm_memory(&self) -> Result<u64, String> {
        Ok(VM_MEMORY)
    }
}

/// The host's addresses.
pub struct SimAddresses(pub HostRef);

#[async_trait]
impl Addresses for SimAddresses {
    async fn of_link(&self, _name: &str) -> Result<Option<IpAddr>, String> {
        Ok(Some(self.0.address()))
    }
}

/// No service manager listens.
pub struct NoService;

impl Service for NoService {
    fn ready(&self) {}
    fn alive(&self) {}
    fn status(&self, _text: &str) {}
    fn stopping(&self) {}
}

/// No rule wants a notification sent.
pub struct NoNotes;

impl Notifications for NoNotes {
    fn notify(&self, _event: &str, _detail: &str, _options: BTreeMap<String, String>) -> bool {
        false
    }
}
