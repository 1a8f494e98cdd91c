//! A broker behind the socket that remembers what it was asked, and a socket in a directory of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use broker_api::BrokerClient;
use broker_api::status::{AgentReport, LeaseState, MigrationRequest, StatusDocument, StorageState, Wake};
use ha_broker::socket::{self, WriterPolicy};
use ha_broker::verbs::{MonitorOptions, VerbError, Verbs};
use metadata_format::HostId;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

/// What the fake knows and was told.
#[derive(Default)]
pub struct FakeBroker {
    pub calls: Mutex<Vec<String>>,
    pub blocks: Mutex<BTreeMap<u16, Vec<u8>>>,
    pub alive: Mutex<Vec<u16>>,
    pub report: Mutex<Option<AgentReport>>,
    pub migration: Mutex<Option<MigrationRequest>>,
    pub wakes: watch::Sender<u64>,
    /// `lock_host_id(2000)` tells here that it began, and waits there.
    pub locking: Notify,
    pub locked: Notify,
}

impl FakeBroker {
    fn record(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    pub fn called(&self, call: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|known| known == call)
    }
}

#[async_trait]
impl Verbs for FakeBroker {
    async fn start_monitor(&self, kind: &str, options: MonitorOptions) -> Result<String, VerbError> {
        if kind == "nosuch" {
            return Err(VerbError::BadArgument("there is no monitor \"nosuch\"".to_owned()));
        }
        self.record(format!("start_monitor {kind} {options:?}"));
        Ok(kind.to_owned())
    }
    async fn stop_monitor(&self, id: &str) -> Result<(), VerbError> {
        self.record(format!("stop_monitor {id}"));
        Ok(())
    }
    async fn status_monitor(&self, id: &str) -> Result<Option<String>, VerbError> {
        Ok(match id {
            "mgmt-bridge" => Some("True".to_owned()),
            "engine-health" => Some("{\"vm\": \"up\", \"detail\": \"<Ü & \\\"q\\\">\"}".to_owned()),
            _ => None,
        })
    }
    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, VerbError> {
        Ok(self.blocks.lock().unwrap().clone())
    }
    async fn put_stats(&self, block: u16, bytes: Vec<u8>) -> Result<(), VerbError> {
        if block == 7 {
            return Err(VerbError::NotHeld("host id 7 is not held by this host".to_owned()));
        }
        if block == 8 {
            return Err(VerbError::Storage("storage stuck since 04:05:06".to_owned()));
        }
        self.blocks.lock().unwrap().insert(block, bytes);
        Ok(())
    }
    async fn push_hosts_state(&self, alive: Vec<u16>) -> Result<(), VerbError> {
        *self.alive.lock().unwrap() = alive;
        Ok(())
    }
    async fn is_host_alive(&self) -> Result<Vec<u16>, VerbError> {
        Ok(self.alive.lock().unwrap().clone())
    }
    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: BTreeMap<String, String>,
    ) -> Result<bool, VerbError> {
        self.record(format!("notify {event} {detail} {options:?}"));
        Ok(event == "state_transition")
    }
    async fn start_domain_monitor(&self, host_id: u16) -> Result<(), VerbError> {
        self.record(format!("start_domain_monitor {host_id}"));
        Ok(())
    }
    async fn stop_domain_monitor(&self) -> Result<(), VerbError> {
        self.record("stop_domain_monitor".to_owned());
        Ok(())
    }
    async fn lock_host_id(&self, host_id: u16) -> Result<(), VerbError> {
        if host_id == 2000 {
            self.locking.notify_one();
            self.locked.notified().await;
        }
        self.record(format!("lock_host_id {host_id}"));
        Ok(())
    }
    async fn release_host_id(&self) -> Result<(), VerbError> {
        self.record("release_host_id".to_owned());
        Ok(())
    }
    async fn reset_lockspace(&self) -> Result<(), VerbError> {
        Err(VerbError::Lockspace("host 2 is live in it".to_owned()))
    }
    async fn status(&self) -> StatusDocument {
        StatusDocument {
            host_id: None,
            broker_version: "0.1.0".to_owned(),
            global_maintenance: Some(true),
            unknown_global_keys: Vec::new(),
            hosts: BTreeMap::new(),
            storage: StorageState::Good { read_ms: 3 },
            lease: LeaseState::NotRequested,
            lock_manager_live: None,
            monitors: BTreeMap::new(),
            agent: self.report.lock().unwrap().clone(),
            migration_request: *self.migration.lock().unwrap(),
        }
    }
    async fn put_agent_report(&self, report: AgentReport) {
        *self.report.lock().unwrap() = Some(report);
    }
    async fn ask_migration(&self, to: Option<HostId>) {
        *self.migration.lock().unwrap() = Some(MigrationRequest { to, asked_at: 1 });
    }
    async fn wake(&self, after: u64, timeout: Duration) -> Wake {
        let mut counter = self.wakes.subscribe();
        let _ = tokio::time::timeout(timeout, counter.wait_for(|counter| *counter > after)).await;
        Wake { counter: *counter.borrow() }
    }
    async fn metrics(&self) -> String {
        "# TYPE up gauge\nup 1\n".to_owned()
    }
}

/// A served socket; its directory goes away with it.
pub struct Served {
    pub broker: Arc<FakeBroker>,
    pub path: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _dir: TempDir,
}

impl Served {
    pub fn start() -> Self {
        Self::start_with(WriterPolicy::default(), "broker.socket")
    }

    pub fn start_with(policy: WriterPolicy, name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let broker = Arc::new(FakeBroker::default());
        let bound = socket::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(socket::serve(bound, Arc::clone(&broker), policy, async {
            let _ = stopped.await;
        }));
        Self { broker, path, stop, task, _dir: dir }
    }

    pub fn client(&self) -> BrokerClient {
        BrokerClient::new(&self.path).with_timeout(Duration::from_secs(20))
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}
