//! What the socket may ask of the broker: one method for each XML-RPC verb and JSON document.
//!
//! The socket knows HTTP and who is calling; the broker behind this trait knows neither.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use broker_api::status::{AgentReport, StatusDocument, Wake};
use metadata_format::HostId;

/// A monitor's option as the caller gave it; absent for nil.
pub type MonitorOptions = BTreeMap<String, Option<String>>;

/// Why a verb failed. The text goes to the caller as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerbError {
    /// An argument is wrong: which, its value, what is right.
    #[error("{0}")]
    BadArgument(String),
    /// Refused: this host does not hold the lease that the request needs.
    #[error("{0}")]
    NotHeld(String),
    /// Shared storage did not take it: not written, or not read back as written.
    #[error("{0}")]
    Storage(String),
    /// The lock manager refused or could not be asked.
    #[error("{0}")]
    Lockspace(String),
}

/// The broker's verbs.
#[async_trait]
pub trait Verbs: Send + Sync + 'static {
    /// Starts (or finds running) the monitor `kind`; gives its id.
    async fn start_monitor(&self, kind: &str, options: MonitorOptions) -> Result<String, VerbError>;
    /// Stops it.
    async fn stop_monitor(&self, id: &str) -> Result<(), VerbError>;
    /// Its last result as text; `None` before the first.
    async fn status_monitor(&self, id: &str) -> Result<Option<String>, VerbError>;
    /// The raw blocks that are present, by number; 0 is the cluster's.
    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, VerbError>;
    /// Writes a block (number 0 for the cluster's) and reads it back.
    async fn put_stats(&self, block: u16, bytes: Vec<u8>) -> Result<(), VerbError>;
    /// Takes the agent's list of live hosts.
    async fn push_hosts_state(&self, alive: Vec<u16>) -> Result<(), VerbError>;
    /// The hosts that are alive by the last list, unless that is too old.
    async fn is_host_alive(&self) -> Result<Vec<u16>, VerbError>;
    /// Queues a notification; true if a rule wants it sent.
    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: BTreeMap<String, String>,
    ) -> Result<bool, VerbError>;
    /// Joins the storage domain's lockspace, which carries the VM's lease.
    async fn start_domain_monitor(&self, host_id: u16) -> Result<(), VerbError>;
    /// Leaves it.
    async fn stop_domain_monitor(&self) -> Result<(), VerbError>;
    /// Joins the `hosted-engine` lockspace, which protects the blocks; returns once the id is held.
    async fn lock_host_id(&self, host_id: u16) -> Result<(), VerbError>;
    /// Leaves it.
    async fn release_host_id(&self) -> Result<(), VerbError>;
    /// Writes an empty `hosted-engine` lockspace; refused while any host is live in it.
    async fn reset_lockspace(&self) -> Result<(), VerbError>;

    /// `GET /v1/status`.
    async fn status(&self) -> StatusDocument;
    /// `PUT /v1/agent`.
    async fn put_agent_report(&self, report: AgentReport);
    /// `PUT /v1/migration`: keeps an operator's request for the agent, and wakes it.
    async fn ask_migration(&self, to: Option<HostId>);
    /// `GET /v1/wake`: waits until the counter passed `after`, at most `timeout`.
    async fn wake(&self, after: u64, timeout: Duration) -> Wake;
    /// `GET /metrics`: Prometheus text.
    async fn metrics(&self) -> String;
}
